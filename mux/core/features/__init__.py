"""Decisions, one concern a file; each shares the State and knows the features that it needs.

Requests going up: ``client_requests``, ``directory_clearance``, ``deduplication``, ``turn_queue``,
``turn_interrupts``, ``local_resume``, ``shared_titles``. Requests coming down: ``server_requests``,
``resolutions``, ``voting``, ``approval_list``. Subscriptions and the app-server's lives:
``subscriptions``, ``replay``, ``recovery``. People: ``presence``, ``attention``, ``notices`` with
``notice_sources`` and ``notice_escalation``.

Wired in ``core/wiring.py``. Must not import ``wiring``, nor the routers above it.
"""
