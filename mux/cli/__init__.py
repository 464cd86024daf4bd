"""The commands that a person types: one file a command, whose name is the command's.

``entry`` is the first step: it runs the stdio bridge at once, and anything else by ``main``, which
has the table of the commands and imports one when it is called. What several need: the folder
``common``; ``confirmation``, ``output`` and ``screen`` (printing), ``qr_code``, ``completion``. To
run a broker: ``serve``, ``setup`` with ``exposed`` and ``first_phone``, ``config``, ``service``,
``restart``, ``tailnet``, ``status`` with ``runtime``, ``demo``, ``stdio``; ``doctor`` is a folder.
Devices: ``pair`` with ``pairing_dialogue``, ``join``, ``devices``. Threads: ``threads``, ``say``,
``watch`` with ``transcript``, ``open``, ``put`` and ``get``. Oversight: ``waiting``,
``approvals``, ``audit``, ``notices``.

May import anything; nothing imports this folder.
"""
