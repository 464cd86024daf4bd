"""Codex's own programs at the control socket while the broker has it: no second daemon starts."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from mux.demo import scripted_model
from mux.demo.scripted_model import Hold, Say, Scripted
from mux.downstream.sockets.socket_directory import short_place
from tests.end_to_end.brokered import brokered, client
from tests.end_to_end.devices import appmux
from tests.end_to_end.native import Home, Native, codex_bin, launched, private_home
from tests.end_to_end.peer import Json, connect, connect_unix
from tests.end_to_end.scenes import eventually
from tests.end_to_end.tui import LOOK_SECONDS, QUIET, tmux_is_missing, tui

needs_tmux = pytest.mark.skipif(
    tmux_is_missing(), reason="tmux, in which the TUI runs, is not installed"
)

PROMPT = "Ask Codex to do anything"


def scripted() -> Scripted:
    model = Scripted()
    model.on("greet", Say("Hello from the one runtime"))
    model.on("think", (Hold("thought"), Say("Thought.")))
    return model


async def codex(home: Home, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    """Run `codex` with `arguments` to its end."""
    command = [str(codex_bin()), *arguments]
    return await trio.run_process(
        command, env=home.environ(), capture_stdout=True, capture_stderr=True, check=False
    )


async def daemon(home: Home, verb: str) -> Json:
    """What `codex app-server daemon VERB` prints."""
    done = await codex(home, "app-server", "daemon", verb)
    assert done.returncode == 0, done.stderr
    told: Json = json.loads(done.stdout)
    return told


def has_daemon(home: Home) -> bool:
    """Whether Codex has, or had, a daemon of its own here."""
    return (home.codex_home / "app-server-daemon" / "daemon.pid").exists() or (
        home.codex_home / "packages"
    ).exists()


async def test_codexs_daemon_commands_find_the_broker() -> None:
    async with brokered() as broker:
        version = await daemon(broker.home, "version")
        assert version["status"] == "running"
        assert version["appServerVersion"] == version["cliVersion"]
        assert version["socketPath"] == str(broker.socket)
        assert (await daemon(broker.home, "start"))["status"] == "alreadyRunning"
        stop = await codex(broker.home, "app-server", "daemon", "stop")
        assert b"running but is not managed by codex app-server daemon" in stop.stderr
        second = await codex(broker.home, "app-server", "--listen", "unix://")
        assert second.returncode == 1
        assert b"app-server control socket is already in use at" in second.stderr
        assert not has_daemon(broker.home)
        assert (await daemon(broker.home, "version"))["status"] == "running"


async def test_proxy_is_a_client_like_any_other() -> None:
    model = scripted()
    async with brokered(model=model) as broker, client(broker, "phone") as phone:
        thread = await phone.start_thread(broker.home.work)
        await phone.run_turn(thread, "greet")
        async with trio.open_nursery() as nursery:
            proxy = await nursery.start(_proxy, broker.home)
            pipes = trio.StapledStream(proxy.stdin, proxy.stdout)
            async with connect(pipes, "localhost", "/") as desktop:  # type: ignore[arg-type]
                await desktop.initialize("desktop")
                resumed = await desktop.request("thread/resume", {"threadId": thread})
                [turn] = resumed["thread"]["turns"]
                assert turn["items"][-1]["text"] == "Hello from the one runtime"
                since = len(desktop.inbox)
                await phone.run_turn(thread, "greet")
                await desktop.wait_method("turn/completed", since=since, threadId=thread)
                report = await phone.request("mux/status")
                [told] = [each for each in report["clients"] if each["name"] == "desktop"]
                assert told["transport"] == "unix"
            nursery.cancel_scope.cancel()


async def _proxy(home: Home, task_status: trio.TaskStatus[trio.Process]) -> None:
    process = await trio.lowlevel.open_process(
        [str(codex_bin()), "app-server", "proxy"],
        env=home.environ(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    task_status.started(process)
    try:
        await process.wait()
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()


@needs_tmux
async def test_codex_agents_shows_and_opens_what_others_run() -> None:
    model = scripted()
    async with (
        brokered(model=model, config=QUIET) as broker,
        client(broker, "phone") as phone,
        tui(broker.home, "agents") as screen,
    ):
        await screen.see("Agent command center")
        thread = await phone.start_thread(broker.home.work)
        await phone.run_turn(thread, "greet")
        await screen.see("Ready 1")
        await phone.start_turn(thread, "think")
        await screen.see("Working 1")
        model.release("thought")
        await screen.see("Ready 1", "Thought.")
        await screen.answer("Agent command center", "Enter")
        await screen.see("› greet", "• Thought.", PROMPT)
        assert not has_daemon(broker.home)


@needs_tmux
async def test_a_tui_starts_no_daemon_while_the_broker_is_there_or_starts_again() -> None:
    model = scripted()
    async with brokered(model=model, config=QUIET) as first, tui(first.home) as screen:
        await screen.see(PROMPT)
        await screen.say("greet")
        await screen.see("• Hello from the one runtime")
        first.process.terminate()
        await first.process.wait()
        await screen.see("Reconnecting")
        async with brokered(model=model, home=first.home) as second:
            await screen.gone("Reconnecting")
            await screen.say("think")
            await model.reached("thought")
            model.release("thought")
            await screen.see("• Thought.")
            await _attached(second)
            assert not has_daemon(first.home)


async def _attached(broker: Native) -> Any:
    """Wait until the TUI is among the broker's clients."""
    async with client(broker, "onlooker") as onlooker:
        while True:
            report = await onlooker.request("mux/status")
            for each in report["clients"]:
                if each["name"] == "codex-tui":
                    return each
            await trio.sleep(LOOK_SECONDS)


# --- A CODEX_HOME so deep that no socket's address has room for the path --------------------------


class DeepHome(Home):
    """As `Home`."""

    @property
    def codex_home(self) -> Path:
        return self.home / ("deep-" * 20) / ("down-" * 20) / ".codex"


@contextmanager
def deep_home(base_url: str, **config: Any) -> Iterator[DeepHome]:
    with private_home(base_url, **config) as home:
        deep = DeepHome(home.root)
        deep.codex_home.parent.mkdir(parents=True)
        home.codex_home.rename(deep.codex_home)
        yield deep


@needs_tmux
async def test_plain_codex_attaches_in_a_deep_codex_home() -> None:
    model = scripted()
    async with trio.open_nursery() as nursery:
        await nursery.start(scripted_model.serve, model)
        with deep_home(model.base_url, **QUIET) as home:
            async with brokered(model=model, home=home) as broker:
                assert len(str(broker.socket)) > 200
                place = broker.socket.readlink()
                version = await daemon(home, "version")
                assert version["status"] == "running"
                assert version["socketPath"] == str(broker.socket)
                second = await codex(home, "app-server", "--listen", "unix://")
                assert second.returncode == 1
                assert b"app-server control socket is already in use at" in second.stderr
                async with tui(home) as screen:
                    await screen.see(PROMPT)
                    await screen.say("greet")
                    await screen.see("• Hello from the one runtime")
                    shown = await appmux(broker, "status")
                    assert "codex-tui" in shown.stdout, shown.stderr
                rival = await appmux(broker, "serve", "--state-dir", str(home.root / "other"))
                assert f"already in use at {broker.socket}" in rival.stderr
                assert not has_daemon(home)
            assert not place.exists()
            assert not broker.socket.is_symlink()
        nursery.cancel_scope.cancel()


async def test_the_place_of_codexs_own_is_taken_in_a_deep_codex_home() -> None:
    model = scripted()
    async with trio.open_nursery() as nursery:
        await nursery.start(scripted_model.serve, model)
        with deep_home(model.base_url) as home:
            command = [str(codex_bin()), "app-server", "--listen", "unix://"]
            control = home.codex_home / "app-server-control" / "app-server-control.sock"
            async with launched(command, home=home, model=model) as own:
                await eventually(control.exists, "codex listens")
                place = control.readlink()
                assert place == short_place(control), "where Codex has it, too"
                async with brokered("--take-over", home=home, model=model) as broker:
                    assert await own.process.wait() == 0
                    assert control.readlink() == place
                    async with connect_unix(broker.socket) as peer:
                        await peer.initialize("there")
                        report = await peer.request("mux/status")
                    assert report["clients"][0]["transport"] == "unix"
        nursery.cancel_scope.cancel()
