"""The extension: what clients that know the broker say and hear beyond codex's own protocol.

Each ``mux/*`` method and notification stands in a module here, as classes and an example;
``catalog`` has them all, and ``docs/schema/`` is made from it (``make schema``). By concern:
``runtime``, ``following``, ``approvals``, ``queue``, ``inbox``, ``digest``, ``files``, ``notices``,
``devices``, ``sessions``, ``tailnet``, ``audit``. ``additions`` are to codex's own messages. To add
one: its classes and a line in ``METHODS`` or ``NOTIFICATIONS`` of the module of its concern (or of
a new module, named in ``catalog``). ``parts`` has what all share.

Imports ``policy``, ``protocol`` and ``limits``.
"""
