"""File descriptors: how many this process may have, and how many the app-server.

A broker has one for each client, so it takes as many as it is allowed. What it starts gets the
limit that it was started with itself: programs that still use ``select(2)`` fail beyond 1,024.

Hands to: the kernel. Hears from: ``server``, at the start; whoever starts a program for long.
"""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

HELD_BACK: Final = 64
"""For the broker's own needs: the pipes of an app-server and of what writes codex's schema (12),
the journal's and the audit log's files (8), push services, files of libraries that are loaded late.
Connections get the rest."""

HELD_BACK_SHARE: Final = 4
"""At most a quarter of all, where there are few."""

ENDLESS: Final = 2**31
"""Stands for "no limit"."""

MACOS_MOST: Final = 10_240
"""As many as macOS grants where the hard limit is none."""

STARTED_WITH: Final = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
"""The soft limit as this process found it; ``raise_limit`` alone changes it."""

SHELL: Final = "/bin/sh"
_LIMITED: Final = 'ulimit -S -n "$0" && exec "$@"'
"""The limit must hold before the program begins, and can't be lowered here while it is started:
other threads open files."""


def raise_limit() -> None:
    """Take as many as the hard limit allows. Called once, at the start."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    for most in (hard, MACOS_MOST):
        if _count(most) > _count(STARTED_WITH):
            with suppress(OSError, ValueError):
                resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
                return


def for_connections() -> int:
    """The number from which on descriptors are held back: new ones get the lowest that is free."""
    most = _count(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    return most - min(HELD_BACK, most // HELD_BACK_SHARE)


def as_started(command: Sequence[str | Path]) -> list[str | Path]:
    """The command that runs this one under the limit that we were started with.

    The process is the program's own. Raises ``OSError`` if it can't be run, as starting it would.
    """
    if resource.getrlimit(resource.RLIMIT_NOFILE)[0] == STARTED_WITH:
        return list(command)
    program = Path(command[0])
    if program.parent != Path():  # else it is looked for on PATH
        program.stat()
        if program.is_dir() or not os.access(program, os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(program))
    return [SHELL, "-c", _LIMITED, str(STARTED_WITH), *command]


def _count(limit: int) -> int:
    return ENDLESS if limit == resource.RLIM_INFINITY else limit
