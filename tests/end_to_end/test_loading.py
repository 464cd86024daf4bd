"""Threads that take long to load, since an MCP server that they need is slow to start."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Final

import pytest
import trio

from tests.end_to_end.brokered import brokered, client
from tests.end_to_end.native import Native
from tests.end_to_end.peer import Json, Peer, RpcError
from tests.end_to_end.scenes import LIST, eventually, status_shows, tapped

# It is that of all requests, of the broker's `initialize` too: a busy machine takes a second.
DEADLINE: Final = 6.0

LIMITS: Final = {
    "APPMUX_LIMITS_LOADING_SLOT": "0.5",
    "APPMUX_LIMITS_REQUEST_DEADLINE": str(DEADLINE),
    "APPMUX_LIMITS_IN_FLIGHT_PER_CLIENT": "2",
    "APPMUX_LIMITS_LOADING": "2",
}


def needing(go: Path) -> Json:
    """A config whose threads aren't loaded before the file is there."""
    server: dict[str, Any] = {"command": sys.executable, "required": True}
    server["args"] = [str(Path(__file__).with_name("waiter.py")), str(go)]
    server["startup_timeout_sec"] = 100
    return {"mcp_servers": {"waiter": server}}


async def _starts(broker: Native, peer: Peer) -> int | str:
    return await peer.ask("thread/start", {"cwd": str(broker.home.work)})


async def _the_deadline_passes() -> None:
    """Nothing is to happen meanwhile, so there is nothing to wait for but the time."""
    await trio.sleep(1.1 * DEADLINE)


async def test_it_is_given_past_the_deadline_and_its_asker_goes_on_meanwhile(
    tmp_path: Path,
) -> None:
    go = tmp_path / "go"
    async with (
        brokered(config=needing(go), environ=LIMITS) as broker,
        client(broker, "desk") as desk,
    ):
        asked = [await _starts(broker, desk) for _ in range(2)]
        await desk.request(LIST)  # it has both its slots back
        await _the_deadline_passes()
        go.touch()
        thread, _ = [(await desk.result(each))["thread"]["id"] for each in asked]
        await desk.run_turn(thread, "hello")
        go.unlink()
        forked = await desk.ask("thread/fork", {"threadId": thread, "excludeTurns": True})
        await _the_deadline_passes()
        go.touch()
        await desk.run_turn((await desk.result(forked))["thread"]["id"], "hello")


async def test_one_whose_asker_has_left_is_let_go(tmp_path: Path) -> None:
    go = tmp_path / "go"
    async with tapped(tmp_path, config=needing(go)) as tap:
        async with client(tap.broker, "leaves") as leaves:
            await _starts(tap.broker, leaves)
            await leaves.request(LIST)
        async with client(tap.broker, "comes") as comes:
            await status_shows(comes, lambda report: len(report["clients"]) == 1)
        assert tap.asked("thread/unsubscribe") == []
        go.touch()
        await eventually(lambda: len(tap.asked("thread/unsubscribe")) == 1, "given back")
        async with client(tap.broker, "comes") as comes:
            await status_shows(comes, lambda report: report["threads"] == [])


async def test_a_planned_restart_waits_for_it_no_longer_than_for_any(tmp_path: Path) -> None:
    async with (
        brokered(config=needing(tmp_path / "never"), environ=LIMITS) as broker,
        client(broker, "desk") as desk,
        client(broker, "operator") as operator,
    ):
        asked = await _starts(broker, desk)
        assert (await operator.request("mux/restart"))["generation"] == 2
        with pytest.raises(RpcError, match="thread/start"):
            await desk.result(asked)
