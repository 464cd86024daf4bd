"""The records of a request's way: the connection, the request, what answers it, what comes of it.

Used by ``routes``, ``upgrade``, ``server`` and ``mux.web``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Literal, Protocol

import msgspec
import trio
from msgspec.structs import replace

from mux.access.authentication import Authenticator
from mux.access.pairing import Pairing
from mux.access.sessions import Sessions
from mux.access.throttle import LoginThrottle
from mux.config.model import Compression
from mux.core.policy.principal import Principal
from mux.core.protocol.threads.overrides import Overrides
from mux.downstream.http import post_routes
from mux.downstream.http.head import HttpResponse, RequestHead
from mux.downstream.http.origins import Reach
from mux.downstream.http.proxies import Forwarding, TrustedProxies
from mux.downstream.sockets.streams import Encrypted, Patient
from mux.downstream.sockets.unauthenticated import Slot
from mux.downstream.websocket.offers import Offer

if TYPE_CHECKING:
    import h11

NOWHERE = "0.0.0.0"
"""Our end's address where it isn't known: no page is reached under it."""


class AcceptedUpgrade(msgspec.Struct, frozen=True):
    """A WebSocket upgrade that may proceed."""

    principal: Principal | None
    """None for a browser, which has yet to prove who it is."""
    address: str
    """The peer's name, for logs."""
    local: bool
    """True if the client is known to be on this host."""
    key: bytes
    """The ``Sec-WebSocket-Key`` that the 101 response is made from."""
    transport: str
    """How the client is connected, for people (``Peer.transport``)."""
    rest: bytes
    """Bytes after the request's head that have come already: first frames."""
    origin: str = ""
    """The browser's origin, which its proof names; empty for other clients."""
    compression: Offer | None = None
    """The compression of messages that the client offered and that is taken."""
    overrides: Overrides | None = None
    """The overrides of the client's command line, as they hold for it."""

    def __repr__(self) -> str:
        """Name the client without its first frames, which are nobody else's to read."""
        return f"AcceptedUpgrade({self.principal!r}, {self.address!r}, {self.transport!r})"


class Exposition(msgspec.Struct, frozen=True):
    """The metrics in the format that a scraper asked for."""

    text: str
    content_type: str


class Web(Protocol):
    """The application that answers plain requests of pages (``mux.web``)."""

    async def serve(self, request: Request) -> h11.Connection | None:
        """Answer one request.

        Return the parser for the connection's next request; None if there may be none.
        """


class Services(msgspec.Struct, frozen=True):
    """The services that answer requests: one record for a broker."""

    authenticator: Authenticator
    ready: Callable[[], bool]
    """Returns whether ``/readyz`` is to answer 200."""
    metrics: Callable[[str], Exposition] | None = None
    """Writes the metrics for a scraper's ``Accept``."""
    pairing: Pairing | None = None
    decide: post_routes.Decide | None = None
    throttle: LoginThrottle = msgspec.field(default_factory=LoginThrottle)
    """Counts and slows refused peers."""
    sessions: Sessions | None = None
    web: Web | None = None
    compression: Compression = "never"
    """Whose messages are compressed, if they offer it."""
    origins: frozenset[str] = frozenset()
    """The operator's further origins of pages (``web.origins``)."""
    proxies: TrustedProxies = msgspec.field(default_factory=TrustedProxies)
    """Those whose word on a client's address counts (``web.trusted_proxies``)."""


class Peer(msgspec.Struct, frozen=True):
    """An accepted connection, or one whose request came by a proxy: who connects where, and what
    answers it."""

    kind: Literal["ws", "unix"]
    address: str
    """The peer's name, for logs."""
    services: Services
    local: bool = False
    """The listener's (see ``TcpAddress``)."""
    secure: bool = False
    """True if the listener has TLS."""
    origin: str = ""
    """The listener's own, where that is by a name alone (see ``Listener``)."""
    place: Slot | None = None
    """Its place among those that haven't said who they are."""
    forwarding: Forwarding | None = None
    """What a trusted proxy says of the request that it passed on."""

    @property
    def transport(self) -> str:
        """The client's way of connecting, for people: ``ws``, ``unix``, ``wss by proxy ::1``."""
        if self.kind == "unix":
            return "unix"
        if self.forwarding is None:
            return "wss" if self.secure else "ws"
        secure = self.secure if self.forwarding.secure is None else self.forwarding.secure
        return f"{'wss' if secure else 'ws'} by proxy {self.forwarding.proxy}"

    @property
    def asks_for_no_token(self) -> bool:
        """True where whoever connects is let in: on a unix socket, and on an open listener."""
        return self.kind == "unix" or self.services.authenticator.open

    def who_sent(self, head: RequestHead) -> Peer:
        """Return who sent a request: whom a trusted proxy names, else the peer itself."""
        forwarding = self.services.proxies.forwarding(self.address, head)
        if forwarding is None:
            return self
        return replace(self, address=forwarding.client or self.address, forwarding=forwarding)

    def note_request(self, pending: bool) -> None:
        """Note whether a request has come that isn't answered yet."""
        if self.place is not None:
            self.place.has_request = pending


class Request(msgspec.Struct, frozen=True):
    """A request on a connection."""

    stream: trio.abc.HalfCloseableStream
    head: RequestHead
    path: bytes
    """The target without its query and, of the absolute form, without scheme and host."""
    peer: Peer

    @property
    def reach(self) -> Reach:
        """The way by which the request's connection reached us."""
        return reach_of(self.stream, self.peer)


def reach_of(stream: trio.abc.HalfCloseableStream, peer: Peer) -> Reach:
    """Return how a connection reached us."""
    scheme = "https" if peer.secure else "http"
    bare = stream.bare if isinstance(stream, Encrypted) else stream
    host, port = ("" if peer.kind == "unix" else NOWHERE), 0
    if peer.kind == "ws" and isinstance(bare, Patient):
        with suppress(OSError):  # it is gone already
            host, port = bare.socket.getsockname()[:2]
    return Reach(scheme, host, port, peer.services.origins, peer.origin)


class Answered(msgspec.Struct, frozen=True):
    """A route's function has answered by itself."""

    parser: h11.Connection | None = None
    """The parser for the connection's next request; None if there may be none."""


Outcome = AcceptedUpgrade | HttpResponse | Answered

Route = Callable[[Request, Services], Awaitable[Outcome]]
