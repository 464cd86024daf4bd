"""The push services: one module each, with one function, ``deliver``.

``registry`` knows them all. ``apns``, ``fcm``, ``webpush`` (with ``webpush_encryption`` and
``vapid``), ``unifiedpush``, ``ntfy``, ``webhook``, and ``command``, which runs a program instead.

Must not import the queue or the sender.
"""
