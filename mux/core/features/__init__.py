"""Decisions, one concern a file; each shares the State and knows the features that it needs.

A room a concern; a room's ``__init__.py`` says which file to read first. ``requests`` go up,
``approvals`` come down. ``clients`` says who is here, ``subscriptions`` who follows which thread,
``history`` what happened there. ``turns`` are those that wait. ``inbox`` and ``notices`` are what a
person sees. ``lifecycle`` is the app-server's, ``handover`` from one broker to the next.

Which room may import which, ``ROOMS`` in ``tests/test_imports.py`` says. Wired in
``core/wiring.py``. Must not import ``wiring``, nor the routers above it.
"""
