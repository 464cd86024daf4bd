"""Decisions, one concern a file; each shares the State and knows the features that it needs.

Rooms: ``requests``, ``clients``, ``history``, ``approvals``, ``notices``, ``inbox``,
``lifecycle``, ``turns``, ``subscriptions``, ``handover``.

Wired in ``core/wiring.py``. Must not import ``wiring``, nor the routers above it.
"""
