"""The inbox: what a first screen shows.

``inbox`` answers the requests for it; read it first. ``inbox_cards`` keeps a card a thread,
``inbox_picture`` puts together what is seen at one moment, and ``inbox_changes`` sends differences
to the clients that follow it.

Of the features it may import ``approvals``, ``clients``, ``notices`` and ``requests``.
"""
