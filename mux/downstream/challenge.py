"""A browser's challenge: the first two messages on its WebSocket, by which it becomes a client.

    broker  ─▶  {"method": "mux/session/challenge", "params": {nonce, time}}
    browser ─▶  {"id", "method": "mux/session/prove", "params": {device, signature}}
    broker  ─▶  {"id", "result": {device, name, scopes, …, token}}, or an error and a close

Until then nothing that it says reaches the dispatcher. A refusal is delayed as any other of an
authentication.

Used by ``connection``. Uses ``access.sessions``, which knows the keys.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Final

import msgspec
import structlog
import trio
from msgspec import structs

from mux.access.sessions import NotProvenError, Sessions
from mux.access.throttle import LoginThrottle
from mux.core.extension import sessions as wire
from mux.core.policy.principal import Principal
from mux.dispatch.outbox import Outbox, text_frame
from mux.downstream.http.http import hold_back
from mux.downstream.http.request import AcceptedUpgrade
from mux.downstream.websocket.websocket import FrameReader

PROOF_BYTES: Final = 4 * 1024
"""Most bytes of the first message: a device's id and a signature are a twentieth of it."""

NOT_PROVEN: Final = -32020
"""The error code of a challenge that wasn't answered rightly."""

NOT_LET_IN: Final = 4401
"""Close code: this device isn't let in (any more). The same as when access ends later."""

MALFORMED: Final = 4400
"""Close code: the first message was no proof."""

LATE: Final = 4408
"""Close code: no proof came in time."""

CHALLENGE: Final = "mux/session/challenge"
PROVE: Final = "mux/session/prove"

Receive = Callable[[], Awaitable[bytes | bytearray]]
"""Receives the next bytes; none if no more will come."""

End = Callable[[int, str], None]
"""Ends the connection with a close code and a reason; doesn't wait."""

log = structlog.get_logger()


class _First(msgspec.Struct):
    """The browser's first message."""

    id: int | str
    method: str
    params: wire.Proof


class Challenger(msgspec.Struct, frozen=True):
    """Challenges the browsers of one broker."""

    sessions: Sessions
    throttle: LoginThrottle

    async def prove(
        self,
        frames: FrameReader,
        outbox: Outbox,
        receive: Receive,
        admission: AcceptedUpgrade,
        end: End,
    ) -> Principal | None:
        """Return who a browser has proved to be; None if it hasn't: then its end has begun."""
        challenge = await self.sessions.challenge(admission.origin)
        params = wire.Challenge(challenge.nonce, challenge.time)
        _send(outbox, {"method": CHALLENGE, "params": params})
        text = None
        with trio.move_on_at(challenge.until) as waiting:
            text = await _first_message(frames, outbox, receive, admission.rest)
        if waiting.cancelled_caught:
            end(LATE, "no proof came in time")
            return None
        if text is None:  # it has left
            return None
        try:
            first = msgspec.json.decode(text, type=_First)
        except (msgspec.DecodeError, UnicodeDecodeError):
            end(MALFORMED, f"the first message has to be `{PROVE}`")
            return None
        try:
            if first.method != PROVE:
                raise NotProvenError("malformed", f"the first message has to be `{PROVE}`")
            principal = self.sessions.prove(challenge, first.params.device, first.params.signature)
        except NotProvenError as refused:
            await self._refuse(first.id, refused, outbox, admission.address, end)
            return None
        who = self.sessions.describe(principal)
        token = self.sessions.token_for(principal.device)
        result = wire.Proven(**structs.asdict(who), token=token)
        _send(outbox, {"id": first.id, "result": result})
        return principal

    async def _refuse(
        self, id: int | str, refused: NotProvenError, outbox: Outbox, address: str, end: End
    ) -> None:
        log.info("a browser wasn't let in", client=address, reason=refused.reason)
        await hold_back(HTTPStatus.UNAUTHORIZED, self.throttle, address, refused.whose)
        data = wire.NotProven(refused.reason)
        error = {"code": NOT_PROVEN, "message": str(refused), "data": data}
        _send(outbox, {"id": id, "error": error})
        end(_CLOSE_CODES.get(refused.reason, NOT_LET_IN), str(refused))


_CLOSE_CODES: Final = {"malformed": MALFORMED, "late": LATE}


async def _first_message(
    frames: FrameReader, outbox: Outbox, receive: Receive, received: bytes | bytearray
) -> bytes | None:
    """Return the first text message; None if the browser leaves, or says anything else."""
    while True:
        for text in frames.feed(received, 1):
            return b"" if text is None else text
        for frame in frames.owed:
            outbox.append(frame)
        frames.owed.clear()
        if frames.ended:
            return None
        if frames.more:
            received = b""
            await trio.lowlevel.checkpoint()
        else:
            received = await receive()
            if not received:
                return None


def _send(outbox: Outbox, message: dict[str, object]) -> None:
    outbox.append(text_frame(msgspec.json.encode(message)))
