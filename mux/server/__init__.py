"""The running broker.

Read ``serve`` first: it opens everything in order, or says what is in the way. ``nursery`` is what
then runs: tasks, signals, drain. ``metrics``, ``logs`` and ``systemd_notify`` tell operators about
it.

Imports the shells that make a broker, not ``cli``, ``stdio`` or ``demo``. Only ``cli`` imports it.
"""
