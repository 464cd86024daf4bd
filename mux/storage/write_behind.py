"""Has a small file written while the broker goes on, until the disk has taken it.

Two things can't be written at once: what a full disk doesn't take though it counts already (a
device was shut out), and what isn't worth a wait (when a device was last seen). The text is put on
the disk in a worker thread; it gets the file's name in the one task that knows whether it is still
what should stand there, so nothing older is written over what came meanwhile.

Hands to: ``json_file``. Hears from: ``devices``, ``push.endpoints``, ``preferences``: what.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Final

import attrs
import structlog
import trio

from mux.posix import private_file
from mux.storage import json_file

FIRST_RETRY: Final = 0.1
LAST_RETRY: Final = 5.0
"""Seconds until the disk is tried again after a failure, doubled from the first to the last."""

SELDOM: Final = 60.0
"""Seconds for which what isn't worth a wait is gathered: a device that comes and goes costs no
more."""

BEHIND: Final = ".next"
"""Ends the name of what a worker thread writes: not that of what is written at once meanwhile."""

log = structlog.get_logger()


@attrs.define(eq=False, repr=False)
class WriteBehind:
    """One file. ``text``: what should stand in it now; ``what`` it is, and ``until`` it can be
    written, for people. ``copy``: a second file that is always written first.

    ``trouble``: why what matters isn't on the disk; None: it is.
    """

    path: Path
    text: Callable[[], str]
    what: str
    until: Callable[[], str] = lambda: ""
    copy: Path | None = None
    trouble: str | None = None
    _changes: int = 0
    _owed: bool = False
    _matters: bool = False
    _wake: trio.Event = attrs.field(factory=trio.Event)

    def write(self) -> None:
        """Write it now. Blocks. Raises ``OSError``; then what was owed is still owed."""
        self._changes += 1
        for path in self._paths():
            json_file.replace(path, self.text())
        self._written()

    def owe(self, reason: OSError | None = None) -> None:
        """It has changed and matters: as soon as it can be. ``reason`` it couldn't be just now."""
        self._changes += 1
        self._owed = self._matters = True
        if reason is not None:
            self._failed(reason)
        self._wake.set()

    def owe_seldom(self) -> None:
        """It has changed in something on which nothing depends."""
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
        retry = 0.0
        while True:
            await self._until_owed()
            try:
                await self._write_behind()
                retry = 0.0
            except OSError as failure:
                self._failed(failure)
                retry = min(2 * retry, LAST_RETRY) or FIRST_RETRY
                await trio.sleep(retry)

    async def _until_owed(self) -> None:
        """Wait for what matters; or, once something is owed that doesn't, for a while."""
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
        # Abandoned at the end, where a disk that hangs mustn't hold up the broker.
        new = await trio.to_thread.run_sync(self._prepare, text, abandon_on_cancel=True)
        if changes != self._changes:  # there is a newer text, or it was written at once
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
        if self.trouble:
            self.trouble = None
            log.info(f"{self.what} is written again", path=str(self.path))

    def _failed(self, failure: OSError) -> None:
        said = (
            f"{self.what} {self.path} can't be written ({failure.strerror}): make room for it; it"
            " is tried again and again"
        )
        if not self._matters:
            log.warning(said)
            return
        said += f", and until then {self.until()}"
        if said != self.trouble:
            self.trouble = said
            log.error(said)
