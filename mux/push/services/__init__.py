"""The push services: one module each, with one method, ``deliver``, that sends one push.

``registry`` makes them all. The services are ``apns``, ``fcm``, ``webpush`` (with
``webpush_encryption`` and ``vapid``), ``unifiedpush``, ``ntfy``, ``webhook``, and ``command``,
which runs a program instead.

Must not import the queue or the sender.
"""
