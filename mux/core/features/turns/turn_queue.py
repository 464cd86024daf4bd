"""Turns that wait for their thread to be idle; and ``ifBusy``, by which a client asks for that.

Natively a ``turn/start`` while a turn runs becomes a steer, and its sender doesn't learn it. A
client that knows the broker says what it wants instead:

    steer    as natively; the answer says whether it became one
    reject   an error that names the running turn
    queue    answered at once with an id and a place; started when the thread is idle

A thread is *busy* if its turn runs, or may just begin: a request for it is under way. Then
``queue`` queues, and ``reject`` waits for that request's answer before it decides.

Queued turns stay for their client when it leaves, and over the app-server's lives. They start in
order, each when the one before has *completed*. If a turn is interrupted, fails, or dies with its
app-server, the queue is *held*: what was meant to follow may not be meant any more. It goes on when
a client asks for that (``mux/queue/start``).
"""

from __future__ import annotations

from typing import Literal

import msgspec

from mux.core.audit import audit_events
from mux.core.extension.queue import Held
from mux.core.features.lifecycle.recovery import Recovery
from mux.core.features.requests.client_requests import ClientRequests
from mux.core.features.requests.deduplication import Deduplicator
from mux.core.features.turns.queue_requests import actor_named, notify
from mux.core.part import Part
from mux.core.protocol.envelope import jsonrpc
from mux.core.protocol.envelope.jsonrpc import ClientMessage
from mux.core.protocol.threads import thread_overrides
from mux.core.state.app_server import AppServerState
from mux.core.state.clients.client import Client
from mux.core.state.requests.request import Request
from mux.core.state.state import State
from mux.core.state.turns.turn_queues import QueuedTurn, TurnQueue

IfBusy = Literal["steer", "queue", "reject"]

_UNREADABLE = '`ifBusy`: expected "steer", "queue" or "reject"'


class TurnQueueing(Part):
    """Decides on ``ifBusy``, and starts what is queued (``state.turn_queues``)."""

    state: State
    client_requests: ClientRequests
    deduplicator: Deduplicator
    recovery: Recovery

    # ── requests for a turn ───────────────────────────────────────────────────────────────────

    def read(self, client: Client, message: ClientMessage) -> tuple[ClientMessage, IfBusy | None]:
        """Return the message without its ``ifBusy``, and the value of that.

        From a client that doesn't know the broker it is an unknown field, which passes. Raises
        ``BadMessageError`` for an unknown value.
        """
        if message.method != "turn/start" or not client.knows_extension:
            return message, None
        if "ifBusy" not in message.named:
            return message, None
        params = jsonrpc.read_fields(message.params) or {}
        field = params.pop("ifBusy", b"null")
        if field == b"null":
            return message, None
        try:
            if_busy = _if_busy_decoder.decode(field)
        except msgspec.DecodeError:
            raise jsonrpc.BadMessageError(
                jsonrpc.INVALID_REQUEST, _UNREADABLE, message.id
            ) from None
        return message.with_params(jsonrpc.write(params)), if_busy

    def takes(
        self, client: Client, request: Request, message: ClientMessage, if_busy: IfBusy
    ) -> bool:
        """Queue or reject the request, or let it wait; False if it is to go upstream now."""
        thread = request.thread
        request.notifies_steered = True
        if if_busy == "steer" or thread is None:
            return False
        queue = self.state.turn_queues.get(thread)
        before = queue is not None and not queue.held and (queue.turns or queue.starting)
        if not self._is_busy(thread) and not before:
            return False
        if if_busy == "queue":
            self._enqueue(client, request, thread, message.params)
        elif self._running(thread) or self._is_active(thread):
            self._reject(request, thread)
        else:
            audit_events.record_request(self.state, client, request, message, "drive")
            self.state.undecided_turns.setdefault(thread, []).append(request)
        return True

    def _is_busy(self, thread: str) -> bool:
        """Return whether a turn runs on the thread, or may begin by a request under way."""
        return bool(
            self._running(thread)
            or self._is_active(thread)
            or self.state.threads.beginning[thread]
            or self.state.restart.is_holding(thread)
        )

    def _running(self, thread: str) -> str | None:
        known = self.state.threads.known.get(thread)
        return known.running.turn if known is not None else None

    def _is_active(self, thread: str) -> bool:
        """Return whether the thread's status is active.

        The status is also known of threads that we aren't subscribed to, whose turns aren't.
        """
        known = self.state.threads.known.get(thread)
        return known is not None and known.status == "active"

    def _reject(self, request: Request, thread: str) -> None:
        turn, known = self._running(thread), self.state.threads.known.get(thread)
        actor = known.running.actor if known is not None else None
        error_data = {"threadId": thread, "turnId": turn, "startedBy": actor_named(actor)}
        text = f"a turn runs on this thread already{f', begun by {actor.program}' if actor else ''}"
        self._fail(request, jsonrpc.BUSY, text, error_data)

    def _fail(self, request: Request, code: int, text: str, error_data: object) -> None:
        audit_events.lost(self.state, request)
        line = jsonrpc.error(request.origin, code, text, error_data)
        self.deduplicator.settled(request, line)
        if request.client in self.state.clients:
            self.state.answer(request.client or 0, line, "error")

    def _enqueue(self, client: Client, request: Request, thread: str, params: bytes) -> None:
        queue = self.state.turn_queues.get(thread) or TurnQueue(thread)
        limits = self.state.limits
        size = sum(len(each.params) for each in queue.turns) + len(params)
        if len(queue.turns) >= limits.queued_turns or size > limits.queued_turn_bytes:
            error_data = {
                "threadId": thread,
                "queued": len(queue.turns),
                "most": limits.queued_turns,
            }
            text = "too many turns are queued on this thread: wait, or take one back"
            self._fail(request, jsonrpc.QUEUE_FULL, text, error_data)
            return
        self.state.turn_queues[thread] = queue
        self.state.last_queued_turn += 1
        actor = audit_events.actor_of(client)
        turn = QueuedTurn(
            self.state.last_queued_turn, params, client.owner(), actor, self.state.now
        )
        queue.turns.append(turn)
        place = len(queue.turns)
        audit_events.queued(self.state, thread, turn)
        answer = {"appmux": {"queued": {"id": turn.id, "threadId": thread, "place": place}}}
        line = jsonrpc.result(request.origin, answer)
        self.state.answer(client.id, line, request.method)
        self.deduplicator.settled(request, line)
        # After the answer, which tells the client the turn's id.
        notify(self.state, queue, "queued", turn)

    def restore(self, queue: TurnQueue) -> None:
        """Restore a queue of an earlier broker."""
        self.state.turn_queues[queue.thread] = queue
        starting = [queue.starting] if queue.starting is not None else []
        self.state.last_queued_turn = max(
            [self.state.last_queued_turn, *(turn.id for turn in (*queue.turns, *starting))]
        )

    # ── started ───────────────────────────────────────────────────────────────────────────────

    @property
    def waits(self) -> bool:
        """Return whether ``refresh`` may have anything to do."""
        return bool(self.state.turn_queues or self.state.undecided_turns)

    def refresh(self) -> None:
        """Start queued turns, and decide on rejections, where that is possible by now.

        Called at the end of an event.
        """
        for queue in list(self.state.turn_queues.values()):
            if queue.thread not in self.state.threads.known:
                self._drop(queue, "the thread is gone")
                continue
            if queue.request is not None and not self.state.scheduler.has(queue.request):
                self._put_back(queue)
            while self._has_next(queue) and self._may_start(queue):
                self._start(queue)
            if not queue.turns and queue.starting is None:
                del self.state.turn_queues[queue.thread]
                self.state.durable.touch("queue", queue.thread)
                self.state.release_candidates.add(queue.thread)
        for thread in list(self.state.undecided_turns):
            self._decide(thread)

    def _has_next(self, queue: TurnQueue) -> bool:
        return bool(queue.turns) and not queue.held and queue.starting is None

    def _may_start(self, queue: TurnQueue) -> bool:
        ready = self.state.appserver.state is AppServerState.READY
        return ready and not self.state.restart.requests and not self._is_busy(queue.thread)

    def _start(self, queue: TurnQueue) -> None:
        turn = queue.turns.popleft()
        if reason := self._refused_by_now(queue.thread, turn):
            audit_events.unqueued(self.state, queue.thread, turn, reason)
            notify(self.state, queue, "failed", turn, reason=reason)
            return
        queue.starting = turn
        queue.request = self.client_requests.queued_turn(queue.thread, turn)
        self.state.durable.touch("queue", queue.thread)
        self.client_requests.submit(queue.request)

    def _refused_by_now(self, thread: str, turn: QueuedTurn) -> str:
        """Return why the turn may not run any more; empty if it may.

        Its settings loosened nothing when it was queued, but the thread's own may be tighter by
        now.
        """
        known = self.state.threads.known.get(thread)
        if known is None or "admin" in turn.owner.principal.scopes:
            return ""
        loosened = thread_overrides.loosens(thread_overrides.read(turn.params) or {}, known.held)
        return f"with `{loosened}` it needs the scope `admin` by now" if loosened else ""

    def _put_back(self, queue: TurnQueue) -> None:
        """Put a starting turn back that was lost with its app-server: it may have begun, or not."""
        if queue.starting is not None:
            queue.turns.appendleft(queue.starting)
        queue.starting = queue.request = None
        self._hold(queue, "appServerEnded")

    def _decide(self, thread: str) -> None:
        requests = self.state.undecided_turns[thread]
        while requests:
            request, busy = requests[0], self._running(thread) or self._is_active(thread)
            gone = request.client not in self.state.clients
            if not gone and not busy and self._is_busy(thread):
                return  # a request that may begin a turn hasn't been answered yet
            del requests[0]
            if gone:
                self.client_requests.drop(request)
            elif busy:
                self._reject(request, thread)
            elif not self.recovery.holds(request, self.state.threads.known.get(thread)):
                self.client_requests.submit(request)
        del self.state.undecided_turns[thread]

    def settled(self, request: Request, line: bytes, *, failed: bool, steered: bool) -> None:
        """Handle the answer to a queued turn's ``turn/start``."""
        queue = self.state.turn_queues.get(request.thread or "")
        if queue is None or queue.request is not request or queue.starting is None:
            return
        turn = queue.starting
        queue.starting = queue.request = None
        fields = jsonrpc.read_fields(line) or {}
        if failed:
            error = jsonrpc.read_fields(fields.get("error", b"{}")) or {}
            reason = jsonrpc.read_text(error.get("message")) or "no answer in time"
            notify(self.state, queue, "failed", turn, reason=reason)
            if queue.turns:
                self._hold(queue, "failed")
        else:
            result = jsonrpc.read_fields(fields.get("result", b"{}")) or {}
            started = result.get("turn", b"null")
            self.deduplicator.began(turn.owner, turn.params, started)
            notify(self.state, queue, "started", turn, started, steered=steered)

    def steered(self, request: Request, line: bytes) -> bool:
        """Return whether the turn that an answer names ran before.

        Call it before ``Subscriptions.begun`` takes in the same answer.
        """
        known = self.state.threads.known.get(request.thread or "")
        result = jsonrpc.read_fields((jsonrpc.read_fields(line) or {}).get("result", b"")) or {}
        turn = jsonrpc.read_fields(result.get("turn", b"")) or {}
        id = jsonrpc.read_text(turn.get("id"))
        return known is not None and id is not None and known.running.has_run(id)

    # ── held, removed, gone ───────────────────────────────────────────────────────────────────

    def turn_over(self, thread: str, line: bytes) -> None:
        """Hold the queue behind a turn that has ended, unless that turn completed."""
        queue = self.state.turn_queues.get(thread)
        if queue is not None:
            how = _ended_badly(line)
            if how is not None:
                self._hold(queue, how)

    def app_server_gone(self) -> None:
        """Hold the queues behind turns that run. Must be called before those turns are ended."""
        for queue in self.state.turn_queues.values():
            if self._running(queue.thread) is not None:
                self._hold(queue, "appServerEnded")

    def _hold(self, queue: TurnQueue, reason: Held) -> None:
        if queue.turns and queue.held is None:
            queue.held = reason
            notify(self.state, queue, "held")

    def thread_over(self, thread: str) -> None:
        """Drop the queue of a thread that is closed, archived or deleted."""
        queue = self.state.turn_queues.get(thread)
        if queue is not None:
            self._drop(queue, "the thread is closed, archived or deleted")

    def _drop(self, queue: TurnQueue, reason: str) -> None:
        turns = [*([queue.starting] if queue.starting else []), *queue.turns]
        queue.turns.clear()
        del self.state.turn_queues[queue.thread]
        for turn in turns:
            audit_events.unqueued(self.state, queue.thread, turn, reason)
            notify(self.state, queue, "lost", turn, reason=reason)

    def device_ended(self, device: str) -> None:
        """Remove the queued turns of a device that was revoked, or whose scopes have changed."""
        for queue in list(self.state.turn_queues.values()):
            for turn in [each for each in queue.turns if each.owner.principal.device == device]:
                queue.turns.remove(turn)
                audit_events.unqueued(
                    self.state, queue.thread, turn, "its device's access has ended"
                )
                notify(self.state, queue, "removed", turn, reason="its device's access has ended")


class _Turn(msgspec.Struct):
    status: Held


class _TurnParams(msgspec.Struct):
    turn: _Turn


class _TurnMessage(msgspec.Struct):
    params: _TurnParams


def _ended_badly(line: bytes) -> Held | None:
    """Return how the turn in a ``turn/completed`` ended; None if it was completed."""
    try:
        return _turn_decoder.decode(line).params.turn.status
    except msgspec.DecodeError:
        return None


_turn_decoder = msgspec.json.Decoder(_TurnMessage)
_if_busy_decoder = msgspec.json.Decoder(IfBusy)
