"""The app-server's language: pure functions over JSON text.

Read ``methods`` first: THE TABLE (in the words of ``rules`` and ``scope``), which says what each
method means to the broker; ``known_notifications`` pass. ``answers`` has the shape of the answers
to server requests, ``experimental`` what needs ``experimentalApi``. ``journal_entry`` is a message
of a thread as it is numbered and stored, and how consecutive deltas merge.

Rooms: ``envelope``, the form of messages; ``threads``, what those about threads and turns say.

Imports nothing else of the package.
"""
