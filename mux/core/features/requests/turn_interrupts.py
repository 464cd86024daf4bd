"""``turn/interrupt`` of a turn that is over: answered here, since the app-server may never do it.

If an interrupt comes behind the end of an interrupted turn, codex 0.163 answers it when the
thread's next turn has ended, if ever. Later versions answer at once that nothing runs. So does the
broker, for interrupts that haven't gone upstream yet, and for those upstream when the turn ends.

Used by ``client_requests`` (an interrupt about to be sent), ``notifications`` (a turn's end) and
``responses``.
"""

from __future__ import annotations

import msgspec

from mux.core.audit import audit_events
from mux.core.protocol.envelope import jsonrpc
from mux.core.state.requests.request import Request
from mux.core.state.state import State
from mux.core.state.turns.running_turn import RunningTurn

INTERRUPT = "turn/interrupt"


class _Params(msgspec.Struct):
    threadId: str
    turnId: str


class _Asked(msgspec.Struct):
    params: _Params


def is_late(state: State, request: Request) -> bool:
    """Return whether a request interrupts a turn that is over; if so, answer it here and now.

    The request is upstream, or is about to be sent.
    """
    named = _named(request)
    thread = state.threads.known.get(named.threadId) if named is not None else None
    if named is None or thread is None or named.turnId not in thread.running.over:
        return False
    line = jsonrpc.error(
        request.origin, jsonrpc.INVALID_REQUEST, _refusal(named.turnId, thread.running)
    )
    audit_events.record_answer(state, request, line, failed=True)
    if request.client is not None:
        state.send(request.client, line, "error")
    return True


def turn_over(state: State, thread: str) -> bool:
    """Answer the interrupts upstream for a thread whose turn has ended: the app-server may not.

    Returns whether there were any, so that other requests may go up in their place.
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
    """Record a turn's end by the successful answer to its interrupt.

    For a thread that isn't followed no other word of the end comes.
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
        return None  # the app-server's error tells what is wrong


def _refusal(turn: str, running: RunningTurn) -> str:
    """Return the refusal in the app-server's own words."""
    if running.turn is None:
        return "no active turn to interrupt"
    return f"expected active turn id {turn} but found {running.turn}"


_decoder = msgspec.json.Decoder(_Asked)
