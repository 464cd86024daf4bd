"""``appmux demo``, and the scripted model that demo, tests and bench run on.

``run`` plays the demo on a ``stage`` (homes, processes), ``door`` lets a browser watch, and
``picture`` shows it. ``scripted_model`` is an HTTP server that answers as a model would, by
``scripted_steps``.

Imports ``client`` and ``errors`` only.
"""
