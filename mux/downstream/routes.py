"""The HTTP routes: requests that are answered on a connection before it becomes a WebSocket.

`admit` reads one request's head, answers health checks and refusals itself, and lets an upgrade
through together with its ``Principal``. Statuses, bodies and the order of the checks are the
app-server's own, measured on its ``ws://`` listener. There are three departures: the connection
closes after every response, a head that doesn't come is answered 408, and unix sockets answer
health checks too.

Used by ``server``, for each stream that ``listener`` accepts; ``connection`` then answers an
``AcceptedUpgrade`` with 101. ``post_routes`` answers the POSTs.

A new route is one more ``case`` in ``_route``.
"""

from __future__ import annotations

import ipaddress
import re
import time
from collections.abc import Callable
from functools import lru_cache
from http import HTTPStatus
from typing import Literal

import attrs
import msgspec
import structlog
import trio

from mux.access.authentication import Authenticator, AuthError, local_user
from mux.access.pairing import Pairing
from mux.access.throttle import LoginThrottle
from mux.core.policy.principal import Principal
from mux.downstream import post_routes
from mux.downstream.http import HttpResponse, RequestHead, answer, hold_back, read_head

WEBSOCKET_VERSION = b"13"

SAID_BY_PROXIES = frozenset(
    {b"forwarded", b"via", b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-proto",
     b"x-real-ip", b"cf-connecting-ip", b"true-client-ip", b"tailscale-user-login"}
)  # fmt: skip
"""Headers by which a reverse proxy names the client whose request it passes on."""

APPROVALS = b"/v1/approvals/"

_ABSOLUTE_FORM = re.compile(rb"\Ahttps?://[^/?]*", re.IGNORECASE)

log = structlog.get_logger()


@attrs.frozen
class AcceptedUpgrade:
    """A WebSocket upgrade that may proceed, without extensions and subprotocols."""

    principal: Principal
    address: str
    """The peer's name, for logs."""
    local: bool
    """True if the client is known to be on this host."""
    key: bytes
    """The ``Sec-WebSocket-Key`` that the 101 response is made from."""
    rest: bytes = attrs.field(repr=False)
    """Bytes after the request's head that have come already: first frames."""


class Exposition(msgspec.Struct, frozen=True):
    """The metrics in the format that a scraper asked for."""

    text: str
    content_type: str


class _ToPair:
    """A device's request to be paired; the ticket is in the request's body."""


class _ToDecide(msgspec.Struct, frozen=True):
    """A device's answer to an approval, from its lock screen."""

    push: str
    """The id of the push that the device got."""


async def admit(
    stream: trio.abc.HalfCloseableStream,
    listener_kind: Literal["ws", "unix"],
    authenticator: Authenticator,
    address: str,
    *,
    ready: Callable[[], bool],
    metrics: Callable[[str], Exposition] | None = None,
    pairing: Pairing | None = None,
    decide: post_routes.Decide | None = None,
    failures: LoginThrottle | None = None,
    local: bool = False,
    asked: Callable[[], None] = lambda: None,
) -> AcceptedUpgrade | None:
    """Read one request. Return its ``AcceptedUpgrade``; else answer it, close the stream, and
    return None.

    ``address`` names the peer in logs. ``ready`` returns whether ``/readyz`` is to answer 200;
    ``metrics`` writes the metrics for a scraper's ``Accept``. ``pairing`` and ``decide`` answer
    POSTs (see ``post_routes``). ``failures`` counts and slows refused peers. ``local`` is the
    listener's (see ``TcpAddress``). ``asked`` is called once the request's head has come. A peer
    that breaks off gives None. Raises nothing of its own.
    """
    failures = LoginThrottle() if failures is None else failures
    head = await read_head(stream)
    if isinstance(head, RequestHead):
        asked()
        outcome = _route(
            head, listener_kind, authenticator, address, ready, metrics=metrics, local=local
        )
        if isinstance(outcome, AcceptedUpgrade):
            return outcome
        if isinstance(outcome, _ToPair):
            await post_routes.pair(stream, head, pairing, failures, address)
        elif isinstance(outcome, _ToDecide):
            await post_routes.decide(
                stream, head, outcome.push, judge=decide, failures=failures, address=address
            )
        else:
            counted = await hold_back(outcome.status, failures, address, outcome.whose)
            loud = counted is None or counted.loud
            await answer(stream, outcome, head.method, address, loud=loud)
    elif head is not None:
        await answer(stream, head, b"GET", address)
    await stream.aclose()
    return None


# -- deciding --------------------------------------------------------------------------------------


def _route(
    head: RequestHead,
    listener_kind: Literal["ws", "unix"],
    authenticator: Authenticator,
    address: str,
    ready: Callable[[], bool],
    *,
    metrics: Callable[[str], Exposition] | None,
    local: bool,
) -> AcceptedUpgrade | _ToPair | _ToDecide | HttpResponse:
    # Only browsers send Origin, and a page must not reach a port of the machine that it is shown
    # on. Browsers can't open unix sockets, so there Origin proves nothing.
    if listener_kind == "ws" and head.values(b"origin"):
        return HttpResponse(HTTPStatus.FORBIDDEN)
    match _path(head):
        case b"/healthz":
            return _health(head, well=True)
        case b"/readyz":
            return _health(head, well=ready())
        case b"/metrics" if metrics is not None:
            return _refuse_metrics(head, listener_kind, authenticator, address) or _expose(
                head, metrics
            )
        case b"/v1/pair" if head.method == b"POST":
            return _ToPair()
        case path if head.method == b"POST" and path.startswith(APPROVALS):
            return _ToDecide(path.removeprefix(APPROVALS).decode("ascii", "replace"))
        case _:
            return _malformed_upgrade(head) or _admit(
                head, listener_kind, authenticator, address, local=local
            )


def _path(head: RequestHead) -> bytes:
    # Proxies send the absolute form, which is legal for everybody.
    target = _ABSOLUTE_FORM.sub(b"", head.target)
    return target.partition(b"?")[0]


def _health(head: RequestHead, *, well: bool) -> HttpResponse:
    if head.method not in (b"GET", b"HEAD"):
        return HttpResponse(HTTPStatus.METHOD_NOT_ALLOWED, headers=(("allow", "GET,HEAD"),))
    return HttpResponse(HTTPStatus.OK if well else HTTPStatus.SERVICE_UNAVAILABLE)


def _refuse_metrics(
    head: RequestHead,
    listener_kind: Literal["ws", "unix"],
    authenticator: Authenticator,
    address: str,
) -> HttpResponse | None:
    """Return the refusal of a request for the metrics, if any.

    A scraper on this machine needs no token: metrics are counts, no texts.
    """
    if head.method not in (b"GET", b"HEAD"):
        return HttpResponse(HTTPStatus.METHOD_NOT_ALLOWED, headers=(("allow", "GET,HEAD"),))
    if listener_kind == "unix" or _is_loopback(address):
        return None
    try:
        principal = authenticator.authenticate(_authorization(head), time.time())
    except AuthError as refusal:
        return _unauthorized(refusal)
    if "admin" not in principal.scopes:
        return HttpResponse(HTTPStatus.FORBIDDEN, "`/metrics` needs the scope `admin`")
    return None


def _expose(head: RequestHead, metrics: Callable[[str], Exposition]) -> HttpResponse:
    accept = b",".join(head.values(b"accept")).decode("latin-1")
    exposition = metrics(accept)
    return HttpResponse(HTTPStatus.OK, exposition.text, content_type=exposition.content_type)


def _is_loopback(address: str) -> bool:
    """Return whether a peer's name (``127.0.0.1:5123``, ``[::1]:5123``) is of this machine."""
    return _is_loopback_ip(address.rpartition(":")[0].strip("[]").partition("%")[0])


@lru_cache(maxsize=16)  # few recur; a peer chooses the Host header, so no more
def _is_loopback_ip(host: str) -> bool:
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None
    return (mapped or ip).is_loopback


def _is_on_this_host(head: RequestHead, principal: Principal, address: str) -> bool:
    """Return whether a client of a ``local`` TCP listener counts as being on this host.

    The operator has said that no proxy passes anything on to such a listener. A forgotten proxy is
    noticed all the same if it names its client in a header. A paired device that comes this way
    comes through a tunnel. An address other than loopback, even this host's own, proves nothing.
    """
    host = b"".join(head.values(b"host")).decode("latin-1").lower()
    named_here = host.partition(":")[0] == "localhost" or _is_loopback(
        host if host.rpartition("]")[2].startswith(":") or host.count(":") == 1 else f"{host}:"
    )
    forwarded = not SAID_BY_PROXIES.isdisjoint(head.headers)
    return _is_loopback(address) and named_here and not forwarded and not principal.device


def _malformed_upgrade(head: RequestHead) -> HttpResponse | None:
    if head.method != b"GET":
        return HttpResponse(
            HTTPStatus.METHOD_NOT_ALLOWED, "Request method must be `GET`", (("allow", "GET"),)
        )
    connection = b",".join(head.values(b"connection")).lower().split(b",")
    if b"upgrade" not in [token.strip() for token in connection]:
        return HttpResponse(HTTPStatus.BAD_REQUEST, "Connection header did not include 'upgrade'")
    if [each.lower() for each in head.values(b"upgrade")] != [b"websocket"]:
        return HttpResponse(HTTPStatus.BAD_REQUEST, "`Upgrade` header did not include 'websocket'")
    if not head.values(b"sec-websocket-key"):
        return HttpResponse(HTTPStatus.BAD_REQUEST, "`Sec-WebSocket-Key` header missing")
    if WEBSOCKET_VERSION not in head.values(b"sec-websocket-version"):
        return HttpResponse(
            HTTPStatus.BAD_REQUEST,
            "`Sec-WebSocket-Version` header did not include '13'",
            (("sec-websocket-version", "13"),),
        )
    if head.version != b"1.1":
        return HttpResponse(
            HTTPStatus.UPGRADE_REQUIRED,
            "WebSocket request couldn't be upgraded since no upgrade state was present",
            (("upgrade", "websocket"),),
        )
    return None


def _admit(
    head: RequestHead,
    listener_kind: Literal["ws", "unix"],
    authenticator: Authenticator,
    address: str,
    *,
    local: bool,
) -> AcceptedUpgrade | HttpResponse:
    try:
        principal = (
            local_user()
            if listener_kind == "unix"
            else authenticator.authenticate(_authorization(head), time.time())
        )
    except AuthError as refusal:
        return _unauthorized(refusal)
    return AcceptedUpgrade(
        principal=principal,
        address=address,
        local=listener_kind == "unix" or (local and _is_on_this_host(head, principal, address)),
        key=head.values(b"sec-websocket-key")[0],
        rest=head.rest,
    )


def _authorization(head: RequestHead) -> bytes | None:
    return next(iter(head.values(b"authorization")), None)


def _unauthorized(refusal: AuthError) -> HttpResponse:
    headers = (("www-authenticate", "Bearer"),)
    return HttpResponse(HTTPStatus.UNAUTHORIZED, str(refusal), headers, whose=refusal.whose)
