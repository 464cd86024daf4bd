"""Decisions, one concern a file; each shares the State and knows the features that it needs.

Clients: ``handshake``, ``presence``, ``attention``. Requests going up: ``client_requests``,
``deduplication``, ``directory_clearance``, ``turn_queue`` with ``queue_requests``,
``turn_interrupts``, ``shared_titles``, ``deprecation_notices``. Requests coming down:
``server_requests``, ``approval_answers``, ``voting``, ``resolutions``; as they are shown:
``approval_list``, ``approval_view``, ``approval_items``, ``file_changes``, ``outcomes``.
Subscriptions: ``subscriptions``, ``local_resume``, ``replay``. The app-server's lives and the
broker's: ``recovery``, ``durability``, ``handover``. Overviews: ``inbox``, ``inbox_cards``,
``inbox_picture``, ``inbox_changes``; of the journal (``journal_sweep``): ``digest`` with
``digest_summary``, ``thread_files`` with ``file_list``. Notices: ``notices``, ``notice_triggers``,
``notice_sources``, ``notice_escalation``.

Wired in ``core/wiring.py``. Must not import ``wiring``, nor the routers above it.
"""
