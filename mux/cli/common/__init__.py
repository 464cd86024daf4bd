"""Parts that several commands need, besides what they print.

``options`` are the flags that several take, ``settings`` those of ``serve`` and the settings that
they make. ``broker`` is the connection to the running broker, ``file_transfer`` the way of files to
it and from it. ``invitation`` says in a link where a broker is.

Imports nothing else of ``mux/cli``.
"""
