"""The pure core: events in, commands out. No trio, no clock, no randomness, no files, no logs.

Read ``broker`` first: it takes each of the ``events`` and returns ``commands``. It routes by
``client_messages`` (what clients say), ``connections`` (how they come and leave), ``notifications``
(with ``deltas``, the hot path) and ``responses`` (the app-server's lines). These call the
``features``, which ``wiring`` makes around one ``state``, by the rules of ``policy`` and in the
language of ``protocol``; ``extension`` has what the broker adds to it. ``audit_events`` and
``audit_approvals`` say what the audit log records, ``status_report`` and ``figures`` what operators
see. ``limits`` has every limit; ``part`` is the base of features and other parts.

Imports attrs and msgspec, and nothing else of the package.
"""
