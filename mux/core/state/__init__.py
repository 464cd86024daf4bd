"""What is known. Nothing here decides.

Read ``state`` first: the one shared State, with the registries of the other files and the ways to
speak to clients. One record a thing: ``client``, ``threads``, ``running_turn``,
``unsaved_thread``, ``app_server``. What is on its way or waits: ``request``, ``scheduler``,
``scoped_ids``, ``pending_requests``, ``tool_owners``, ``turn_queues``. Numbered entries, and who
has yet to get them: ``journal``, ``backlog``.

Must not import ``features``, or anything above them.
"""
