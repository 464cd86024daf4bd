"""Commands for work on a thread.

``threads`` lists them, and finds the one that a person names. ``say`` gives one a message,
``watch`` follows it, ``put`` brings files to it and ``get`` fetches them.

Of ``mux/cli`` it may import ``common``, ``terminal`` and ``completion``.
"""
