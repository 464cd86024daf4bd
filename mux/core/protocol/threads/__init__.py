"""The content of messages about threads and turns.

``thread_messages`` reads what the app-server says of them, ``handover_answers`` what it answers a
broker that takes over; ``turn_messages`` are those that the broker writes itself. Permissions:
``thread_overrides`` finds the params that change what a thread may do, ``overrides`` those of a
command line, ``directories`` are paths on disk, and ``thread_settings`` is what a thread runs with.

Of ``core/protocol`` it may import ``envelope``.
"""
