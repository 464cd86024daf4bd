"""Everything on disk, in the state directory.

``state_dir`` claims the directory for one broker. ``journal`` is the journal: ``journal_writer``
writes it, in chunks (``journal_chunks``) of one schema (``journal_schema``), in SQLite
(``sqlite``). ``audit_log`` is the audit log: ``audit_writer`` writes it, and each record is chained
to the one before it (``audit_chain``); ``audit_pages`` reads it from its end. Both are written
behind by ``write_behind``. ``broker_state`` keeps what the next broker needs. ``json_file``
replaces a small file as a whole; ``small_file`` does that in the background. ``timings`` counts how
long writing takes.

Of the package it may import ``config``, ``core.part`` and ``core.protocol``.
"""
