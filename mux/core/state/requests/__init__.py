"""The requests under way, up and down, and the ids in them that belong to one client.

Up: ``request`` is one on its way to the app-server; ``scheduler`` says whose turn is next, from
each ``client_queue``, and by ``company`` whether a client is alone; ``sent_messages`` are those
that must not run twice. Down: ``pending_requests`` await an answer; ``tool_owners`` says which
client a tool call is for. Ids of one client: ``scoped_ids``, found in messages by ``id_fields``.

Of ``core/state`` it may import ``durable``.
"""
