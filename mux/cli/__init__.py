"""The commands that a person types: one file a command, whose name is the command's.

``entry`` is the first step: it runs the stdio bridge at once, and anything else by ``main``, which
has the table of the commands and imports one when it is called. Rooms by what a person wants:
``oversight``, ``threads``, ``devices``, ``host``, and ``doctor``, a command of many files. Beside
them ``stdio``, ``demo``, and a shell's ``completion``, which others ask what there is to complete.
``common`` has what several commands need, ``terminal`` what they show and ask.

May import anything; nothing imports this folder. Which room may import which, ``ROOMS`` in
``tests/test_imports.py`` says.
"""
