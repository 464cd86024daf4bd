"""Compares the settings file with the settings that the broker runs with.

A person who has changed the file sees in `appmux status` what still waits for a restart. The file
is read again only if it is another than at the last look.

Used by ``requests``, for ``mux/status``.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from mux.config.load import ConfigError, Settled, default_file
from mux.core.part import Part

Identity = tuple[int, int, int] | None
"""Inode, size and time of change of a file; None if there is none."""


class SettingsWatch(Part):
    """The settings of a start, and how to read them again from the same sources."""

    settled: Settled
    reread: Callable[[], Settled]
    """Reads flags, environment and file as at the start. Raises ``ConfigError``."""
    _seen: Identity = None
    _changed: list[str] = msgspec.field(default_factory=list)
    _trouble: str | None = None

    def __post_init__(self) -> None:
        self._seen = _identity(self._path)

    @property
    def _path(self) -> Path:
        return self.settled.file or default_file()

    def status(self) -> dict[str, Any]:
        """Return ``settings`` of ``mux/status``."""
        seen = _identity(self._path)
        if seen != self._seen:
            self._seen = seen
            self._compare()
        return {
            "file": None if seen is None else str(self._path),
            "changed": self._changed,
            "trouble": self._trouble,
            "authMode": self.settled.config.auth.mode,
        }

    def _compare(self) -> None:
        self._changed, self._trouble = [], None
        try:
            now = {key: value for key, value, _ in self.reread().items()}
        except ConfigError as failure:
            self._trouble = str(failure)
        else:
            self._changed = [key for key, value, _ in self.settled.items() if now[key] != value]


def _identity(path: Path) -> Identity:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns
