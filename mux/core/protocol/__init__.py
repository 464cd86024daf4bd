"""The app-server's language: pure functions over JSON text.

Read ``methods`` first: THE TABLE (in the words of ``rules`` and ``scope``), which says what each
method means to the broker; ``known_notifications`` pass. Messages: ``jsonrpc`` is the envelope,
``client_message`` what a client sends, in the bounds of ``structure``, ``long_line`` and ``rope`` a
line that isn't joined. Params: ``request_params`` has the one reading of them, ``text_limits``
bounds texts, ``overrides`` are those of a command line, ``thread_overrides`` finds what changes a
thread's settings, ``directories`` are paths on disk, ``experimental`` what needs
``experimentalApi``. Content: ``answers`` to server requests, ``handover_answers`` that a handover
reads, ``thread_messages`` and ``thread_settings`` of threads, ``turn_messages`` that the broker
writes itself, and ``journal_entry``, whose deltas merge.

Imports nothing else of the package.
"""
