"""HTTP: a request from its bytes to its answer, or to an upgrade.

``http`` reads the ``head`` of one, an unusual one by ``odd_heads``, and writes a response;
``request`` has the records of its way. ``proxies`` tells whom it is from, ``origins`` judges a
browser's. ``routes`` answers it (``post_routes``: pairing, and answers from a lock screen), or lets
it ``upgrade`` to a WebSocket.

Of ``mux/downstream`` it may import ``sockets`` and ``websocket``.
"""
