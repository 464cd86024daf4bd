"""The pure core: events in, commands out. No trio, no clock, no randomness, no files, no logs.

Read ``broker`` first: it takes each of the ``events`` and returns ``commands``. The routers in
``routing`` take an event to the ``features``, which ``wiring`` makes around one ``state``, by the
rules of ``policy`` and in the language of ``protocol``; ``extension`` has what the broker adds to
it. ``audit`` says what the audit log records, ``reports`` what operators see. ``limits`` has every
limit; ``part`` is the base of features and other parts.

Imports attrs and msgspec, and nothing else of the package.
"""
