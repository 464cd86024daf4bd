"""`appmux restart`: the app-server is replaced, and no client notices more than a pause."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import pytest
import trio

from mux.demo.scripted_model import Hold, Run, Say, Scripted
from tests.end_to_end.brokered import brokered, client
from tests.end_to_end.lives import app_server, appmux, kill_app_server, life
from tests.end_to_end.native import Native, codex_bin
from tests.end_to_end.peer import PATIENCE, Json, Peer, answers
from tests.end_to_end.scenes import (
    ACCEPT,
    APPROVAL,
    DELTA,
    RESOLVED,
    TURN_COMPLETED,
    TURN_STARTED,
    ended,
    join,
    shared_thread,
    status_shows,
)
from tests.view import View


def scripted() -> Scripted:
    model = Scripted()
    model.on("tell", Say(chunks=("half, ", Hold("mid"), "whole")))
    model.on("run", Run("echo approved >> proof.txt", escalated=True), Say("It ran."))
    return model


async def test_it_waits_for_what_runs_and_disturbs_nobody() -> None:
    model = scripted()
    async with (
        brokered(model=model) as broker,
        client(broker, "desk") as desk,
        client(broker, "phone") as phone,
        client(broker, "tablet") as tablet,
    ):
        peers = (desk, phone, tablet)
        telling = await shared_thread(broker, *peers)
        running = await shared_thread(broker, *peers)
        resting = await shared_thread(broker, *peers)
        turn = await desk.start_turn(telling, "tell")
        await model.reached("mid")
        await phone.start_turn(running, "run")
        offer = await tablet.wait_method(APPROVAL)
        pid = (await app_server(desk))["pid"]

        async with command(broker, "restart") as restart:
            await restart.see("waiting for 2 running turn(s), 1 server request(s)\n")
            shown = await appmux(broker, "status")
            assert "a restart waits for 2 running turn(s), 1 server request(s)" in shown.stdout
            # New work waits, what reads doesn't.
            words = [{"type": "text", "text": "later", "text_elements": []}]
            later = await tablet.ask("turn/start", {"threadId": resting, "input": words})
            assert (await tablet.request("thread/list"))["data"]
            # The answer to an approval passes, and the turn's end.
            await tablet.respond(offer["id"], ACCEPT)
            for peer in peers:
                await peer.wait_method(RESOLVED, requestId=offer["id"])
                await peer.wait_method(TURN_COMPLETED, threadId=running, since=marked(peer, offer))
            await restart.see("waiting for 1 running turn(s)\n")
            assert (await app_server(desk))["pid"] == pid
            assert not [each for each in tablet.inbox if answers(later)(each)]
            model.release("mid")
            await restart.see("runs, as generation 2 of the app-server\n")
            assert await restart.end() == 0
        assert ended(pid)

        # The turns went their whole way, the one that was held begins now.
        assert (broker.home.work / "proof.txt").read_text() == "approved\n"
        for peer in peers:
            await peer.wait(lambda m: is_completed(m, turn))
            seen = View(telling).hear_all(peer.inbox)
            assert seen.turns[turn] == "completed"
            assert "half, whole" in seen.texts()
            assert seen.faults == []
        held = (await tablet.result(later))["turn"]["id"]
        for peer in peers:
            done = await peer.wait(lambda m: is_completed(m, held))
            assert done["params"]["turn"]["status"] == "completed"
            assert not peer.gone
            assert peer.heard("thread/closed") == []
        # All threads are there again, for those that followed them.
        for thread in (telling, running, resting):
            marks = [len(peer.inbox) for peer in peers]
            await phone.run_turn(thread, "go on")
            for peer, mark in zip(peers, marks, strict=True):
                await peer.wait_method(TURN_COMPLETED, since=mark, threadId=thread)
        assert (await app_server(desk))["generation"] == 2


def is_completed(message: Json, turn: str) -> bool:
    return message.get("method") == TURN_COMPLETED and message["params"]["turn"]["id"] == turn


def marked(peer: Peer, offer: Json) -> int:
    """Where in the peer's inbox that offer stands."""
    return peer.inbox.index(offer)


async def test_a_word_to_a_running_turn_passes_and_so_does_its_interrupt() -> None:
    model = scripted()
    async with brokered(model=model) as broker, client(broker, "desk") as desk:
        thread = await shared_thread(broker, desk)
        turn = await desk.start_turn(thread, "tell")
        await model.reached("mid")
        asked = await desk.ask("mux/restart")
        assert await desk.start_turn(thread, "joins the turn that runs") == turn
        await desk.request("turn/interrupt", {"threadId": thread, "turnId": turn})
        done = await desk.wait(lambda m: is_completed(m, turn))
        assert done["params"]["turn"]["status"] == "interrupted"
        assert (await desk.result(asked))["generation"] == 2


async def test_now_it_waits_for_nothing() -> None:
    model = scripted()
    async with (
        brokered(model=model) as broker,
        client(broker, "desk") as desk,
        client(broker, "phone") as phone,
    ):
        thread = await shared_thread(broker, desk, phone)
        turn = await desk.start_turn(thread, "tell")
        await model.reached("mid")
        for peer in (desk, phone):
            await peer.wait_method(DELTA, delta="half, ")
        done = await appmux(broker, "restart", "--now")
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.endswith("runs, as generation 2 of the app-server\n")
        for peer in (desk, phone):
            over = await peer.wait(lambda m: is_completed(m, turn))
            assert over["params"]["turn"]["status"] == "interrupted"
        assert (await phone.run_turn(thread, "go on"))["status"] == "completed"


async def test_who_stops_waiting_still_gets_it() -> None:
    model = scripted()
    async with brokered(model=model) as broker, client(broker, "desk") as desk:
        thread = await shared_thread(broker, desk)
        turn = await desk.start_turn(thread, "tell")
        await model.reached("mid")
        async with command(broker, "restart") as restart:
            await restart.see("waiting for 1 running turn(s)\n")
            restart.process.send_signal(signal.SIGINT)
            await restart.see("not waiting any more; the restart still happens once nothing runs\n")
            assert await restart.end() == 130
        waiting = ["1 running turn(s)"]
        await status_shows(desk, lambda report: waits(report) == waiting)
        model.release("mid")
        await life(desk, 2)
        done = await desk.wait(lambda m: is_completed(m, turn))
        assert done["params"]["turn"]["status"] == "completed"


def waits(report: Json) -> object:
    return report["appServer"]["restartWaitsFor"]


async def test_what_a_thread_was_started_with_holds_and_a_new_config_is_read() -> None:
    async with brokered() as broker, client(broker, "desk") as desk:
        config = broker.home.codex_home / "config.toml"
        given = {"approvalPolicy": "never", "sandbox": "workspace-write"}
        thread = await shared_thread(broker, desk, **given)
        before = await join(desk, thread)
        text = config.read_text()
        old, new = '"model" = "scripted"', '"model" = "of the new config"'
        assert old in text
        config.write_text(text.replace(old, new))
        await desk.request("mux/restart")
        after = await join(desk, thread)
        for name in ("approvalPolicy", "sandbox", "cwd", "model"):
            assert after[name] == before[name]
        assert after["sandbox"]["type"] == "workspaceWrite"
        other = await desk.request("thread/start", {"cwd": str(broker.home.work)})
        assert other["model"] == "of the new config"


async def test_a_newer_binary_on_disk_is_told_of_and_runs_after_it(tmp_path: Path) -> None:
    binary = tmp_path / "codex"
    binary.symlink_to(codex_bin())
    async with brokered(codex=str(binary)) as broker, client(broker, "desk") as desk:
        assert (await app_server(desk))["outdated"] is False
        newer = tmp_path / "newer"
        shutil.copy(codex_bin(), newer)
        newer.replace(binary)  # as an installer does it
        assert (await app_server(desk))["outdated"] is True
        shown = await appmux(broker, "status")
        assert "restart needed: codex on disk is another than the one that runs" in shown.stdout
        done = await appmux(broker, "restart")
        assert done.returncode == 0, done.stderr
        server = await app_server(desk)
        assert server["outdated"] is False
        assert executable(server["pid"]) == binary


def executable(pid: int) -> Path:
    return Path(f"/proc/{pid}/exe").readlink()


async def test_a_crash_while_it_waits_does_as_well() -> None:
    model = scripted()
    async with brokered(model=model) as broker, client(broker, "desk") as desk:
        thread = await shared_thread(broker, desk)
        await desk.start_turn(thread, "tell")
        await model.reached("mid")
        asked = await desk.ask("mux/restart")
        await kill_app_server(desk)
        assert (await desk.result(asked))["generation"] == 2
        mark = len(desk.inbox)
        await desk.start_turn(thread, "hello")
        await desk.wait_method(TURN_STARTED, since=mark)


async def test_without_a_broker_it_says_so(tmp_path: Path) -> None:
    done = await trio.run_process(
        [sys.executable, "-m", "mux", "restart", "--state-dir", str(tmp_path)],
        check=False,
        capture_stderr=True,
    )
    assert done.returncode == 1
    assert b"no appmux runs on the state directory" in done.stderr


# --- A command that is watched -------------------------------------------------------------------


@attrs.define
class Command:
    """A command that runs, and what it has printed."""

    process: trio.Process
    said: str = ""

    async def see(self, text: str) -> None:
        """Wait until it has printed `text`."""
        assert self.process.stdout is not None
        with trio.move_on_after(PATIENCE):
            while text not in self.said:
                piece = await self.process.stdout.receive_some()
                if not piece:
                    break
                self.said += piece.decode()
            else:
                return
        pytest.fail(f"never printed: {text!r}; but: {self.said!r}")

    async def end(self) -> int:
        """Its exit status, once it has one."""
        with trio.fail_after(PATIENCE):
            return await self.process.wait()


@asynccontextmanager
async def command(broker: Native, *arguments: str) -> AsyncIterator[Command]:
    """A command of ours beside that broker, while it runs."""
    process = await trio.lowlevel.open_process(
        [sys.executable, "-m", "mux", *arguments],
        stdout=subprocess.PIPE,
        env=broker.home.environ(),
        cwd=broker.home.work,
    )
    try:
        yield Command(process)
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()
