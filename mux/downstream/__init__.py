"""The clients' side: from a listening socket to messages.

In the order in which a connection meets them: ``listener`` accepts (``unix_socket`` claims paths in
a ``socket_directory``, ``streams`` wraps sockets, ``tls`` holds the certificate and ``encryption``
begins with it, ``peer`` knows the process behind a unix socket, ``unauthenticated`` limits
connections that haven't said who they are), ``http`` reads a ``request`` (an unusual one by
``odd_heads``), ``proxies`` tells whom it is from, ``origins`` judges a browser's, ``routes``
answers it (``post_routes``: pairing, and answers from a lock screen) or lets it ``upgrade`` to a
WebSocket. ``challenge`` has a browser's key sign, ``websocket`` parses frames (``odd_frames``: what
are no short texts), ``connection`` serves one client (``rate_limit`` slows it).
``offers`` picks a ``compression`` (``deflate`` or ``zstd_stream``), which ``compressed_stream``
applies.

Imports ``access``, ``dispatcher``, ``outbox``, ``config`` and ``core``; nothing of the app-server's
side.
"""
