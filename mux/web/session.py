"""``/v1/session``: a browser is paired (POST), asks who it is (GET), and signs out (DELETE).

``POST /v1/session/challenge`` gives what one plain request is signed by.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Final

import attrs
import msgspec
import structlog
from starlette.requests import Request
from starlette.responses import Response

from mux.access.authentication import AuthError
from mux.access.replies import Reply, malformed, too_many
from mux.access.requests import DeviceRequests
from mux.access.throttle import LoginThrottle
from mux.core.extension.sessions import Challenge
from mux.core.policy.principal import Principal
from mux.downstream.http.head import RequestHead
from mux.downstream.http.http import hold_back
from mux.web.adapter import REQUEST
from mux.web.body import TooLongError, read
from mux.web.limits import BODY_BYTES

JSON: Final = "application/json"

log = structlog.get_logger()


class Unauthorized(msgspec.Struct):
    """401: the token isn't good (any more)."""

    message: str
    error: str = "unauthorized"


@attrs.frozen
class SessionRoutes:
    """Answers for one broker."""

    devices: DeviceRequests
    throttle: LoginThrottle

    async def pair(self, request: Request) -> Response:
        """Redeem a ticket or letters for the browser's key."""
        address = address_of(request)
        try:
            body = await read(request, BODY_BYTES)
        except TooLongError as wrong:
            reply = malformed(str(wrong))
        else:
            reply = await self.devices.browsers.redeem(body, address)
        counted = await hold_back(reply.status, self.throttle, address, reply.whose)
        if counted is not None and counted.too_many:
            reply = too_many()
        return _json(reply)

    async def challenge(self, request: Request) -> Response:
        """Make up a challenge, by which a browser may sign one request."""
        origin = request.headers.get("origin", "")
        challenge = await self.devices.sessions.challenge_request(origin)
        shown = Challenge(challenge.nonce, challenge.time)
        return Response(msgspec.json.encode(shown), media_type=JSON)

    async def read(self, request: Request) -> Response:
        """Tell a browser who it is here."""
        principal = await self._principal(request)
        if isinstance(principal, Response):
            return principal
        who = self.devices.sessions.describe(principal)
        return Response(msgspec.json.encode(who), media_type=JSON)

    async def end(self, request: Request) -> Response:
        """Sign a browser out."""
        principal = await self._principal(request)
        if isinstance(principal, Response):
            return principal
        self.devices.sign_out(principal)
        return Response(status_code=HTTPStatus.NO_CONTENT)

    async def _principal(self, request: Request) -> Principal | Response:
        head: RequestHead = request.scope[REQUEST].head
        authorization = next(iter(head.values(b"authorization")), None)
        method, target = head.method.decode("latin-1"), head.target.decode("latin-1")
        try:
            return self.devices.sessions.authenticate(authorization, method, target)
        except AuthError as refused:
            address = address_of(request)
            await hold_back(HTTPStatus.UNAUTHORIZED, self.throttle, address, refused.whose)
            body = msgspec.json.encode(Unauthorized(str(refused)))
            headers = {"www-authenticate": "Bearer"}
            return Response(body, HTTPStatus.UNAUTHORIZED, headers, JSON)


def address_of(request: Request) -> str:
    """Return the peer's name, as logs and the throttle have it."""
    address: str = request.scope[REQUEST].peer.address
    return address


def _json(reply: Reply) -> Response:
    return Response(reply.body, reply.status, media_type=JSON)
