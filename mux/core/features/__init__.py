"""Decisions, one concern a file; each shares the State and knows the features that it needs.

Requests going up: ``client_requests``, ``deduplication``, ``turn_queue``, ``shared_titles``.
Requests coming down: ``server_requests``, ``voting``, ``approval_list``. Who gets what:
``subscriptions``, ``replay``, ``recovery``. People: ``presence``, ``attention``, ``notices`` with
``notice_sources`` and ``notice_escalation``.

Wired in ``core/wiring.py``. Must not import ``wiring``, nor what routes to them.
"""
