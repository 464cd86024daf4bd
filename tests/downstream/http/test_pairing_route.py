"""`POST /v1/pair` at `downstream.http.routes`, byte by byte; and the pauses of those that fail."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
import trio.testing
from msgspec import to_builtins

from mux.access.authentication import open_auth
from mux.access.devices import DeviceRegistry, open_registry
from mux.access.pairing import ASKED, ENDED, TOLD_AGAIN, Pairing
from mux.access.throttle import TOO_MANY, LoginThrottle
from mux.access.tickets import DeviceGrant
from mux.config.model import Auth
from mux.downstream.http.routes import admit
from tests import knocks
from tests.end_to_end.peer import PATIENCE
from tests.knocks import UPGRADE, Reply, peer, request

DEVICES = Auth(mode="device-token")
WANTED = DeviceGrant("paired", frozenset({"observe"}))
OPERATOR = 1


@attrs.define
class Porch:
    """A TCP listener with a door behind it, where the test is the operator."""

    port: int
    book: DeviceRegistry
    failures: LoginThrottle = attrs.field(factory=LoginThrottle)
    told: list[tuple[str, dict[str, Any]]] = attrs.field(factory=list)
    pairing: Pairing = attrs.field(init=False)
    news: trio.Event = attrs.field(factory=trio.Event)

    def __attrs_post_init__(self) -> None:
        self.pairing = Pairing(self.book, self.tell, lambda _kind, _fields: None)

    def tell(self, _client: int, method: str, params: object) -> None:
        self.told.append((method, to_builtins(params)))
        self.news.set()
        self.news = trio.Event()

    async def wait_told(self, method: str) -> dict[str, Any]:
        with trio.fail_after(PATIENCE):
            while not self.told or self.told[-1][0] != method:
                await self.news.wait()
        return self.told[-1][1]

    def ticket(self) -> tuple[int, str]:
        ticket, text = self.pairing.begin(OPERATOR, WANTED)
        return ticket.id, text

    async def knock(self, stream: trio.abc.HalfCloseableStream) -> None:
        admission = await admit(
            stream,
            peer(
                "ws",
                open_auth(DEVICES, self.book.by_token),
                "10.0.0.7:5",
                pairing=self.pairing,
                throttle=self.failures,
            ),
        )
        if admission is not None:
            await stream.send_all(b"HTTP/1.1 101 Switching Protocols\r\n\r\n")

    async def open(self) -> trio.SocketStream:
        return await trio.open_tcp_stream("127.0.0.1", self.port)

    async def ask(self, sent: bytes) -> Reply:
        async with await self.open() as stream:
            return await knocks.ask(stream, sent)


@asynccontextmanager
async def porch(tmp_path: Path) -> AsyncIterator[Porch]:
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    book = open_registry(tmp_path, lambda: 1_800_000_000.0)
    opened = Porch(listeners[0].socket.getsockname()[1], book)
    async with trio.open_nursery() as nursery:
        await nursery.start(trio.serve_listeners, opened.knock, listeners)
        yield opened
        nursery.cancel_scope.cancel()


def post(body: object, *headers: str) -> bytes:
    text = body if isinstance(body, str) else json.dumps(body)
    return request("POST /v1/pair", f"content-length: {len(text)}", *headers, body=text)


async def test_a_device_gets_its_token(tmp_path: Path) -> None:
    async with porch(tmp_path) as opened:
        id, ticket = opened.ticket()
        replies: list[Reply] = []

        async def device() -> None:
            replies.append(await opened.ask(post({"ticket": ticket, "name": "phone"})))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(device)
            assert (await opened.wait_told(ASKED))["from"] == "10.0.0.7:5"
            opened.pairing.confirm(OPERATOR, id, accept=True)
        (reply,) = replies
        assert reply.status == 200
        assert reply.headers["content-type"] == "application/json"
        assert reply.headers["cache-control"] == "no-store"
        assert (await opened.wait_told(ENDED))["outcome"] == "paired"
        bearer = f"authorization: Bearer {json.loads(reply.body)['token']}"
        assert (await opened.ask(request("GET /", *UPGRADE, bearer))).status == 101


async def test_a_body_may_come_in_pieces(tmp_path: Path) -> None:
    async with porch(tmp_path) as opened:
        id, ticket = opened.ticket()
        sent = post({"ticket": ticket})
        async with await opened.open() as stream:
            await stream.send_all(sent[:-5])
            await trio.testing.wait_all_tasks_blocked()
            await stream.send_all(sent[-5:])
            await opened.wait_told(ASKED)
            opened.pairing.confirm(OPERATOR, id, accept=False)
            assert (await knocks.ask(stream, b"")).status == 403


@pytest.mark.parametrize("at", ["head", "body", "word"])
async def test_a_device_that_hangs_up(tmp_path: Path, at: str) -> None:
    async with porch(tmp_path) as opened:
        id, ticket = opened.ticket()
        sent = post({"ticket": ticket})
        async with await opened.open() as stream:
            await stream.send_all({"head": sent[:20], "body": sent[:-5], "word": sent}[at])
            if at == "word":
                await opened.wait_told(ASKED)
        if at == "word":
            assert (await opened.wait_told(ENDED))["outcome"] == "left"
            with pytest.raises(Exception, match="isn't waiting any more"):
                opened.pairing.confirm(OPERATOR, id, accept=True)
        else:  # the ticket is as good as before
            assert not opened.told
            async with await opened.open() as again:
                await again.send_all(sent)
                await opened.wait_told(ASKED)
        assert not list(opened.book)


async def test_what_a_device_says_meanwhile_ends_it(tmp_path: Path) -> None:
    async with porch(tmp_path) as opened:
        _, ticket = opened.ticket()
        async with await opened.open() as stream:
            await stream.send_all(post({"ticket": ticket}))
            await opened.wait_told(ASKED)
            await stream.send_all(b"POST /v1/pair HTTP/1.1\r\n")
            assert (await opened.wait_told(ENDED))["outcome"] == "left"


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (post("{}"), 400),
        (post({"ticket": "x"}), 401),
        (post({"ticket": "x"}, "origin: http://x"), 403),
        (request("POST /v1/pair"), 400),
        (request("POST /v1/pair", "content-length: 4097", body="x" * 4097), 400),
        (request("POST /v1/pair", "transfer-encoding: chunked", body="2\r\n{}\r\n0\r\n\r\n"), 400),
        (request("POST /v1/pair", "content-length: -1"), 400),
        (request("POST /v1/pair", "content-length: 1", "content-length: 2", body="{}"), 400),
        (request("POST /v1/pair", "content-length: 9", body="{}       "), 400),
        (request("POST /v1/pair/", "content-length: 2", body="{}"), 405),
        (request("GET /v1/pair"), 400),
        (request("PUT /v1/pair", "content-length: 2", body="{}"), 405),
        (request("GET /v1/pair", *UPGRADE), 401),  # an upgrade may have any path
    ],
)
async def test_what_is_no_pairing(tmp_path: Path, sent: bytes, status: int) -> None:
    async with porch(tmp_path) as opened:
        _, ticket = opened.ticket()
        assert (await opened.ask(sent)).status == status
        assert not opened.told
        assert ticket


async def test_a_body_that_does_not_come(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    opened = Porch(0, open_registry(tmp_path, lambda: 1_800_000_000.0))
    client, server = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(opened.knock, server)
        reply = await knocks.ask(client, request("POST /v1/pair", "content-length: 9"))
        assert (reply.status, json.loads(reply.body)["error"]) == (400, "malformed")


async def test_a_right_ticket_is_heard_however_many_wrong_ones_came(tmp_path: Path) -> None:
    """From the same address: behind a proxy all have one."""
    async with porch(tmp_path) as opened:
        for _ in range(5 * TOO_MANY):
            opened.failures.count("10.0.0.7:9", trio.current_time())
        id, ticket = opened.ticket()
        replies: list[Reply] = []

        async def device() -> None:
            replies.append(await opened.ask(post({"ticket": ticket, "name": "phone"})))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(device)
            await opened.wait_told(ASKED)
            opened.pairing.confirm(OPERATOR, id, accept=True)
        assert replies[0].status == 200


async def test_a_used_ticket_that_comes_on_and_on(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """It is refused in few words, its operator isn't told each time, and others pair meanwhile."""
    opened = Porch(0, open_registry(tmp_path, lambda: 1_800_000_000.0))
    id, used = opened.ticket()

    async def pair(ticket: str) -> tuple[int, str | None]:
        client, server = trio.testing.memory_stream_pair()
        nursery.start_soon(opened.knock, server)
        reply = await knocks.ask(client, post({"ticket": ticket}))
        return reply.status, json.loads(reply.body).get("error")

    async def decline(id: int) -> None:
        while not any(kind == ASKED and told["id"] == id for kind, told in opened.told):
            await opened.news.wait()
        opened.pairing.confirm(OPERATOR, id, accept=False)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(decline, id)
        assert await pair(used) == (403, "declined")
        answers = [await pair(used) for _ in range(TOO_MANY + 5)]
        assert answers == [(409, "used-ticket")] * TOO_MANY + [(429, "too-many")] * 5
        again = [told for _, told in opened.told if told.get("outcome") == "again"]
        assert len(again) == TOLD_AGAIN
        other, right = opened.ticket()
        nursery.start_soon(decline, other)
        before = trio.current_time()
        assert await pair(right) == (403, "declined")
        assert trio.current_time() == before


async def test_refusals_are_counted_and_slowed_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)
        await trio.lowlevel.checkpoint()

    async with porch(tmp_path) as opened:
        monkeypatch.setattr("mux.access.throttle.trio.sleep", sleep)
        wrong = request("GET /", *UPGRADE, "authorization: Bearer amx_wrong")
        for _ in range(5):
            assert (await opened.ask(wrong)).status == 401
        assert (await opened.ask(post({"ticket": "x"}))).status == 401
        assert (await opened.ask(request("GET /healthz"))).status == 200
        assert pauses == [0.0, 0.0, 0.0, 0.1, 0.2, 0.4]
        assert opened.failures.status() == {"total": 6, "addresses": {"10.0.0.7": 6}}
