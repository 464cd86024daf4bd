"""A browser's session on a real broker, by its bytes: the challenge, plain requests, the end."""

from __future__ import annotations

import json
from typing import Any

import pytest
import trio

from tests import knocks
from tests.end_to_end.brokered import brokered
from tests.end_to_end.browsers import Browser, Key, origin_of
from tests.end_to_end.devices import (
    DEVICES_ONLY,
    appmux,
    closed,
    listed,
    operator_of,
    pair,
)
from tests.end_to_end.native import Native
from tests.end_to_end.peer import Peer, RpcError, connect_ws
from tests.extension_schemas import faults

PROVE = "mux/session/prove"


async def refused(peer: Peer, params: Any) -> tuple[int, str | None, int]:
    """What a wrong first message is answered: the error's code, its reason, the close code."""
    with pytest.raises(RpcError) as refusal:
        await peer.request(PROVE, params)
    assert not list(faults("session.refused", "data", refusal.value.data))
    await peer.wait_gone()
    return refusal.value.code, refusal.value.data["reason"], closed(peer)[0]


async def test_who_does_not_prove_who_it_is_is_nobody() -> None:
    async with brokered() as broker, operator_of(broker) as operator:
        browser, other = Browser(origin_of(broker)), Browser(origin_of(broker))
        for each in (browser, other):
            await each.pair(operator, "observe", name=f"browser {each is other}")
        async with browser.knock() as first, browser.knock() as second:
            challenge, newer = [
                (await peer.wait_method("mux/session/challenge"))["params"]
                for peer in (first, second)
            ]
            assert challenge["nonce"] != newer["nonce"]
            assert await refused(second, browser.proof(challenge)) == (
                -32020,
                "wrong-signature",
                4401,
            )
            assert await refused(first, browser.proof(challenge) | {"device": other.device}) == (
                -32020,
                "wrong-signature",
                4401,
            )
        stranger = Browser(origin_of(broker), Key(), "0" * 16)
        async with stranger.knock() as peer:
            challenge = (await peer.wait_method("mux/session/challenge"))["params"]
            assert await refused(peer, stranger.proof(challenge)) == (
                -32020,
                "unknown-device",
                4401,
            )
        wrong: tuple[Any, ...] = (
            {"id": 1, "method": "initialize", "params": {}},
            {"id": 1, "method": "mux/status"},
            {"id": 1, "method": PROVE, "params": {"device": browser.device}},
            {"method": PROVE, "params": browser.proof(challenge)},
            [],
        )
        for said in wrong:
            async with browser.knock() as peer:
                await peer.send_raw(json.dumps(said))
                await peer.wait_gone()
                assert closed(peer)[0] == 4400, said
                assert [m.get("method") for m in peer.inbox] == ["mux/session/challenge"], said
        async with browser.knock() as peer:
            await peer.send_raw(b"binary")
            await peer.wait_gone()
            assert closed(peer)[0] == 4400
        async with browser.knock() as peer:
            await peer.send_raw("x" * 5000)
            await peer.wait_gone()
            assert closed(peer)[0] == 1009  # before it has proved anything it may say that little
        assert len((await operator.request("mux/status"))["clients"]) == 1


async def test_what_is_sent_right_behind_the_proof_is_answered_after_it() -> None:
    async with brokered() as broker, operator_of(broker) as operator:
        browser = Browser(origin_of(broker))
        await browser.pair(operator, "observe")
        async with browser.knock() as peer:
            challenge = (await peer.wait_method("mux/session/challenge"))["params"]
            proved = await peer.ask(PROVE, browser.proof(challenge))
            client = {"name": "page", "title": None, "version": "0.1"}
            extension = {"extensions": {"appmux": {"version": 1}}}
            said = {"clientInfo": client, "capabilities": extension}
            greeted = await peer.ask("initialize", said)
            await peer.notify("initialized")
            listed = await peer.ask("mux/inbox", {"follow": True})
            assert (await peer.result(listed))["threads"] == []
            answers = [each["id"] for each in peer.inbox if "result" in each]
            assert answers == [proved, greeted, listed]
        stranger = Browser(origin_of(broker), device="device:ffffffffffffffff")
        async with stranger.knock() as peer:
            challenge = (await peer.wait_method("mux/session/challenge"))["params"]
            await peer.ask(PROVE, stranger.proof(challenge))
            await peer.ask("mux/inbox")
            await peer.wait_gone()
            answered = [each for each in peer.inbox if "id" in each]
            assert [each["error"]["code"] for each in answered] == [-32020]


async def test_one_that_says_nothing_is_given_up() -> None:
    async with brokered() as broker, Browser(origin_of(broker)).knock() as peer:
        await peer.wait_gone(timeout=30)
        assert closed(peer)[0] == 4408


async def test_a_browser_has_nothing_of_an_open_listener() -> None:
    """Not by its WebSocket, and not by a plain request."""
    async with brokered() as broker, operator_of(broker) as operator:
        browser = Browser(origin_of(broker))
        await browser.pair(operator, "observe")
        for method, path, status in (
            ("GET", "/metrics", 401),
            ("POST", "/v1/pair", 403),
            ("GET", "/v1/session", 401),
            ("DELETE", "/v1/session", 401),
            ("GET", "/v1/none", 404),
            ("PUT", "/v1/session", 405),
        ):
            reply = await browser.send(method, path, {} if method != "GET" else None)
            assert reply.status == status, (method, path, reply)
        async with browser.connect() as peer:
            token = peer.hello["token"]["token"]
            await peer.initialize("page")
            presence = (await peer.request("mux/presence/read"))["clients"]
            assert {each["name"]: each["scopes"] for each in presence}["page"] == ["observe"]
            reply = await browser.send("GET", "/metrics", None, f"authorization: Bearer {token}")
            assert (reply.status, reply.body) == (403, "`/metrics` needs the scope `admin`")
        without = [("Origin", browser.origin)]
        host = browser.origin.partition("://")[2]
        async with await trio.open_tcp_stream("127.0.0.1", int(host.rpartition(":")[2])) as stream:
            sent = knocks.request("GET /", *knocks.UPGRADE, f"origin: {without[0][1]}")
            sent = sent.replace(b"host: x\r\n", f"host: {host}\r\n".encode())
            reply = await knocks.ask(stream, sent)
            assert (reply.status, "appmux.v1" in reply.body) == (400, True)


async def test_plain_requests_go_by_the_short_token_and_end_with_the_device() -> None:
    async with brokered(*DEVICES_ONLY) as broker, operator_of(broker) as operator:
        browser = Browser(origin_of(broker))
        await browser.pair(operator, "observe", "approve", name="Ada's phone")
        async with browser.connect() as peer:
            await peer.initialize("page")
            made = await peer.request("mux/session/token")
            bearer = f"authorization: Bearer {made['token']}"
            address = {"server": "https://ntfy.invalid", "topic": "t"}
            await peer.request("mux/push/register", {"service": "ntfy", "address": address})
            assert (await operator.request("mux/push/list", {"all": True}))["endpoints"]
            who = json.loads((await browser.send("GET", "/v1/session", None, bearer)).body)
            assert (who["name"], who["scopes"]) == ("Ada's phone", ["approve", "observe"])
            reply = await browser.send("DELETE", "/v1/session", None, bearer)
            assert reply.status == 204
            await peer.wait_gone()
            assert closed(peer)[0] == 4401
        assert (await browser.send("GET", "/v1/session", None, bearer)).status == 401
        assert not listed(await operator.request("mux/devices/list"))
        assert not (await operator.request("mux/push/list", {"all": True}))["endpoints"]
        assert made["token"] not in broker.shown()
        (left,) = await audited(broker, "device/left")
        assert "Ada's phone" in json.dumps(left)


async def audited(broker: Native, kind: str) -> list[dict[str, Any]]:
    """The records of a kind in the audit log."""
    done = await appmux(broker, "audit", "--json")
    records = [json.loads(line) for line in done.stdout.splitlines()]
    return [each for each in records if each["kind"] == kind]


async def test_any_device_ends_itself_and_nobody_else_does() -> None:
    async with brokered(*DEVICES_ONLY) as broker, operator_of(broker) as operator:
        token = await pair(broker, operator, "phone", "approve")
        async with connect_ws(broker.url, token) as phone:
            with pytest.raises(RpcError, match="only a browser's session"):
                await phone.request("mux/session/token")
            assert await phone.request("mux/session/end") == {}
            await phone.wait_gone()
            assert closed(phone)[0] == 4401
        assert not listed(await operator.request("mux/devices/list"))
        with pytest.raises(RpcError, match="you aren't one"):
            await operator.request("mux/session/end")
        with pytest.raises(RpcError, match="once"):
            await operator.request(PROVE, {"device": "x", "signature": "y"})


async def test_a_worker_signs_its_requests_and_needs_no_websocket() -> None:
    async with brokered() as broker, operator_of(broker) as operator:
        browser = Browser(origin_of(broker))
        await browser.pair(operator, "observe", "drive", name="a worker")

        async def signed(method: str, path: str, *more: str, challenged: bool = True) -> Any:
            if challenged:
                told = await browser.send("POST", "/v1/session/challenge", {})
                assert told.status == 200
                assert not list(faults("session", "challenge", json.loads(told.body)))
                challenges.append(json.loads(told.body))
            challenge = challenges[-1]
            lines = (challenge["nonce"], browser.origin, str(challenge["time"]), method, path)
            proof = browser.key.sign("appmux request", browser.device, *lines)
            header = f"authorization: appmux {browser.device} {challenge['nonce']} {proof}"
            return await browser.send(method, path, None, header, *more)

        challenges: list[Any] = []
        who = await signed("GET", "/v1/session")
        assert (who.status, json.loads(who.body)["name"]) == (200, "a worker")
        assert (await signed("GET", "/v1/session", challenged=False)).status == 401
        tus = ("tus-resumable: 1.0.0", "upload-length: 0", "content-length: 0")
        assert (await signed("POST", "/v1/files", *tus)).status == 201
        assert (await signed("DELETE", "/v1/session")).status == 204
        assert (await signed("GET", "/v1/session")).status == 401
