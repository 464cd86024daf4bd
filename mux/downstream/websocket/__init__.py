"""WebSocket: bytes in, messages out, and back. No I/O.

``websocket`` parses frames, ``odd_frames`` those that are no short texts. ``offers`` picks a
client's ``compression``: ``deflate``, as browsers have it, or codex's ``zstd_stream``.
``compressed_stream`` applies it.

Of ``mux/downstream`` it imports nothing.
"""
