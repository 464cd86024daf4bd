"""Asks a codex binary for its version.

This stands apart from ``config.codex_binary``, which ``stdio.codex_wrapper`` loads at each start:
trio takes longer to load than all of that.
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Literal

import trio

from mux.config.codex_binary import CodexError

OLDEST_TRIED = (0, 163, 0)
NEWEST_TRIED = (0, 171, 0)
"""The versions that the tests run with (see ``docs/compatibility.md``)."""

VERSION_DEADLINE = 20.0
"""Seconds for ``codex --version``. The binary answers in milliseconds; npm's wrapper on a cold disk
takes a few seconds."""


def compared(version: str) -> Literal["older", "tried", "newer"]:
    """Return how a version stands to those that were tried. Raises ``ValueError`` if it is none."""
    match = re.match(r"(\d+)\.(\d+)\.(\d+)", version)
    if match is None:
        raise ValueError(version)
    parts = tuple(map(int, match.groups()))
    if parts < OLDEST_TRIED:
        return "older"
    return "newer" if parts > NEWEST_TRIED else "tried"


async def kill(process: trio.Process) -> None:
    """Kill a process that only prints something: it has nothing to lose."""
    process.kill()


async def codex_version(path: Path) -> str:
    """Return the version that ``path --version`` prints, like ``0.163.0``.

    Raises ``CodexError`` if it isn't codex.
    """
    with trio.move_on_after(VERSION_DEADLINE) as deadline:
        try:
            done = await trio.run_process(
                [path, "--version"],
                stdin=b"",
                env=os.environ | {"CODEX_HOME": os.devnull},  # else it leaves files in there
                capture_stdout=True,
                stderr=subprocess.DEVNULL,
                check=False,
                deliver_cancel=kill,
            )
        except OSError as error:
            raise CodexError(f"{path} can't be run: {error.strerror or error}") from error
    if deadline.cancelled_caught:
        raise CodexError(f"`{path} --version` gave no answer in {VERSION_DEADLINE:.0f} s")
    output = done.stdout.decode(errors="replace")
    match = re.match(r"codex\S*\s+(\d+\.\d+\.\d+\S*)", output)
    if match is None:
        raise CodexError(
            f"{path} is not codex: `--version` exited with {done.returncode} and said"
            f" {output[:80].strip()!r}"
        )
    return match[1]
