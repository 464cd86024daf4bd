"""The commands that a person types: one file a command.

``entry`` is the first step: it runs the stdio bridge at once, and anything else by ``main``, which
has the table of the commands. ``service``, ``devices`` and ``oversight`` define groups of them;
``output`` prepares stdout. A command is imported when it is called.

May import anything; nothing imports this folder.
"""
