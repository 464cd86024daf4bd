"""The commands that a person types: one file a command, whose name is the command's.

``entry`` is the first step: it runs the stdio bridge at once, and anything else by ``main``, which
has the table of the commands and imports one when it is called. To run a broker: ``serve``,
``setup``, ``config``, ``service``, ``restart``, ``tailnet``, ``status``, ``demo``, ``stdio``.
Devices: ``pair``, ``join``, ``devices``. Threads: ``threads``, ``say``, ``watch``, ``open``,
``put``, ``get``. Oversight: ``approvals``, ``audit``, ``notices``. A shell's ``completion``; others
ask it what there is to complete. Folders: ``doctor``, a command of many files; ``common``, what
several commands need; ``terminal``, what they show and ask.

May import anything; nothing imports this folder.
"""
