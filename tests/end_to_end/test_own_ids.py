"""Watches, processes and searches: each client's own, and ended with it."""

from __future__ import annotations

import base64
import os
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.brokered import brokered, client
from tests.end_to_end.peer import Json, Peer, RpcError, is_method
from tests.end_to_end.scenes import LIST, ended, eventually, running, status_shows, tapped

OUTPUT = "command/exec/outputDelta"


def _text(messages: list[Json]) -> str:
    return b"".join(base64.b64decode(m["params"]["deltaBase64"]) for m in messages).decode()


async def _wait_text(peer: Peer, method: str, wanted: str, **params: Any) -> None:
    await eventually(lambda: wanted in _text(peer.heard(method, **params)), wanted)


async def test_watches_of_the_same_id(tmp_path: Path) -> None:
    async with (
        brokered() as broker,
        client(broker, "one") as one,
        client(broker, "two") as two,
    ):
        places = {}
        for name, peer in (("one", one), ("two", two)):
            places[name] = tmp_path / name
            places[name].mkdir()
            await peer.request("fs/watch", {"watchId": "w1", "path": str(places[name])})
        with pytest.raises(RpcError, match=r"watchId already exists: w1$"):
            await one.request("fs/watch", {"watchId": "w1", "path": str(tmp_path)})
        for name, peer in (("one", one), ("two", two)):
            (places[name] / "new").write_text(name)
            await peer.wait_method("fs/changed", watchId="w1")
        for name, peer in (("one", one), ("two", two)):
            paths = [path for m in peer.heard("fs/changed") for path in m["params"]["changedPaths"]]
            assert paths
            assert all(path.startswith(str(places[name])) for path in paths)
        # One's end is not the other's.
        await one.request("fs/unwatch", {"watchId": "w1"})
        since = len(two.inbox)
        (places["two"] / "newer").write_text("two")
        await two.wait_method("fs/changed", since=since, watchId="w1")


async def test_commands_of_the_same_id() -> None:
    async with (
        brokered() as broker,
        client(broker, "one") as one,
        client(broker, "two") as two,
    ):
        cat = {
            "command": ["cat"], "cwd": str(broker.home.work), "processId": "p1",
            "streamStdin": True, "streamStdoutStderr": True, "disableTimeout": True,
        }  # fmt: skip
        ran = {}
        for name, peer in (("one", one), ("two", two)):
            ran[name] = await peer.ask("command/exec", cat)
            said = base64.b64encode(f"from {name}\n".encode()).decode()
            await peer.request("command/exec/write", {"processId": "p1", "deltaBase64": said})
        for name, peer in (("one", one), ("two", two)):
            await _wait_text(peer, OUTPUT, f"from {name}\n", processId="p1")
        with pytest.raises(RpcError, match=r'duplicate active command/exec process id: "p1"'):
            await one.request("command/exec", cat)
        await one.request("command/exec/terminate", {"processId": "p1"})
        assert (await one.result(ran["one"]))["exitCode"] != 0
        await two.request(
            "command/exec/write", {"processId": "p1", "deltaBase64": "", "closeStdin": True}
        )
        assert (await two.result(ran["two"]))["exitCode"] == 0
        for name, peer in (("one", one), ("two", two)):
            assert _text(peer.heard(OUTPUT)) == f"from {name}\n"
        with pytest.raises(RpcError, match=r'no active command/exec for process id "p1"'):
            await one.request("command/exec/terminate", {"processId": "p1"})


async def test_processes_of_the_same_handle() -> None:
    async with (
        brokered() as broker,
        client(broker, "one") as one,
        client(broker, "two") as two,
    ):
        for name, peer in (("one", one), ("two", two)):
            script = f"echo from {name}; exec sleep 600"
            spawned = {"command": ["sh", "-c", script], "cwd": str(broker.home.work)}
            await peer.request(
                "process/spawn", {**spawned, "processHandle": "h1", "streamStdoutStderr": True}
            )
        for name, peer in (("one", one), ("two", two)):
            await _wait_text(peer, "process/outputDelta", f"from {name}\n", processHandle="h1")
        await one.request("process/kill", {"processHandle": "h1"})
        await one.wait_method("process/exited", processHandle="h1")
        await two.request(LIST)
        assert two.heard("process/exited") == []
        await two.request("process/kill", {"processHandle": "h1"})
        await two.wait_method("process/exited", processHandle="h1")
        assert len(one.heard("process/exited")) == 1


async def test_searches_of_the_same_session(tmp_path: Path) -> None:
    async with (
        brokered() as broker,
        client(broker, "one") as one,
        client(broker, "two") as two,
        client(broker, "neither") as neither,
    ):
        for name, peer in (("one", one), ("two", two)):
            (tmp_path / name).mkdir()
            (tmp_path / name / f"needle-of-{name}").touch()
            roots = {"roots": [str(tmp_path / name)]}
            await peer.request("fuzzyFileSearch/sessionStart", {"sessionId": "s1", **roots})
        for peer in (one, two):
            query = {"sessionId": "s1", "query": "needle"}
            await peer.request("fuzzyFileSearch/sessionUpdate", query)
        for name, peer in (("one", one), ("two", two)):
            found = await peer.wait(
                lambda m: (
                    is_method("fuzzyFileSearch/sessionUpdated", sessionId="s1")(m)
                    and m["params"]["files"]
                )
            )
            assert {each["path"] for each in found["params"]["files"]} == {f"needle-of-{name}"}
        await neither.request(LIST)
        assert neither.heard("fuzzyFileSearch/sessionUpdated") == []


async def test_what_a_client_leaves_running_is_ended(tmp_path: Path) -> None:
    # Sleeps that nobody else has: by their length their processes are found.
    unnamed, named, spawned, staying = (f"86400.{os.getpid()}{place}" for place in range(4))
    (tmp_path / "tap").mkdir()
    async with tapped(tmp_path / "tap") as tap, client(tap.broker, "stays") as stays:
        cwd = str(tap.broker.home.work)
        async with AsyncExitStack() as stack:
            goes = await stack.enter_async_context(client(tap.broker, "goes"))
            run = {"cwd": cwd, "disableTimeout": True}
            await goes.ask("command/exec", {**run, "command": ["sleep", unnamed]})
            await goes.ask("command/exec", {**run, "command": ["sleep", named], "processId": "p"})
            spawn = {"command": ["sleep", spawned], "cwd": cwd, "processHandle": "h"}
            await goes.request("process/spawn", spawn)
            await goes.request("fs/watch", {"watchId": "w", "path": cwd})
            search = {"sessionId": "s", "roots": [cwd]}
            await goes.request("fuzzyFileSearch/sessionStart", search)
            await stays.ask(
                "command/exec", {**run, "command": ["sleep", staying], "processId": "p"}
            )
            pids = []
            for each in (unnamed, named, spawned, staying):
                await eventually(partial(running, "sleep", each), f"sleep {each}")
                pids += running("sleep", each)
        for pid in pids[:3]:
            await eventually(partial(ended, pid), f"the end of {pid}")
        for ends in ("fs/unwatch", "fuzzyFileSearch/sessionStop", "process/kill"):
            await eventually(partial(tap.asked, ends), ends)
            assert len(tap.asked(ends)) == 1
        report = await status_shows(
            stays, lambda report: report["appServer"]["requestsWaiting"] == 1
        )
        assert len(report["clients"]) == 1
        assert not ended(pids[3])
        await eventually(lambda: len(tap.asked("command/exec/terminate")) >= 2, "both terminated")
        assert len(tap.asked("command/exec/terminate")) == 2
        await stays.request("command/exec/terminate", {"processId": "p"})
        await eventually(partial(ended, pids[3]), "the end of the last one")


async def test_a_command_without_an_id_gives_what_it_natively_gives() -> None:
    async with brokered() as broker, client(broker, "one") as one:
        run = {"cwd": str(broker.home.work)}
        done = await one.request("command/exec", {**run, "command": ["echo", "hello"]})
        assert done == {"exitCode": 0, "stdout": "hello\n", "stderr": ""}
        assert one.heard(OUTPUT) == []
        streamed = {**run, "command": ["echo"], "streamStdoutStderr": True}
        with pytest.raises(RpcError, match="requires a client-supplied processId"):
            await one.request("command/exec", streamed)
