"""Text for an operator's terminal: what others chose, made harmless; lengths of time, readable.

Hands to: ``status``, ``audit``, ``approvals``. Hears from: they, what is to be shown.
"""

from __future__ import annotations

from typing import Final

SECONDS: Final = (("d", 86_400), ("h", 3_600), ("min", 60))

CONTROLS: Final = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0))}
"""Clients choose their own names, which must not drive the operator's terminal."""

_TURNED: Final = {
    code: f"\\u{code:04x}"
    for code in (0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))
}
"""Marks that turn the direction of writing: a command must not read other than it runs."""

_ALL: Final = CONTROLS | _TURNED


def visible(text: str) -> str:
    """The text with control characters and turned writing written out."""
    return text.translate(_ALL)


def span(seconds: float) -> str:
    """A length of time in its two greatest units: ``3 h 5 min``."""
    rest = int(seconds)
    if rest < SECONDS[-1][1]:
        return f"{rest} s"
    parts = []
    for name, size in SECONDS:
        if count := rest // size:
            parts.append(f"{count} {name}")
            rest -= count * size
    return " ".join(parts[:2])
