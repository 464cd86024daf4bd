"""Settings: their classes, how they are loaded, and where things are found.

Read ``model`` first: every setting with its reason; ``bounds`` has what a number may be. ``load``
takes flags, variables, the file and the defaults, and says where each value comes from; ``values``
checks each, ``approval_rules`` the policies. ``addresses`` reads a ``--listen`` URL, ``proxies``
the trusted ones, ``locate`` finds the broker's socket, ``codex_binary`` the codex binary and its
home.

Of the package, this folder imports only ``core``, ``posix`` and ``errors``. The stdio bridge, whose
start is timed, loads ``locate`` and ``codex_binary``: they import almost nothing.
"""
