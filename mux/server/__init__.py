"""The running broker.

Read ``serve`` first: it opens everything in order, or says what is in the way; ``handover`` has
what an earlier broker left. ``nursery`` then runs it: tasks, signals, drain; ``reload`` reads again
on SIGHUP, and ``settings_watch`` sees what only a restart changes. ``requests`` answers what the
core leaves to the shells, ``audit_requests`` what reads the audit log. ``journal_reads`` reads for
clients that are behind, ``late_web`` loads the web's part. ``collector`` keeps Python's garbage
collection short; ``terminal`` tells whether a SIGHUP means that the terminal is gone. The room
``observability`` reports to operators.

Imports the shells that make a broker, not ``cli``, ``stdio`` or ``demo``. Only ``cli`` imports it.
"""
