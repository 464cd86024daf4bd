"""The handover: a broker goes on with the app-server that an earlier one left running.

The app-server has noticed nothing: it is subscribed for us as before, its turns run, and what it
wrote meanwhile comes now. What the earlier broker knew is read back from what it saved, and the
items that run from the journal. Then the app-server is asked which threads are loaded, and each is
resumed: that makes it send again what waits for an answer, should anything have been lost. A fresh
or an ephemeral thread can't be resumed; it lives by what was saved alone.

What belonged to a connection (watches, processes, searches) is ended, as natively when a connection
ends. Approvals keep their ids and wait for their clients to come back. A message that was under way
is settled by its answer, if that comes, or else by its thread's turns.

Used by ``broker`` for the event, by ``responses`` for the answers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import TypeVar

import msgspec

from mux.core.commands import KillUpstream, LoadExperimentalSchema
from mux.core.features.approvals.server_requests import ServerRequests
from mux.core.features.handover.durability import Durability
from mux.core.features.lifecycle.recovery import Recovery
from mux.core.features.requests.client_requests import ClientRequests
from mux.core.features.turns.turn_queue import TurnQueueing
from mux.core.part import Part, later
from mux.core.protocol.envelope import jsonrpc
from mux.core.protocol.journal_entry import Entry
from mux.core.protocol.methods import request_rule
from mux.core.protocol.threads import handover_answers, thread_messages
from mux.core.state.app_server import AppServerState
from mux.core.state.durable import (
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
    decode,
)
from mux.core.state.requests.request import Request
from mux.core.state.requests.scheduler import DEPARTED, QUEUE
from mux.core.state.state import NEVER, State
from mux.core.state.threads.unsaved_thread import Source, UnsavedThread
from mux.core.state.turns.turn_queues import QueuedTurn, TurnQueue

LOADED = "thread/loaded/list"
LIST = "thread/turns/list"

ANSWER_DEADLINE = 10.0
"""Seconds for the app-server to say what it has loaded; it takes milliseconds."""

LATEST_TURNS = 8
"""Turns of a thread among which a message is looked for that was under way: it is in the last."""
T = TypeVar("T")


class Handover(Part):
    """A handover under way."""

    state: State
    client_requests: ClientRequests
    server_requests: ServerRequests
    turn_queueing: TurnQueueing
    recovery: Recovery
    durability: Durability
    settle: Callable[[Request, bytes, bool], None] = later()
    """Settles a request that an earlier broker made: with its answer, and whether it failed."""
    _asked: Request | None = None
    """The request for the loaded threads, until it is answered."""
    _resuming: dict[int, str] = msgspec.field(default_factory=dict)
    """Threads that are being resumed, by wire id."""
    _listing: dict[int, str] = msgspec.field(default_factory=dict)
    """Threads whose last turns are asked for, by wire id."""
    _claims: list[SavedClaim] = msgspec.field(default_factory=list)

    # ── what was saved ────────────────────────────────────────────────────────────────────────

    def begin(self, generation: int, saved: dict[str, bytes], entries: Iterable[Entry]) -> None:
        """Continue what an earlier broker left."""
        state = self.state
        state.appserver.begin(generation, state.now)
        state.appserver.inherited = True
        try:
            self._restore(_Kinds(saved), entries)
        except msgspec.DecodeError as failure:
            state.out.append(KillUpstream(f"it can't be gone on with: {failure}"))
            return
        self.durability.inherit(saved)
        state.durable.touch("app-server", "")
        if state.appserver.result_of != generation:
            state.out.append(KillUpstream("the handshake with it wasn't done"))
            return
        state.appserver.state = AppServerState.RESUMING
        state.record("appserver/kept", generation=generation)
        state.log(
            "info", "going on with the app-server of an earlier broker", generation=generation
        )
        state.out.append(LoadExperimentalSchema())
        for claim in self._claims:
            self.client_requests.ask_for_broker(claim.ended_by, {claim.field: claim.wire})
            state.durable.touch("claim", f"{claim.field}/{claim.wire}")
        self._asked = self.client_requests.ask_for_broker(LOADED, {})
        state.wake_at(state.now + ANSWER_DEADLINE)

    def _restore(self, kinds: _Kinds, entries: Iterable[Entry]) -> None:
        """Restore what was saved. Raises ``msgspec.DecodeError``."""
        state = self.state
        for server in kinds.all("app-server", SavedAppServer):
            state.appserver.knows(server.generation, server.result, server.greetings)
            state.journal.began = server.began
        state.durable.clients = max(kinds.all("clients", int), default=0)
        self.client_requests.number_wires_after(max(kinds.all("wires", int), default=0))
        threads = list(kinds.all("thread", SavedThread))
        for thread in threads:
            self._restore_thread(thread)
        self._replay(entries)
        for thread in threads:
            self._restore_turn(thread)
        for tools in kinds.all("tools", SavedTools):
            owners = {(space, tool): owner for space, tool, owner in tools.tools}
            state.tool_owners.restore(tools.thread, owners)
        for saved in sorted(kinds.all("request", SavedServerRequest), key=lambda each: each.id):
            self.server_requests.restore(saved)
        for message in kinds.all("sent", SavedMessage):
            state.sent_messages.restore(message)
        queues = list(kinds.all("queue", SavedQueue))
        queued = {queue.wire: queue.thread for queue in queues if queue.wire}
        for request in sorted(kinds.all("wire", SavedRequest), key=lambda each: each.wire):
            self._restore_request(request, QUEUE if request.wire in queued else DEPARTED)
        for queue in queues:
            self._restore_queue(queue)
        for left in (*kinds.all("left", SavedFollows), *kinds.all("follows", SavedFollows)):
            state.departed_clients.restore(left)
        for name in kinds.names("follows"):
            state.durable.touch("follows", name)
        self._claims = list(kinds.all("claim", SavedClaim))

    def _restore_thread(self, saved: SavedThread) -> None:
        state = self.state
        thread = state.threads.claim(saved.id)
        thread.subscribed = saved.subscribed
        thread.private, thread.adopted, thread.status = saved.private, saved.adopted, saved.status
        thread.loaded_with, thread.settings = saved.loaded_with, saved.settings
        thread.held = saved.held
        thread.name, thread.cwd, thread.ephemeral = saved.name, saved.cwd, saved.ephemeral
        thread.spawned_by = saved.spawned_by
        if saved.parent is not None:
            state.threads.spawned(saved.parent, saved.id)
        if saved.unsaved is not None:
            thread.unsaved = _unsaved(saved.unsaved)
        thread.running.since = saved.since
        if saved.subscribed:
            # Nobody follows it yet: its clients come back one by one.
            thread.kept_until = state.now + state.limits.kept_for_return
            state.wake_at(thread.kept_until)

    def _restore_turn(self, saved: SavedThread) -> None:
        """Say which turn runs. After the replay, which may end with the turn before that."""
        running = self.state.threads.claim(saved.id).running
        running.turn, running.also, running.over = saved.turn, saved.also, saved.over
        running.started, running.announced, running.actor = saved.started, saved.announced, saved.by

    def _replay(self, entries: Iterable[Entry]) -> None:
        """Bring what runs to where the earlier broker had it."""
        for entry in entries:
            thread = self.state.threads.known.get(entry.thread or "")
            message = jsonrpc.read_upstream(entry.message)
            if thread is None or message is None or message.params is None:
                continue
            if message.id is jsonrpc.ABSENT and entry.seq > thread.running.since:
                thread.running.apply(entry.method, message.params, entry.message)

    def _restore_request(self, saved: SavedRequest, account: int) -> None:
        request = Request(
            wire=saved.wire,
            method=saved.method,
            rule=request_rule(saved.method),
            client=None,
            account=account,
            origin=b"",
            line=b"",
            since=self.state.now,
            thread=saved.thread,
            actor=saved.by,
            params=saved.params,
            sent=saved.sent,
        )
        self.client_requests.restore(request)

    def _restore_queue(self, saved: SavedQueue) -> None:
        turns = [self._queued(turn) for turn in saved.turns]
        queue = TurnQueue(saved.thread, deque(turns), saved.held)
        if saved.starting is not None:
            starting = self._queued(saved.starting)
            request = self.state.scheduler.upstream.get(saved.wire)
            if request is None:  # it hadn't been sent
                queue.turns.appendleft(starting)
            else:
                queue.starting, queue.request = starting, request
        self.turn_queueing.restore(queue)

    def _queued(self, saved: SavedTurn) -> QueuedTurn:
        return QueuedTurn(saved.id, saved.params, saved.owner, saved.by, self.state.now)

    # ── what the app-server says ──────────────────────────────────────────────────────────────

    def answered(self, request: Request, line: bytes, *, failed: bool) -> bool:
        """Handle the answer to a request made here; False if it is for none of them."""
        if request is self._asked:
            self._asked = None
            loaded = handover_answers.threads_loaded(line)
            if failed or loaded is None:
                self.state.out.append(KillUpstream("it doesn't say which threads are loaded"))
            else:
                self._loaded(loaded)
        elif (id := self._resuming.pop(request.wire, None)) is not None:
            self._resumed(id, line, failed=failed)
        elif (id := self._listing.pop(request.wire, None)) is not None:
            self._listed(id, line)
        else:
            return False
        self._ready_if_done()
        return True

    def _loaded(self, loaded: set[str]) -> None:
        state = self.state
        for thread in list(state.threads.known.values()):
            if not thread.subscribed:
                continue
            if thread.id not in loaded:
                self.recovery.close_lost(thread)
            elif not thread.only_here:
                request = self.client_requests.load(thread.id, {})
                self._resuming[request.wire] = thread.id
        for id in loaded - state.threads.known.keys():
            # Whoever had it loaded isn't known. If nobody takes it up it is given back.
            thread = state.threads.claim(id)
            thread.kept_until = state.now + state.limits.kept_for_return
            state.wake_at(thread.kept_until)
        for id in self._unsettled():
            if id not in self._resuming.values():
                self._list(id)

    def _resumed(self, id: str, line: bytes, *, failed: bool) -> None:
        thread = self.state.threads.known.get(id)
        if thread is None or failed:
            return
        thread.status = thread_messages.status_named(line)
        missed = thread.running.turn is not None and thread.status != "active"
        if missed or id in self._unsettled():
            self._list(id)

    def _list(self, id: str) -> None:
        params = {"threadId": id, "limit": LATEST_TURNS, "itemsView": "full"}
        self._listing[self.client_requests.ask_for_broker(LIST, params).wire] = id

    def _unsettled(self) -> dict[str, list[Request]]:
        """Return the messages under way that an earlier broker sent, by thread."""
        requests: dict[str, list[Request]] = {}
        for request in self.state.scheduler.upstream.values():
            ours = request.account in (DEPARTED, QUEUE) and not request.line
            if ours and request.rule.begins and request.thread is not None:
                requests.setdefault(request.thread, []).append(request)
        return requests

    def _listed(self, id: str, line: bytes) -> None:
        turns = handover_answers.turns(line)
        thread = self.state.threads.known.get(id)
        for request in self._unsettled().get(id, []):
            self._settle(request, turns)
        if thread is None or thread.running.turn is None or thread.status == "active":
            return
        for turn in turns:
            if jsonrpc.read_text(turn.get("id")) == thread.running.turn:
                self._missed(id, turn)

    def _settle(self, request: Request, turns: list[dict[str, bytes]]) -> None:
        """Settle a message whose answer is lost, by the turn that has it, or because none has."""
        message = request.sent[-1] if request.sent is not None else ""
        holds = [turn for turn in turns if handover_answers.has_message(turn, message)]
        if holds:
            text = jsonrpc.write({"turn": jsonrpc.write(holds[0])})
            self.settle(request, jsonrpc.write({"id": request.wire_text, "result": text}), False)
        elif request.account == QUEUE:
            self.state.scheduler.answered(request)  # it goes back into its queue
        elif request.sent is not None:
            self.settle(request, _NOT_BEGUN, True)

    def _missed(self, id: str, turn: dict[str, bytes]) -> None:
        """Publish the end of a turn that the earlier broker was told of, and nobody else."""
        if turn.get("status") == b'"inProgress"':
            return
        params = {"threadId": id, "turn": msgspec.Raw(jsonrpc.write(turn))}
        self.recovery.publish_missed(id, jsonrpc.notification("turn/completed", params))

    def _ready_if_done(self) -> None:
        resuming = self.state.appserver.state is AppServerState.RESUMING
        if resuming and not (self._asked or self._resuming or self._listing):
            self.recovery.ready()
            self.client_requests.pump()

    def on_timer(self) -> float:
        """Give an app-server up that doesn't answer; returns when to look again."""
        if self._asked is None:
            return NEVER
        due = self._asked.since + ANSWER_DEADLINE
        if self.state.now < due:
            return due
        self._asked = None
        self.state.out.append(KillUpstream(f"no answer to `{LOADED}` in {ANSWER_DEADLINE:g} s"))
        return NEVER

    def upstream_gone(self) -> None:
        """Forget what the ended app-server was asked."""
        self._asked = None
        self._resuming.clear()
        self._listing.clear()


class _Kinds(Part):
    """The saved facts, by kind."""

    saved: dict[str, bytes]

    def all(self, kind: str, of: type[T]) -> list[T]:
        """Return all values of a kind. Raises ``msgspec.DecodeError``."""
        return [decode(self.saved[f"{kind}/{name}"], of) for name in self.names(kind)]

    def names(self, kind: str) -> list[str]:
        """Return the names of a kind's keys."""
        return [key.partition("/")[2] for key in self.saved if key.startswith(f"{kind}/")]


def _unsaved(saved: SavedUnsaved) -> UnsavedThread:
    return UnsavedThread(
        saved.result,
        saved.thread,
        saved.ephemeral,
        saved.turns,
        saved.fresh,
        saved.young,
        None if saved.source is None else Source(*saved.source),
        saved.preview,
    )


_NOT_BEGUN = b'{"error":{"code":-32010,"message":"it was lost with the broker; send it again"}}'
