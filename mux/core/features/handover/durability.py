"""Saves what the next broker needs: at the end of an event, the facts that it has changed.

What is saved, and who says what has changed, stands in ``state.durable``. What is read back is
``handover``'s.

Used by ``broker``, at the end of each event.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from mux.core.commands import SaveState
from mux.core.part import Part
from mux.core.state import durable
from mux.core.state.durable import (
    Key,
    Kind,
    SavedAppServer,
    SavedClaim,
    SavedFollows,
    SavedMessage,
    SavedQueue,
    SavedRequest,
    SavedServerRequest,
    SavedThread,
    SavedTools,
    SavedTurn,
    SavedUnsaved,
    SavedVote,
)
from mux.core.state.state import State
from mux.core.state.threads.unsaved_thread import UnsavedThread
from mux.core.state.turns.turn_queues import QueuedTurn


class Durability(Part):
    """Reads the facts of touched keys."""

    state: State
    _saved: dict[Key, bytes] = msgspec.field(default_factory=dict)
    """What was saved last."""

    def save(self) -> None:
        """Have saved what the event has changed, before all else that follows from it."""
        touched = self.state.durable.touched
        self.state.durable.touched = {}
        saves = [save for key in touched if (save := self._save(key)) is not None]
        self.state.out[:0] = saves

    def _save(self, key: Key) -> SaveState | None:
        kind, name = key
        value = _READERS[kind](self, name)
        text = durable.encode(value) if value is not None else None
        if text == self._saved.get(key):
            return None
        if text is None:
            del self._saved[key]
        else:
            self._saved[key] = text
        return SaveState(f"{kind}/{name}", text)

    def inherit(self, saved: dict[str, bytes]) -> None:
        """Record what an earlier broker saved, so that what is over is removed."""
        for text, value in saved.items():
            kind, _, name = text.partition("/")
            if kind in _READERS:
                self._saved[kind, name] = value

    # ── of each kind ──────────────────────────────────────────────────────────────────────────

    def _app_server(self, _name: str) -> SavedAppServer | None:
        server = self.state.appserver
        if not server.known:
            return None
        result = {name: bytes(value) for name, value in server.result.items()}
        began = self.state.journal.began
        return SavedAppServer(server.result_of, result, dict(server.greetings), began)

    def _wires(self, _name: str) -> int:
        return self.state.durable.wires

    def _clients(self, _name: str) -> int:
        return self.state.durable.clients

    def _thread(self, name: str) -> SavedThread | None:
        thread = self.state.threads.known.get(name)
        if thread is None or not (thread.subscribed or thread.claimed):
            return None
        running = thread.running
        return SavedThread(
            id=thread.id,
            subscribed=thread.subscribed,
            private=thread.private,
            status=thread.status,
            turn=running.turn,
            also=running.also,
            over=running.over,
            since=running.since if running.items or running.turn else 0,
            started=running.started if running.turn else b"",
            announced=running.announced,
            by=durable.owner(running.actor),
            runs=bool(running.items) or running.turn is not None,
            loaded_with=thread.loaded_with,
            settings=thread.settings,
            name=thread.name,
            cwd=thread.cwd,
            parent=thread.parent,
            ephemeral=thread.ephemeral,
            adopted=thread.adopted,
            held=thread.held,
            spawned_by=durable.owner(thread.spawned_by),
            unsaved=None if thread.unsaved is None else _unsaved(thread.unsaved),
        )

    def _request(self, name: str) -> SavedServerRequest | None:
        request = self.state.pending_requests.get(name.encode())
        if request is None:
            return None
        votes = [
            SavedVote(voter, vote.result, vote.early, vote.actor)
            for voter, vote in request.ballot.votes.items()
        ]
        return SavedServerRequest(
            id=request.id,
            upstream=request.upstream,
            method=request.method,
            thread=request.thread,
            offer=request.offer,
            policy=request.ballot.policy,
            needs=request.needs,
            turn=request.turn,
            owner=durable.owner(request.ballot.owner),
            votes=votes,
        )

    def _queue(self, name: str) -> SavedQueue | None:
        queue = self.state.turn_queues.get(name)
        if queue is None:
            return None
        starting = queue.starting
        return SavedQueue(
            thread=queue.thread,
            turns=[_turn(turn) for turn in queue.turns],
            held=queue.held,
            starting=None if starting is None else _turn(starting),
            wire=0 if queue.request is None else queue.request.wire,
        )

    def _sent(self, name: str) -> SavedMessage | None:
        return self.state.sent_messages.saved(name)

    def _wire(self, name: str) -> SavedRequest | None:
        request = self.state.scheduler.upstream.get(int(name))
        if request is None:
            return None
        by, sent = durable.owner(request.actor), request.sent
        params = request.params if request.method != "turn/start" else b""
        return SavedRequest(request.wire, request.method, request.thread, params, by, sent)

    def _claim(self, name: str) -> SavedClaim | None:
        claim = self.state.scoped_ids.held_as(name)
        return None if claim is None else SavedClaim(claim.field, claim.wire, claim.ended_by)

    def _follows(self, name: str) -> SavedFollows | None:
        client = self.state.clients.get(int(name))
        if client is None or client.info is None or not client.follows:
            return None
        return SavedFollows(client.principal.identity, client.info.name, dict(client.follows))

    def _left(self, name: str) -> SavedFollows | None:
        return self.state.departed_clients.saved(name)

    def _tools(self, name: str) -> SavedTools | None:
        tools = [
            (space, tool, owner)
            for (space, tool), of in self.state.tool_owners.of(name).items()
            if (owner := durable.owner(of)) is not None
        ]
        return SavedTools(name, tools) if tools else None


def _turn(turn: QueuedTurn) -> SavedTurn:
    owner = durable.owner(turn.owner)
    assert owner is not None
    return SavedTurn(turn.id, turn.params, owner, turn.actor)


def _unsaved(thread: UnsavedThread) -> SavedUnsaved:
    source = thread.source
    of = None if source is None else (source.thread, source.fork, source.last, source.before)
    return SavedUnsaved(
        result=thread.result,
        thread=thread.thread,
        ephemeral=thread.ephemeral,
        turns=thread.turns,
        fresh=thread.fresh,
        young=thread.young,
        source=of,
        preview=thread.preview,
    )


_READERS: dict[Kind, Callable[[Durability, str], object]] = {
    "app-server": Durability._app_server,
    "claim": Durability._claim,
    "clients": Durability._clients,
    "follows": Durability._follows,
    "left": Durability._left,
    "queue": Durability._queue,
    "request": Durability._request,
    "sent": Durability._sent,
    "thread": Durability._thread,
    "tools": Durability._tools,
    "wire": Durability._wire,
    "wires": Durability._wires,
}
