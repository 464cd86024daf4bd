"""`appmux serve --take-over`: Codex's own app-server makes way once it is idle; nothing is lost."""

from __future__ import annotations

import os
import re
import signal
import sys
from contextlib import suppress
from pathlib import Path

import pytest
import trio

from mux.config.addresses import parse_listen_url
from mux.demo.scripted_model import CallTool, Hold, Run, Say, Scripted
from mux.downstream.listener import open_listener
from mux.downstream.sockets.unix_socket import StartupLock
from tests.end_to_end.brokered import brokered, client
from tests.end_to_end.native import Home, Native, codex_bin, launched, native, native_unix
from tests.end_to_end.peer import connect_unix
from tests.end_to_end.test_control_socket import daemon, needs_tmux
from tests.end_to_end.tui import LOOK_SECONDS, QUIET, tui

APPROVAL = "item/commandExecution/requestApproval"
WAITS = r"waiting until it is idle: thread (\S+) "


def scripted() -> Scripted:
    model = Scripted()
    model.on("greet", Say("Hello from the one runtime"))
    model.on("think", (Hold("thought"), Say("Thought.")))
    left = CallTool("exec_command", {"cmd": "sleep 30", "yield_time_ms": 250})
    model.on("leave it", left, Say("It runs on."))
    model.on("run it", Run("echo approved > proof.txt", escalated=True), Say("It ran."))
    return model


def serve(home: Home, *arguments: str) -> dict[str, object]:
    """What `launched` wants for an `appmux serve` with a state directory of its own."""
    command = [sys.executable, "-m", "mux", "serve", "--listen", "unix://", *arguments]
    state = ("--state-dir", str(home.root / "state"))
    environ = {"APPMUX_CODEX_BIN": str(codex_bin()), "APPMUX_LOG_FORMAT": "json"}
    return {"command": [*command, *state], "home": home, "environ": environ}


async def refused(home: Home, *arguments: str) -> str:
    """Have an `appmux serve` end by itself with status 1; what it said."""
    async with launched(**serve(home, *arguments)) as running:  # type: ignore[arg-type]
        assert await running.process.wait() == 1
        await running.wait_log(r"Error: .*\n")
        return running.shown()


async def test_it_says_who_has_the_socket_and_what_runs_there() -> None:
    async with native_unix(model=scripted()) as own, connect_unix(own.socket) as phone:
        await phone.initialize("phone")
        thread = await phone.start_thread(own.home.work)
        said = await refused(own.home)
        assert f"app-server control socket is already in use at {own.socket}" in said
        assert re.search(rf"somebody started by hand, process {own.process.pid} \(.*since 2", said)
        assert re.search(r"codex \d+\.\d+\.\d+, threads loaded: 1, none of them runs", said)
        assert "`appmux serve --take-over` asks it to stop" in said
        await phone.run_turn(thread, "leave it")
        assert "none of them runs, commands in the background: 1" in await refused(own.home)
        await phone.start_turn(thread, "think")
        await own.model.reached("thought")
        assert f"thread {thread} runs a turn" in await refused(own.home)
        # With a bound it gives up in time, and changes nothing.
        said = await refused(own.home, "--take-over", "--take-over-wait", "0.5")
        assert "it isn't idle in time" in said
        assert "nothing was changed" in said
        since = len(phone.inbox)
        own.model.release("thought")
        await phone.wait_method("turn/completed", since=since, threadId=thread)


async def test_it_waits_for_turns_and_answers_and_then_has_everything() -> None:
    model = scripted()
    async with native_unix(model=model) as own:
        async with connect_unix(own.socket) as phone:
            await phone.initialize("phone")
            thread = await phone.start_thread(own.home.work)
            await phone.start_turn(thread, "run it")
            asked = await phone.wait_method(APPROVAL)
            async with launched(**serve(own.home, "--take-over")) as broker:  # type: ignore[arg-type]
                waits = await broker.wait_log(WAITS + "waits for a word")
                assert waits[1] == thread
                other = await phone.start_thread(own.home.work)
                await phone.start_turn(other, "think")
                await model.reached("thought")
                await phone.respond(asked["id"], {"decision": "accept"})
                await phone.wait_method("turn/completed", threadId=thread)
                await broker.wait_log(f"idle: thread {other} runs a turn")
                assert own.process.returncode is None
                model.release("thought")
                await broker.wait_log(r"it is idle \(.*\), and asked to stop")
                await broker.wait_log("listening on: unix://")
                await _read(own, thread, "It ran.")
                await _read(own, other, "Thought.")
        assert await own.process.wait() == 0


async def _read(own: Native, thread: str, text: str) -> None:
    """The thread, by the broker that is there now, ends with `text`, in a turn that is complete."""
    async with connect_unix(own.socket) as peer:
        await peer.initialize("reader")
        resumed = await peer.request("thread/resume", {"threadId": thread})
        turn = resumed["thread"]["turns"][-1]
        assert (turn["status"], turn["items"][-1]["text"]) == ("completed", text)


async def test_interrupted_it_leaves_all_as_it_was() -> None:
    async with native_unix(model=scripted()) as own, connect_unix(own.socket) as phone:
        await phone.initialize("phone")
        thread = await phone.start_thread(own.home.work)
        await phone.start_turn(thread, "think")
        await own.model.reached("thought")  # else its thread may not be active yet
        async with launched(**serve(own.home, "--take-over")) as broker:  # type: ignore[arg-type]
            await broker.wait_log(WAITS)
            broker.process.send_signal(signal.SIGINT)
            assert await broker.process.wait() == 1
            await broker.wait_log("interrupted .*; nothing was changed")
        own.model.release("thought")
        await phone.wait_method("turn/completed", threadId=thread)


async def test_one_that_ends_already_is_waited_for() -> None:
    model = scripted()
    async with native_unix(model=model) as own, connect_unix(own.socket) as phone:
        await phone.initialize("phone")
        thread = await phone.start_thread(own.home.work)
        await phone.start_turn(thread, "think")
        await model.reached("thought")
        own.process.send_signal(signal.SIGTERM)  # a second one would end the turn
        async with launched(**serve(own.home, "--take-over")) as broker:  # type: ignore[arg-type]
            await broker.wait_log(WAITS)
            model.release("thought")
            await broker.wait_log("listening on: unix://")
            await _read(own, thread, "Thought.")


async def test_what_isnt_codexs_is_never_asked_to_stop() -> None:
    async with brokered() as other:
        said = await refused(other.home, "--take-over")
        holders = (other.process.pid, other.broker_pid)  # the supervisor has the socket as well
        assert any(f"process {each} " in said for each in holders)
        assert "listens there; stop it" in said
        async with client(other, "still"):
            pass


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells who waits for a lock")
async def test_an_app_server_that_starts_in_the_gap_finds_the_broker() -> None:
    async with native_unix() as own:
        address = parse_listen_url("unix://", own.home.codex_home)
        lock = await _held(own.socket)
        own.process.terminate()
        await own.process.wait()
        async with native("--listen", "unix://", home=own.home) as late:
            await _waits_for_a_lock(late.process.pid)
            opened = await open_listener(address, startup_held=True)
            lock.release()
            await late.wait_log("app-server control socket is already in use at")
        await opened.aclose()


async def _held(path: Path) -> StartupLock:
    """The lock, once the app-server that has just started there lets go of it."""
    while True:
        lock = StartupLock.acquire(path)
        if lock is not None:
            return lock
        await trio.sleep(LOOK_SECONDS)


async def _waits_for_a_lock(pid: int) -> None:
    """Return once the system shows that the process waits for a lock on a file."""
    while True:
        locks = (await trio.Path("/proc/locks").read_text()).splitlines()
        if any("->" in line and f" {pid} " in line for line in locks):
            return
        await trio.sleep(LOOK_SECONDS)


SYSTEMCTL = """#!/bin/sh
there=$CODEX_HOME/app-server-control
case $2 in
  is-active|is-enabled) exit 1 ;;
  start)
    [ -e "$there/app-server-control.sock" ] && echo taken >> "$HOME/started"
    flock -n "$there/app-server-startup.lock" true || echo locked >> "$HOME/started"
esac
exit 0
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the stand-in is for systemd")
async def test_a_service_that_is_installed_takes_its_place() -> None:
    async with native_unix() as own:
        programs = own.home.root / "bin"
        programs.mkdir()
        for name, text in (("systemctl", SYSTEMCTL), ("loginctl", "#!/bin/sh\n")):
            (programs / name).write_text(text)
            (programs / name).chmod(0o755)
        environ = own.home.environ() | {
            "PATH": f"{programs}:{os.environ['PATH']}",
            "APPMUX_CODEX_BIN": str(codex_bin()),
            "APPMUX_LISTEN": "unix://",
        }
        command = [sys.executable, "-m", "mux", "service", "install", "--yes"]
        done = await trio.run_process(command, env=environ, check=False, capture_stderr=True)
        assert done.returncode == 1
        assert b"with --take-over" in done.stderr
        await trio.run_process([*command, "--take-over"], env=environ)
        assert (own.home.home / "started").read_text() == "locked\n"
        assert await own.process.wait() == 0


@needs_tmux
async def test_a_tui_of_codexs_daemon_goes_on_by_the_broker() -> None:
    model = scripted()
    async with native_unix(model=model, config=QUIET) as own:
        own.process.terminate()
        await own.process.wait()
        home = own.home
        try:
            assert (await daemon(home, "start"))["status"] == "started"
            async with tui(home) as screen:
                await screen.see("Ask Codex")
                await screen.say("think")
                await model.reached("thought")
                said = await refused(home)
                assert "Codex's own daemon, process" in said
                async with launched(**serve(home, "--take-over")) as broker:  # type: ignore[arg-type]
                    await broker.wait_log(WAITS)
                    model.release("thought")
                    await screen.see("• Thought.")
                    await broker.wait_log("listening on: unix://")
                    await broker.wait_log('"codex-tui"')
                    await screen.gone("Reconnecting")
                    await screen.say("greet")
                    await screen.see("• Hello from the one runtime")
                    assert (await daemon(home, "start"))["status"] == "alreadyRunning"
        finally:
            _end_updater(home)


def _end_updater(home: Home) -> None:
    """Codex's daemon leaves a process behind that looks for updates."""
    file = home.codex_home / "app-server-daemon" / "daemon-updater.pid"
    for found in re.findall(r'"pid":(\d+)', file.read_text() if file.exists() else ""):
        with suppress(ProcessLookupError):  # it may have ended by itself
            os.kill(int(found), signal.SIGKILL)
