"""`-c approval_policy=…` and the like on the command line of a program that starts an app-server.

Natively they hold for the threads that the program loads; on the broker for these, and for no one
else's.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from mux.downstream.websocket.websocket import accepted
from mux.stdio import joined
from mux.stdio.joined import Joined
from tests.end_to_end.brokered import brokered, client
from tests.end_to_end.devices import DEVICES_ONLY, operator_of, pair
from tests.end_to_end.doors import APPMUX, STAND_IN, environ, opened
from tests.end_to_end.native import Home, Native, codex_bin, native_stdio, private_home
from tests.end_to_end.peer import PATIENCE, Peer, connect_unix
from tests.end_to_end.scenes import status_shows
from tests.end_to_end.test_relay import relayed

SAID = (
    "-c", "approval_policy=never", "-c", "sandbox_mode=workspace-write",
    "-c", "sandbox_workspace_write.network_access=true",
    "-c", 'sandbox_workspace_write.writable_roots=["/var/tmp"]',
)  # fmt: skip


@pytest.fixture
async def broker() -> AsyncIterator[Native]:
    async with brokered() as running:
        yield running


def settings(answer: dict[str, Any]) -> tuple[Any, ...]:
    return answer["approvalPolicy"], answer["sandbox"], answer["activePermissionProfile"]


async def started(peer: Peer, work: Path, **params: Any) -> tuple[Any, ...]:
    answer = await peer.request("thread/start", {"cwd": str(work)} | params)
    return settings(answer)


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"sandbox": "read-only"},
        {"approvalPolicy": "on-request"},
        {"config": {"sandbox_mode": "read-only"}},
        {"sandbox": "workspace-write", "config": {"model_reasoning_effort": "low"}},
    ],
)
async def test_a_thread_gets_what_it_gets_natively(broker: Native, params: dict[str, Any]) -> None:
    async with native_stdio(*SAID) as native:
        await native.peer.initialize("program")
        expected = await started(native.peer, native.home.work, **params)
    command = (STAND_IN, "app-server", *SAID)
    async with opened(broker.home, command=command) as door, client(broker, "desk") as desk:
        await door.peer.initialize("program")
        assert await started(door.peer, broker.home.work, **params) == expected
        # Nobody else's threads are touched.
        assert (await started(desk, broker.home.work))[0] == "on-request"
        report = await status_shows(desk, lambda report: len(report["clients"]) == 2)
        by_name = {each["name"]: each["overrides"] for each in report["clients"]}
        values = {
            "approval_policy": "never",
            "sandbox_mode": "workspace-write",
            "sandbox_workspace_write.network_access": True,
            "sandbox_workspace_write.writable_roots": ["/var/tmp"],
        }
        assert by_name == {"program": {"values": values, "ignored": []}, "desk": None}
        assert door.said == b""


async def test_a_thread_that_is_forked_or_loaded(broker: Native) -> None:
    """Natively a loaded thread keeps what it had; here the program's word holds for it, too."""
    async with client(broker, "desk") as desk:
        thread = await desk.start_thread(broker.home.work)
        await desk.run_turn(thread, "hello")
        await desk.request("thread/unsubscribe", {"threadId": thread})
        await desk.request("mux/restart", {"now": True})  # nothing is loaded any more
    said = ("-c", "approval_policy=never", "-c", "sandbox_mode=workspace-write")
    async with opened(broker.home, *said) as door:  # appmux stdio
        await door.peer.initialize("program")
        resumed = settings(await door.peer.request("thread/resume", {"threadId": thread}))
        assert (resumed[0], resumed[1]["type"]) == ("never", "workspaceWrite")
        forked = settings(await door.peer.request("thread/fork", {"threadId": thread}))
        assert (forked[0], forked[1]["type"]) == ("never", "workspaceWrite")


async def test_a_profile(broker: Native) -> None:
    said = ("-c", 'default_permissions=":workspace"')
    async with native_stdio(*said) as native:
        await native.peer.initialize("program")
        expected = await started(native.peer, native.home.work)
    async with opened(broker.home, *said) as door:
        await door.peer.initialize("program")  # without `experimentalApi`
        assert await started(door.peer, broker.home.work) == expected


async def test_a_relayed_program(broker: Native, tmp_path: Path) -> None:
    """Each of its connections has them; what isn't one of them passes as it came."""
    path = tmp_path / "engine.sock"
    more = ("-c", "model=x", *SAID)
    async with relayed(broker.home, f"unix://{path}", *more), client(broker, "desk") as desk:
        for _ in range(2):
            async with connect_unix(path) as engine:
                await engine.initialize("engine")
                policy, sandbox, _ = await started(engine, broker.home.work)
                assert (policy, sandbox["type"]) == ("never", "workspaceWrite")
                report = await status_shows(desk, lambda report: len(report["clients"]) == 2)
                [said] = [each["overrides"] for each in report["clients"] if each["overrides"]]
                assert said["ignored"] == ["-c model"]
    async with (
        relayed(broker.home, "ws://127.0.0.1:0", *more) as (_, url),
        await trio.open_tcp_stream("127.0.0.1", int(url.rpartition(":")[2])) as stream,
    ):
        await stream.send_all(b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await stream.receive_some()).startswith(b"HTTP/1.1 200")


async def test_the_bridge_says_it_again_to_the_next_broker(broker: Native) -> None:
    async with opened(broker.home, *SAID) as door:
        await door.peer.initialize("program")
        os.kill(broker.broker_pid, signal.SIGKILL)
        await door.says("attached again")
        assert (await started(door.peer, broker.home.work))[0] == "never"


async def _refused(broker: Native, *arguments: str) -> str:
    done = await trio.run_process(
        arguments,
        env=environ(broker.home),
        stdin=b"",
        capture_stdout=True,
        capture_stderr=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, b"")
    return str(done.stderr.decode())


async def test_what_cannot_be_read_does_not_start(broker: Native) -> None:
    wrong = ("-c", "approval_policy=sometimes")
    with trio.fail_after(PATIENCE):
        for command in ((APPMUX, "stdio"), (STAND_IN, "app-server")):
            said = await _refused(broker, *command, *wrong)
            assert "`approval_policy` is one of untrusted, on-request" in said
        await _refused(broker, str(codex_bin()), "app-server", *wrong)  # as natively


@contextmanager
def elsewhere(url: str, token: str) -> Iterator[Home]:
    """Another machine, which has joined the broker."""
    with private_home("http://127.0.0.1:9") as home:
        joined.write(home.home / ".local" / "state" / "appmux", Joined(url, token))
        yield home


async def test_a_stricter_one_that_does_not_hold_does_not_start() -> None:
    """A device without `admin` may only say the tightest: it is told, or nothing is started."""
    async with brokered(*DEVICES_ONLY) as broker:
        async with operator_of(broker) as operator:
            token = await pair(broker, operator, "laptop", "observe", "approve", "drive")
        with elsewhere(broker.url, token) as home:
            async with opened(home, "-c", "sandbox_mode=danger-full-access") as door:
                await door.peer.initialize("program")
                await door.says("ignored: sandbox_mode: this client may not say it")
                assert (await started(door.peer, broker.home.work))[1]["type"] == "readOnly"
            async with opened(home, "-c", "sandbox_mode=workspace-write") as door:
                await door.says("Error: `sandbox_mode` doesn't hold here")
                assert await door.ends() == 1
            tight = ("-c", "sandbox_mode=read-only", "-c", "approval_policy=untrusted")
            async with opened(home, *tight) as door:
                await door.peer.initialize("program")
                assert (await started(door.peer, broker.home.work))[0] == "untrusted"


@contextmanager
def older_broker(path: Path) -> Iterator[None]:
    """A broker that knows no overrides: it upgrades, and says nothing of them."""

    def serve() -> None:
        while True:
            try:
                peer = listener.accept()[0]
            except OSError:
                return
            with peer:
                head = peer.recv(4096)
                key = next(line for line in head.splitlines() if b"websocket-key" in line.lower())
                peer.sendall(accepted(key.partition(b":")[2].strip()))
                peer.recv(4096)

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


@pytest.mark.parametrize("relay", [False, True])
async def test_beside_an_older_broker_a_stricter_one_does_not_start(
    tmp_path: Path, relay: bool
) -> None:
    path = tmp_path / "s"
    listens = ("--listen", f"unix://{tmp_path}/engine") if relay else ()
    command = [STAND_IN, "app-server", *listens, "-c", "sandbox_mode=read-only"]
    with older_broker(path), private_home("http://127.0.0.1:9") as home, trio.fail_after(PATIENCE):
        done = await trio.run_process(
            command,
            env=environ(home, APPMUX_SOCKET=str(path)),
            stdin=b"",
            capture_stderr=True,
            check=False,
        )
    assert done.returncode == 1
    assert b"`sandbox_mode` doesn't hold here: this broker is older" in done.stderr
    assert not (tmp_path / "engine").exists()


async def test_a_header_that_is_none_is_refused(broker: Native) -> None:
    port = int(broker.url.rpartition(":")[2])
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(
            b"GET / HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
            b'Appmux-Overrides: {"values":{"model":"x"}}\r\n\r\n'
        )
        answer = await stream.receive_some()
        assert answer.startswith(b"HTTP/1.1 400")
        assert b"`Appmux-Overrides` header: `model` doesn't say what a thread may do" in answer
