"""The form of messages, whatever their method: the envelope, its bounds, and long lines.

Read ``jsonrpc`` first: it reads the envelope and leaves the rest as the bytes that came. What a
client sends isn't trusted: ``client_message`` reads it in the bounds of ``structure`` and
``text_limits``, and ``request_params`` gives its params the one reading that the app-server has.
``long_line`` is a line of the app-server that isn't joined, ``rope`` a text in pieces.

Of ``core/protocol`` it imports nothing.
"""
