"""This machine: service managers, setup, and who owns the control socket.

``setup`` plans what sets a host up, and ``steps`` performs it; ``service`` installs the broker
with ``systemd`` or ``launchd`` (``unit_files``); ``readiness`` waits until it serves.
``processes`` says who has a port or a file, ``socket_owner`` who has Codex's control socket,
``take_over`` how to get it. ``tailnet``, ``novascale`` and ``codex_login`` look at what else is
there.

Imports ``downstream.unix_socket``, ``access``, ``client``, ``config`` and ``core``.
"""
