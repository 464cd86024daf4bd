"""The clients: what each has declared, what it has yet to get, and what is kept when it leaves.

Read ``client`` first. ``backlog`` is what one that is behind has yet to get, ``coalescing`` the
deltas that wait for those that get consecutive ones as one. ``departed_clients`` has the threads of
those that left, for their return.

Of ``core/state`` it may import ``requests`` and ``durable``.
"""
