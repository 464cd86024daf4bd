"""Everything about this machine: service managers, setup, and who owns the control socket.

``setup`` plans how to set up a host, and ``steps`` performs the plan; ``service`` installs the
broker with ``systemd`` or ``launchd`` (``unit_files``); ``readiness`` waits until it serves.
``processes`` finds the process that has a port or a file, ``socket_owner`` the one that has Codex's
control socket; ``take_over`` takes that socket over. ``directories`` resolves paths for the core,
``terminals`` finds a client's terminal. ``tailnet``, ``novascale`` and ``codex_login`` examine the
rest of the machine.

Imports ``downstream.sockets.unix_socket``, ``access``, ``client``, ``config``, ``core`` and
``posix``.
"""
