"""The broker's knowledge. Nothing here decides.

Read ``state`` first: the shared State, with the registries of the other files; ``delivery`` has the
ways to send to clients, ``journal`` the numbered messages of each thread. ``app_server`` and its
``planned_restart`` are the other side. ``notice_records`` is what notices come from; ``durable``
what is saved for the next broker.

Rooms: ``requests`` under way, ``clients``, ``turns`` and ``threads``. Which room may import which,
``ROOMS`` in ``tests/test_imports.py`` says. Must not import ``features``, or anything above them.
"""
