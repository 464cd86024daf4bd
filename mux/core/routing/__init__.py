"""The routers: each takes one kind of event to the features that it concerns.

``client_messages`` has what clients say, ``connections`` how they come and leave, ``responses``
what the app-server answers. ``notifications`` has what it notifies: nearly all of that are
``deltas`` of running items, the hot path.

May import ``wiring`` and what stands below it.
"""
