"""The broker's knowledge. Nothing here decides.

Read ``state`` first: the shared State, with the registries of the other files and the ways to send
to clients. Records, one file each: ``client``, ``threads``, ``running_turn``, ``unsaved_thread``,
``app_server``. Work under way or waiting: ``request``, ``scheduler`` with
``client_queue`` and ``company``, ``scoped_ids``, ``id_fields``, ``pending_requests``,
``tool_owners``, ``turn_queues``. Numbered entries, and the
clients that have yet to get them: ``journal``, ``backlog``.

Must not import ``features``, or anything above them.
"""
