"""Names of files that others chose, made harmless. Pure."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from typing import Final

from mux.files.limits import NAME_BYTES, NAME_TRIES

UNNAMED: Final = "upload"

HARMFUL: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
"""Categories of characters that no name needs: controls, directions, separators of lines."""


def safe(name: str) -> str:
    """Return a name without separators, control characters and leading dots, and not too long.

    The last part of a path is its name, in the way of any system. The ending stays.
    """
    last = name.replace("\\", "/").rstrip("/").rpartition("/")[2]
    safe_name = "".join(
        " " if unicodedata.category(each) == "Zs" else each
        for each in unicodedata.normalize("NFC", last)
        if unicodedata.category(each) not in HARMFUL
    )
    # "-" and "~" mean something to shells.
    safe_name = safe_name.strip().lstrip(".").lstrip("-~ ").strip()
    stem, dot, ending = safe_name.rpartition(".")
    if not stem:
        return _cut(safe_name, NAME_BYTES) or UNNAMED
    ending = _cut(ending, NAME_BYTES // 4)
    return _cut(stem, NAME_BYTES - len((dot + ending).encode())) + dot + ending


def alternatives(name: str) -> Iterator[str]:
    """Yield a safe name, and then the same with numbers: ``a.txt``, ``a-2.txt``, ``a-3.txt``, …"""
    yield name
    stem, dot, ending = name.rpartition(".")
    if not stem:
        stem, dot, ending = name, "", ""
    yield from (f"{stem}-{number}{dot}{ending}" for number in range(2, NAME_TRIES))


def _cut(text: str, most: int) -> str:
    """Return as many whole characters as fit into so many bytes."""
    return text.encode()[:most].decode(errors="ignore").rstrip()
