"""Everything on disk, in the state directory.

``state_dir`` is the directory, and who has it. ``journal`` is the journal, written behind by
``journal_writer`` in chunks (``journal_chunks``) of one schema (``journal_schema``), in SQLite
(``sqlite``). ``audit_log`` is the audit log, written by ``audit_writer``, each record chained to
the one before it (``audit_chain``). ``json_file`` replaces a small file as a whole. ``timings``
counts how long writing takes.

Of the package it imports ``config`` and ``core.protocol``.
"""
