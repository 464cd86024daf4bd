"""`mux.downstream.http.routes`: what is answered over HTTP, and what gets through."""

from __future__ import annotations

import hashlib
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Literal

import attrs
import pytest
import trio
import trio.testing
from hypothesis import example, given
from hypothesis import strategies as st

from mux.access.authentication import open_auth
from mux.config.model import Auth
from mux.core.policy.principal import Principal
from mux.downstream.http import http
from mux.downstream.http.head import HEAD_BYTES, RequestHead
from mux.downstream.http.odd_heads import HeadParser
from mux.downstream.http.request import AcceptedUpgrade
from mux.downstream.http.routes import admit
from mux.downstream.sockets.streams import Patient
from tests import knocks
from tests.knocks import AUTHORIZED, UPGRADE, peer, request

CLOSED = open_auth(
    Auth(
        mode="capability-token",
        token_sha256=hashlib.sha256(knocks.TOKEN.encode()).hexdigest(),
    )
)
OPEN = open_auth(Auth())


@attrs.define
class Porch:
    """A TCP listener with a door behind it, and what came through."""

    port: int
    kind: Literal["ws", "unix"] = "ws"
    ready: bool = True
    admissions: list[AcceptedUpgrade | None] = attrs.field(factory=list)
    done: trio.Semaphore = attrs.field(factory=lambda: trio.Semaphore(0))

    async def knock(self, stream: trio.SocketStream) -> None:
        admission = await admit(
            stream, peer(self.kind, CLOSED, "somebody", ready=lambda: self.ready)
        )
        self.admissions.append(admission)
        if admission is not None:
            await stream.send_all(b"HTTP/1.1 101 Switching Protocols\r\n\r\n")
        self.done.release()

    async def ask(self, sent: bytes) -> tuple[int, str]:
        async with await trio.open_tcp_stream("127.0.0.1", self.port) as stream:
            reply = await knocks.ask(stream, sent)
        await self.done.acquire()
        return reply.status, reply.body


@asynccontextmanager
async def porch() -> AsyncIterator[Porch]:
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    opened = Porch(listeners[0].socket.getsockname()[1])
    async with trio.open_nursery() as nursery:
        await nursery.start(trio.serve_listeners, opened.knock, listeners)
        yield opened
        nursery.cancel_scope.cancel()


async def test_answers_as_natively() -> None:
    async with porch() as opened:
        answers = {name: await opened.ask(case[0]) for name, case in knocks.CASES.items()}
    assert answers == {name: case[1:] for name, case in knocks.CASES.items()}
    admitted = [each is not None for each in opened.admissions]
    assert admitted == [case[1] == 101 for case in knocks.CASES.values()]


async def test_readyz_asks_whether_the_broker_is_ready() -> None:
    async with porch() as opened:
        opened.ready = False
        assert await opened.ask(request("GET /readyz")) == (503, "")
        assert await opened.ask(request("GET /healthz")) == (200, "")
        opened.ready = True
        assert await opened.ask(request("GET /readyz")) == (200, "")


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (request("GET /healthz"), 200),
        (request("GET /", *UPGRADE), 101),
        (request("GET /rpc", *UPGRADE, "authorization: Basic x"), 101),
        # A page's, by way of a proxy: it has nothing of the socket's owner.
        (request("GET /rpc", *UPGRADE, "origin: http://x"), 403),
        (request("POST /", "content-length: 0"), 405),
    ],
)
async def test_a_unix_socket_asks_for_no_token(sent: bytes, status: int) -> None:
    async with porch() as opened:
        opened.kind = "unix"
        assert (await opened.ask(sent))[0] == status
    admission = opened.admissions[0]
    assert (admission is not None) == (status == 101)
    if admission is not None:
        assert admission.principal == Principal("local", "local-user")


async def test_answers_say_how_to_go_on() -> None:
    async with porch() as opened:
        for sent, name, value in (
            (request("GET /"), "connection", "close"),
            (request("GET /"), "content-type", "text/plain; charset=utf-8"),
            (request("POST /healthz"), "allow", "GET,HEAD"),
            (request("POST /"), "allow", "GET"),
            (request("GET /", *UPGRADE), "www-authenticate", "Bearer"),
            (request("HEAD /"), "content-length", str(len(knocks.NO_GET))),
        ):
            async with await trio.open_tcp_stream("127.0.0.1", opened.port) as stream:
                reply = await knocks.ask(stream, sent)
                assert reply.headers[name] == value
                assert await stream.receive_some() == b""  # closed, and not reset


# -- what gets through -----------------------------------------------------------------------------


async def admitted(sent: bytes, kind: Literal["ws", "unix"] = "ws") -> AcceptedUpgrade:
    client, server = trio.testing.memory_stream_pair()
    await client.send_all(sent)
    admission = await admit(server, peer(kind, CLOSED, "somebody", ready=lambda: True))
    assert admission is not None
    return admission


async def test_an_admission_tells_who_and_where_without_the_secret() -> None:
    admission = await admitted(request("GET /any?x=1", *AUTHORIZED))
    assert admission.principal == Principal("capability-token", "capability-token")
    assert admission.address == "somebody"
    assert knocks.TOKEN not in repr(admission)
    assert knocks.TOKEN.encode() not in admission.rest


@pytest.mark.parametrize(
    "name", [name for name, (_, status, _) in knocks.CASES.items() if status == 101]
)
@pytest.mark.parametrize("rest", [b"", b"\x81\x80abcd"])
async def test_an_admission_has_what_the_websocket_begins_with(name: str, rest: bytes) -> None:
    admission = await admitted(knocks.CASES[name][0] + rest)
    assert b"sec-websocket-key: " + admission.key + b"\r\n" in knocks.CASES[name][0]
    assert admission.rest == rest


@pytest.mark.parametrize(
    ("kind", "listener_local", "address", "headers", "local"),
    [
        ("unix", False, "unix", (), True),
        ("ws", True, "127.0.0.1:5", (), True),
        ("ws", True, "[::1]:5", ("host: [::1]:14500",), True),
        # As nginx and HAProxy pass on what comes from anywhere: nothing tells it from the above.
        ("ws", False, "127.0.0.1:5", (), False),
        ("ws", True, "127.0.0.1:5", ("host: appmux.example",), False),
        ("ws", True, "127.0.0.1:5", ("x-forwarded-for: 192.0.2.7",), False),
        ("ws", True, "192.0.2.7:5", (), False),
    ],
)
async def test_who_is_local(
    kind: Literal["ws", "unix"],
    listener_local: bool,
    address: str,
    headers: tuple[str, ...],
    local: bool,
) -> None:
    client, server = trio.testing.memory_stream_pair()
    sent = request("GET /", *AUTHORIZED, *headers)
    if any(each.startswith("host:") for each in headers):
        sent = sent.replace(b"host: x\r\n", b"", 1)
    else:
        sent = sent.replace(b"host: x\r\n", b"host: 127.0.0.1:14500\r\n", 1)
    await client.send_all(sent)
    admission = await admit(
        server, peer(kind, CLOSED, address, ready=lambda: True, local=listener_local)
    )
    assert admission is not None
    assert admission.local is local


@given(cuts=st.lists(st.integers(min_value=0, max_value=300), max_size=6))
def test_a_head_in_pieces_is_the_same_head(cuts: list[int]) -> None:
    sent = request("GET /x", *AUTHORIZED)
    places = sorted({0, len(sent), *(cut for cut in cuts if cut < len(sent))})
    pieces = [sent[a:b] for a, b in pairwise(places)]

    async def dribble() -> AcceptedUpgrade | None:
        client, server = trio.testing.memory_stream_pair()
        async with trio.open_nursery() as nursery:

            async def send() -> None:
                for piece in pieces:
                    await client.send_all(piece)
                    await trio.testing.wait_all_tasks_blocked()

            nursery.start_soon(send)
            return await admit(server, peer("ws", CLOSED, "somebody", ready=lambda: True))

    assert trio.run(dribble) == trio.run(admitted, sent)


@pytest.mark.parametrize("there", [0, 10, 400])
async def test_a_head_is_the_same_whether_it_is_there_already_or_comes(there: int) -> None:
    sent = request("GET /x", *AUTHORIZED) + b"rest"
    near, far = socket.socketpair()
    patient = Patient(trio.socket.from_stdlib_socket(near))
    with far:
        far.sendall(sent[:there])
        async with trio.open_nursery() as nursery:

            async def send_the_rest() -> None:
                await trio.testing.wait_all_tasks_blocked()
                far.sendall(sent[there:])

            if there < len(sent):
                nursery.start_soon(send_the_rest)
            admission = await admit(patient, peer("ws", CLOSED, "somebody", ready=lambda: True))
    assert admission is not None
    assert (admission.key, admission.rest) == (b"dGhlIHNhbXBsZSBub25jZQ==", b"rest")
    await patient.aclose()


@pytest.mark.parametrize("said", [b"", b"GET / HTTP/1.1\r\n"])
async def test_one_that_left_before_it_was_looked_at_is_nobody(said: bytes) -> None:
    near, far = socket.socketpair()
    far.sendall(said)
    far.close()
    patient = Patient(trio.socket.from_stdlib_socket(near))
    assert await admit(patient, peer("ws", CLOSED, "somebody", ready=lambda: True)) is None


ODD = (" ", "\t", "\n", "\r", "\0", "\x7f", "\xe9", ":", "a", "host", "\r\n", "\r\n\r\n", " \r\n b")
HEADERS = (*AUTHORIZED, "x: a b", "content-length: 3", "transfer-encoding: chunked", "host: y")


def fields(head: RequestHead) -> tuple[object, ...]:
    """What both parsers read of a head."""
    return head.method, head.target, head.version, head.headers, head.rest


@given(
    line=st.sampled_from(
        ["GET /x?y HTTP/1.1", "GET * HTTP/1.1", "GET / HTTP/1.0", "PUT / HTTP/1.1"]
    ),
    headers=st.lists(st.sampled_from(HEADERS), max_size=8),
    odd=st.lists(st.tuples(st.integers(0, 300), st.sampled_from(ODD)), max_size=2),
)
@example(line="GET /x?y HTTP/1.1", headers=list(AUTHORIZED), odd=[])
def test_the_short_way_reads_what_the_library_reads(
    line: str, headers: list[str], odd: list[tuple[int, str]]
) -> None:
    """Whatever it takes on; and the plain upgrade it does."""
    sent = request(line, *headers, body="rest")
    for place, text in odd:
        sent = sent[:place] + text.encode("latin-1") + sent[place:]
    short = http._usual(sent)
    if short is not None:
        read = HeadParser().feed(sent)
        assert isinstance(read, RequestHead)
        assert fields(read) == fields(short)
    assert short is not None or odd or line != "GET /x?y HTTP/1.1" or headers != list(AUTHORIZED)


@given(sent=st.binary(max_size=300) | st.binary(max_size=99).map(b"GET / HTTP/1.1\r\n".__add__))
def test_any_bytes_are_answered_and_never_a_crash(sent: bytes) -> None:
    async def story() -> None:
        client, server = trio.testing.memory_stream_pair()
        await client.send_all(sent)
        await client.send_eof()
        assert await admit(server, peer("ws", OPEN, "somebody", ready=lambda: True)) is None
        received = bytes(await client.receive_some())
        assert received == b"" or received.startswith(b"HTTP/1.1 ")

    trio.run(story)


# -- peers that don't play along -------------------------------------------------------------------


async def test_a_peer_that_leaves_is_nobody() -> None:
    async with porch() as opened:
        async with await trio.open_tcp_stream("127.0.0.1", opened.port) as stream:
            await stream.send_all(b"GET / HT")
        await opened.done.acquire()
        assert opened.admissions == [None]


async def test_a_head_that_never_ends_is_given_up(autojump_clock: trio.testing.MockClock) -> None:
    client, server = trio.testing.memory_stream_pair()
    await client.send_all(b"GET / HTTP/1.1\r\n")
    started = trio.current_time()
    assert await admit(server, peer("ws", CLOSED, "somebody", ready=lambda: True)) is None
    assert (await client.receive_some()).startswith(b"HTTP/1.1 408 ")
    # The head's deadline, and then the lingering for a peer that doesn't close.
    assert trio.current_time() - started == http.HEAD_DEADLINE + http.LINGER_DEADLINE


async def test_a_head_is_read_no_further_than_its_limit() -> None:
    client, server = trio.testing.memory_stream_pair()
    head = b"GET / HTTP/1.1\r\nx: "
    await client.send_all(head + b"a" * (HEAD_BYTES - len(head)))
    async with trio.open_nursery() as nursery:

        async def read() -> None:
            assert (await client.receive_some()).startswith(b"HTTP/1.1 431 ")
            await client.send_eof()

        nursery.start_soon(read)
        assert await admit(server, peer("ws", CLOSED, "somebody", ready=lambda: True)) is None


async def test_a_peer_that_takes_no_answer_is_given_up(
    autojump_clock: trio.testing.MockClock,
) -> None:
    client, server = trio.testing.lockstep_stream_pair()
    await_answer = trio.current_time() + http.ANSWER_DEADLINE
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.send_all, request("GET /"))
        assert await admit(server, peer("ws", CLOSED, "somebody", ready=lambda: True)) is None
    assert trio.current_time() == await_answer
