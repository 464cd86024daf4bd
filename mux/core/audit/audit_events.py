"""The records of the audit log: who came and left, who asked for what, and who approved it.

    client/attached  client/left          past its handshake; with its peer, and for how long
    client/cut                            the client's credential no longer holds
    request/refused                       for want of a scope; a flood of them is counted
    turn/asked  turn/answered  turn/lost  started, steered, interrupted, or work of another kind
    admin/asked  admin/answered  …/lost   requests that need ``admin`` and don't only read
    directory/unlisted                    a thread works where the settings list nothing
    turn/queued  turn/unqueued            a turn waits for its thread, and won't be started
    queue/released                        a queue that was held goes on
    file/received                         a person's file was put where an agent finds it
    file/opened                           a file of a thread, or another, was let out
    approval/…  answer/refused            a person's decision (``audit_approvals``)
    restart/asked  appserver/started  appserver/exited
    appserver/kept                        an earlier broker's was gone on with; by ``server``,
                                          ``appserver/notKept``: why it couldn't be

``by`` names the client in each. A request is recorded by its kind, ids and a SHA-256 digest of the
params as they came; their text only if the operator wants it (``audit.text``).

Each is one ``Record`` command, which the shell numbers, dates and chains
(``mux.storage.audit_log``).
"""

from __future__ import annotations

from hashlib import sha256

import msgspec

from mux.core.policy.scopes import SCOPES
from mux.core.protocol.envelope.jsonrpc import ClientMessage
from mux.core.protocol.scope import Scope
from mux.core.state.clients.client import Client, Refusals
from mux.core.state.requests.request import Recorded, Request
from mux.core.state.state import NEVER, State
from mux.core.state.turns.turn_queues import QueuedTurn

TURNS = frozenset({"turn/steer", "turn/interrupt"})
"""Methods that act on a running turn. Those that begin one have ``RequestRule.begins``."""

NAME_CHARACTERS = 128
"""Recorded of a text that a client chose (its name, a method): as much as a person reads."""

TEXT_CHARACTERS = 16 * 1024
"""Recorded of params, where text is wanted: a prompt with pictures in it is megabytes."""

REFUSALS_RECORDED = 16
REFUSALS_SECONDS = 10.0
"""A client with more than ``REFUSALS_RECORDED`` refusals within this time gets one record for the
rest of them: it must not be able to fill the disk."""


def actor_of(client: Client) -> dict[str, object]:
    """Return who acted: the client, and the principal that it authenticated as."""
    name = client.info.name if client.info is not None else None
    return {
        "client": client.id,
        "name": name and name[:NAME_CHARACTERS],
        "principal": client.principal.name,
        "kind": client.principal.kind,
        "from": client.peer,
    }


def content(state: State, params: bytes) -> dict[str, object]:
    """Return the digest of a text, and the text itself where the operator wants it."""
    fields: dict[str, object] = {"digest": sha256(params).hexdigest()}
    if state.audit_text:
        fields["text"] = params.decode(errors="replace")[:TEXT_CHARACTERS]
    return fields


# ── clients ───────────────────────────────────────────────────────────────────────────────────


def attached(state: State, client: Client) -> None:
    """Record that a client is past its handshake."""
    version = client.info.version[:NAME_CHARACTERS] if client.info is not None else None
    fields = {"version": version, "transport": client.transport}
    scopes = sorted(client.principal.scopes)
    state.record("client/attached", by=actor_of(client), scopes=scopes, **fields)


def left(state: State, client: Client) -> None:
    """Record that a client's connection is gone."""
    _count_refusals(state, client)
    if client.info is not None:
        seconds = round(state.now - client.since, 3)
        state.record("client/left", by=actor_of(client), seconds=seconds)


def refused(state: State, client: Client, method: str, needs: Scope) -> None:
    """Record that a client asked for what its scopes don't allow."""
    if gets_record(state, client):
        method = method[:NAME_CHARACTERS]
        state.record("request/refused", by=actor_of(client), method=method, needs=needs)


def gets_record(state: State, client: Client) -> bool:
    """Return whether this refusal gets a record of its own; otherwise it is only counted."""
    refusals = client.refusals
    if refusals is None or refusals.until <= state.now:
        _count_refusals(state, client)
        refusals = client.refusals = Refusals(until=state.now + REFUSALS_SECONDS)
    refusals.count += 1
    if refusals.count <= REFUSALS_RECORDED:
        return True
    state.wake_at(refusals.until)
    return False


def _count_refusals(state: State, client: Client) -> None:
    more = client.refusals.count - REFUSALS_RECORDED if client.refusals is not None else 0
    if more > 0:
        state.record("request/refused", by=actor_of(client), method=None, needs=None, times=more)
    client.refusals = None


def on_timer(state: State) -> float:
    """Record floods of refusals that are over; return when the next one may be."""
    next_one = NEVER
    for client in state.clients.values():
        refusals = client.refusals
        if refusals is not None and refusals.count > REFUSALS_RECORDED:
            if refusals.until <= state.now:
                _count_refusals(state, client)
            else:
                next_one = min(next_one, refusals.until)
    return next_one


# ── requests ──────────────────────────────────────────────────────────────────────────────────


def drives(method: str, *, begins: bool) -> bool:
    """Return whether the request makes a thread work, or changes what it works on."""
    return (begins or method in TURNS) and SCOPES.get(method) == "drive"


def record_request(
    state: State, client: Client, request: Request, message: ClientMessage, scope: Scope
) -> None:
    """Record a client's request if it drives a turn or needs ``admin``; others aren't recorded."""
    rule = request.rule
    if drives(message.method, begins=rule.begins):
        topic = "turn"
    elif scope == "admin" and not rule.reads and (rule.own_id is None or rule.own_id.begins):
        topic = "admin"
    else:
        return
    request.recorded = Recorded(
        topic,
        {
            "by": actor_of(client),
            "request": request.wire,
            "method": message.method[:NAME_CHARACTERS],
            "thread": message.thread,
            "turn": message.name("turnId") or message.name("expectedTurnId"),
        },
    )
    came = message.params if message.came is None else message.came
    _of_request(state, "asked", request.recorded, content(state, came))


def unlisted(state: State, client: Client, fields: dict[str, object]) -> None:
    """Record that a thread works where the settings list nothing, and takes no settings there."""
    state.record("directory/unlisted", by=actor_of(client), **fields)


def queued(state: State, thread: str, turn: QueuedTurn) -> None:
    """Record that a turn waits until its thread is idle."""
    state.record("turn/queued", **_of_queued(thread, turn), **content(state, turn.params))


def unqueued(
    state: State,
    thread: str,
    turn: QueuedTurn,
    reason: str | None,
    actor: dict[str, object] | None = None,
) -> None:
    """Record that a queued turn won't be started: ``actor`` took it back, or for ``reason``."""
    fields = _of_queued(thread, turn) | {"by": actor, "of": turn.actor}
    state.record("turn/unqueued", **fields, why=reason)


def dequeued(state: State, request: Request, turn: QueuedTurn) -> None:
    """Record that a queued turn is started, like any turn of the client that queued it."""
    fields = {"request": request.wire, "method": request.method, "turn": None}
    request.recorded = Recorded("turn", _of_queued(request.thread or "", turn) | fields)
    _of_request(state, "asked", request.recorded, content(state, turn.params))


def queue_released(state: State, client: Client, thread: str) -> None:
    """Record that a client released a queue that was held."""
    state.record("queue/released", by=actor_of(client), thread=thread)


def _of_queued(thread: str, turn: QueuedTurn) -> dict[str, object]:
    return {"by": turn.actor, "queued": turn.id, "thread": thread}


def record_answer(state: State, request: Request, line: bytes, *, failed: bool) -> None:
    """Record the app-server's answer to a request that ``record_request`` recorded."""
    if request.recorded is None:
        return
    result = _read_answer(line)
    if failed:
        outcome: dict[str, object] = {"outcome": "failed", "code": result.code}
    else:
        outcome = {"outcome": "done"}
        outcome |= {name: id for name, id in result.named().items() if id is not None}
    _of_request(state, "answered", request.recorded, outcome)
    request.recorded = None


def lost(state: State, request: Request) -> None:
    """Record that the app-server won't answer a request: it was refused, dropped or lost."""
    if request.recorded is not None:
        _of_request(state, "lost", request.recorded, {})
        request.recorded = None


def _of_request(state: State, what: str, recorded: Recorded, extra: dict[str, object]) -> None:
    state.record(f"{recorded.topic}/{what}", **(recorded.fields | extra))


class _Named(msgspec.Struct):
    id: str | None = None


class _Result(msgspec.Struct):
    turn: _Named | None = None
    turnId: str | None = None
    thread: _Named | None = None


class _Error(msgspec.Struct):
    code: int | None = None


class _Answer(msgspec.Struct):
    result: _Result | None = None
    error: _Error | None = None

    @property
    def code(self) -> int | None:
        return self.error.code if self.error is not None else None

    def named(self) -> dict[str, str | None]:
        """Return the ids of the turn and the thread that the answer names."""
        result = self.result or _Result()
        turn = result.turnId or (result.turn.id if result.turn is not None else None)
        return {"turn": turn, "thread": result.thread.id if result.thread is not None else None}


def _read_answer(line: bytes) -> _Answer:
    try:
        return _answer_decoder.decode(line)
    except msgspec.DecodeError:
        return _Answer()  # of a shape that names nothing that is recorded


_answer_decoder = msgspec.json.Decoder(_Answer)
