"""App-servers that die, hang, don't come up, or are replaced: how a test has that happen.

Hands to: the tests of recovery, outages and planned restarts.
Hears from: `brokered`; the broker, by its report; the processes.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import trio

from tests import faulty_app_server
from tests.end_to_end.brokered import ONLY_THE_SERVER, brokered
from tests.end_to_end.native import Native, codex_bin
from tests.end_to_end.peer import Json, Peer
from tests.end_to_end.scenes import app_server_pid, eventually, status_shows


async def kill_app_server(peer: Peer, number: signal.Signals = signal.SIGKILL) -> int:
    """Send the app-server a signal; its pid."""
    pid = await app_server_pid(peer)
    os.kill(pid, number)
    return pid


async def life(peer: Peer, generation: int, state: str = "ready") -> Json:
    """Wait until this life of the app-server is in this state; what the report says of it."""

    def there(report: Json) -> bool:
        server = report["appServer"]
        return (server["generation"], server["state"]) == (generation, state)

    report = await status_shows(peer, there)
    return report["appServer"]  # type: ignore[no-any-return]


async def app_server(peer: Peer) -> Json:
    """What the report says of the app-server now."""
    return (await peer.request("mux/status"))["appServer"]  # type: ignore[no-any-return]


async def appmux(broker: Native, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A command of ours beside that broker, to its end."""
    command = [sys.executable, "-m", "mux", *arguments]
    done = await trio.run_process(
        command,
        check=False,
        capture_stdout=True,
        capture_stderr=True,
        env=broker.home.environ(),
        cwd=broker.home.work,
    )
    out, err = (each.decode() for each in (done.stdout, done.stderr))
    return subprocess.CompletedProcess(command, done.returncode, out, err)


# --- The real app-server, whose start a test can keep back, or spoil -----------------------------

GATED = """#!/bin/sh
{only}cd '{stage}'
if [ -e broken ]; then
  cat broken >&2
  exit 3
fi
if [ -p gate ]; then
  : > waits
  read -r _ < gate
fi
cd "$OLDPWD"
exec '{codex}' "$@"
"""


@attrs.frozen
class Stage:
    """A broker whose app-server is started by a script that looks here first."""

    broker: Native
    stage: Path

    def keep_back(self) -> None:
        """The next lives stand still before they begin, until `let_go`."""
        os.mkfifo(self.stage / "gate")

    async def kept_back(self) -> None:
        """Wait until a life stands still; it is told once."""
        waits = self.stage / "waits"
        await eventually(waits.exists, "an app-server that waits at its gate")
        waits.unlink()

    async def let_go(self) -> None:
        """Let the life that stands still begin, and all after it."""
        gate = self.stage / "gate"
        async with await trio.open_file(gate, "w") as waiting:  # opens once the script reads
            gate.unlink()
            await waiting.write("\n")

    def spoil(self, last_words: str) -> None:
        """The next lives end at once, with exit status 3 and this on stderr, until `mend`."""
        (self.stage / "broken").write_text(last_words)

    def mend(self) -> None:
        (self.stage / "broken").unlink()


@asynccontextmanager
async def staged(stage: Path, **options: Any) -> AsyncIterator[Stage]:
    """`brokered`, over the real app-server, behind the script; `stage` is an empty directory."""
    script = stage / "codex"
    script.write_text(GATED.format(only=ONLY_THE_SERVER, stage=stage, codex=codex_bin()))
    script.chmod(0o755)
    async with brokered(codex=str(script), **options) as broker:
        yield Stage(broker, stage)


# --- A stand-in, for what the real app-server can't be brought to --------------------------------


@asynccontextmanager
async def stood_in(stage: Path, **options: Any) -> AsyncIterator[Native]:
    """`brokered`, over a stand-in that is at fault when asked (see `faulty_app_server`)."""
    script = stage / "codex"
    program = f"exec '{sys.executable}' '{faulty_app_server.__file__}' none\n"
    script.write_text(f"#!/bin/sh\n{ONLY_THE_SERVER}{program}")
    script.chmod(0o755)
    async with brokered(codex=str(script), **options) as broker:
        yield broker
