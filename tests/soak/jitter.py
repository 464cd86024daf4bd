"""Races come out: a command is run, and the processes that it starts are stopped at random.

    python -m tests.soak.jitter 0.3 python -m pytest -q -n 3 tests/end_to_end

Again and again one of them, drawn by lot, stands still for up to so many seconds, and goes on. What
holds only because one process is usually quicker than another fails then. A test that stops a
process itself is disturbed by it: leave that out. Linux only. Exit status: the command's.

Hears from: the command line, `/proc`.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

SHORTEST: Final = 0.01
"""Seconds that a process stands still at least."""
PAUSE: Final = 0.02
"""Seconds until the next one is stopped, at most."""


def descendants(root: int) -> list[int]:
    """The processes under this one that run or sleep; not those that somebody has stopped."""
    children: dict[int, list[tuple[int, str]]] = {}
    for each in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = each.read_text().rpartition(")")[2].split()[:2]
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended while we looked
        children.setdefault(int(parent), []).append((int(each.parent.name), state))
    found: list[int] = []
    under = [root]
    while under:
        for pid, state in children.get(under.pop(), ()):
            under.append(pid)
            if state in "RS":
                found.append(pid)
    return found


def stop_one(root: int, longest: float, rng: random.Random) -> None:
    """Stop one of the descendants for a moment."""
    there = descendants(root)
    if not there:
        return
    pid = rng.choice(there)
    try:
        os.kill(pid, signal.SIGSTOP)
        time.sleep(rng.uniform(SHORTEST, longest))
        os.kill(pid, signal.SIGCONT)
    except ProcessLookupError:
        pass  # it has ended: as good as stopped


def main() -> int:
    """The command line; the command's exit status."""
    longest, command = float(sys.argv[1]), sys.argv[2:]
    rng = random.Random()
    with subprocess.Popen(command) as process:
        while process.poll() is None:
            stop_one(process.pid, longest, rng)
            time.sleep(rng.uniform(0, PAUSE))
    return process.returncode


if __name__ == "__main__":
    sys.exit(main())
