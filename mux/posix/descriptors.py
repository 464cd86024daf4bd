"""Limits on file descriptors, of this process and of the app-server.

A broker needs a descriptor for each client, so it takes as many as it is allowed. The programs that
it starts get the limit that it was started with itself: programs that still use ``select(2)`` fail
beyond 1,024.

Used by ``server``, at the start, and by code that starts a long-running program.
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
"""Descriptors for the broker's own needs: pipes of an app-server and of the process that writes
codex's schema (12), files of the journal and the audit log (8), push services, files of libraries
that are loaded late. Connections get the rest."""

HELD_BACK_SHARE: Final = 4
"""Where descriptors are few, at most a quarter of all is held back."""

ENDLESS: Final = 2**31
"""Stands for "no limit"."""

MACOS_MOST: Final = 10_240
"""Most descriptors that macOS grants if there is no hard limit."""

STARTED_WITH: Final = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
"""The soft limit that this process was started with; only ``raise_limit`` changes it."""

SHELL: Final = "/bin/sh"
_LIMITED: Final = 'ulimit -S -n "$0" && exec "$@"'
"""Shell script that lowers the limit before the program begins. Our own limit can't be lowered
while the program is started: other threads open files."""


def raise_limit() -> None:
    """Raise the soft limit as far as the hard limit allows. Call it once, at the start."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    for most in (hard, MACOS_MOST):
        if _count(most) > _count(STARTED_WITH):
            with suppress(OSError, ValueError):
                resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
                return


def for_connections() -> int:
    """Return the first descriptor number that is held back.

    New descriptors get the lowest free number, so a higher one means that few are left.
    """
    most = _count(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    return most - min(HELD_BACK, most // HELD_BACK_SHARE)


def as_started(command: Sequence[str | Path]) -> list[str | Path]:
    """Return the command that runs this one under the limit that we were started with.

    No shell stays between: the process becomes the program's own. Raises ``OSError`` if the program
    can't be run, as starting it would.
    """
    if resource.getrlimit(resource.RLIMIT_NOFILE)[0] == STARTED_WITH:
        return list(command)
    program = Path(command[0])
    if program.parent != Path():  # else it is searched on PATH
        program.stat()
        if program.is_dir() or not os.access(program, os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(program))
    return [SHELL, "-c", _LIMITED, str(STARTED_WITH), *command]


def _count(limit: int) -> int:
    return ENDLESS if limit == resource.RLIM_INFINITY else limit
