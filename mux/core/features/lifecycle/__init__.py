"""The app-server's lives: how each begins and ends.

``recovery`` says what becomes of clients and requests when a life ends (a crash, a hang, a planned
restart), and has the next one take over. ``handshake`` is the broker's with each life, and each
client's with the broker.

Of the features it may import ``approvals``, ``clients`` and ``requests``.
"""
