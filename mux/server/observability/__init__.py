"""The broker's reports to operators and to the service manager.

``logs`` are lines on ``stderr``, where writing never waits; ``operator_log`` makes some of the
records for the audit log. ``metrics`` are for a scraper. ``systemd_notify`` tells systemd that the
broker lives.

Of ``mux/server`` it imports nothing.
"""
