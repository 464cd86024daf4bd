"""The HTTP routes: requests that are answered on a connection before it becomes a WebSocket.

`admit` reads a request's head, answers health checks and refusals itself, hands what is the web's
to its application (``Web``), and lets an upgrade through together with its ``Principal``. Statuses,
bodies and the order of the checks are the app-server's own, measured on its ``ws://`` listener.
There are three departures: the connection closes after every response of ours, a head that doesn't
come is answered 408, and unix sockets answer health checks too.

A browser's request is judged first (see ``origins``), and has none of the listener's rights: its
upgrade goes through without a principal, and with a challenge in its place.

Used by ``server``, for each stream that ``listener`` accepts; ``connection`` then answers an
``AcceptedUpgrade`` with 101. ``post_routes`` answers the POSTs.

A new route is one more row of `ROUTES`; what is a page's belongs to ``mux.web``.
"""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import Final

import structlog
import trio

from mux import documents
from mux.access.authentication import AuthError
from mux.downstream.http import origins, post_routes
from mux.downstream.http.head import HttpResponse, RequestHead
from mux.downstream.http.http import answer, hold_back, read_head
from mux.downstream.http.proxies import passed_on
from mux.downstream.http.request import (
    AcceptedUpgrade,
    Answered,
    Outcome,
    Peer,
    Request,
    Route,
    Services,
)
from mux.downstream.http.upgrade import (
    authenticate,
    is_from_here,
    malformed_upgrade,
    unauthorized,
    upgrade,
)

APPROVALS: Final = b"/v1/approvals/"
FILES: Final = b"/v1/files"

UNKNOWN_NAME: Final = (
    "appmux isn't reached under this name: open a listener's address, or add the name to"
    " `web.origins` in the settings\n"
)
"""What a person sees who typed a name that isn't the broker's."""

PASSED_ON: Final = (
    "a proxy passed this on, and here whoever connects is let in without a token: let the proxy"
    " connect to a WebSocket listener that asks for one (`--ws-auth`), see"
    f" {documents.page('proxy')}\n"
)
"""What comes back from a listener that asks for no token, to whoever comes by a proxy."""

_ABSOLUTE_FORM = re.compile(rb"\Ahttps?://[^/?]*", re.IGNORECASE)

log = structlog.get_logger()


async def admit(stream: trio.abc.HalfCloseableStream, peer: Peer) -> AcceptedUpgrade | None:
    """Read requests until one is an upgrade that may proceed, and return that.

    All others are answered. Where none follows any more, the stream is closed, and None returned. A
    peer that breaks off gives None. Raises nothing of its own.
    """
    head = await read_head(stream)
    while isinstance(head, RequestHead):
        peer.note_request(True)
        request = Request(stream, head, _path(head), peer.who_sent(head))
        outcome = await _route(request, peer.services)
        if isinstance(outcome, AcceptedUpgrade):
            return outcome
        if isinstance(outcome, HttpResponse):
            address = request.peer.address
            counted = await hold_back(
                outcome.status, peer.services.throttle, address, outcome.whose
            )
            loud = counted is None or counted.loud
            await answer(stream, outcome, head.method, address, loud=loud)
        if not isinstance(outcome, Answered) or outcome.parser is None:
            break
        from mux.downstream.http.odd_heads import read_next_head  # noqa: PLC0415 (it has read the first)

        peer.note_request(False)
        head = await read_next_head(stream, outcome.parser)
    if isinstance(head, HttpResponse):
        await answer(stream, head, b"GET", peer.address)
    await stream.aclose()
    return None


# -- which route -----------------------------------------------------------------------------------


async def _route(request: Request, services: Services) -> Outcome:
    head, path = request.head, request.path
    if request.peer.asks_for_no_token and passed_on(head):
        return HttpResponse(HTTPStatus.FORBIDDEN, PASSED_ON)
    if head.from_browser and (refusal := _refuse_page(request)) is not None:
        return refusal
    route = ROUTES.get((head.method, path)) or ROUTES.get((ANY, path))
    if route is not None:
        return await route(request, services)
    if head.method == b"POST" and path.startswith(APPROVALS):
        return await _decide(request, services)
    if services.web is None or not _is_the_webs(head, path):
        return malformed_upgrade(head) or upgrade(request, services)
    asks_for_page = not (head.from_browser or _is_of_files(path))
    if asks_for_page and (refusal := _refuse_page(request)) is not None:
        return refusal
    return Answered(await services.web.serve(request))


def _is_of_files(path: bytes) -> bool:
    """Return whether a request is about a file: programs ask too, under any name of ours."""
    return path == FILES or path.startswith(FILES + b"/")


def _refuse_page(request: Request) -> HttpResponse | None:
    reason = origins.refused(request.head, request.path, request.reach)
    if reason is None:
        return None
    log.info("a page was refused", client=request.peer.address, reason=reason)
    lost = not origins.host_allowed(request.head, request.reach) and _wants_page(request.head)
    return HttpResponse(HTTPStatus.FORBIDDEN, UNKNOWN_NAME if lost else "")


def _path(head: RequestHead) -> bytes:
    # Proxies send the absolute form, which is legal for everybody.
    target = _ABSOLUTE_FORM.sub(b"", head.target)
    return target.partition(b"?")[0]


def _is_the_webs(head: RequestHead, path: bytes) -> bool:
    """Return whether a request is for the web's application, as no native client's is.

    That is each of a browser's that isn't an upgrade. Where a page isn't encrypted, browsers don't
    say that they are browsers: there it goes by the name of a file, and by who wants HTML.
    """
    if head.values(b"upgrade"):
        return False
    if head.from_browser or path == SESSION or _is_of_files(path):
        return True
    if head.method not in (b"GET", b"HEAD"):
        return False
    return _wants_page(head) or b"." in path.rpartition(b"/")[2]


def _wants_page(head: RequestHead) -> bool:
    return head.method == b"GET" and any(b"text/html" in each for each in head.values(b"accept"))


# -- health and metrics ----------------------------------------------------------------------------


async def _healthz(request: Request, _services: Services) -> Outcome:
    return _health(request.head, well=True)


async def _readyz(request: Request, services: Services) -> Outcome:
    return _health(request.head, well=services.ready())


def _health(head: RequestHead, *, well: bool) -> HttpResponse:
    if head.method not in (b"GET", b"HEAD"):
        return HttpResponse(HTTPStatus.METHOD_NOT_ALLOWED, headers=(("allow", "GET,HEAD"),))
    return HttpResponse(HTTPStatus.OK if well else HTTPStatus.SERVICE_UNAVAILABLE)


async def _metrics(request: Request, services: Services) -> Outcome:
    if services.metrics is None:
        return malformed_upgrade(request.head) or upgrade(request, services)
    refusal = _refuse_metrics(request, services)
    if refusal is not None:
        return refusal
    accept = b",".join(request.head.values(b"accept")).decode("latin-1")
    exposition = services.metrics(accept)
    return HttpResponse(HTTPStatus.OK, exposition.text, content_type=exposition.content_type)


def _refuse_metrics(request: Request, services: Services) -> HttpResponse | None:
    """Return the refusal of a request for the metrics, if any.

    A scraper on this machine needs no token: metrics are counts, no texts. A browser does, and so
    does who asks by a name: a page could have had its own name point to us.
    """
    head, peer = request.head, request.peer
    if head.method not in (b"GET", b"HEAD"):
        return HttpResponse(HTTPStatus.METHOD_NOT_ALLOWED, headers=(("allow", "GET,HEAD"),))
    by_address = origins.host_is_address(head)
    here = peer.kind == "unix" or (is_from_here(head, peer) and by_address)
    if here and not head.from_browser:
        return None
    try:
        principal = authenticate(head, services)
    except AuthError as refusal:
        return unauthorized(refusal)
    if "admin" not in principal.scopes or (principal.kind == "open" and not by_address):
        return HttpResponse(HTTPStatus.FORBIDDEN, "`/metrics` needs the scope `admin`")
    return None


# -- the POSTs -------------------------------------------------------------------------------------


async def _pair(request: Request, services: Services) -> Outcome:
    if request.head.from_browser:  # its answer holds a token, which no page is to have
        return HttpResponse(HTTPStatus.FORBIDDEN, "browsers are paired at `/v1/session`")
    await post_routes.pair(
        request.stream, request.head, services.pairing, services.throttle, request.peer.address
    )
    return Answered()


async def _decide(request: Request, services: Services) -> Outcome:
    await post_routes.decide(
        request.stream,
        request.head,
        request.path.removeprefix(APPROVALS).decode("ascii", "replace"),
        judge=services.decide,
        failures=services.throttle,
        address=request.peer.address,
    )
    return Answered()


# -- the rows --------------------------------------------------------------------------------------

ANY: Final = b"*"
"""Every method."""

SESSION: Final = b"/v1/session"
"""The web's own path that programs may ask for, too; they are told why it isn't for them."""

ROUTES: Final[dict[tuple[bytes, bytes], Route]] = {
    (ANY, b"/healthz"): _healthz,
    (ANY, b"/readyz"): _readyz,
    (ANY, b"/metrics"): _metrics,
    (b"POST", b"/v1/pair"): _pair,
}
"""Method and path, and what answers them. ``POST /v1/approvals/ID`` is beside them."""
