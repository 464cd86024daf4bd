"""``appmux status``: what it asks, what it shows, and what it says where there is no answer."""

from __future__ import annotations

import json
import re
import signal
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

import mux
from mux.cli.common.broker import BrokerError, NoBrokerError, ask
from mux.cli.oversight import status
from mux.config import locate
from mux.demo.scripted_model import Run, Scripted
from tests.end_to_end.brokered import brokered, client
from tests.end_to_end.devices import terminal
from tests.end_to_end.native import Native, native_ws
from tests.ports import kept_port

APPROVAL = "item/commandExecution/requestApproval"


def report(**over: Any) -> dict[str, Any]:
    """An answer of a broker that nobody uses."""
    return {
        "asker": 1,
        "broker": {"version": mux.__version__, "pid": 77},
        "listeners": [{"url": "ws://127.0.0.1:1", "kind": "ws", "openDoor": False}],
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
        "approvals": [],
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


def shown(answer: dict[str, Any], width: int = 200, *, everything: bool = False) -> str:
    """What a person sees of it, without colours."""
    console = Console(width=width, file=StringIO())
    console.print(status.render(answer, width, everything=everything))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    return "\n".join(line.rstrip() for line in text.splitlines())


def row(text: str, word: str) -> list[str]:
    """The cells of the one line that has ``word`` in it."""
    (line,) = [line for line in text.splitlines() if word in line]
    return [cell.strip() for cell in line.split("  ") if cell.strip()]


def thread(id: str, **over: Any) -> dict[str, Any]:
    """A thread as a report has it."""
    return {
        "id": id, "title": None, "directory": None, "parent": None, "status": "idle", "turn": None,
        "turnBy": None, "followers": [], "queued": 0, "held": None,
    } | over  # fmt: skip


def approval(id: int, **over: Any) -> dict[str, Any]:
    """What waits, as `mux/approvals/list` has it."""
    return {
        "id": id, "method": APPROVAL, "threadId": "t", "ageSeconds": 250.0, "needs": None,
        "policy": "first", "waitsFor": "", "votes": [], "item": None, "offeredTo": [],
        "params": {"command": "/bin/bash -lc 'make test'", "cwd": "/src/app"},
    } | over  # fmt: skip


# -- showing ---------------------------------------------------------------------------------------


def test_a_quiet_broker() -> None:
    text = shown(report())
    assert text.startswith("nothing waits for you\n")
    assert f"appmux {mux.__version__}, pid 77" in text
    assert "codex 0.163.0, ready, up 1 h 2 min, pid 78" in text
    assert "5 in flight, 6 waiting for something outside, 7 queued" in text
    assert "listening on  ws://127.0.0.1:1" in text
    assert "Threads: none is open" in text
    assert "Clients: none is attached" in text
    assert "some words" not in text
    assert "no token" not in text


def test_a_listener_without_a_token_says_what_a_proxy_before_it_means() -> None:
    text = shown(report(listeners=[{"url": "ws://127.0.0.1:1", "kind": "ws", "openDoor": True}]))
    assert "ws://127.0.0.1:1 (asks for no token: a proxy or tunnel before it lets in" in text


def test_the_first_line_says_what_waits_and_what_to_type() -> None:
    one = [approval(1883330245033985)]
    assert shown(report(approvals=one)).splitlines()[0] == (
        "1 approval waits for 4 min: appmux approve 985"
    )
    two = [*one, approval(1883330245033986, ageSeconds=3.0)]
    lines = shown(report(approvals=two, threads=[thread("t", title="Fix it")])).splitlines()
    assert lines[0] == "2 approvals wait, the oldest for 4 min: appmux approve 985"
    assert lines[1:5] == [
        "  985  run make test", "       4 min · Fix it · /src/app",
        "  986  run make test", "       3 s · Fix it · /src/app",
    ]  # fmt: skip
    many = [approval(1883330245033900 + each) for each in range(7)]
    assert "  and 2 more: appmux approvals" in shown(report(approvals=many))


def test_what_takes_more_than_a_word_names_the_client_that_takes_it() -> None:
    question = approval(
        7, method="item/tool/requestUserInput", params={"questions": [{"question": "Which\none?"}]}
    )
    lines = shown(report(approvals=[question])).splitlines()
    assert lines[0].endswith(": codex resume t")
    assert lines[1] == "  7  a question: Which one?"


def test_clients_without_the_one_that_asks() -> None:
    text = shown(
        report(
            clients=[
                attached(1, name=None, version=None, state="attached"),
                attached(2, threads=["t1", "t2"], bytesOwed=3 * 1024 * 1024, behind=40),
                attached(3, name=None, version=None, state="attached"),
                attached(4, transport="ws", peer="127.0.0.1:9", principal="open"),
                attached(5, terminal="pts/3", directory="/src/app", droveSeconds=70.0),
            ]
        )
    )
    assert "#1" not in text
    assert row(text, "#2") == [
        *("#2", "client2 1.2", "unix", "local (local-user)", "12 s", "2"),
        "3.0 MiB, 40 entries behind",
    ]
    assert row(text, "#3")[1] == "(attached)"
    assert "ws 127.0.0.1:9" in row(text, "#4")
    assert row(text, "#5")[2] == "pts/3, /src/app"
    assert "1 min ago" in row(text, "#5")


def test_past_ten_clients_are_folded_and_those_that_did_something_last_are_shown() -> None:
    there = [attached(each, sinceSeconds=1000.0 - each) for each in range(2, 16)]
    there[0]["droveSeconds"] = 1.0
    text = shown(report(clients=there))
    assert "and 4 more: appmux status --all" in text
    assert "client2" in text
    assert "client3 " not in text
    more = {
        "store": {"nextSeq": 8, "bytes": 2048, "trouble": None, "unwrittenEntries": 0},
        "audit": {"records": 4, "bytes": 20, "trouble": None},
        "notices": {"endpoints": {"ntfy": 1}, "pushes": {}, "standing": 0, "trouble": None},
        "log": {"droppedLines": 2, "trouble": None},
    }
    text = shown(report(clients=there, **more), everything=True)
    assert "client3 " in text
    assert "8 entries so far, 2.0 KiB on disk" in text
    assert "2 lines could not be written and are lost" in text


def test_threads_say_what_they_are_and_who_drives_them() -> None:
    a, b = "0199f3a2-51c4-7a10-8f6e-3d2b1c0a9e87", "0199f3a2-51c4-7a10-8f6e-aaaa1c0a9e87"
    threads = [
        thread(b, status="notLoaded", queued=2, held="failed"),
        thread(
            a, title="Fix the parser", directory="/src/app", status="active", turn="u",
            turnBy={"client": 2, "name": "desk", "principal": "local"}, followers=[2, 3],
        ),
    ]  # fmt: skip
    text = shown(report(clients=[attached(2), attached(3)], threads=threads))
    assert row(text, "Fix the parser") == [
        # Its shortest ending that the other thread hasn't.
        *("b1c0a9e87", "Fix the parser", "/src/app", "running", "desk #2"),
        "client2 #2, client3 #3",
    ]
    assert row(text, "a1c0a9e87")[2:] == [
        "notLoaded, 2 queued, held (failed)",
        "nobody follows",
        "nobody",
    ]
    assert text.index("Fix the parser") < text.index("(no title)"), "what runs comes first"


def test_at_80_columns_no_id_and_no_line_is_broken() -> None:
    threads = [
        thread(f"0199f3a2-51c4-7a10-8f6e-3d2b1c0a9e{each}", title="A long title " * 9,
               directory="/home/ada/src/" + "deep/" * 30, status="active")
        for each in range(10, 14)
    ]  # fmt: skip
    clients = [attached(2, terminal="pts/3", directory="/home/ada/src/" + "deep/" * 30)]
    text = shown(report(threads=threads, clients=clients, approvals=[approval(7)]), 80)
    assert max(len(line) for line in text.splitlines()) <= 80
    for each in threads:
        assert each["id"][-8:] in text
    assert len([line for line in text.splitlines() if "…" in line]) == 5


def test_trouble_and_what_a_restart_would_mend_stand_at_the_top() -> None:
    server = report()["appServer"] | {
        "state": "starting",
        "pid": None,
        "outdated": True,
        "restartWaitsFor": ["1 running turn(s)"],
    }
    store = {"nextSeq": 8, "bytes": 2048, "trouble": "disk full", "unwrittenEntries": 4}
    own = {"version": "9.8", "pid": 77, "uptimeSeconds": 5,
           "settings": {"file": "/c.toml", "changed": ["listen"], "trouble": None}}  # fmt: skip
    text = shown(report(appServer=server, store=store, broker=own))
    assert text.startswith("nothing waits for you\n")
    top = text.split("Threads")[0]
    assert "restart needed: codex on disk is another than the one that runs: appmux restart" in top
    assert "restart needed: listen changed in the settings: appmux restart --broker" in top
    assert f"restart needed: appmux {mux.__version__} is installed, 9.8 runs" in top
    assert "a restart waits for 1 running turn(s)" in top
    assert "TROUBLE with the journal: disk full" in top
    assert "starting, no process" in text
    assert "it said: some words" in text


@pytest.mark.parametrize(
    ("end", "words"),
    [
        ({"reason": "killed by SIGKILL"}, "(2 times so far): it died 3 s ago: killed by SIGKILL"),
        ({"reason": None}, "(2 times so far): as asked, 3 s ago"),
    ],
)
def test_why_the_app_server_was_started_again(end: dict[str, Any], words: str) -> None:
    end = {"generation": 2, "secondsAgo": 3.2, **end}
    assert words in shown(report(appServer=report()["appServer"] | {"lastEnd": end}))


def test_a_clients_name_drives_no_terminal() -> None:
    text = shown(report(clients=[attached(2, name="\x1b[2J[red]x[/red]\n\x9b", threads=["t"])]))
    assert "\\x1b[2J[red]x[/red]\\x0a\\x9b" in text
    assert "\x1b" not in text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (59.9, "59 s"), (60, "1 min"), (3600, "1 h"), (90061, "1 d 1 h")],
)
def test_lengths_of_time(seconds: float, text: str) -> None:
    assert f"up {text}, pid 78\n" in shown(
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
        first = f"1 approval waits for 0 s: appmux approve {str(asked['id'])[-3:]}"
        assert re.sub(r"for \d+ s", "for 0 s", done.stdout.splitlines()[0]) == first
        assert f"unix://{broker.socket}" in done.stdout
        assert broker.url in done.stdout
        assert f"pid {broker.broker_pid}" in done.stdout
        assert row(done.stdout, thread[-8:])[-3:] == ["running", "desk #1", "desk #1, phone #2"]
        assert "#3" not in done.stdout

        done = await trio.to_thread.run_sync(run_status, broker, "--json")
        answer = json.loads(done.stdout)
        assert [each["name"] for each in answer["clients"]] == ["desk", "phone", None]
        assert answer["asker"] == answer["clients"][-1]["id"]
        assert answer["serverRequests"][0]["offeredTo"] == [1, 2]
        assert answer["approvals"][0]["id"] == asked["id"]
        assert answer["threads"][0]["turn"] == turn
        assert answer["threads"][0]["turnBy"]["name"] == "desk"
        if sys.platform == "linux":  # this very process is both clients
            assert [each["directory"] for each in answer["clients"]] == [
                *[str(Path.cwd())] * 2, str(broker.home.work),
            ]  # fmt: skip


async def test_it_is_redrawn_in_place_and_goes_on_after_the_broker_is_gone() -> None:
    async with brokered() as broker, client(broker, "desk") as desk:
        async with terminal(broker, "status", "--watch") as shown_at:
            await shown_at.see(r"\x1b\[\?1049h")  # the terminal's second screen
            await shown_at.see("desk #|desk 0")
            await desk.start_thread(broker.home.work)
            await shown_at.see(r"idle")
            shown_at.process.send_signal(signal.SIGINT)
            assert await shown_at.end() == 130
        assert shown_at.shown.rpartition("\x1b[?1049l")[2].count("Clients") == 1


def test_no_broker(tmp_path: Path) -> None:
    with pytest.raises(NoBrokerError, match="no appmux runs on the state directory"):
        status.run(tmp_path)


def test_a_broker_that_was_killed(tmp_path: Path) -> None:
    """Its addresses are still in the state directory, and nobody is there."""
    socket = tmp_path / "gone.sock"
    with kept_port() as port:
        announce(tmp_path, [f"unix://{socket}", f"ws://127.0.0.1:{port}"])
        with pytest.raises(BrokerError, match="If it doesn't run any more, start it") as caught:
            status.run(tmp_path)
    assert f"can't connect to unix://{socket}: No such file or directory" in str(caught.value)
    assert "can't connect to ws://127.0.0.1:" in str(caught.value)


async def asked(*urls: str) -> dict[str, Any]:
    return await trio.to_thread.run_sync(ask, urls, "mux/status")


async def test_the_next_listener_where_the_first_is_gone() -> None:
    async with brokered() as broker:
        answer = await asked(f"unix://{broker.home.root}/gone.sock", broker.url)
        assert answer["broker"]["pid"] == broker.broker_pid


async def test_a_listener_that_asks_for_a_token() -> None:
    digest = "0" * 64
    flags = ("--ws-auth", "capability-token", "--ws-token-sha256", digest)
    async with brokered(*flags) as broker:
        with pytest.raises(BrokerError, match="HTTP 401: it asks for a token"):
            await asked(broker.url)
        assert (await asked(broker.url, f"unix://{broker.socket}"))["asker"] == 1


async def test_somebody_else_at_that_address() -> None:
    async with native_ws() as app_server:
        with pytest.raises(BrokerError, match=r"Not initialized|unknown|mux/status"):
            await asked(app_server.url)


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
    monkeypatch.setattr("mux.cli.common.broker.CONNECT_DEADLINE", 0.5)
    async with served_by(answer) as url:
        with pytest.raises(BrokerError, match="no answer from the broker"):
            await asked(url)


def announce(state_dir: Path, urls: list[str]) -> None:
    (state_dir / locate.ADDRESS).write_text(json.dumps({"pid": 1, "listeners": urls}))


async def test_a_broker_that_could_not_write_where_it_listens_is_found_all_the_same() -> None:
    async with brokered() as broker:
        (announced,) = broker.home.home.rglob(locate.ADDRESS)
        announced.unlink()  # as on a full disk
        done = await trio.to_thread.run_sync(run_status, broker)
        assert (done.returncode, done.stderr) == (0, "")
        assert str(broker.socket) in done.stdout
