"""Resolve paths on this host (links, ``..``, ``~``), and match them against the listed directories.

Access to a disk can hang (a network mount that is gone). So it is done in a thread, and abandoned
after ``DEADLINE``. Such a path can't be judged, and the client that named it is refused.

The dispatcher sends the command ``Resolve`` and gets the event ``Resolved``. The settings say
which directories are listed.
"""

from __future__ import annotations

import fcntl
import math
import os
import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Final

import msgspec
import structlog
import trio

from mux.core.commands import Resolve
from mux.core.events import Resolved
from mux.core.part import Part
from mux.core.protocol.threads.directories import ResolvedPath, around

DEADLINE: Final = 5.0
"""Seconds for all paths of one request, which take microseconds where no disk hangs."""

THREADS: Final = 8
"""Requests resolved at once. A hanging one keeps its thread; the limit saves threads for others."""

_WILD: Final = re.compile(r"[*?\[]")

log = structlog.get_logger()


class Listed(msgspec.Struct, frozen=True):
    """An entry of the setting, as a pattern for resolved paths of directories."""

    pattern: re.Pattern[str]

    @classmethod
    def read(cls, entry: str) -> Listed:
        """Parse an entry: ``*`` and ``?`` match within a name, ``**`` matches any number of names.

        The part before the first wildcard is a path of this host, and resolved as such.
        """
        names = str(_expanded(entry)).split("/")
        plain = next((at for at, name in enumerate(names) if _WILD.search(name)), len(names))
        base = os.path.realpath("/".join(names[:plain]) or "/").rstrip("/")
        parts = [re.escape(base)]
        for name in names[plain:]:
            if name == "**":
                parts.append(r"(?:/[^/]+)*")
            elif name:
                parts.append("/" + _within_a_name(name))
        return cls(re.compile("".join(parts), re.DOTALL))

    def matches(self, path: str) -> bool:
        """Return whether the entry names this directory, which must be resolved."""
        return self.pattern.fullmatch(path.rstrip("/")) is not None


_WITHIN: Final = re.compile(r"\*|\?|\[!?\]?[^\]]*\]|.", re.DOTALL)


def _within_a_name(pattern: str) -> str:
    """Return the expression for a pattern whose wildcards match no slash."""
    return "".join(_expression(piece) for piece in _WITHIN.findall(pattern))


def _expression(piece: str) -> str:
    if piece in ("*", "?"):
        return {"*": "[^/]*", "?": "[^/]"}[piece]
    if len(piece) > 1:  # a set, as [a-z] or [!a-z]
        inner = piece[1:-1].replace("\\", r"\\")
        return f"(?!/)[{'^' + inner[1:] if inner[:1] == '!' else inner}]"
    return re.escape(piece)


class Directories(Part):
    """Answers the core's ``Resolve`` commands."""

    listed: Sequence[str]
    """Listed directories, as in the settings."""
    own: str
    """The app-server's working directory."""
    on_resolved: Callable[[Resolved], None]
    """Called with each result."""
    _limiter: trio.CapacityLimiter = msgspec.field(
        default_factory=lambda: trio.CapacityLimiter(THREADS)
    )
    _queue: tuple[trio.MemorySendChannel[Resolve], trio.MemoryReceiveChannel[Resolve]] = (
        msgspec.field(default_factory=lambda: trio.open_memory_channel[Resolve](math.inf))
    )

    def resolve(self, command: Resolve) -> None:
        """Queue a request. Doesn't wait."""
        self._queue[0].send_nowait(command)

    async def run(self) -> None:
        """Resolve the queued requests until cancelled."""
        async with trio.open_nursery() as nursery:
            async for command in self._queue[1]:
                nursery.start_soon(self._resolve, command)

    async def _resolve(self, command: Resolve) -> None:
        look = partial(places, command.paths, tuple(self.listed), self.own)
        resolved: tuple[ResolvedPath | None, ...] = (None,) * len(command.paths)
        with trio.move_on_after(DEADLINE) as deadline:
            resolved = await trio.to_thread.run_sync(
                look, abandon_on_cancel=True, limiter=self._limiter
            )
        if deadline.cancelled_caught:
            log.warning("a directory can't be looked at: does its disk answer?", seconds=DEADLINE)
        self.on_resolved(Resolved(command.case, resolved))


def places(
    paths: Sequence[str], listed: Sequence[str], own: str
) -> tuple[ResolvedPath | None, ...]:
    """Resolve each path, relative to ``own``; None for a path that can't be judged.

    An empty path is ``own`` itself.
    """
    entries = [Listed.read(entry) for entry in listed]
    return tuple(_place(path, entries, own) for path in paths)


def _expanded(path: str) -> Path:
    """Return the path with the home directory for ``~``, as codex reads it."""
    return Path(path).expanduser()


def _place(path: str, listed: Sequence[Listed], own: str) -> ResolvedPath | None:
    try:
        real = _true_name(os.path.realpath(Path(own) / _expanded(path)))
        real.encode()  # a path that isn't UTF-8 can't be put into JSON
    except (OSError, ValueError, RuntimeError):
        return None
    matched = [each for each in around(real) if any(entry.matches(each) for entry in listed)]
    return ResolvedPath(real, listed=real in matched, within=bool(matched))


def _true_name(path: str) -> str:
    """Return the path as the disk spells it, where the disk takes other spellings too (macOS)."""
    command: int | None = getattr(fcntl, "F_GETPATH", None)
    if command is None or not Path(path).is_dir():
        return path
    place = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return os.fsdecode(fcntl.fcntl(place, command, bytes(1024)).rstrip(b"\0"))
    finally:
        os.close(place)
