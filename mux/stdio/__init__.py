"""The stdio bridge (``appmux stdio``): a process of its own that connects two pipes to the broker.

Read ``bridge`` first. ``attach`` finds the broker (``joined``: one on another machine), ``output``
is stdout. ``lines`` cuts bytes into lines, ``websocket`` frames them, ``messages`` reads the few
fields that matter. ``resume`` remembers what a lost connection is resumed from, and ``rejoin`` says
it on the next one. ``command_line`` and ``overrides`` read the client's arguments.
``codex_wrapper`` is ``appmux-codex``, ``relay`` its listeners.

The bridge must be attached within 150 ms. So this folder imports ``config.locate``,
``config.codex_binary``, ``core.protocol`` and ``posix`` at most; no trio, no click, no attrs.
"""
