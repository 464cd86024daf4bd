"""``appmux status``: what it asks, what it shows, and what it says where there is no answer."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import trio
from rich.console import Console

from mux.cli import status
from mux.client import ClientError
from mux.config import locate
from mux.config.model import Config
from mux.demo.scripted_model import Run, Scripted
from mux.storage import state_dir
from tests.end_to_end.brokered import brokered, client
from tests.end_to_end.native import Native, native_ws
from tests.ports import kept_port

APPROVAL = "item/commandExecution/requestApproval"


def report(**over: Any) -> dict[str, Any]:
    """An answer of a broker that nobody uses."""
    return {
        "asker": 1,
        "broker": {"version": "9.8", "pid": 77},
        "listeners": [{"url": "ws://127.0.0.1:1", "kind": "ws"}],
        "appServer": {
            "version": "0.163.0",
            "state": "ready",
            "generation": 3,
            "nextStartSeconds": None,
            "uptimeSeconds": 3725.0,
            "requestsInFlight": 5,
            "requestsWaiting": 6,
            "requestsQueued": 7,
            "restartWaitsFor": [],
            "pid": 78,
            "outdated": False,
            "lastWords": ["some words"],
        },
        "clients": [],
        "threads": [],
        "serverRequests": [],
    } | over


def attached(id: int, **over: Any) -> dict[str, Any]:
    """A client as a report has it."""
    return {
        "id": id,
        "state": "ready",
        "name": f"client{id}",
        "version": "1.2",
        "principal": "local",
        "principalKind": "local-user",
        "transport": "unix",
        "peer": "unix",
        "sinceSeconds": 12.9,
        "threads": [],
        "bytesOwed": 0,
        "behind": None,
    } | over


def shown(answer: dict[str, Any]) -> str:
    """What a person sees of it, without colours."""
    console = Console(width=200, file=StringIO())
    console.print(status.render(answer))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    return "\n".join(line.rstrip() for line in text.splitlines())


def row(text: str, word: str) -> list[str]:
    """The cells of the one line that has ``word`` in it."""
    (line,) = [line for line in text.splitlines() if word in line]
    return [cell.strip() for cell in line.split("   ") if cell.strip()]


# -- showing ---------------------------------------------------------------------------------------


def test_a_quiet_broker() -> None:
    text = shown(report())
    assert "appmux        9.8, pid 77" in text
    assert "codex 0.163.0, ready, pid 78, generation 3, up 1 h 2 min" in text
    assert "5 in flight, 6 waiting for something outside, 7 queued" in text
    assert "listening on  ws://127.0.0.1:1" in text
    for empty in ("clients", "threads followed", "server requests pending"):
        assert f"{empty}: none" in text
    assert "some words" not in text


def test_clients_without_the_one_that_asks() -> None:
    text = shown(
        report(
            clients=[
                attached(1, name=None, version=None, state="attached"),
                attached(2, threads=["t1", "t2"], bytesOwed=3 * 1024 * 1024, behind=40),
                attached(3, name=None, version=None, state="attached"),
                attached(4, transport="ws", peer="127.0.0.1:9", principal="open"),
            ]
        )
    )
    assert "#1" not in text
    assert row(text, "#2") == [
        *("#2", "client2", "1.2", "local (local-user)", "unix", "12 s", "2"),
        "3.0 MiB, 40 entries behind",
    ]
    assert row(text, "#3")[1] == "(attached)"
    assert "ws 127.0.0.1:9" in row(text, "#4")


def test_threads_and_server_requests_name_the_clients() -> None:
    asked = {"id": 5, "method": APPROVAL, "thread": "t1", "ageSeconds": 90}
    text = shown(
        report(
            clients=[attached(2), attached(3)],
            threads=[
                {"id": "thread-a", "status": "active", "turn": "u1", "followers": [2, 3]},
                {"id": "thread-b", "status": "idle", "turn": None, "followers": []},
            ],
            serverRequests=[
                {**asked, "offeredTo": [2, 3], "abstained": [3], "answeredBy": None},
                {**asked, "id": 6, "offeredTo": [], "abstained": [], "answeredBy": 2},
            ],
        )
    )
    assert row(text, "u1") == ["thread-a", "active", "u1", "client2 #2, client3 #3"]
    assert row(text, "thread-b") == ["thread-b", "idle", "nobody"]
    first, second = [line for line in text.splitlines() if APPROVAL in line]
    assert first.endswith("client2 #2, client3 #3   waits; abstained: client3 #3")
    assert "1 min" in first
    assert second.endswith("answered by client2 #2")


def test_trouble_is_shown() -> None:
    server = report()["appServer"] | {
        "state": "starting",
        "pid": None,
        "outdated": True,
        "restartWaitsFor": ["1 running turn(s)"],
    }
    store = {"nextSeq": 8, "bytes": 2048, "trouble": "disk full", "unwrittenEntries": 4}
    text = shown(report(appServer=server, store=store))
    assert "starting, no process" in text
    assert "another one than the one that runs" in text
    assert "a restart waits for 1 running turn(s)" in text
    assert "it said: some words" in text
    assert "8 entries so far, 2.0 KiB on disk" in text
    assert "TROUBLE: disk full (4 entries in memory)" in text


def test_a_clients_name_drives_no_terminal() -> None:
    text = shown(report(clients=[attached(2, name="\x1b[2J[red]x[/red]\n\x9b", threads=["t"])]))
    assert "\\x1b[2J[red]x[/red]\\x0a\\x9b" in text
    assert "\x1b" not in text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (59.9, "59 s"), (60, "1 min"), (3600, "1 h"), (90061, "1 d 1 h")],
)
def test_lengths_of_time(seconds: float, text: str) -> None:
    assert f"up {text}\n" in shown(
        report(appServer=report()["appServer"] | {"uptimeSeconds": seconds})
    )


# -- asking ----------------------------------------------------------------------------------------


def run_status(broker: Native, *arguments: str) -> subprocess.CompletedProcess[str]:
    """``appmux status`` as a process, beside that broker."""
    return subprocess.run(
        [sys.executable, "-m", "mux", "status", *arguments],
        env=broker.home.environ(),
        cwd=broker.home.work,
        capture_output=True,
        text=True,
        check=False,
    )


async def test_the_whole_of_it_beside_a_real_broker() -> None:
    model = Scripted()
    model.on("run it", Run("echo hi", escalated=True))
    async with (
        brokered(model=model) as broker,
        client(broker, "desk") as desk,
        client(broker, "phone") as phone,
    ):
        thread = await desk.start_thread(broker.home.work)
        await desk.run_turn(thread, "hello")
        await phone.request("thread/resume", {"threadId": thread})
        turn = await desk.start_turn(thread, "run it")
        await desk.wait_method(APPROVAL)
        asked = await phone.wait_method(APPROVAL)

        done = await trio.to_thread.run_sync(run_status, broker)
        assert (done.returncode, done.stderr) == (0, "")
        assert f"unix://{broker.socket}" in done.stdout
        assert broker.url in done.stdout
        assert f"appmux        0.1.0, pid {broker.broker_pid}" in done.stdout
        assert row(done.stdout, turn) == [thread, "active", turn, "desk #1, phone #2"]
        assert row(done.stdout, APPROVAL)[:3] == [str(asked["id"]), APPROVAL, thread]
        assert "desk #1, phone #2" in row(done.stdout, APPROVAL)
        assert "#3" not in done.stdout

        done = await trio.to_thread.run_sync(run_status, broker, "--json")
        answer = json.loads(done.stdout)
        assert [each["name"] for each in answer["clients"]] == ["desk", "phone", None]
        assert answer["asker"] == answer["clients"][-1]["id"]
        assert answer["serverRequests"][0]["offeredTo"] == [1, 2]


async def test_no_broker(tmp_path: Path) -> None:
    with pytest.raises(state_dir.StateDirError, match="no appmux runs on the state directory"):
        await status.run(Config(state_dir=tmp_path), as_json=False)


async def test_a_broker_that_was_killed(tmp_path: Path) -> None:
    """Its addresses are still in the state directory, and nobody is there."""
    socket = tmp_path / "gone.sock"
    with kept_port() as port:
        announce(tmp_path, [f"unix://{socket}", f"ws://127.0.0.1:{port}"])
        with pytest.raises(ClientError, match="If it doesn't run any more, start it") as caught:
            await status.run(Config(state_dir=tmp_path), as_json=False)
    assert f"can't connect to unix://{socket}: No such file or directory" in str(caught.value)
    assert "can't connect to ws://127.0.0.1:" in str(caught.value)


async def test_the_next_listener_where_the_first_is_gone() -> None:
    async with brokered() as broker:
        answer = await status.ask([f"unix://{broker.home.root}/gone.sock", broker.url])
        assert answer["broker"]["pid"] == broker.broker_pid


async def test_a_listener_that_asks_for_a_token() -> None:
    digest = "0" * 64
    flags = ("--ws-auth", "capability-token", "--ws-token-sha256", digest)
    async with brokered(*flags) as broker:
        with pytest.raises(ClientError, match="HTTP 401: it asks for a token"):
            await status.ask([broker.url])
        assert (await status.ask([broker.url, f"unix://{broker.socket}"]))["asker"] == 1


async def test_somebody_else_at_that_address() -> None:
    async with native_ws() as app_server:
        with pytest.raises(ClientError, match="mux/status failed"):
            await status.ask([app_server.url])


@asynccontextmanager
async def served_by(answer: bytes) -> AsyncIterator[str]:
    """A listener that answers everything with these bytes and closes; its URL."""

    async def serve(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(answer)
        await stream.aclose()

    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, serve, [listener])
        yield f"ws://127.0.0.1:{listener.socket.getsockname()[1]}"
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("answer", [b"", b"SSH-2.0-x\r\n", b"HTTP/1.1 404 No\r\n\r\n"])
async def test_no_websocket_at_that_address(answer: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    # The library waits for the rest of a handshake that never comes, up to this deadline.
    monkeypatch.setattr("mux.client.CONNECT_DEADLINE", 0.5)
    async with served_by(answer) as url:
        with pytest.raises(ClientError, match="no answer from the broker"):
            await status.ask([url])


def announce(state_dir: Path, urls: list[str]) -> None:
    (state_dir / locate.ADDRESS).write_text(json.dumps({"pid": 1, "listeners": urls}))
