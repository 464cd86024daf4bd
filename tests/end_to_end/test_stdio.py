"""The stdio door: lines in, lines out, and what becomes of its client when one side goes."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import attrs
import pytest
import trio

from mux.demo.scripted_model import Hold, Run, Say
from mux.host.unit_files import MARKER
from mux.stdio.bridge import ANSWERS_DEADLINE
from tests.end_to_end.brokered import brokered, client
from tests.end_to_end.doors import APPMUX, door, environ, opened
from tests.end_to_end.lives import Stage, staged
from tests.end_to_end.native import Native, private_home
from tests.end_to_end.peer import PATIENCE, Json, Peer, RpcError, StdioLink
from tests.end_to_end.scenes import (
    ACCEPT,
    APPROVAL,
    DELTA,
    LIST,
    RESOLVED,
    TURN_COMPLETED,
    eventually,
    join,
    kill_at_once,
    shared_thread,
    status_shows,
)

MIB = 2**20


@pytest.fixture
async def broker() -> AsyncIterator[Native]:
    async with brokered() as running:
        yield running


def texts(messages: list[Json]) -> str:
    return "".join(each["params"]["delta"] for each in messages)


# ── lines in, lines out ───────────────────────────────────────────────────────────────────────


async def test_a_turn_is_the_same_here_and_over_websocket(broker: Native) -> None:
    async with door(broker) as there, client(broker, "phone") as phone:
        thread = await shared_thread(broker, there.peer, phone)
        broker.model.on("shout", Run("echo hi", escalated=True), Say("done, all of it"))
        since = len(there.peer.inbox)
        await there.peer.start_turn(thread, "shout")
        asked = await phone.wait_method(APPROVAL)
        await there.peer.wait_method(APPROVAL)
        await phone.respond(asked["id"], ACCEPT)
        await there.peer.wait_method(RESOLVED, requestId=asked["id"])
        await there.peer.wait_method(TURN_COMPLETED, since=since, threadId=thread)
        await phone.wait_method(TURN_COMPLETED, threadId=thread)
        assert texts(there.peer.heard(DELTA, since=since)) == texts(phone.heard(DELTA))
        # Nothing of what the door has arranged with the broker is to be seen.
        keys = {key for message in there.peer.inbox for key in message}
        assert keys <= {"id", "method", "params", "result", "error", "emittedAtMs"}
        assert not [m for m in there.peer.inbox if m.get("method", "").startswith("mux/")]
        assert "appmux" not in there.peer.hello
        assert await there.leaves() == 0
        await status_shows(phone, lambda report: len(report["clients"]) == 1)


async def test_many_doors_that_start_at_once(broker: Native) -> None:
    """One of them for a client that knows the broker, which gets what it declared."""
    async with trio.open_nursery() as nursery:

        async def one(number: int) -> None:
            async with door(broker, name=f"door {number}") as there:
                await there.peer.request(LIST)
                assert await there.leaves() == 0

        for number in range(4):
            nursery.start_soon(one, number)
        async with opened(broker.home) as there:
            hello = await there.peer.initialize("own", extensions={"appmux": {"version": 1}})
            assert hello["appmux"]["version"] == 1
            await there.peer.wait_method("mux/presence")


async def let_go_later(stage: Stage) -> None:
    """Let the app-server begin once a door would have given up waiting for any other answer."""
    await trio.sleep(ANSWERS_DEADLINE + 1)
    await stage.let_go()


async def test_what_a_script_pipes_in_is_answered(tmp_path: Path) -> None:
    """Blank lines, CRLF, garbage, a last line without an end: each has its answer, or none.

    The app-server only comes up, later than stdin has ended.
    """
    hello = {"clientInfo": {"name": "script", "version": "1"}}
    lines = [
        json.dumps({"id": 1, "method": "initialize", "params": hello}).encode(),
        b"",
        b'{"method":"initialized"}\r',
        b"  \r",
        b'{"id":"two","method":"thread/loaded/list","params":{}}\r',
        b"\xff\xfe binary \x00",
        b"no json",
        b'{"id":3,"method":"thread/loaded/list","params":{}}',
    ]
    os.mkfifo(tmp_path / "gate")
    async with staged(tmp_path) as stage:
        await stage.kept_back()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(let_go_later, stage)
            done = await trio.run_process(
                [APPMUX, "stdio"],
                stdin=b"\n".join(lines),
                capture_stdout=True,
                env=environ(stage.broker.home),
                check=False,
            )
    messages = [json.loads(line) for line in done.stdout.splitlines()]
    answers = {each["id"]: each for each in messages if "method" not in each and "result" in each}
    assert answers.keys() == {1, "two", 3}
    wrong = [each["error"]["message"] for each in messages if "error" in each]
    assert ["UTF-8" in text for text in wrong].count(True) == 1
    assert ["not JSON" in text for text in wrong].count(True) == 1
    assert (len(wrong), done.returncode) == (2, 0)


async def test_a_line_of_the_greatest_size_passes_and_a_larger_one_has_its_error(
    broker: Native,
) -> None:
    async with door(broker) as there:
        peer, frame = there.peer, len('{"id": "big", "method": "no/such", "params": {"text": ""}}')
        fits = 64 * MIB - frame
        with pytest.raises(RpcError, match="unknown variant `no/such`"):
            await peer.request("no/such", {"text": "x" * fits}, id="big", timeout=60)
        with pytest.raises(RpcError, match="67108865 bytes; the broker takes 67108864"):
            await peer.request("no/such", {"text": "x" * (fits + 1)}, id="big")
        await peer.request(LIST)  # on the same connection


async def test_a_large_answer_comes_whole(broker: Native, tmp_path: Path) -> None:
    large = tmp_path / "large"
    large.write_bytes(b"0123456789abcdef" * (MIB // 16) * 24)
    async with door(broker) as there:
        read = await there.peer.request("fs/readFile", {"path": str(large)})
        assert len(read["dataBase64"]) == 32 * MIB


async def test_one_that_does_not_read_holds_up_nobody_and_loses_nothing(broker: Native) -> None:
    """The turn goes on, the door stays small, and all is there when its client reads again."""
    pieces = tuple(f"{number} {'x' * 2000}\n" for number in range(6000))
    broker.model.on("flood", Say(chunks=pieces))
    async with client(broker, "phone") as phone:
        thread = await shared_thread(broker, phone)
        process: trio.Process = await trio.lowlevel.open_process(
            [APPMUX, "stdio"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environ(broker.home),
        )
        async with process.stdin, process.stdout:  # type: ignore[union-attr]
            slow = Peer(StdioLink(process))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(slow.listen)
                await slow.initialize("slow")
                await join(slow, thread)
                nursery.cancel_scope.cancel()
            since = len(phone.inbox)
            await phone.run_turn(thread, "flood")
            assert resident_bytes(process.pid) < 64 * MIB
            slow.gone = False
            async with trio.open_nursery() as nursery:
                nursery.start_soon(slow.listen)
                await slow.wait_method(TURN_COMPLETED, threadId=thread)
                nursery.cancel_scope.cancel()
        await process.wait()
        said = [message["params"]["delta"] for message in phone.heard(DELTA, since=since)]
        assert "".join(said) == texts(slow.heard(DELTA)) == "".join(pieces)


def resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/status").read_text().partition("VmRSS:")[2].split()[0]) * 1024


# ── one side goes ─────────────────────────────────────────────────────────────────────────────


async def test_the_client_leaves_and_its_turn_goes_on(broker: Native) -> None:
    broker.model.on("long", Say(chunks=("a", Hold("gate"), "b")))
    async with client(broker, "phone") as phone:
        async with door(broker) as there:
            thread = await shared_thread(broker, there.peer, phone)
            await there.peer.start_turn(thread, "long")
            await phone.wait_method(DELTA, threadId=thread, delta="a")
            assert await there.leaves() == 0
        since = len(phone.inbox)
        broker.model.release("gate")
        done = await phone.wait_method(TURN_COMPLETED, since=since, threadId=thread)
        assert done["params"]["turn"]["status"] == "completed"


async def test_a_signal_ends_it_as_it_ends_the_app_server(broker: Native) -> None:
    for number, status in ((signal.SIGTERM, 0), (signal.SIGINT, -2), (signal.SIGHUP, -1)):
        async with door(broker) as there:
            there.process.send_signal(number)
            assert await there.ends() == status
            assert not there.said


async def test_nobody_reads_any_more(broker: Native) -> None:
    """Its reader has died, and what holds stdin open (a shell's job) has not."""
    process: trio.Process = await trio.lowlevel.open_process(
        [APPMUX, "stdio"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environ(broker.home),
    )
    async with process.stdin as stdin:  # type: ignore[union-attr]
        await process.stdout.aclose()  # type: ignore[union-attr]
        with trio.fail_after(PATIENCE):
            assert await process.wait() == 0
        with pytest.raises(trio.BrokenResourceError):
            await stdin.send_all(b"anybody?\n")


@attrs.define
class Relay:
    """A socket before the broker's, at which connections can be cut and new ones kept waiting."""

    path: Path
    _scopes: list[trio.CancelScope] = attrs.field(factory=list)
    _open: trio.Event = attrs.field(factory=trio.Event)

    def __attrs_post_init__(self) -> None:
        self._open.set()

    def stand_still(self) -> None:
        """Cut all connections, and let nobody in."""
        self._open = trio.Event()
        for scope in self._scopes:
            scope.cancel()

    def let_in(self) -> None:
        self._open.set()

    async def carry(self, broker: Path, stream: trio.SocketStream) -> None:
        await self._open.wait()
        there = await trio.open_unix_socket(str(broker))
        async with there, stream, trio.open_nursery() as nursery:
            self._scopes.append(nursery.cancel_scope)
            nursery.start_soon(_copy, stream, there, nursery.cancel_scope)
            nursery.start_soon(_copy, there, stream, nursery.cancel_scope)


async def _copy(one: trio.SocketStream, other: trio.SocketStream, scope: trio.CancelScope) -> None:
    with contextlib.suppress(trio.BrokenResourceError):
        async for piece in one:
            await other.send_all(piece)
    scope.cancel()


@asynccontextmanager
async def relayed(broker: Native) -> AsyncIterator[Relay]:
    """A way to the broker that a test can cut."""
    relay = Relay(broker.home.root / "relay.sock")
    with trio.socket.socket(socket.AF_UNIX) as listens:
        await listens.bind(str(relay.path))
        listens.listen()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(
                trio.serve_listeners,
                partial(relay.carry, broker.socket),
                [trio.SocketListener(listens)],
            )
            yield relay
            nursery.cancel_scope.cancel()


@asynccontextmanager
async def returned(broker: Native) -> AsyncIterator[Native]:
    """Another broker in the place of one that has ended."""
    async with brokered(home=broker.home, model=broker.model) as next_life:
        yield next_life


async def test_a_broker_that_is_killed_and_comes_back(broker: Native) -> None:
    """In flight: an error. The turn and the approval: over. The threads: followed again."""
    broker.model.on("ask", Run("echo no", escalated=True), Say("never"))
    async with door(broker) as there:
        peer = there.peer
        thread = await peer.start_thread(broker.home.work, sandbox="workspace-write")
        await peer.run_turn(thread, "hello")
        fresh = await peer.start_thread(broker.home.work)
        other = await shared_thread(broker, peer)
        await peer.request("thread/unsubscribe", {"threadId": other})
        turn = await peer.start_turn(thread, "ask")
        asked = await peer.wait_method(APPROVAL)
        waits = await peer.ask("command/exec", {"command": ["sleep", "600"], "processId": "p"})
        await status_of(broker, lambda report: report["appServer"]["requestsWaiting"] == 1)
        since = len(peer.inbox)

        await kill_at_once(broker)
        with pytest.raises(RpcError) as lost:
            await peer.result(waits, since=since)
        assert (lost.value.code, lost.value.data["retryable"]) == (-32010, False)
        await there.says("waiting 60 s")

        async with returned(broker) as again:
            held = await peer.ask("thread/loaded/list")  # waits until all is as before
            await peer.result(held, since=since)
            resolved = await peer.wait_method(RESOLVED, since=since, requestId=asked["id"])
            ended = await peer.wait_method(TURN_COMPLETED, since=since, threadId=thread)
            closed = await peer.wait_method("thread/closed", since=since)
            assert resolved["params"]["threadId"] == thread
            turned = ended["params"]["turn"]
            assert (turned["id"], turned["status"]) == (turn, "interrupted")
            assert closed["params"]["threadId"] == fresh
            assert (await peer.run_turn(thread, "hello"))["status"] == "completed"
            async with client(again, "phone") as phone:
                await join(phone, thread)
                await join(phone, other)
                since = len(peer.inbox)
                await phone.run_turn(thread, "hello again")
                await phone.run_turn(other, "hello there")
                await peer.wait_method(TURN_COMPLETED, since=since, threadId=thread)
                await peer.request(LIST)  # what came of the other one would stand before its answer
                assert not peer.heard("turn/started", since=since, threadId=other)
        keys = {key for message in peer.inbox for key in message}
        assert keys <= {"id", "method", "params", "result", "error", "emittedAtMs"}
        ids = [m["id"] for m in peer.inbox if "id" in m and "method" not in m]
        assert len(ids) == len(set(ids))
        assert not [id for id in ids if "stdio" in str(id)]
        await there.says("attached again")


async def status_of(broker: Native, condition: Callable[[Json], object]) -> None:
    async with client(broker, "onlooker") as onlooker:
        await status_shows(onlooker, condition)


async def test_what_was_missed_comes_in_its_place(broker: Native) -> None:
    """Cut off while the broker lives on: the turn that went on meanwhile is told once."""
    broker.model.on("long", Say(chunks=("a", Hold("one"), "b", Hold("two"), "c")))
    async with (
        client(broker, "phone") as phone,
        relayed(broker) as relay,
        opened(broker.home, "--socket", str(relay.path)) as there,
    ):
        await there.peer.initialize("door")
        thread = await shared_thread(broker, there.peer, phone)
        since, at = len(there.peer.inbox), len(phone.inbox)
        await there.peer.start_turn(thread, "long")
        await there.peer.wait_method(DELTA, since=since, delta="a")
        relay.stand_still()
        broker.model.release("one")
        await phone.wait_method(DELTA, delta="b")
        relay.let_in()
        broker.model.release("two")
        await there.peer.wait_method(TURN_COMPLETED, since=since, threadId=thread)
        assert texts(there.peer.heard(DELTA, since=since)) == "abc"
        for method in ("turn/started", "item/started", "item/completed", TURN_COMPLETED):
            told = there.peer.heard(method, since=since, threadId=thread)
            assert told == phone.heard(method, since=at, threadId=thread)


async def test_a_broker_that_stays_away(broker: Native) -> None:
    """To one that doesn't wait, one that waits, and one whose client leaves meanwhile."""
    async with (
        door(broker, "--wait", "0") as hasty,
        door(broker, "--wait", "0.3") as patient,
        door(broker) as leaving,
    ):
        waits = await hasty.peer.ask("command/exec", {"command": ["sleep", "600"]})
        await status_of(broker, lambda report: report["appServer"]["requestsWaiting"] == 1)
        await kill_at_once(broker)
        with pytest.raises(RpcError, match="-32010"):
            await hasty.peer.result(waits)
        assert await hasty.ends() == 1
        await hasty.says("Error: the broker is gone (")
        await patient.says("Error: the broker is gone, and within 0.3 s it didn't come back")
        assert await patient.ends() == 1
        await leaving.says("waiting 60 s for it at most")
        assert await leaving.leaves() == 0


# ── no broker ─────────────────────────────────────────────────────────────────────────────────


async def test_no_broker_and_no_service(tmp_path: Path) -> None:
    with private_home("http://127.0.0.1:1") as home:
        async with opened(home) as there:
            assert await there.ends() == 1
            await there.says("no broker to attach to (unix://")
            await there.says("`appmux serve`")
            assert not there.peer.inbox


SYSTEMCTL = """#!/bin/sh
[ "$2" = start ] && : > "{started}"
exit 0
"""


async def test_no_broker_but_a_service_that_is_installed(tmp_path: Path) -> None:
    """It is started, and attached to as soon as it listens; what was said meanwhile counts."""
    with private_home("http://127.0.0.1:1") as home:
        units, started = home.home / ".config/systemd/user", tmp_path / "started"
        units.mkdir(parents=True)
        for name in ("appmux.service", "appmux.socket"):
            (units / name).write_text(MARKER)
        (tmp_path / "systemctl").write_text(SYSTEMCTL.format(started=started))
        (tmp_path / "systemctl").chmod(0o755)
        path = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
        async with opened(home, more=path) as there:
            hello = await there.peer.ask(
                "initialize", {"clientInfo": {"name": "x", "version": "1"}}
            )
            await eventually(started.exists, "a service that was started")
            async with brokered(home=home):
                await there.peer.result(hello)
                assert await there.leaves() == 0


async def test_something_else_listens_there() -> None:
    with private_home("http://127.0.0.1:1") as home, socket.socket(socket.AF_UNIX) as other:
        path = home.root / "other.sock"
        other.bind(str(path))
        other.listen()
        other.settimeout(PATIENCE)
        async with opened(home, "--socket", str(path)) as there:
            # One that is just ending closes without a word: perhaps the next one listens soon.
            taken, _ = await trio.to_thread.run_sync(other.accept)
            taken.close()
            taken, _ = await trio.to_thread.run_sync(other.accept)
            with taken:
                taken.sendall(b"HTTP/1.1 404 Not Found\r\n\r\n")
                await there.says("is no broker: it answered 'HTTP/1.1 404 Not Found'")
                assert await there.ends() == 1
