"""The clients' side: from a listening socket to messages.

In the order in which a connection meets them: ``listener`` accepts (``unix_socket``: whose a path
is; ``streams``: what is accepted; ``tls``), ``http`` reads the request, ``routes`` answers it or
lets it become a WebSocket (``post_routes``: pairing, and answers from a lock screen),
``websocket`` parses frames, ``connection`` is one client.

Imports ``access``, ``dispatcher``, ``outbox``, ``config`` and ``core``; nothing of the
app-server's side.
"""
