"""The stdio bridge (``appmux stdio``): a process of its own, from two pipes to the broker.

Read ``bridge`` first. ``lines`` cuts bytes into lines, ``websocket`` frames them, ``messages``
reads what must be known of one, ``resume`` remembers what a broker must be told again after a
loss. ``codex_wrapper`` is ``appmux-codex``.

It is to be attached within 150 ms. So it imports ``config.locate``, ``config.codex_binary`` and
``core.protocol`` at most; no trio, no click, no attrs.
"""
