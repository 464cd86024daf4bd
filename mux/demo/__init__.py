"""``appmux demo``, and the scripted model that demo, tests and bench run on.

``run`` is the demo, on a ``stage`` (homes, processes), shown by ``picture``. ``scripted_model`` is
an HTTP server that answers as a model would, by ``scripted_steps``.

Imports ``client`` only.
"""
