"""The clients' side: from a listening socket to messages.

In the order in which a connection meets them: ``listener`` accepts; ``encryption`` begins TLS, or
tells who speaks plainly. A request is read, judged and answered in the room ``http``. What becomes
a WebSocket is served by ``connection`` (``rate_limit`` slows it), once ``challenge`` has had a
browser's key sign. Rooms: ``sockets`` below it all, ``http``, and ``websocket``, the frames and
their compression.

Imports ``access``, ``dispatch``, ``config`` and ``core``; nothing of the app-server's
side. Which room may import which, ``ROOMS`` in ``tests/test_imports.py`` says.
"""
