"""The terminal: parts of the commands that show a person something there, or ask.

``output`` writes any character and reports a failure once; ``screen`` has the console and its
tables, ``qr_code`` draws one. Parts of what commands print: ``waiting`` (what waits for a person),
``runtime`` (threads, clients, the app-server), ``transcript`` (a thread as it happens). Questions:
``confirmation``; ``exposed``, of listeners that let in more than meant; ``pairing_dialogue``, while
a device is paired.

Of ``mux/cli`` it may import ``common``.
"""
