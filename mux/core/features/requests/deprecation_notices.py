"""Deprecation notices of the app-server: whose request one is about, which it doesn't say.

Used by ``client_requests``, ``ResponseRouter`` and ``NotificationRouter``.
"""

from __future__ import annotations

from collections import deque

import msgspec

from mux.core.part import Part
from mux.core.policy.principal import ClientId
from mux.core.protocol.envelope.jsonrpc import ClientMessage
from mux.core.state.requests.request import Request
from mux.core.state.requests.scheduler import BROKER
from mux.core.state.state import State

ANSWERED_LATELY = 32
"""Requests remembered after their answer: a notice that comes behind its answer is a few lines
behind."""

REMEMBERED_BYTES = 64 * 1024
"""Bytes of a remembered request's line and params: a picture that somebody sent needn't stay until
32 others are answered. What is compared with a notice later doesn't stand in them."""

_TURNS_BY = {
    "thread/resume": "excludeTurns",
    "thread/fork": "excludeTurns",
    "thread/read": "includeTurns",
}
"""The field by which a request asks for all turns of a thread, or not."""


class DeprecationNotices(Part):
    """The requests that may be the cause of a notice."""

    state: State
    answered_lately: deque[Request] = msgspec.field(
        default_factory=lambda: deque(maxlen=ANSWERED_LATELY)
    )
    """The requests answered last, which may still be the cause of a notice."""

    def remember(self, request: Request) -> None:
        """Remember an answered request, which may still be the cause of a notice."""
        if request.account == BROKER:
            return
        if len(request.line) > REMEMBERED_BYTES:
            request = msgspec.structs.replace(request, line=b"", params=b"")
        self.answered_lately.append(request)

    def recipients(self, notice: bytes) -> set[ClientId]:
        """Return the clients to send a ``deprecationNotice`` to.

        The notice names no request, so its cause is guessed. The oldest request in flight is taken
        that may have caused it and hasn't had one: the notice begins with its method, or the
        request asks for a thread's whole history by the field that the notice names. Otherwise a
        request answered a moment ago is taken, since the notice may come behind the answer;
        otherwise all clients with a request in flight get it.
        """
        flying = [each for each in self.state.scheduler.upstream.values() if each.client]
        for request in (*flying, *self.answered_lately):
            begins = b'"summary":"%s ' % request.method.encode() in notice
            field = request.history_field.encode()
            if not request.noticed and (begins or (field and field in notice)):
                request.noticed = True
                return {request.account}
        return {each.account for each in flying}


def history_field(message: ClientMessage) -> str:
    """Return the field by which a request asks for all turns of a thread; empty if it doesn't."""
    field = _TURNS_BY.get(message.method)
    if field is None:
        return ""
    asks = bytes(message.named.get(field, b"")) == b"true"
    return field if asks is (field == "includeTurns") else ""
