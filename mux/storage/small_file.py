"""A small file that is written at once, or in the background until the disk has taken it.

Two kinds of change aren't written at once. The first counts already although a full disk doesn't
take it (a device was revoked). The second isn't worth a wait (when a device was last seen).

A worker thread puts the text on the disk under another name. Only the one task that knows the
latest text renames it to the file's name, so an older text never replaces what was written
meanwhile.

Used by: ``access.devices``, ``push.endpoints``, ``notices.preferences``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec
import structlog
import trio

from mux.core.part import Part, later
from mux.posix import private_file
from mux.storage import json_file
from mux.storage.write_behind import Trouble

SELDOM: Final = 60.0
"""Seconds for which changes that don't matter are gathered, so that a device that comes and goes
costs one write in that time."""

BEHIND: Final = ".next"
"""Suffix of the file that a worker thread writes. It differs from ``json_file.NEW``, as the file
may be written at once meanwhile."""

log = structlog.get_logger()


class SmallFile(Part):
    """A file whose whole text is written at each change."""

    path: Path
    text: Callable[[], str]
    """Returns what should stand in the file now."""
    what: str
    """Names the file's content, for people."""
    until: Callable[[], str] = lambda: ""
    """Says for people what holds until the file can be written."""
    copy: Path | None = None
    """A second file that is always written first."""
    _trouble: Trouble = later()
    _changes: int = 0
    _owed: bool = False
    _matters: bool = False
    _wake: trio.Event = msgspec.field(default_factory=trio.Event)

    def __post_init__(self) -> None:
        self._trouble = Trouble(self.what, self.path)

    @property
    def trouble(self) -> str | None:
        """A text for people of why a change that matters isn't on the disk; None if it is."""
        return self._trouble.text

    def write(self) -> None:
        """Write the file now. Blocks. Raises ``OSError``; what was owed is then still owed."""
        self._changes += 1
        for path in self._paths():
            json_file.replace(path, self.text())
        self._written()

    def owe(self, reason: OSError | None = None) -> None:
        """Note a change that matters: `run` writes it as soon as the disk takes it.

        ``reason`` is the error if the caller has just failed to write it.
        """
        self._changes += 1
        self._owed = self._matters = True
        if reason is not None:
            self._failed(reason)
        self._wake.set()

    def owe_seldom(self) -> None:
        """Note a change on which nothing depends: `run` writes it within ``SELDOM`` seconds."""
        self._changes += 1
        self._owed = True
        self._wake.set()

    def flush(self) -> None:
        """Write what is owed, at the end. Blocks; a failure is logged."""
        if self._owed:
            try:
                self.write()
            except OSError as failure:
                self._failed(failure)

    async def run(self) -> None:
        """Write what is owed, until cancelled."""
        while True:
            await self._until_owed()
            try:
                await self._write_behind()
                self._trouble.wait = 0.0
            except OSError as failure:
                self._failed(failure)
                self._trouble.back_off()
                await trio.sleep(self._trouble.wait)

    async def _until_owed(self) -> None:
        """Wait for a change that matters; if only others are owed, for ``SELDOM`` seconds at
        most."""
        at = math.inf
        while not self._matters:
            at = min(at, trio.current_time() + SELDOM) if self._owed else math.inf
            self._wake = trio.Event()
            with trio.move_on_at(at) as gathering:
                await self._wake.wait()
            if gathering.cancelled_caught:
                return

    async def _write_behind(self) -> None:
        changes, text = self._changes, self.text()
        # Abandoned when the broker ends: a disk that hangs mustn't hold it up.
        new = await trio.to_thread.run_sync(self._prepare, text, abandon_on_cancel=True)
        if changes != self._changes:  # there is a newer text, or `write` has written it
            return
        for path, prepared in zip(self._paths(), new, strict=True):
            prepared.replace(path)
        self._written()
        await trio.to_thread.run_sync(
            private_file.sync_directory, self.path.parent, abandon_on_cancel=True
        )

    def _prepare(self, text: str) -> list[Path]:
        return [json_file.prepare(path, text, BEHIND) for path in self._paths()]

    def _paths(self) -> list[Path]:
        return [self.path] if self.copy is None else [self.copy, self.path]

    def _written(self) -> None:
        self._owed = self._matters = False
        self._trouble.end()

    def _failed(self, failure: OSError) -> None:
        text = (
            f"{self.what} {self.path} can't be written ({failure.strerror}): make room for it; it"
            " is tried again and again"
        )
        if self._matters:
            self._trouble.report(f"{text}, and until then {self.until()}")
        else:
            log.warning(text)
