"""`mux.web.transfer` and the adapter's way to it: long bodies between a real socket and a file."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import attrs
import h11
import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from mux.access.authentication import open_auth
from mux.config.model import Auth
from mux.downstream.http.request import Request
from mux.downstream.http.routes import admit
from mux.downstream.sockets.streams import Patient
from mux.web import adapter, limits, transfer
from tests import knocks

PIECE = transfer.PIECE_BYTES


@attrs.define
class Web:
    """Stands for the web's application: one ASGI app, behind the adapter."""

    app: Any

    async def serve(self, request: Request) -> h11.Connection | None:
        return await adapter.serve(self.app, request)


@asynccontextmanager
async def served(app: Any) -> AsyncIterator[trio.SocketStream]:
    """A browser's connection by a real socket, as TCP without TLS has it."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    client = trio.SocketStream(trio.socket.from_stdlib_socket(theirs))
    peer = knocks.peer("unix", open_auth(Auth()), web=Web(app))
    stream = Patient(trio.socket.from_stdlib_socket(ours))
    try:
        async with client, trio.open_nursery() as nursery:
            nursery.start_soon(admit, stream, peer)
            yield client
            await client.aclose()
            nursery.cancel_scope.cancel()
    finally:
        await trio.aclose_forcefully(stream)


def head(method: str, *headers: str) -> bytes:
    lines = [f"{method} / HTTP/1.1", "host: localhost:14500", "origin: http://localhost:14500"]
    return "\r\n".join([*lines, *headers, "", ""]).encode()


@attrs.define
class Poured:
    """An application that pours its requests' bodies, and says how long they were."""

    bodies: list[bytes] = attrs.field(factory=list)

    async def __call__(self, scope: Any, _receive: Any, send: Any) -> None:
        body = bytearray()
        pour = scope["extensions"].get(adapter.POUR)
        while pour is not None and await pour(body.extend):
            pass
        self.bodies.append(bytes(body))
        answer = b"%d" % len(body)
        headers = [(b"content-length", b"%d" % len(answer))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": answer})


async def answer(client: trio.SocketStream) -> tuple[int, bytes]:
    """The next response; a connection must have been read whole before the next is asked for."""
    parser = h11.Connection(h11.CLIENT)
    parser.send(h11.Request(method="GET", target="/", headers=[("host", "x")]))
    parser.send(h11.EndOfMessage())
    status, body, left = 0, b"", 1
    while not isinstance(event := parser.next_event(), h11.EndOfMessage):
        if event is h11.NEED_DATA:  # of a body as much as it has, of a head one byte: no more
            parser.receive_data(bytes(await client.receive_some(left)))
        elif isinstance(event, h11.Response):
            status = event.status_code
            left = int(dict(event.headers)[b"content-length"])
        elif isinstance(event, h11.Data):
            body += bytes(event.data)
            left = max(1, left - len(event.data))
    return status, body


SIZES = st.sampled_from([0, 1, 100, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE + 7])


@settings(deadline=None, max_examples=25)
@given(sizes=st.lists(SIZES, min_size=1, max_size=3), together=st.booleans())
def test_bodies_are_poured_whole_one_after_the_other(sizes: list[int], together: bool) -> None:
    bodies = [os.urandom(size) for size in sizes]
    sent = [head("POST", f"content-length: {len(body)}") + body for body in bodies]
    app = Poured()

    async def story() -> None:
        async with served(app) as client, trio.open_nursery() as nursery:
            if together:
                nursery.start_soon(client.send_all, b"".join(sent))
            for each, body in zip(sent, bodies, strict=True):
                if not together:
                    nursery.start_soon(client.send_all, each)
                assert await answer(client) == (200, b"%d" % len(body))

    trio.run(story)
    assert app.bodies == bodies


async def test_who_waits_to_send_a_body_is_told_to() -> None:
    async with served(Poured()) as client:
        await client.send_all(head("POST", "content-length: 3", "expect: 100-continue"))
        assert bytes(await client.receive_some()).startswith(b"HTTP/1.1 100 ")
        await client.send_all(b"abc")
        assert await answer(client) == (200, b"3")


async def test_a_body_of_two_lengths_is_not_poured() -> None:
    """Whoever went by the other one would take its rest for the next request."""
    seen: list[bool] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(adapter.POUR in scope["extensions"])
        while (await receive())["more_body"]:
            pass
        headers = [(b"content-length", b"0")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b""})

    async with served(app) as client:
        both = head("POST", "content-length: 3", "transfer-encoding: chunked")
        await client.send_all(both + b"5\r\nhello\r\n0\r\n\r\n" + head("GET"))
        assert await answer(client) == (200, b"")
        assert await answer(client) == (200, b"")
    assert seen == [False, False]


async def test_a_body_that_ends_early_is_no_whole_body() -> None:
    ended: list[BaseException] = []

    async def app(scope: Any, _receive: Any, _send: Any) -> None:
        came = bytearray()
        try:
            while await scope["extensions"][adapter.POUR](came.extend):
                pass
        except OSError as broken:
            ended.append(broken)
            assert bytes(came) == b"abc"
            raise

    async with served(app) as client:
        await client.send_all(head("POST", "content-length: 9") + b"abc")
        await client.send_eof()
        assert await client.receive_some() == b""
    assert len(ended) == 1


async def test_a_body_that_does_not_come_costs_a_bounded_time(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with served(Poured()) as client:
        await client.send_all(head("POST", "content-length: 9"))
        with suppress(trio.BrokenResourceError):
            assert await client.receive_some() == b""
    assert trio.current_time() == limits.BODY_SECONDS


async def test_what_a_writer_raises_passes_and_is_asked_once() -> None:
    asked: list[int] = []

    def refuse(piece: memoryview) -> None:
        asked.append(len(piece))
        raise ValueError("no")

    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        theirs.sendall(bytes(1000))
        with pytest.raises(ValueError, match="no"):
            await trio.to_thread.run_sync(transfer.receive, ours.fileno(), 1000, refuse)
    assert asked == [1000]


async def test_a_refusal_is_read_although_the_body_is_not() -> None:
    async def refusing(_scope: Any, _receive: Any, send: Any) -> None:
        headers = [(b"content-length", b"2")]
        await send({"type": "http.response.start", "status": 403, "headers": headers})
        await send({"type": "http.response.body", "body": b"no"})

    body = bytes(16 * 1024 * 1024)
    async with served(refusing) as client, trio.open_nursery() as nursery:

        async def send() -> None:
            with suppress(trio.BrokenResourceError):
                await client.send_all(head("POST", f"content-length: {len(body)}") + body)

        nursery.start_soon(send)
        assert await answer(client) == (403, b"no")
        nursery.cancel_scope.cancel()


# --- The other way -------------------------------------------------------------------------------


WHOLE = os.urandom(3 * PIECE + 11)


@pytest.fixture
def file() -> Iterator[int]:
    with tempfile.TemporaryFile() as made:
        made.write(WHOLE)
        made.flush()
        yield made.fileno()


def sending(file: int, at: int, count: int, *, more: bytes = b"") -> Any:
    async def app(scope: Any, _receive: Any, send: Any) -> None:
        assert adapter.SEND_FILE in scope["extensions"]
        headers = [(b"content-length", b"%d" % (count + len(more)))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        part = {"file": file, "offset": at, "count": count, "more_body": True}
        await send({"type": adapter.SEND_FILE, **part})
        await send({"type": "http.response.body", "body": more})

    return app


async def test_a_part_of_a_file_is_sent_and_the_connection_goes_on(file: int) -> None:
    async with served(sending(file, 5, 2 * PIECE, more=b"end")) as client:
        for _ in range(2):
            await client.send_all(head("GET"))
            assert await answer(client) == (200, WHOLE[5 : 5 + 2 * PIECE] + b"end")


async def test_a_file_that_is_shorter_breaks_the_response_off(file: int) -> None:
    async with served(sending(file, 0, 4 * PIECE)) as client:
        await client.send_all(head("GET"))
        came = b""
        with suppress(trio.BrokenResourceError):
            while piece := await client.receive_some():
                came += bytes(piece)
    assert came.partition(b"\r\n\r\n")[2] == WHOLE


async def test_a_peer_that_takes_nothing_costs_a_bounded_time(
    file: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adapter, "WRITE_SECONDS", 0.2)  # threads don't go by a test's clock
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    peer = knocks.peer("unix", open_auth(Auth()), web=Web(sending(file, 0, 3 * PIECE)))
    with theirs:
        theirs.sendall(head("GET"))
        with trio.fail_after(limits.WRITE_SECONDS):
            assert await admit(Patient(trio.socket.from_stdlib_socket(ours)), peer) is None
