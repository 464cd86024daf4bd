"""The broker's knowledge. Nothing here decides.

Read ``state`` first: the shared State, with the registries of the other files; ``delivery`` has the
ways to send to clients. Records: ``client``, ``company``, ``departed_clients``, ``app_server``,
``planned_restart``; ``threads`` with ``running_turn`` and ``delta_stream``, ``unsaved_thread``,
``unclaimed_threads``, ``cards``, ``last_line`` and ``long_snapshot``. Work under way or waiting:
``request``, ``scheduler`` with ``client_queue``, ``pending_requests``, ``turn_queues``,
``title_turns``, ``sent_messages``. Ids of one client: ``scoped_ids``, ``id_fields``,
``tool_owners``. Numbered entries, and clients that have yet to get them: ``journal``, ``backlog``.
``coalescing`` gathers consecutive deltas for some. ``notice_records`` is what notices come from;
``durable`` what is saved for the next broker.

Must not import ``features``, or anything above them.
"""
