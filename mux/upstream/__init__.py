"""The app-server's side.

``process`` starts the app-server, reads its lines, restarts it and ends it; where a supervisor
holds it, by ``supervised``. ``lines`` cuts what it says, ``exit_status`` tells how it ended.
``version`` asks a binary for its version. ``schema`` has the binary write its schema, to learn what
is experimental.

Imports ``storage``, ``dispatch``, ``config``, ``core`` and ``supervisor.channel``;
nothing of the clients' side.
"""
