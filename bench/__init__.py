"""Benchmarks: what the broker costs and what it saves. They measure and print, they test nothing.

``python -m bench`` runs the parts one after the other, each a module: ``turns`` (a real turn to
many, natively and brokered), ``replays`` (the broker's limit), ``delays``, ``client_requests``,
``attaching``, ``first_answer``, ``commands``, ``catchups``, ``features``, ``growth``. They share ``sides`` (what is compared, and
loads on it), ``load`` (the cheap clients), ``source`` (an app-server that replays a recording),
``bare`` (the limit), ``figures``, ``report`` and ``picture``. ``compare`` holds one commit against
another. ``core`` is the decision alone, ``journal`` the journal on disk alone, ``unjournaled`` a
broker that keeps nothing.
"""
