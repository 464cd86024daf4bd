"""The real app-server on a test bench: started, spoken to, and put away again.

`native_stdio` runs `codex app-server` over pipes, `native_ws` and `native_unix` run its own
WebSocket listeners; each with a scripted model, in a HOME and CODEX_HOME that are its alone.

Hands to: the tests, `bench/`; the way to speak to it is `peer`'s.
Hears from: `codex app-server`.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Final

import attrs
import trio

from mux.config.codex_binary import find_codex
from mux.demo import scripted_model, stage
from mux.demo.scripted_model import Scripted
from tests.end_to_end.peer import Peer, StdioLink, plainly

# The app-server starts in a fraction of a second; its first start on a cold disk takes longer.
START_PATIENCE: Final = 60.0
# At the end of its stdin, or on a signal when idle, the app-server exits within 0.1 s. A listener
# with a turn running waits for that on the first signal, and exits on the second.
STEP_PATIENCE: Final = 1.0
# How often to try whether the control socket is there: the app-server doesn't say.
LOOK_SECONDS: Final = 0.01


# --- The binary, and a home for it ---------------------------------------------------------------


def codex_bin() -> Path:
    """The codex binary, found as `appmux serve` finds it without a flag."""
    return find_codex(None, os.environ)


class Home(stage.Home):
    """A HOME, CODEX_HOME and working directory of one test's own."""

    def environ(self) -> dict[str, str]:
        """This process's environment with these directories in it, and no one's keys.

        Nor a wish to do without bytecode: an installed broker has it, and starts in less time.
        """
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("OPENAI_", "CODEX_", "XDG_", "GIT_"))
            and name != "PYTHONDONTWRITEBYTECODE"
        }
        return kept | {"HOME": str(self.home), "CODEX_HOME": str(self.codex_home)}


@contextmanager
def private_home(base_url: str, **config: Any) -> Iterator[Home]:
    """A fresh `Home` whose Codex asks the model at `base_url`; `config` as in `codex_config`."""
    # Codex warns about a CODEX_HOME under the system's temporary directory, so not there.
    cache = Path.home() / ".cache" / "appmux-tests"
    cache.mkdir(parents=True, exist_ok=True)
    root = Path(tempfile.mkdtemp(prefix="t", dir=cache))
    try:
        home = Home(root)
        home.make(scripted_model.codex_config(base_url, **config))
        _share_schema(home)
        yield home
    finally:
        shutil.rmtree(root, ignore_errors=True)


def _share_schema(home: Home) -> None:
    """What a broker makes of the binary's schema takes a second: once for all tests is enough."""
    state = home.home / ".local" / "state" / "appmux"
    state.mkdir(parents=True, mode=0o700)
    shared = Path(__file__).parents[2] / ".pytest_cache" / "codex-schema"
    shared.mkdir(parents=True, exist_ok=True)
    (state / "codex-schema").symlink_to(shared)


# --- The app-server ------------------------------------------------------------------------------


@attrs.define
class Native:
    """A running app-server: its process, home, model and log, and the way to reach it.

    `peer` is the one client of a stdio app-server, `url` or `socket` where the others listen.
    Only what the kind of app-server has is set.
    """

    process: trio.Process
    home: Home
    model: Scripted
    log: bytearray = attrs.field(factory=bytearray)
    peer: Peer = attrs.field(init=False)
    url: str = attrs.field(init=False)
    socket: Path = attrs.field(init=False)
    _log_ended: bool = False
    _logged: trio.Event = attrs.field(factory=trio.Event)

    async def keep_log(self) -> None:
        """Collect stderr."""
        assert self.process.stderr is not None
        async for piece in self.process.stderr:
            self.log += piece
            self._wake()
        self._log_ended = True
        self._wake()

    async def wait_log(self, pattern: str) -> re.Match[str]:
        """Wait until stderr shows `pattern`. Raises RuntimeError if the app-server exits first."""
        with trio.fail_after(START_PATIENCE):
            while not (found := re.search(pattern, self.shown())):
                if self._log_ended:
                    raise RuntimeError(f"the app-server exited before it was up:\n{self.shown()}")
                await self._logged.wait()
        return found

    def shown(self) -> str:
        """Its stderr so far."""
        return self.log.decode(errors="replace")

    @property
    def broker_pid(self) -> int:
        """The process of the broker; that of `appmux serve` is its supervisor's."""
        [lock] = self.home.home.glob(".local/state/appmux/broker.lock")
        pid = int(lock.read_text())
        # What stands in the file of one that has ended may be anybody's number by now.
        stat = Path(f"/proc/{pid}/stat")
        if stat.exists() and pid != self.process.pid:
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
            assert parent == self.process.pid, f"process {pid} is no broker of ours"
        return pid

    def _wake(self) -> None:
        self._logged.set()
        self._logged = trio.Event()


@asynccontextmanager
async def native(
    *arguments: str, codex: Path | None = None, **options: Any
) -> AsyncIterator[Native]:
    """`codex app-server` with `arguments`, and nobody connected yet; options as in `launched`."""
    command = [str(codex or codex_bin()), "app-server", *arguments]
    async with launched(command, pipes="--listen" not in arguments, **options) as running:
        yield running


@asynccontextmanager
async def launched(
    command: Sequence[str],
    *,
    pipes: bool = False,
    model: Scripted | None = None,
    config: Mapping[str, Any] | None = None,
    home: Home | None = None,
    environ: Mapping[str, str] | None = None,
) -> AsyncIterator[Native]:
    """A program that is, or starts, an app-server, with its scripted model.

    With a `home` given, that one is used as it is (and stays): a second life of an app-server.
    """
    with plainly():
        async with trio.open_nursery() as nursery:
            scripted = model or Scripted()
            if not scripted.base_url:
                await nursery.start(scripted_model.serve, scripted)
            with contextlib.ExitStack() as stack:
                own = home or stack.enter_context(private_home(scripted.base_url, **(config or {})))
                pipe = subprocess.PIPE if pipes else subprocess.DEVNULL
                process: trio.Process = await trio.lowlevel.open_process(
                    command,
                    stdin=pipe,
                    stdout=pipe,
                    stderr=subprocess.PIPE,
                    env=own.environ() | dict(environ or {}),
                    cwd=str(own.work),
                )
                running = Native(process, own, scripted)
                try:
                    nursery.start_soon(running.keep_log)
                    yield running
                finally:
                    await _end(process)
                    nursery.cancel_scope.cancel()


async def _end(process: trio.Process) -> None:
    """Have the process exit, by harder and harder means."""
    steps: list[Callable[[], None]] = [process.terminate, process.terminate, process.kill]
    with trio.CancelScope(shield=True):
        if process.stdin is not None:
            await process.stdin.aclose()
            steps.insert(0, lambda: None)
        for step in steps:
            step()
            with trio.move_on_after(STEP_PATIENCE):
                await process.wait()
                return
        await process.wait()


@asynccontextmanager
async def native_stdio(*arguments: str, **options: Any) -> AsyncIterator[Native]:
    """A real app-server over pipes, with `peer` to speak to it; options as in `native`."""
    with plainly():
        async with native(*arguments, **options) as running, trio.open_nursery() as nursery:
            running.peer = Peer(StdioLink(running.process))
            nursery.start_soon(running.peer.listen)
            yield running
            nursery.cancel_scope.cancel()


@asynccontextmanager
async def native_ws(*arguments: str, **options: Any) -> AsyncIterator[Native]:
    """A real app-server on a WebSocket port of its own, at `url`; options as in `native`."""
    async with native("--listen", "ws://127.0.0.1:0", *arguments, **options) as running:
        running.url = (await running.wait_log(r"listening on: (ws://\S+)\n"))[1]
        yield running


@asynccontextmanager
async def native_unix(*arguments: str, **options: Any) -> AsyncIterator[Native]:
    """A real app-server on Codex's control socket, at `socket`; options as in `native`."""
    async with native("--listen", "unix://", *arguments, **options) as running:
        control = running.home.codex_home / "app-server-control" / "app-server-control.sock"
        with trio.fail_after(START_PATIENCE):
            while not await _accepts(control):  # noqa: ASYNC110 (there is no event for it)
                await trio.sleep(LOOK_SECONDS)
        running.socket = control
        yield running


async def _accepts(path: Path) -> bool:
    """Whether somebody listens there; that there is a socket comes a moment before."""
    try:
        stream = await trio.open_unix_socket(str(await trio.Path(path).resolve()))
    except OSError:
        return False
    await stream.aclose()
    return True
