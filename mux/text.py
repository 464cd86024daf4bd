"""Text for a terminal: texts that others chose, made harmless; durations and days, readable."""

from __future__ import annotations

import datetime
from typing import Final

SECONDS: Final = (("d", 86_400), ("h", 3_600), ("min", 60))

CONTROLS: Final = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0))}
"""Control characters, written out. Clients choose their own names, which must not drive the
operator's terminal."""

_TURNED: Final = {
    code: f"\\u{code:04x}"
    for code in (0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))
}
"""Marks that turn the direction of writing: a command must not read other than it runs."""

_ALL: Final = CONTROLS | _TURNED


def visible(text: str) -> str:
    """Return the text with control characters and turned writing written out."""
    return text.translate(_ALL)


def span(seconds: float) -> str:
    """Return a duration in its two greatest units: ``3 h 5 min``."""
    rest = int(seconds)
    if rest < SECONDS[-1][1]:
        return f"{rest} s"
    parts = []
    for name, size in SECONDS:
        if count := rest // size:
            parts.append(f"{count} {name}")
            rest -= count * size
    return " ".join(parts[:2])


def day(moment: float) -> str:
    """Return the day of a moment, in Unix seconds, as UTC has it: ``2026-12-01``."""
    return f"{datetime.datetime.fromtimestamp(moment, datetime.UTC):%Y-%m-%d}"
