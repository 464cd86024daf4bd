"""``mux/queue/…``: what waits on which thread, taken back, or let go on; and the news of it.

``turn_queue`` starts what is queued.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from mux.core.audit import audit_events
from mux.core.part import Part
from mux.core.policy.principal import Owner
from mux.core.protocol.envelope import jsonrpc
from mux.core.protocol.envelope.jsonrpc import ClientMessage
from mux.core.state.clients.client import Client
from mux.core.state.state import State
from mux.core.state.turns.turn_queues import QueuedTurn, TurnQueue

QUEUE = "mux/queue"
"""The notification of what is queued on a thread now, and what has just changed."""


class QueueRequests(Part):
    """Answers the requests about queues (``state.turn_queues``)."""

    state: State

    def handle(self, client: Client, message: ClientMessage) -> None:
        """Answer a ``mux/queue/…`` request."""
        match message.method:
            case "mux/queue/list":
                self._list(client, message)
            case "mux/queue/remove":
                self._remove(client, message)
            case _:
                self._release(client, message)

    def _list(self, client: Client, message: ClientMessage) -> None:
        """Answer ``mux/queue/list``: the queue of one thread, or all queues."""
        named = (jsonrpc.read_fields(message.params) or {}).get("threadId")
        queues = [
            each
            for each in self.state.turn_queues.values()
            if named in (None, b"null") or jsonrpc.read_text(named) == each.thread
        ]
        listed = {"queues": [each.to_json(self.state.now) for each in queues]}
        self.state.answer(client.id, jsonrpc.result(message.id, listed), message.method)

    def _remove(self, client: Client, message: ClientMessage) -> None:
        """Answer ``mux/queue/remove``: take a turn back that hasn't started."""
        id = (jsonrpc.read_fields(message.params) or {}).get("id", b"")
        for queue, turn in self._queued():
            if b"%d" % turn.id == id:
                queue.turns.remove(turn)
                audit_events.unqueued(
                    self.state, queue.thread, turn, None, audit_events.actor_of(client)
                )
                result = {"id": turn.id, "threadId": queue.thread}
                self.state.answer(client.id, jsonrpc.result(message.id, result), message.method)
                notify(self.state, queue, "removed", turn, actor=client.owner())
                return
        text = "no such turn is queued: it has started, or was taken back"
        self.state.error(client.id, message.id, jsonrpc.INVALID_REQUEST, text)

    def _release(self, client: Client, message: ClientMessage) -> None:
        """Answer ``mux/queue/start``: let a held queue go on."""
        named = jsonrpc.read_text((jsonrpc.read_fields(message.params) or {}).get("threadId"))
        queue = self.state.turn_queues.get(named or "")
        if queue is None:
            text = "nothing is queued on this thread"
            self.state.error(client.id, message.id, jsonrpc.INVALID_REQUEST, text)
            return
        held, queue.held = queue.held, None
        result = {"threadId": queue.thread, "turns": len(queue.turns), "wasHeld": held}
        self.state.answer(client.id, jsonrpc.result(message.id, result), message.method)
        if held is not None:
            audit_events.queue_released(self.state, client, queue.thread)
            notify(self.state, queue, "released", actor=client.owner())

    def _queued(self) -> Iterator[tuple[TurnQueue, QueuedTurn]]:
        for queue in self.state.turn_queues.values():
            for turn in queue.turns:
                yield queue, turn


def notify(
    state: State,
    queue: TurnQueue,
    what: str,
    of: QueuedTurn | None = None,
    turn: bytes = b"null",
    *,
    steered: bool = False,
    reason: str | None = None,
    actor: Owner | None = None,
) -> None:
    """Notify followers that know the broker, and whoever queued the turn, of a change."""
    state.durable.touch("queue", queue.thread)
    change = {
        "what": what,
        "id": of.id if of is not None else None,
        "turn": msgspec.Raw(turn),
        "steered": steered,
        "why": reason,
        "by": actor_named(actor),
    }
    message = jsonrpc.notification(QUEUE, queue.to_json(state.now) | {"change": change})
    recipients = dict.fromkeys(state.threads.audience(queue.thread))
    if of is not None:
        recipients[of.owner.client] = None
    for id in recipients:
        client = state.clients.get(id)
        wants = client is not None and client.knows_extension and client.receives(QUEUE)
        if client is not None and wants and "observe" in client.principal.scopes:
            state.send(id, message, QUEUE)


def actor_named(actor: Owner | None) -> dict[str, object] | None:
    """Return who acted, as ``mux/queue`` and errors name them."""
    if actor is None:
        return None
    return {"client": actor.client, "name": actor.program, "principal": actor.principal.name}
