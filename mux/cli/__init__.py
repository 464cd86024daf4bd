"""The commands that a person types: one file a command.

``entry`` is the first step: it runs the stdio bridge at once, and anything else by ``main``, which
has the table of the commands and imports one when it is called. ``options`` has the flags that
several take, ``confirmation`` the questions, ``output`` prepares stdout.

May import anything; nothing imports this folder.
"""
