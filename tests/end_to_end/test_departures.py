"""Departures: of a client with requests open, and of the app-server with everybody's open."""

from __future__ import annotations

import os
import signal

import pytest
import trio

from mux.demo.scripted_model import Hold, Run, Say, Scripted
from tests.end_to_end.brokered import brokered, client, errors
from tests.end_to_end.native import Native
from tests.end_to_end.peer import Json, Peer, RpcError, connect, connect_ws
from tests.end_to_end.scenes import (
    DELTA,
    LIST,
    TURN_COMPLETED,
    app_server_pid,
    eventually,
    shared_thread,
    status_shows,
)

SLEEP = ["sleep", "600"]


async def _busy(broker: Native, peer: Peer, thread: str) -> None:
    """Leave the peer with a turn, a command and many small requests open."""
    await peer.start_turn(thread, "hold it")
    await peer.wait_method(DELTA, threadId=thread)
    run = {"command": SLEEP, "cwd": str(broker.home.work), "disableTimeout": True}
    await peer.ask("command/exec", run)
    for _ in range(200):
        await peer.ask(LIST)


@pytest.mark.parametrize("rudely", [False, True])
async def test_a_client_that_leaves_in_the_middle_of_everything(rudely: bool) -> None:
    model = Scripted()
    model.on("hold it", Say(chunks=("one", Hold("gate"), "two")))
    async with brokered(model=model) as broker, client(broker, "stays") as stays:
        pid = await app_server_pid(stays)
        host, _, port = broker.url.removeprefix("ws://").rpartition(":")
        stream = await trio.open_tcp_stream(host, int(port))
        async with connect(stream, host, "/") as goes:
            await goes.initialize("goes")
            thread = await shared_thread(broker, goes, stays)
            await _busy(broker, goes, thread)
            if rudely:
                await stream.aclose()  # without a word
        report = await status_shows(
            stays,
            lambda report: (
                len(report["clients"]) == 1
                and report["appServer"]["requestsInFlight"] == 0
                and report["appServer"]["requestsWaiting"] == 0
                and report["appServer"]["requestsQueued"] == 0
            ),
        )
        [shown] = report["threads"]
        assert shown["followers"] == [report["clients"][0]["id"]]
        assert shown["turn"] is not None
        since = len(stays.inbox)
        model.release("gate")
        await stays.wait_method(TURN_COMPLETED, since=since, threadId=thread)
        assert stays.heard(DELTA, since=since, threadId=thread, delta="two")
        assert await app_server_pid(stays) == pid
        assert not errors(broker)


async def test_a_thousand_comings_and_goings_leave_nothing() -> None:
    async with brokered() as broker, client(broker, "stays") as stays:
        limit = trio.CapacityLimiter(8)

        async def visit(number: int) -> None:
            async with limit, connect_ws(broker.url) as peer:
                if number % 3:
                    await peer.initialize(f"visitor {number}")
                if number % 2:
                    await peer.ask(LIST)

        async with trio.open_nursery() as nursery:
            for number in range(200):
                nursery.start_soon(visit, number)
        report = await status_shows(stays, lambda report: len(report["clients"]) == 1)
        assert report["threads"] == report["serverRequests"] == []
        descriptors = f"/proc/{report['broker']['pid']}/fd"
        await eventually(lambda: len(os.listdir(descriptors)) < 40, "its descriptors are closed")  # noqa: PTH208


async def test_the_app_server_leaves_with_everybodys_requests_open() -> None:
    model = Scripted()
    model.on("run it", Run("true", escalated=True))
    async with (
        brokered(model=model) as broker,
        client(broker, "one") as one,
        client(broker, "two") as two,
    ):
        thread = await shared_thread(broker, one, two)
        await one.start_turn(thread, "run it")
        pid = await app_server_pid(two)
        waits: dict[str, tuple[Peer, int | str]] = {}
        run = {"command": SLEEP, "cwd": str(broker.home.work), "disableTimeout": True}
        for name, peer in (("one", one), ("two", two)):
            waits[name] = (peer, await peer.ask("command/exec", run))
        await status_shows(two, lambda report: report["appServer"]["requestsWaiting"] == 2)
        os.kill(pid, signal.SIGKILL)
        for peer, id in waits.values():
            with pytest.raises(RpcError, match="app-server ended before it answered") as caught:
                await peer.result(id)
            assert "command/exec" in caught.value.message
            data: Json = caught.value.data
            assert data["retryable"] is False
