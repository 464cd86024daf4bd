"""``appmux doctor``: looks for what is wrong and says what to do.

``report`` runs the checks and prints what they found; a ``finding`` is what one says. The checks:
``host`` (codex, its login, the service), ``broker`` (addresses, sockets, the running broker),
``push`` (the services' keys).
"""
