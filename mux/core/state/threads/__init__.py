"""The threads: who follows each, and what the broker knows of it.

Read ``threads`` first. ``unsaved_thread`` is one that the app-server can't resume,
``unclaimed_threads`` are those that nobody follows yet. For lists: ``cards``, and ``last_line``,
what its turn has said last. ``long_snapshot`` brings a long snapshot up to date undecoded.

Of ``core/state`` it may import ``clients``, ``turns`` and ``durable``.
"""
