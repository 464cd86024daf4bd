"""The upgrade to a WebSocket: whether it is well-formed, who asks for it, whether it may go on.

Used by ``routes``, for whatever no route is there for.
"""

from __future__ import annotations

import time
from functools import lru_cache
from http import HTTPStatus
from typing import Final

from mux.access.authentication import AuthError, local_user
from mux.config.addresses import host_of
from mux.config.proxies import plain
from mux.core.policy.principal import Principal
from mux.core.protocol.threads import overrides
from mux.core.protocol.threads.overrides import Overrides
from mux.downstream.http.head import HttpResponse, RequestHead
from mux.downstream.http.proxies import passed_on
from mux.downstream.http.request import AcceptedUpgrade, Peer, Request, Services
from mux.downstream.websocket.offers import Offer, offered

WEBSOCKET_VERSION = b"13"

SUBPROTOCOL: Final = b"appmux.v1"
"""The WebSocket subprotocol of browsers. Its number is that of the challenge's form."""


def is_loopback(address: str) -> bool:
    """Return whether a peer's name (``127.0.0.1:5123``, ``[::1]``) is of this machine."""
    return _is_loopback_ip(host_of(address))


@lru_cache(maxsize=16)  # few recur; a peer chooses the Host header, so no more
def _is_loopback_ip(host: str) -> bool:
    try:
        return plain(host).is_loopback
    except ValueError:
        return False


def is_from_here(head: RequestHead, peer: Peer) -> bool:
    """Return whether a request seems to come from this machine.

    That proves nothing: a tunnel, and a proxy that says nothing, come from here, too.
    """
    return peer.kind == "unix" or (is_loopback(peer.address) and not passed_on(head))


def _is_on_this_host(head: RequestHead, principal: Principal, peer: Peer) -> bool:
    """Return whether a client of a ``local`` TCP listener counts as being on this host.

    The operator has said that no proxy passes anything on to such a listener. A forgotten proxy is
    noticed all the same if it says that it is one. Where the settings name one after all, nobody
    from its address is known to be here. A paired device that comes this way comes through a
    tunnel. An address other than loopback, even this host's own, proves nothing.
    """
    host = host_of(b"".join(head.values(b"host")).decode("latin-1").lower())
    named_here = host == "localhost" or _is_loopback_ip(host)
    proxy = peer.services.proxies.trusts(peer.address)
    return is_from_here(head, peer) and named_here and not proxy and not principal.device


def malformed_upgrade(head: RequestHead) -> HttpResponse | None:
    """Return the refusal of a request that is no proper WebSocket upgrade; None if it is one.

    Statuses and words are the native listener's.
    """
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


def upgrade(request: Request, services: Services) -> AcceptedUpgrade | HttpResponse:
    """Let a well-formed upgrade through, if its client may come in."""
    head, peer = request.head, request.peer
    if head.from_browser:
        return _browser_upgrade(request, services)
    try:
        principal = (
            local_user()
            if peer.kind == "unix"
            else services.authenticator.authenticate(_authorization(head), time.time())
        )
    except AuthError as refusal:
        return unauthorized(refusal)
    try:
        given = _overrides(head, principal)
    except ValueError as error:
        return HttpResponse(HTTPStatus.BAD_REQUEST, f"`{overrides.HEADER}` header: {error}")
    here = peer.kind == "unix" or (peer.local and _is_on_this_host(head, principal, peer))
    return AcceptedUpgrade(
        principal=principal,
        address=peer.address,
        local=here,
        key=head.values(b"sec-websocket-key")[0],
        transport=peer.transport,
        rest=head.rest,
        compression=_compression(request, services),
        overrides=given,
    )


def _overrides(head: RequestHead, principal: Principal) -> Overrides | None:
    """Return the overrides that the client's door sends along. Raises ``ValueError``."""
    sent = head.values(overrides.HEADER.lower().encode())
    return overrides.read_header(sent[0]).within(principal.scopes) if sent else None


def _compression(request: Request, services: Services) -> Offer | None:
    """Choose a compression for a client, from what it offers and the setting.

    On this machine bytes cost less than the work on them. But a browser's loopback may be the end
    of a tunnel.
    """
    head, peer = request.head, request.peer
    here = peer.kind == "unix" or (is_from_here(head, peer) and not head.from_browser)
    if services.compression == "never" or (services.compression == "remote" and here):
        return None
    extensions = head.values(b"sec-websocket-extensions")
    return offered(extensions, head.values(b"x-codex-app-server-compression"))


def _browser_upgrade(request: Request, services: Services) -> AcceptedUpgrade | HttpResponse:
    """Let a browser through to its challenge. Nothing of the listener's is its own."""
    head, peer = request.head, request.peer
    offered = b",".join(head.values(b"sec-websocket-protocol")).split(b",")
    if services.sessions is None:
        return HttpResponse(HTTPStatus.FORBIDDEN)
    if SUBPROTOCOL not in [each.strip() for each in offered]:
        text = f"a browser's WebSocket offers the subprotocol `{SUBPROTOCOL.decode()}`"
        return HttpResponse(HTTPStatus.BAD_REQUEST, text)
    return AcceptedUpgrade(
        principal=None,
        address=peer.address,
        local=False,
        key=head.values(b"sec-websocket-key")[0],
        transport=peer.transport,
        rest=head.rest,
        origin=head.values(b"origin")[0].decode("latin-1"),
        compression=_compression(request, services),
    )


def authenticate(head: RequestHead, services: Services) -> Principal:
    """Return who a plain request is from; a browser is nobody but by its session."""
    authorization = _authorization(head)
    if not head.from_browser:
        return services.authenticator.authenticate(authorization, time.time())
    if services.sessions is None:
        raise AuthError("missing session token")
    method, target = head.method.decode("latin-1"), head.target.decode("latin-1")
    return services.sessions.authenticate(authorization, method, target)


def _authorization(head: RequestHead) -> bytes | None:
    return next(iter(head.values(b"authorization")), None)


def unauthorized(refusal: AuthError) -> HttpResponse:
    """Return the answer to a request whose credentials are refused."""
    headers = (("www-authenticate", "Bearer"),)
    return HttpResponse(HTTPStatus.UNAUTHORIZED, str(refusal), headers, whose=refusal.whose)
