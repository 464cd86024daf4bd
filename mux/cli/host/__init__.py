"""Commands that set up the broker on this host and run it.

``setup`` has everything that a host needs; ``service`` makes the broker a service of this user, and
``serve`` runs it in this process. ``config`` lists the settings; ``restart`` has the broker start a
new app-server.

Of ``mux/cli`` it may import ``common``, ``terminal`` and ``devices``.
"""
