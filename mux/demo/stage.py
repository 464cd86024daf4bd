"""The demo's surroundings: private directories, the scripted model's part, the broker's process.

Used by ``run``. ``appmux serve`` is a process of its own; its stderr says where it listens.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import Final

import attrs
import platformdirs
import trio

from mux.demo import scripted_model
from mux.demo.scripted_model import Run, Say, Scripted
from mux.errors import AppmuxError

DRAIN_DEADLINE: Final = 10.0
"""Seconds for ``appmux serve`` to end on SIGTERM; then it is killed."""

LAST_WORDS_DEADLINE: Final = 2.0
"""Seconds to read what an ended broker wrote: only a process it left behind keeps its log open."""

LOG_KEPT: Final = 40
"""Last lines of the broker's log, which are shown if it fails: with those of its own end."""

PACE: Final = 0.05
"""Seconds between two deltas, so that one can see them come."""

GREETING: Final = "Hello! You are the first client here."
SHARED: Final = (
    "You are both on one thread of one app-server. The phone asked, and the app-server writes each"
    " word of this answer once; the broker hands it to both of you as it comes."
)
ASKING: Final = "Leaving a note takes your approval. Either of you may give it."
DONE: Final = "The note is there, once. You both saw who was asked, and what came of it."
NOTE: Final = "approved"
NOTE_FILE: Final = "note.txt"


class DemoError(AppmuxError):
    """The demo couldn't be run to its end."""


def script() -> Scripted:
    """Return the model's part: user text that contains the needle gets the answer."""
    model = Scripted()
    say = partial(Say, pace=PACE)
    model.on("ello", say(GREETING, chunks=7))
    model.on("share", say(SHARED, chunks=32))
    # Appends: a command that ran twice would leave two lines.
    note = Run(f"echo {NOTE} | tee -a {NOTE_FILE}", escalated=True, justification="for the demo")
    model.on("note", (say(ASKING, chunks=12), note), say(DONE, chunks=12))
    return model


# -- directories -----------------------------------------------------------------------------------


@attrs.frozen
class Home:
    """The directories of one demo: a HOME, a CODEX_HOME and a working directory."""

    root: Path

    @property
    def home(self) -> Path:
        """The HOME of the demo's programs."""
        return self.root / "home"

    @property
    def codex_home(self) -> Path:
        """Their CODEX_HOME."""
        return self.root / "home" / ".codex"

    @property
    def work(self) -> Path:
        """The directory in which their threads work."""
        return self.root / "work"

    def make(self, config: str) -> None:
        """Make the directories, in a root that exists; ``config`` is Codex's ``config.toml``."""
        self.codex_home.mkdir(parents=True, mode=0o700)
        self.work.mkdir()
        (self.codex_home / "config.toml").write_text(config)

    def environ(self) -> dict[str, str]:
        """Return this process's environment, with these directories and no one's settings."""
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("OPENAI_", "CODEX_", "APPMUX_", "XDG_", "GIT_", "NOTIFY_"))
        }
        # Otherwise the app-server would use a proxy even for the scripted model.
        local = dict.fromkeys(("NO_PROXY", "no_proxy"), "127.0.0.1,localhost")
        return kept | local | {"HOME": str(self.home), "CODEX_HOME": str(self.codex_home)}


@contextmanager
def private_home(base_url: str) -> Iterator[Home]:
    """Make fresh directories whose Codex uses the model at ``base_url``; removed at the end."""
    # Not in the system's temporary directory: Codex refuses some of its work there.
    cache = platformdirs.user_cache_path("appmux")
    try:
        cache.mkdir(parents=True, exist_ok=True)
        root = Path(tempfile.mkdtemp(prefix="demo-", dir=cache))
    except OSError as failure:
        raise DemoError(
            f"can't make a directory in {cache}: {failure.strerror}; set XDG_CACHE_HOME to a"
            " directory that you can write"
        ) from failure
    try:
        home = Home(root)
        trusted = {str(home.work): {"trust_level": "trusted"}}
        home.make(scripted_model.codex_config(base_url, projects=trusted))
        yield home
    finally:
        shutil.rmtree(root, ignore_errors=True)


# -- the broker ------------------------------------------------------------------------------------


@attrs.define(eq=False, repr=False)
class Broker:
    """``appmux serve`` as a process."""

    urls: dict[str, str] = attrs.field(factory=dict)
    """The URLs at which the broker listens, by scheme."""
    log: deque[str] = attrs.field(factory=lambda: deque(maxlen=LOG_KEPT))
    """The last lines of its log."""
    _listening: trio.Event = attrs.field(factory=trio.Event)
    _ended: trio.Event = attrs.field(factory=trio.Event)

    async def read_log(self, stderr: trio.abc.ReceiveStream) -> None:
        """Read the broker's log, up to its end."""
        rest = b""
        async for piece in stderr:
            *lines, rest = (rest + piece).split(b"\n")
            for line in lines:
                self._note(line.decode(errors="replace"))
        self._ended.set()
        self._listening.set()

    def _note(self, line: str) -> None:
        self.log.append(line)
        match = re.fullmatch(r"  listening on: ((\w+)://.*)", line)
        if match:
            self.urls[match[2]] = match[1]
            if self.urls.keys() == {"unix", "ws"}:
                self._listening.set()

    async def wait_listening(self) -> None:
        """Wait until the broker accepts clients. Raises ``DemoError`` if the broker ends before."""
        await self._listening.wait()
        if self._ended.is_set():
            raise DemoError(f"`appmux serve` ended at its start; it said:\n{self.log_tail()}")

    async def wait_ended(self) -> None:
        """Wait until its log is read to the end."""
        await self._ended.wait()

    def log_tail(self) -> str:
        """Return the log's last lines, indented."""
        return "\n".join(f"  {line}" for line in self.log)


@asynccontextmanager
async def serving(home: Home, codex: Path) -> AsyncIterator[Broker]:
    """Run the broker as a person would by hand; ended with its app-server at the end."""
    command = [sys.executable, "-m", "mux", "serve", "--codex-bin", str(codex)]
    # Codex's own control socket would do as well, but its path is longer (107 bytes at most).
    command += ["--listen", f"unix://{home.root}/appmux.sock", "--listen", "ws://127.0.0.1:0"]
    command += ["--log-format", "console"]
    process: trio.Process = await trio.lowlevel.open_process(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=home.environ(),
        cwd=home.work,
        # Ctrl-C is for the demo, which then ends the broker in order.
        start_new_session=True,
    )
    assert process.stderr is not None
    broker = Broker()
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(broker.read_log, process.stderr)
            yield broker
            await _end(process)
            with trio.move_on_after(LAST_WORDS_DEADLINE):
                await broker.wait_ended()
            nursery.cancel_scope.cancel()
    finally:
        with trio.CancelScope(shield=True):
            await _end(process)
            await process.stderr.aclose()


async def _end(process: trio.Process) -> None:
    """Have the broker drain. Its app-server ends with it, also if it is killed (stdin closes)."""
    if process.returncode is None:
        process.terminate()
        with trio.move_on_after(DRAIN_DEADLINE):
            await process.wait()
    if process.returncode is None:
        process.kill()
        await process.wait()
