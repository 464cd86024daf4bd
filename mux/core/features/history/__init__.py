"""Reads what happened on a thread from its messages.

``journal_sweep`` reads a thread's part of the journal bit by bit for a client's request. Two
requests are made of it: ``digest``, with ``digest_summary`` (what happened since a cursor), and
``thread_files``, with ``file_list`` (the files that a thread touched). ``file_changes`` reads what
one item changed.

Must not import any other room of the features.
"""
