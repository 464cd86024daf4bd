"""Reads the changes of files that an item of the app-server has, and counts their lines.

Of a new or deleted file codex gives the lines, of an updated one the hunks of a unified diff.

Used by ``approval_view`` and ``digest``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import msgspec

from mux.core.extension.approvals import FileChange

LONGEST_DIFF: Final = 64 * 1024
"""Characters of one file's diff that are shown: nobody reads more of it on a phone, and the item
has the rest."""

MOST_FILES: Final = 200
"""Files of one change that are listed."""


def changes_in(item: bytes, *, diffs: bool) -> list[FileChange]:
    """Return the changes of an item (JSON text); ``diffs``: with their texts.

    An item of another shape has none.
    """
    try:
        changes = _decoder.decode(item).changes
    except msgspec.DecodeError:
        return []
    return [_read(each, diffs=diffs) for each in changes[:MOST_FILES]]


def _read(change: _Change, *, diffs: bool) -> FileChange:
    added, removed = counts(change.kind.type, change.diff)
    read = FileChange(
        path=change.path,
        kind=change.kind.type,
        movedTo=change.kind.move_path or change.kind.movePath,
        added=added,
        removed=removed,
    )
    if diffs:
        read.diff, read.cut = change.diff[:LONGEST_DIFF], len(change.diff) > LONGEST_DIFF
    return read


def counts(kind: str, diff: str) -> tuple[int, int]:
    """Return how many lines a change adds and removes."""
    if kind == "add":
        return len(diff.splitlines()), 0
    if kind == "delete":
        return 0, len(diff.splitlines())
    added = removed = 0
    for sign in _signs(diff):
        added += sign == "+"
        removed += sign == "-"
    return added, removed


def _signs(diff: str) -> Iterator[str]:
    """Yield the first character of each line within the hunks; what precedes them names files."""
    within = False
    for line in diff.split("\n"):
        if line.startswith("@@"):
            within = True
        elif within:
            yield line[:1]


class _Kind(msgspec.Struct):
    type: str = "update"
    move_path: str | None = None
    movePath: str | None = None


class _Change(msgspec.Struct):
    path: str
    kind: _Kind = msgspec.field(default_factory=_Kind)
    diff: str = ""


class _Item(msgspec.Struct):
    changes: list[_Change] = []


_decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(_Item)
