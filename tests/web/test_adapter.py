"""`mux.web.adapter`: requests on one connection, an ASGI application behind it, and slow peers."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from itertools import pairwise
from typing import Any

import attrs
import h11
import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from mux.access.authentication import open_auth
from mux.config.model import Auth
from mux.downstream.http import odd_heads
from mux.downstream.http.request import Request, Services
from mux.downstream.http.routes import admit
from mux.web import adapter, limits
from tests import knocks

HOST = "host: localhost:14500"


@attrs.define
class Web:
    """Stands for the web's application: one ASGI app, behind the adapter."""

    app: Any

    async def serve(self, request: Request) -> h11.Connection | None:
        return await adapter.serve(self.app, request)


@asynccontextmanager
async def served(app: Any) -> AsyncIterator[trio.abc.Stream]:
    """A browser's connection to a broker with this application."""
    client, server = trio.testing.memory_stream_pair()
    # A unix socket is reached under every loopback name (`ssh -L`).
    peer = knocks.peer("unix", open_auth(Auth()), web=Web(app))
    async with trio.open_nursery() as nursery:

        async def serve() -> None:
            assert await admit(server, peer) is None

        nursery.start_soon(serve)
        yield client
        await client.aclose()
        nursery.cancel_scope.cancel()


def get(path: str = "/", *headers: str, method: str = "GET", body: bytes = b"") -> bytes:
    lines = [f"{method} {path} HTTP/1.1", HOST, "origin: http://localhost:14500", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


async def answers(client: trio.abc.Stream, sent: bytes, count: int = 1) -> list[tuple[int, bytes]]:
    """Send, and read so many responses; what they say of themselves is h11's to check."""
    parser = h11.Connection(h11.CLIENT)
    found = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.send_all, sent)
        for _ in range(count):
            parser.send(h11.Request(method="GET", target="/", headers=[("host", "x")]))
            parser.send(h11.EndOfMessage())
            status, body = 0, b""
            while not isinstance(event := parser.next_event(), h11.EndOfMessage):
                if event is h11.NEED_DATA:
                    parser.receive_data(bytes(await client.receive_some()))
                elif isinstance(event, h11.Response):
                    status = event.status_code
                elif isinstance(event, h11.Data):
                    body += bytes(event.data)
            found.append((status, body))
            if parser.their_state is h11.DONE:
                parser.start_next_cycle()
        nursery.cancel_scope.cancel()
    return found


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Answers with the method, the path and the body, in pieces as they come."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    words = f"{scope['method']} {scope['path']} ".encode()
    await send({"type": "http.response.body", "body": words, "more_body": True})
    more = True
    while more:
        message = await receive()
        more = message["more_body"]
        await send({"type": "http.response.body", "body": message["body"], "more_body": more})


async def test_a_connection_stays_open_for_the_next_request() -> None:
    requests = [
        get("/one"),
        get("/two", "content-length: 3", method="POST", body=b"abc"),
        get(
            "/thr%20ee?x", "transfer-encoding: chunked", method="PUT", body=b"2\r\nde\r\n0\r\n\r\n"
        ),
    ]
    wanted = [(200, b"GET /one "), (200, b"POST /two abc"), (200, b"PUT /thr ee de")]
    async with served(echo) as client:
        for sent, answer in zip(requests, wanted, strict=True):
            assert await answers(client, sent) == [answer]
    async with served(echo) as client:  # pipelined
        assert await answers(client, b"".join(requests), 3) == wanted


@given(cuts=st.lists(st.integers(0, 400), max_size=5), size=st.integers(0, 200))
def test_a_body_in_pieces_is_the_same_body(cuts: list[int], size: int) -> None:
    sent = get("/", f"content-length: {size}", method="POST", body=b"x" * size)
    places = sorted({0, len(sent), *(cut for cut in cuts if cut < len(sent))})

    async def story() -> None:
        async with served(echo) as client:
            for start, end in pairwise(places):
                await client.send_all(sent[start:end])
                await trio.testing.wait_all_tasks_blocked()
            assert await answers(client, b"") == [(200, b"POST / " + b"x" * size)]

    trio.run(story)


async def test_health_and_an_upgrade_on_a_connection_that_stays_open() -> None:
    async with served(echo) as client:
        assert (await answers(client, get("/one")))[0][0] == 200
        assert await answers(client, get("/readyz")) == [(200, b"")]
        assert await client.receive_some() == b""  # which closes it, as always


async def test_what_is_left_of_a_body_is_read_off_or_the_connection_closed() -> None:
    async def deaf(_scope: Any, _receive: Any, send: Any) -> None:
        headers = [(b"content-length", b"0")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body"})

    async with served(deaf) as client:
        short = get("/", "content-length: 3", method="POST", body=b"abc")
        assert await answers(client, short + get("/"), 2) == [(200, b""), (200, b"")]
        length = limits.DRAINED_BYTES + 100_000
        long = get("/", f"content-length: {length}", method="POST", body=b"a" * length)
        with suppress(trio.BrokenResourceError):
            assert await answers(client, long) == [(200, b"")]
        with suppress(trio.BrokenResourceError):
            assert await client.receive_some() == b""


async def test_a_response_waits_for_its_peer() -> None:
    sent: list[int] = []

    async def large(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for number in range(100):
            body = b"a" * limits.WRITE_BYTES
            await send({"type": "http.response.body", "body": body, "more_body": True})
            sent.append(number)

    client, server = trio.testing.lockstep_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(admit, server, knocks.peer("unix", open_auth(Auth()), web=Web(large)))
        await client.send_all(get("/"))
        await client.receive_some(100_000)
        await trio.testing.wait_all_tasks_blocked()
        assert len(sent) <= 2
        nursery.cancel_scope.cancel()


async def test_a_peer_that_takes_nothing_costs_a_bounded_time(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def large(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"a" * 1_000_000})

    client, server = trio.testing.lockstep_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.send_all, get("/"))
        assert await admit(server, knocks.peer("unix", open_auth(Auth()), web=Web(large))) is None
    assert trio.current_time() == limits.WRITE_SECONDS


async def test_a_body_that_does_not_come_costs_a_bounded_time(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with served(echo) as client:
        await client.send_all(get("/", "content-length: 9", method="POST", body=b"abc"))
        with suppress(trio.BrokenResourceError):
            while await client.receive_some():
                pass
    assert trio.current_time() == limits.BODY_SECONDS


async def test_an_idle_connection_is_closed(autojump_clock: trio.testing.MockClock) -> None:
    async with served(echo) as client:
        await answers(client, get("/"))
        assert await client.receive_some() == b""
    assert trio.current_time() == odd_heads.KEEP_ALIVE_SECONDS


Crash = Callable[[Any, Any, Any], Awaitable[None]]


async def at_once(_scope: Any, _receive: Any, _send: Any) -> None:
    raise RuntimeError("a bug")


async def in_between(_scope: Any, _receive: Any, send: Any) -> None:
    headers = [(b"content-length", b"10")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    raise RuntimeError("a bug")


@pytest.mark.parametrize(("crash", "begins"), [(at_once, b" 500 "), (in_between, b" 200 ")])
async def test_a_crash_is_logged_and_ends_its_request_alone(crash: Crash, begins: bytes) -> None:
    with capture_logs() as logs:
        async with served(crash) as client:
            await client.send_all(get("/"))
            received = bytes(await client.receive_some())
    assert begins in received[:20]
    assert logs[0]["event"] == "a page's request crashed"


async def test_a_malformed_body_ends_the_connection() -> None:
    async with served(echo) as client:
        await client.send_all(get("/", "transfer-encoding: chunked", method="POST", body=b"zz\r\n"))
        with suppress(trio.BrokenResourceError):
            while await client.receive_some():
                pass


async def test_a_head_has_no_body() -> None:
    async with served(echo) as client:
        await client.send_all(get("/", method="HEAD"))
        received = bytes(await client.receive_some())
        assert received.startswith(b"HTTP/1.1 200 ")
        assert b"HEAD /" not in received


async def test_who_waits_to_send_a_body_is_told_to() -> None:
    async def polite(_scope: Any, receive: Any, send: Any) -> None:
        message = await receive()
        headers = [(b"content-length", b"3")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": message["body"]})

    async with served(polite) as client:
        await client.send_all(get("/", "content-length: 3", "expect: 100-continue", method="POST"))
        assert bytes(await client.receive_some()).startswith(b"HTTP/1.1 100 ")
        await client.send_all(b"abc")
        received = b""
        while not received.endswith(b"abc"):
            received += bytes(await client.receive_some())


def test_the_webs_libraries_are_loaded_with_the_first_page() -> None:
    """A start, and a broker that nobody opens in a browser, pay nothing for it."""
    code = "import sys, mux.server.serve; print([n for n in sys.modules if n in sys.argv])"
    names = ("starlette", "anyio", "mux.web.application", "cryptography")
    command = [sys.executable, "-c", code, *names]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    assert Services(open_auth(Auth()), bool).web is None
