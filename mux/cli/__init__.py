"""What a person types: one file a command.

``entry`` is the first step (the stdio bridge at once, all else by ``main``); ``main`` has the
table of the commands, ``options`` the flags that several take. A command is imported when it is
called.

May import anything; nothing imports it.
"""
