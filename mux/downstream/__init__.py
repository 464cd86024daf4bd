"""The clients' side: from a listening socket to messages.

In the order in which a connection meets them: ``listener`` accepts (``unix_socket`` claims paths in
a ``socket_directory``, ``streams`` wraps sockets, ``tls`` holds the certificate,
``unauthenticated`` limits connections that haven't said who they are), ``http`` reads the request,
``routes`` answers it or lets it become a WebSocket (``post_routes``: pairing, and answers from a
lock screen), ``websocket`` parses frames, ``connection`` serves one client (``rate_limit`` slows
it).

Imports ``access``, ``dispatcher``, ``outbox``, ``config`` and ``core``; nothing of the
app-server's side.
"""
