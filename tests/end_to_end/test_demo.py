"""``appmux demo``, as a person runs it: a process, the real app-server, and nothing left behind."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from xml.etree import ElementTree

import attrs
import pytest
import trio

from mux.cli.common.broker import ask
from mux.client import Json
from mux.errors import AppmuxError
from mux.storage import state_dir
from tests.end_to_end.native import codex_bin
from tests.end_to_end.peer import connect_ws, plainly

LOOK_SECONDS = 0.02
"""How often to look what a demo is doing that hasn't printed anything yet."""

PATIENCE = 120.0
"""Seconds for one demo, which takes 6, on a machine that is busy with other tests."""


@attrs.define(eq=False)
class Demo:
    """A running demo, and what it has printed."""

    process: trio.Process
    cache: Path
    out: bytes = b""
    err: bytes = b""
    _news: trio.Event = attrs.field(factory=trio.Event)
    _open: int = 0

    async def read(
        self,
        out: trio.abc.ReceiveStream,
        *,
        error: bool = False,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        self._open += 1
        task_status.started()
        async for piece in out:
            if error:
                self.err += piece
            else:
                self.out += piece
            self._news.set()
        self._open -= 1
        self._news.set()

    async def has_said_all(self) -> None:
        """Wait until stdout and stderr have ended, and all of both is here."""
        while self._open:
            self._news = trio.Event()
            await self._news.wait()

    async def wait_printed(self, pattern: str) -> re.Match[str]:
        with trio.fail_after(PATIENCE):
            while not (found := re.search(pattern, self.text)):
                self._news = trio.Event()
                await self._news.wait()
        return found

    async def wait_turn(self) -> Json:
        """Wait until a turn runs; what the broker says of itself then."""
        for _ in range(round(PATIENCE / LOOK_SECONDS)):
            for state in self.cache.glob("appmux/demo-*/home/.local/state/appmux"):
                with contextlib.suppress(AppmuxError):
                    report = await trio.to_thread.run_sync(
                        ask, state_dir.listeners(state), "mux/status"
                    )
                    if any(thread["turn"] for thread in report["threads"]):
                        return report
            await trio.sleep(LOOK_SECONDS)
        raise AssertionError(f"no turn within {PATIENCE} s")

    @property
    def text(self) -> str:
        return self.out.decode()

    def left_behind(self) -> list[Path]:
        """What is still there of its private directories."""
        return list(self.cache.glob("appmux/*"))


@asynccontextmanager
async def demo(tmp_path: Path, *arguments: str, codex: Path | None = None) -> AsyncIterator[Demo]:
    """`appmux demo` with a cache directory of its own; ended at the latest with the block."""
    # Codex warns about a CODEX_HOME under the system's temporary directory, so not there.
    tests = Path.home() / ".cache" / "appmux-tests"
    tests.mkdir(parents=True, exist_ok=True)
    cache = Path(tempfile.mkdtemp(prefix="d", dir=tests))
    kept = {name: value for name, value in os.environ.items() if not name.startswith("APPMUX_")}
    process: trio.Process = await trio.lowlevel.open_process(
        [sys.executable, "-m", "mux", "demo", "--codex-bin", str(codex or codex_bin()), *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=kept | {"XDG_CACHE_HOME": str(cache)},
        cwd=tmp_path,
    )
    assert process.stdout
    assert process.stderr
    running = Demo(process, cache)
    try:
        with plainly():
            async with trio.open_nursery() as nursery:
                await nursery.start(running.read, process.stdout)
                await nursery.start(partial(running.read, process.stderr, error=True))
                yield running
                nursery.cancel_scope.cancel()
    finally:
        with trio.CancelScope(shield=True):
            if process.returncode is None:
                process.terminate()
                await process.wait()
        shutil.rmtree(cache)


async def ended(running: Demo) -> int:
    """Wait for its end, and for all that it has said; the exit status."""
    with trio.fail_after(PATIENCE):
        status = await running.process.wait()
        await running.has_said_all()
    return status


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def test_it_shows_what_both_saw(tmp_path: Path) -> None:
    svg = tmp_path / "demo.svg"
    async with demo(tmp_path, "--svg", str(svg)) as running:
        assert await ended(running) == 0
        text = running.text
        assert "Saved " in text
        assert running.err == b""
        header, *rows = [
            [cell.strip() for cell in line.split("│")[1:-1]]
            for line in text.splitlines()
            if line.startswith("│")
        ]
        assert header == ["s", "terminal (unix socket)", "s", "phone (WebSocket)"]
        halves = [(left, right) for _, left, _, right in rows]
        for both in ("turn completed", "? may it run this?", "$ echo approved | tee -a note.txt"):
            assert (both, both) in halves
        assert ("·", "→ answers: accept") in halves
        assert ("✓ decided elsewhere, prompt gone", "✓ decided here") in halves
        assert "56 deltas to the terminal, 56 to the phone; the texts are equal." in text
        assert "The command ran once." in text
        assert re.search(r"one app-server, codex \d+\.\d+\.\d+", text)
        assert running.left_behind() == []
    drawing = ElementTree.fromstring(svg.read_text(encoding="utf-8"))
    words = "".join(drawing.itertext()).replace("\xa0", " ")
    assert "phone (WebSocket)" in words
    assert "The command ran once." in words


async def test_held_it_serves_until_it_is_interrupted(tmp_path: Path) -> None:
    async with demo(tmp_path, "--hold") as running:
        line = (await running.wait_printed(r"  (cd .* resume .* --remote ws://\S+)\n"))[1]
        words = shlex.split(line)
        environ = dict(word.split("=", 1) for word in words if word.startswith(("HOME=", "CODEX_")))
        url, thread = words[-1], words[words.index("resume") + 1]
        assert str(codex_bin()) in words
        assert (Path(environ["CODEX_HOME"]) / "config.toml").exists()
        async with connect_ws(url) as peer:
            await peer.initialize("me")
            resumed = await peer.request("thread/resume", {"threadId": thread})
            assert len(resumed["thread"]["turns"]) == 3
            await peer.start_turn(thread, "please leave a note")
            asked = await peer.wait_method("item/commandExecution/requestApproval")
            await peer.respond(asked["id"], {"decision": "accept"})
            await peer.wait_method("turn/completed")
            assert (Path(words[1]) / "note.txt").read_text() == "approved\n" * 2
            report = await peer.request("mux/status")
        pids = (report["broker"]["pid"], report["appServer"]["pid"])
        assert all(alive(pid) for pid in pids)
        running.process.send_signal(signal.SIGINT)
        assert await ended(running) == 0
        assert not any(alive(pid) for pid in pids)
        assert running.left_behind() == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_interrupted_in_the_middle_it_leaves_nothing(
    tmp_path: Path, number: signal.Signals
) -> None:
    async with demo(tmp_path) as running:
        report = await running.wait_turn()
        pids = (report["broker"]["pid"], report["appServer"]["pid"])
        assert all(alive(pid) for pid in pids)
        running.process.send_signal(number)
        assert await ended(running) == 128 + number
        assert not any(alive(pid) for pid in pids)
        assert running.left_behind() == []
        assert running.err == b""


async def test_an_app_server_that_does_not_start(tmp_path: Path) -> None:
    broken = tmp_path / "codex"
    broken.write_text("#!/bin/sh\necho 'no such luck' >&2\nexit 3\n")
    broken.chmod(0o755)
    async with demo(tmp_path, codex=broken) as running:
        assert await ended(running) == 1
        said = running.text + running.err.decode()
        assert "no such luck" in said
        assert "Traceback" not in said
        assert running.left_behind() == []


async def test_a_picture_that_can_not_be_saved(tmp_path: Path) -> None:
    async with demo(tmp_path, "--svg", str(tmp_path / "nowhere" / "x.svg")) as running:
        assert await ended(running) == 1
        assert "there is no directory" in running.err.decode()
        assert running.out == b""
