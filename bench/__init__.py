"""Benchmarks: what the broker costs and what it saves. They measure and print, they test nothing.

``python -m bench`` runs the parts one after the other, each a module: ``turns`` (a real turn to
many, natively and brokered), ``real_pace`` (as quick as a model speaks), ``wire`` (the bytes of a
turn), ``replays`` (the broker's limit), ``delays``, ``asking``, ``attaching``, ``first_answer``,
``commands``, ``catchups``, ``features``, ``fairness``, ``longs``, ``growth``. They share ``sides``
(what is compared, and loads on it), ``load`` (the cheap clients), ``source`` (an app-server that
replays a recording), ``bare`` (the limit), ``figures``, ``report`` and ``picture``. ``compare``
holds one commit against another. ``core`` is the decision alone, ``store`` the journal on disk
alone, ``unjournaled`` a broker that keeps nothing.
"""
