"""``turn/interrupt`` of a turn that is over: answered here, since the app-server may never do it.

codex 0.163 answers one that comes behind the end of an interrupted turn when the thread's next turn
has ended, if ever. Later versions say at once that nothing runs, and so does the broker: of one
that hasn't gone upstream yet, and of one that the turn's end found there.

Heard from: ``client_requests`` (one that is to be sent), ``notifications`` (a turn's end),
``responses``.
"""

from __future__ import annotations

import msgspec

from mux.core import audit_events
from mux.core.protocol import jsonrpc
from mux.core.state.request import Request
from mux.core.state.running_turn import RunningTurn
from mux.core.state.state import State

INTERRUPT = "turn/interrupt"


class _Params(msgspec.Struct):
    threadId: str
    turnId: str


class _Asked(msgspec.Struct):
    params: _Params


def is_late(state: State, request: Request) -> bool:
    """Whether a request interrupts a turn that is over; then it is answered, here and now.

    It is upstream, or has just been given out to be sent.
    """
    named = _named(request)
    thread = state.threads.known.get(named.threadId) if named is not None else None
    if named is None or thread is None or named.turnId not in thread.running.over:
        return False
    line = jsonrpc.error(
        request.origin, jsonrpc.INVALID_REQUEST, _refusal(named.turnId, thread.running)
    )
    audit_events.answered(state, request, line, failed=True)
    if request.client is not None:
        state.send(request.client, line, "error")
    return True


def turn_over(state: State, thread: str) -> bool:
    """A turn of the thread has ended: what is upstream to interrupt it won't be answered.

    Whether there was any, so that others may go up in its place.
    """
    any_late = False
    for request in list(state.scheduler.upstream.values()):
        if request.method == INTERRUPT and not request.expired:
            named = _named(request)
            if named is not None and named.threadId == thread and is_late(state, request):
                state.scheduler.give_up(request)
                any_late = True
    return any_late


def done(state: State, request: Request) -> None:
    """The app-server says that the turn is interrupted.

    Of a thread that isn't followed that is all that is heard of its end.
    """
    named = _named(request)
    if named is not None and named.turnId:
        thread = state.threads.known.get(named.threadId)
        if thread is not None and not thread.subscribed:
            thread.running.over = (named.turnId,)


def _named(request: Request) -> _Params | None:
    try:
        return _decoder.decode(request.line).params
    except msgspec.DecodeError:
        return None  # the app-server says what is wrong with it


def _refusal(turn: str, running: RunningTurn) -> str:
    """In the app-server's own words."""
    if running.turn is None:
        return "no active turn to interrupt"
    return f"expected active turn id {turn} but found {running.turn}"


_decoder = msgspec.json.Decoder(_Asked)
