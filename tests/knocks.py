"""Requests at the HTTP door, byte by byte, and what the app-server answers to each.

`CASES` is checked against `downstream.http.routes` (`test_routes`) and against the app-server's own
listener (`end_to_end/test_auth_native`). Both ask for `TOKEN` as capability token.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final, Literal

import attrs
import trio

from mux.access.authentication import Authenticator
from mux.downstream.http.request import Peer, Services
from tests.end_to_end.peer import PATIENCE

TOKEN: Final = "the-token"
KEY: Final = "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ=="
VERSION: Final = "sec-websocket-version: 13"
UPGRADE: Final = ("connection: Upgrade", "upgrade: websocket", VERSION, KEY)
AUTHORIZED: Final = (*UPGRADE, f"authorization: Bearer {TOKEN}")

NO_UPGRADE: Final = "Connection header did not include 'upgrade'"
NO_WEBSOCKET: Final = "`Upgrade` header did not include 'websocket'"
NO_KEY: Final = "`Sec-WebSocket-Key` header missing"
NO_VERSION: Final = "`Sec-WebSocket-Version` header did not include '13'"
NO_GET: Final = "Request method must be `GET`"
NO_STATE: Final = "WebSocket request couldn't be upgraded since no upgrade state was present"
NO_TOKEN: Final = "missing websocket bearer token"


def request(line: str, *headers: str, body: str = "") -> bytes:
    """A request with a Host header and `headers`; `line` lacks only the HTTP version, if any."""
    if "HTTP/" not in line:
        line += " HTTP/1.1"
    return "\r\n".join([line, "host: x", *headers, "", body]).encode("latin-1")


def local(line: str) -> bytes:
    """A request under a name of this machine, as metrics are asked for."""
    return request(line).replace(b"host: x", b"host: localhost")


def at_address(sent: bytes) -> bytes:
    """The same request to an address, not to a name."""
    return sent.replace(b"host: x\r\n", b"host: 127.0.0.1:14500\r\n", 1)


def without(*left_out: str, plus: Sequence[str] = ()) -> tuple[str, ...]:
    """The headers of an authorized upgrade, some left out, some more."""
    kept = [header for header in AUTHORIZED if not header.startswith(left_out)]
    return (*kept, *plus)


CASES: Final[dict[str, tuple[bytes, int, str]]] = {
    "healthz": (request("GET /healthz"), 200, ""),
    "readyz": (request("GET /readyz"), 200, ""),
    "healthz by HEAD": (request("HEAD /healthz"), 200, ""),
    "healthz by POST": (request("POST /healthz", "content-length: 0"), 405, ""),
    "healthz with a query": (request("GET /healthz?x=1"), 200, ""),
    "healthz in absolute form": (request("GET http://x/healthz"), 200, ""),
    "healthz with a slash": (request("GET /healthz/"), 400, NO_UPGRADE),
    "healthz in HTTP/1.0": (request("GET /healthz HTTP/1.0"), 200, ""),
    "healthz with a body": (request("GET /healthz", "content-length: 3", body="abc"), 200, ""),
    "healthz as an upgrade": (request("GET /healthz", *AUTHORIZED), 200, ""),
    "healthz with line feeds": (b"GET /healthz HTTP/1.1\nhost: x\n\n", 200, ""),
    "healthz from a page": (request("GET /healthz", "origin: null"), 403, ""),
    "an empty origin": (request("GET /healthz", "origin:"), 403, ""),
    "a page's POST": (request("POST /", "origin: http://x", "content-length: 0"), 403, ""),
    "a page's upgrade": (request("GET /", *AUTHORIZED, "origin: http://x"), 403, ""),
    "a page's upgrade without token": (request("GET /", *UPGRADE, "origin: x"), 403, ""),
    "a plain GET": (request("GET /"), 400, NO_UPGRADE),
    "a HEAD": (request("HEAD /"), 405, ""),
    "a POST": (request("POST /", "content-length: 3", body="abc"), 405, NO_GET),
    "a POST as an upgrade": (request("POST /", *AUTHORIZED), 405, NO_GET),
    "OPTIONS": (request("OPTIONS *"), 405, NO_GET),
    "the upgrade": (request("GET /", *AUTHORIZED), 101, ""),
    "the upgrade elsewhere": (request("GET /any/path?a=b", *AUTHORIZED), 101, ""),
    "the upgrade, unauthorized": (request("GET /", *UPGRADE), 401, NO_TOKEN),
    "Connection with more": (
        request("GET /", *without("connection", plus=["connection: keep-alive, upgrade"])),
        101,
        "",
    ),
    "Upgrade in capitals": (
        request("GET /", *without("upgrade", plus=["upgrade: WebSocket"])),
        101,
        "",
    ),
    "no Connection": (request("GET /", *without("connection")), 400, NO_UPGRADE),
    "no Upgrade": (request("GET /", *without("upgrade")), 400, NO_WEBSOCKET),
    "another Upgrade": (
        request("GET /", *without("upgrade", plus=["upgrade: h2c"])),
        400,
        NO_WEBSOCKET,
    ),
    "a list in Upgrade": (
        request("GET /", *without("upgrade", plus=["upgrade: foo, websocket"])),
        400,
        NO_WEBSOCKET,
    ),
    "no key": (request("GET /", *without(KEY)), 400, NO_KEY),
    "no version": (request("GET /", *without(VERSION)), 400, NO_VERSION),
    "another version": (
        request("GET /", *without(VERSION, plus=["sec-websocket-version: 8"])),
        400,
        NO_VERSION,
    ),
    "no key, no version, no token": (request("GET /", *UPGRADE[:2]), 400, NO_KEY),
    "no version, no token": (request("GET /", *UPGRADE[:2], KEY), 400, NO_VERSION),
    "the upgrade in HTTP/1.0": (request("GET / HTTP/1.0", *AUTHORIZED), 426, NO_STATE),
    "a short key": (
        request("GET /", *without(KEY, plus=["sec-websocket-key: abc"])),
        101,
        "",
    ),
    "an odd Host": (request("GET /", *AUTHORIZED).replace(b"x", b"\xff" * 70, 1), 101, ""),
    "extensions and subprotocols": (
        request(
            "GET /",
            *AUTHORIZED,
            "sec-websocket-extensions: permessage-deflate",
            "sec-websocket-protocol: a, b",
            "x-codex-app-server-compression: zstd-stream-v1",
        ),
        101,
        "",
    ),
    "no HTTP": (b"abc\r\n\r\n", 400, ""),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01" + b"\x00" * 40, 400, ""),
    "bare JSON": (b'{"id":1,"method":"initialize"}\n', 400, ""),
    "a later HTTP": (request("GET / HTTP/1.2"), 400, ""),
    "a header without a colon": (request("GET / HTTP/1.1", "foo bar"), 400, ""),
    "a space before the colon": (request("GET / HTTP/1.1", "foo : bar"), 400, ""),
    "an enormous head": (request("GET /healthz", "foo: " + "a" * 600_000), 431, ""),
}
"""By name: a request, the status, and the body."""


def peer(
    kind: Literal["ws", "unix"],
    authenticator: Authenticator,
    address: str = "somebody",
    *,
    ready: Callable[[], bool] = lambda: True,
    local: bool = False,
    secure: bool = False,
    **services: Any,
) -> Peer:
    """A connection to a broker that has these services."""
    return Peer(kind, address, Services(authenticator, ready, **services), local, secure)


@attrs.frozen
class Reply:
    """A response, as far as it came."""

    status: int
    headers: dict[str, str]
    body: str


async def ask(stream: trio.abc.Stream, sent: bytes) -> Reply:
    """Send, and read one response: an upgrade's head, or all that its content-length says."""
    received = b""
    async with trio.open_nursery() as nursery:

        async def send() -> None:
            # It may have answered, and closed, before it heard everything.
            with suppress(trio.BrokenResourceError):
                await stream.send_all(sent)

        nursery.start_soon(send)
        with trio.fail_after(PATIENCE):
            while (reply := _parse(received, head_only=sent.startswith(b"HEAD"))) is None:
                piece = await stream.receive_some()
                if not piece:
                    raise EOFError(received)
                received += piece
        nursery.cancel_scope.cancel()
    return reply


def _parse(received: bytes, *, head_only: bool) -> Reply | None:
    head, complete, body = received.partition(b"\r\n\r\n")
    if not complete:
        return None
    first, *lines = head.decode("ascii").split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    length = 0 if head_only else int(headers.get("content-length", "0"))
    if len(body) < length:
        return None
    return Reply(int(first.split(" ")[1]), headers, body[:length].decode())
