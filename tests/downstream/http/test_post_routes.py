"""`mux.downstream.http.post_routes`: an answer from a lock screen, from the request's bytes to the
reply's."""

from __future__ import annotations

import json
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path

import attrs
import pytest
import trio
import trio.testing
from structlog.testing import capture_logs

from mux.access.devices import open_registry
from mux.access.pairing import Pairing
from mux.access.replies import Reply
from mux.access.throttle import FREE, TOO_MANY, LoginThrottle
from mux.access.tickets import DeviceGrant
from mux.core.extension.devices import Outcome
from mux.downstream.http import post_routes
from mux.downstream.http.head import RequestHead
from mux.downstream.http.http import read_head
from tests import knocks
from tests.end_to_end.peer import PATIENCE
from tests.knocks import Reply as Answered
from tests.knocks import request

PEER = "10.0.0.7:5"


@attrs.define
class Judge:
    """Judges as it is told, and remembers what it was asked."""

    reply: Reply = attrs.field(factory=lambda: Reply(HTTPStatus.OK, b'{"decided": true}'))
    asked: list[tuple[str, str, bytes, str]] = attrs.field(factory=list)

    def __call__(self, push: str, authorization: str, body: bytes, address: str) -> Reply:
        self.asked.append((push, authorization, body, address))
        return self.reply


def post(path: str, body: str = "{}", *headers: str) -> bytes:
    return request(f"POST {path}", f"content-length: {len(body)}", *headers, body=body)


async def decided(
    sent: bytes, judge: Judge | None, failures: LoginThrottle | None = None
) -> Answered:
    """What a request to `posts.decide` is answered."""

    async def serve(stream: trio.abc.HalfCloseableStream, head: RequestHead) -> None:
        await post_routes.decide(
            stream, head, "p-1", judge=judge, failures=failures or LoginThrottle(), address=PEER
        )

    return await served(sent, serve)


async def served(sent: bytes, serve: Callable[..., object]) -> Answered:
    client, server = trio.testing.memory_stream_pair()

    async def serving() -> None:
        head = await read_head(server)
        assert isinstance(head, RequestHead)
        await serve(server, head)  # type: ignore[misc]

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serving)
        reply = await knocks.ask(client, sent)
        await client.aclose()  # nobody lingers for it
        return reply


async def test_the_judge_gets_what_was_sent_and_its_word_is_the_answer() -> None:
    judge = Judge()
    reply = await decided(post("/x", '{"a": 1}', "authorization: Bearer \xe9"), judge)
    assert judge.asked == [("p-1", "Bearer \xe9", b'{"a": 1}', PEER)]
    assert (reply.status, json.loads(reply.body)) == (200, {"decided": True})
    assert reply.headers["content-type"] == "application/json"
    assert reply.headers["cache-control"] == "no-store"
    await decided(post("/x", "{}", "authorization: one", "authorization: two"), judge)
    await decided(post("/x"), judge)
    assert [authorization for _, authorization, _, _ in judge.asked[1:]] == ["one", ""]


async def test_without_a_judge_there_is_no_such_place() -> None:
    reply = await decided(post("/x"), None)
    assert (reply.status, reply.body) == (404, "")


async def test_what_is_no_body_reaches_no_judge() -> None:
    judge = Judge()
    reply = await decided(request("POST /x"), judge)
    assert (reply.status, json.loads(reply.body)["error"]) == (400, "malformed")
    assert "content-length" in json.loads(reply.body)["message"]
    assert not judge.asked


async def test_who_leaves_before_the_body_is_there_is_answered_nothing() -> None:
    judge, client_and_server = Judge(), trio.testing.memory_stream_pair()
    client, server = client_and_server
    await client.send_all(post("/x", "12345")[:-2])
    await client.send_eof()
    head = await read_head(server)
    assert isinstance(head, RequestHead)
    with trio.fail_after(PATIENCE):
        await post_routes.decide(
            server, head, "p", judge=judge, failures=LoginThrottle(), address=PEER
        )
    assert not judge.asked
    await server.aclose()
    assert await client.receive_some() == b""


async def test_a_wrong_ticket_counts_and_waits_and_the_right_one_behind_it_is_heard(
    autojump_clock: trio.testing.MockClock,
) -> None:
    failures = LoginThrottle()
    judge = Judge(Reply(HTTPStatus.UNAUTHORIZED, b'{"error": "unknown-ticket"}'))
    for number in range(1, TOO_MANY + 2):
        began = trio.current_time()
        reply = await decided(post("/x"), judge, failures)
        assert reply.status == 401
        waited = trio.current_time() - began
        assert (waited > 0) is (number > FREE)
    counted = {"total": TOO_MANY + 1, "addresses": {"10.0.0.7": TOO_MANY + 1}}
    assert failures.status() == counted
    judge.reply = Reply(HTTPStatus.OK, b"{}")
    assert (await decided(post("/x"), judge, failures)).status == 200
    assert failures.status() == counted


@pytest.mark.parametrize("status", [HTTPStatus.OK, HTTPStatus.CONFLICT, HTTPStatus.BAD_REQUEST])
async def test_only_who_is_not_known_counts(status: HTTPStatus) -> None:
    failures = LoginThrottle()
    assert (await decided(post("/x"), Judge(Reply(status, b"{}")), failures)).status == status
    assert failures.status()["total"] == 0


async def test_where_nobody_pairs_there_is_no_such_place() -> None:
    async def serve(stream: trio.abc.HalfCloseableStream, head: RequestHead) -> None:
        await post_routes.pair(stream, head, None, LoginThrottle(), PEER)

    reply = await served(post("/v1/pair"), serve)
    assert (reply.status, reply.body) == (404, "")


async def test_who_pairs_with_a_wrong_ticket_is_told_so_however_often(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    pairing = Pairing(
        open_registry(tmp_path, lambda: 0.0), lambda *_told: None, lambda *_told: None
    )
    failures = LoginThrottle()
    for _ in range(TOO_MANY):
        failures.count(PEER, trio.current_time())

    async def serve(stream: trio.abc.HalfCloseableStream, head: RequestHead) -> None:
        await post_routes.pair(stream, head, pairing, failures, PEER)

    reply = await served(post("/v1/pair", '{"ticket": "x"}'), serve)
    assert reply.status == 401


def pairing_in(tmp_path: Path) -> Pairing:
    return Pairing(open_registry(tmp_path, lambda: 0.0), lambda *_told: None, lambda *_told: None)


async def test_who_leaves_while_the_operator_thinks_is_answered_nothing(tmp_path: Path) -> None:
    pairing = pairing_in(tmp_path)
    ticket, text = pairing.begin(1, DeviceGrant("paired", frozenset({"observe"})))
    client, server = trio.testing.memory_stream_pair()
    await client.send_all(post("/v1/pair", json.dumps({"ticket": text})))
    head = await read_head(server)
    assert isinstance(head, RequestHead)
    with trio.fail_after(PATIENCE), capture_logs() as logs:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(post_routes.pair, server, head, pairing, LoginThrottle(), PEER)
            await trio.testing.wait_all_tasks_blocked()
            await client.send_eof()
    assert ticket.outcome is Outcome.LEFT
    assert [each["event"] for each in logs] == ["a device asks to be paired"]
    await server.aclose()
    assert await client.receive_some() == b""


async def test_an_answer_that_is_cut_off_pairs_nobody(tmp_path: Path) -> None:
    pairing = pairing_in(tmp_path)
    ticket, text = pairing.begin(1, DeviceGrant("paired", frozenset({"observe"})))
    client, server = trio.testing.memory_stream_pair()
    server.send_stream.send_all_hook = trio.sleep_forever
    await client.send_all(post("/v1/pair", json.dumps({"ticket": text})))
    head = await read_head(server)
    assert isinstance(head, RequestHead)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(post_routes.pair, server, head, pairing, LoginThrottle(), PEER)
        await trio.testing.wait_all_tasks_blocked()
        pairing.confirm(1, ticket.id, accept=True)
        assert len(list(pairing.registry)) == 1
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert not list(pairing.registry)


async def test_who_pairs_without_a_body_is_told_so_or_nothing_if_it_left(tmp_path: Path) -> None:
    pairing = pairing_in(tmp_path)

    async def serve(stream: trio.abc.HalfCloseableStream, head: RequestHead) -> None:
        await post_routes.pair(stream, head, pairing, LoginThrottle(), PEER)

    reply = await served(request("POST /v1/pair"), serve)
    assert reply.status == 400
    assert "content-length" in json.loads(reply.body)["message"]
    client, server = trio.testing.memory_stream_pair()
    await client.send_all(post("/v1/pair")[:-1])
    await client.send_eof()
    head = await read_head(server)
    assert isinstance(head, RequestHead)
    with trio.fail_after(PATIENCE):
        await serve(server, head)
    await server.aclose()
    assert await client.receive_some() == b""


async def test_the_log_says_whom_a_refusal_went_to_and_not_too_often(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async def pair(stream: trio.abc.HalfCloseableStream, head: RequestHead) -> None:
        await post_routes.pair(stream, head, None, LoginThrottle(), PEER)

    with capture_logs() as logs:
        await served(post("/v1/pair"), pair)
        await decided(post("/x"), None)
    answered = {
        "event": "answered over HTTP",
        "client": PEER,
        "status": 404,
        "reason": "",
        "log_level": "info",
    }
    assert logs == [answered] * 2
    failures = LoginThrottle()
    judge = Judge(Reply(HTTPStatus.UNAUTHORIZED, b"{}"))
    with capture_logs() as logs:
        for _ in range(TOO_MANY + 1):
            await decided(post("/x"), judge, failures)
        await decided(post("/x"), Judge(Reply(HTTPStatus.CONFLICT, b"{}")), failures)
    told = [each for each in logs if each["event"] == "answered over HTTP"]
    assert [each["log_level"] for each in told] == ["info"] * TOO_MANY + ["debug", "info"]
    assert {each["client"] for each in told} == {PEER}
