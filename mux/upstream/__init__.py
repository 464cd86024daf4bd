"""The app-server's side.

``process`` starts the app-server, reads its lines, restarts it and ends it. ``version`` asks a
binary for its version. ``schema`` has the binary write its schema, to learn what is experimental.

Imports ``dispatcher``, ``outbox``, ``config`` and ``core``; nothing of the clients' side.
"""
