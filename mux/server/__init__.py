"""The running broker.

Read ``serve`` first: it opens everything in order, or says what is in the way. ``nursery`` then
runs it: tasks, signals, drain; ``reload`` reads again on SIGHUP. ``requests`` answers what the core
leaves to the shells, and ``journal_reads`` reads for clients that are behind. ``metrics``, ``logs``
(by way of ``stderr``) and ``systemd_notify`` report to operators; ``terminal`` tells whether a
SIGHUP means that the terminal is gone.

Imports the shells that make a broker, not ``cli``, ``stdio`` or ``demo``. Only ``cli`` imports it.
"""
