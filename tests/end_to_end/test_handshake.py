"""The handshake: one upstream, and for each client as if it had the app-server to itself."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mux.demo.scripted_model import Say, Scripted
from tests.end_to_end.brokered import brokered, client
from tests.end_to_end.native import native_stdio
from tests.end_to_end.peer import RpcError, connect_unix, connect_ws
from tests.end_to_end.scenes import DELTA, LIST, TURN_COMPLETED, shared_thread, tapped

USER_AGENT = re.compile(r"([^/]+)/(\d+\.\d+\.\d+\S*) \(.+\) .+ \((.+); 0\.1\)")
GREETING = "remoteControl/status/changed"


async def test_each_client_is_answered_as_natively() -> None:
    async with native_stdio() as app_server:
        native = await app_server.peer.initialize("desk")
    async with (
        brokered() as broker,
        client(broker, "desk") as desk,
        connect_unix(broker.socket) as phone,
    ):
        await phone.initialize("phone")
        assert desk.hello.keys() == phone.hello.keys() == native.keys()
        for peer, name in ((desk, "desk"), (phone, "phone")):
            agent = USER_AGENT.fullmatch(peer.hello["userAgent"])
            assert agent is not None
            assert agent[2] == native["userAgent"].partition("/")[2].split()[0]
            assert agent[3] == name
            assert peer.hello["codexHome"] == str(broker.home.codex_home)
            for platform in ("platformFamily", "platformOs"):
                assert peer.hello[platform] == native[platform]


async def test_one_initialize_goes_upstream(tmp_path: Path) -> None:
    async with tapped(tmp_path) as tap:
        for name in ("one", "two", "codex_app_server_daemon"):
            async with client(tap.broker, name) as peer:
                await peer.request(LIST)
        assert [each["clientInfo"]["name"] for each in tap.asked("initialize")] == ["appmux"]
        assert tap.sent.count(b'{"method":"initialized"}') == 1


async def test_what_comes_out_of_order_is_refused_in_the_native_words() -> None:
    async with brokered() as broker, connect_ws(broker.url) as peer:
        for method in (LIST, "thread/start", "turn/start"):
            with pytest.raises(RpcError, match="-32600: Not initialized"):
                await peer.request(method)
        # Params that don't fit are the app-server's to judge.
        with pytest.raises(RpcError, match="-32600: Invalid request: missing field `clientInfo`"):
            await peer.request("initialize", {"capabilities": {}})
        with pytest.raises(RpcError, match="-32600: Not initialized"):
            await peer.request(LIST)
        await peer.initialize("late")
        with pytest.raises(RpcError, match="-32600: Already initialized"):
            await peer.initialize("late again")
        with pytest.raises(RpcError, match="-32600: Invalid request: unknown variant"):
            await peer.request("no/such/method")
        assert await peer.request(LIST) == {"data": [], "nextCursor": None}


async def test_nothing_is_heard_before_the_handshake() -> None:
    async with (
        brokered() as broker,
        connect_ws(broker.url) as silent,
        client(broker, "desk") as desk,
    ):
        await shared_thread(broker, desk)
        assert desk.heard("thread/status/changed")
        await silent.request("mux/status")
        assert [each for each in silent.inbox if "method" in each] == []


async def test_greetings_reach_each_newcomer_once() -> None:
    async with brokered() as broker, client(broker, "first") as first:
        await first.wait_method(GREETING)
        async with client(broker, "second") as second:
            await second.wait_method(GREETING)
            await first.request(LIST)
            await second.request(LIST)
            for peer in (first, second):
                assert len(peer.heard(GREETING)) == 1
                order = [each.get("method", "answer") for each in peer.inbox]
                assert order.index("answer") < order.index(GREETING)
            warnings = [each["params"] for each in first.heard("configWarning")]
            assert [each["params"] for each in second.heard("configWarning")] == warnings


async def test_opt_outs_are_each_clients_own() -> None:
    model = Scripted()
    model.on("say it", Say("one two three", chunks=3))
    async with (
        brokered(model=model) as broker,
        client(broker, "all") as everything,
        client(broker, "few", optOutNotificationMethods=[DELTA, GREETING, "no/such"]) as few,
    ):
        thread = await shared_thread(broker, everything, few)
        since = len(everything.inbox), len(few.inbox)
        await few.start_turn(thread, "say it")
        await few.wait_method(TURN_COMPLETED, since=since[1])
        await everything.wait_method(TURN_COMPLETED, since=since[0])
        assert len(everything.heard(DELTA, since=since[0])) == 3
        assert few.heard(DELTA) == few.heard(GREETING) == []
        assert few.heard("item/completed", since=since[1])
