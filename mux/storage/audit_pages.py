"""Pages of the audit log, newest record first: for a client that asks over the network.

A page is read backwards from the end of the chain, or from where the page before ended, block by
block. So the newest records cost the same however long the log is. What one page reads, holds and
returns is bounded; a log that doesn't have enough of the wanted kinds within that is read on by the
next page.

The format is ``audit_chain``'s, which also tells whether the log was changed: a page doesn't.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any, Final

import msgspec

from mux.errors import AppmuxError
from mux.posix import private_file
from mux.storage import audit_chain

BLOCK: Final = 64 * 1024
"""Bytes read at once: some hundred records."""

READ_BYTES: Final = 4 * 1024 * 1024
"""Most bytes read for one page, by and large: some 10,000 records, a tenth of a second of a thread.
A page of a rare kind ends there, and says where to go on."""

PAGE_BYTES: Final = 256 * 1024
"""Bytes of records after which a page ends. Where the operator has texts recorded, each may have
16 KiB."""

LINE_BYTES: Final = 256 * 1024
"""Most bytes of a line that may be a record. Ours have a tenth of it; so no line of somebody else's
fills the memory."""

_CURSOR: Final = re.compile(r"([^/:\s]{1,100}):(\d{1,15})")


class AuditPageError(AppmuxError):
    """Raised for a cursor that no page gave, and for a log that can't be read."""


class Page(msgspec.Struct, frozen=True):
    """Records, newest first, and where the next page begins."""

    records: list[dict[str, Any]]
    cursor: str | None
    """None if there are no older records."""
    unreadable: int
    """Lines passed over that are no records: ``audit_chain.verify`` says what became of them."""


def read_page(
    directory: Path, *, limit: int, cursor: str | None = None, kinds: Collection[str] = ()
) -> Page:
    """Return at most ``limit`` records. Blocks.

    ``kinds`` are kinds of records, or what stands before the ``/`` of some; none: all. Raises
    ``AuditPageError``.
    """
    try:
        return _Reading(limit, frozenset(kinds)).run(directory, cursor)
    except OSError as failure:
        reason = failure.strerror or failure
        raise AuditPageError(f"the audit log can't be read: {reason}") from failure


class _Reading(msgspec.Struct):
    limit: int
    kinds: frozenset[str]
    records: list[dict[str, Any]] = msgspec.field(default_factory=list)
    size: int = 0
    """Bytes of the records."""
    left: int = READ_BYTES
    """Bytes that may still be read."""
    unreadable: int = 0

    def run(self, directory: Path, cursor: str | None) -> Page:
        paths = audit_chain.files(directory)
        end: int | None = None
        if cursor is not None:
            name, end = _parsed(cursor)
            # A file that was removed for its age meanwhile was older than all that are left.
            paths = [path for path in paths if path.name <= name]
            end = end if paths and paths[-1].name == name else None
        while paths:
            path = paths.pop()
            try:
                unread = self._read_file(path, end)
            except FileNotFoundError:  # removed for its age, with all that was older
                break
            end = None
            if self._is_full() and (unread or paths):
                return Page(self.records, f"{path.name}:{unread}", self.unreadable)
        return Page(self.records, None, self.unreadable)

    def _is_full(self) -> bool:
        return len(self.records) >= self.limit or self.size >= PAGE_BYTES or self.left <= 0

    def _read_file(self, path: Path, end: int | None) -> int:
        """Read the lines before ``end``, the last one first, until the page is full.

        Returns the place before which lines are still to be taken; 0: none are. A piece behind the
        last line end is being written, or is what a crash left: it is no line yet.
        """
        descriptor = private_file.open_file(path, os.O_RDONLY, foreign=True)
        try:
            size = os.fstat(descriptor).st_size
            at = size if end is None else min(end, size)
            taken, rest, whole = at, b"", False
            while at and not self._is_full():
                length = min(BLOCK, at)
                at -= length
                self.left -= length
                first, *pieces = os.pread(descriptor, length, at).split(b"\n")
                place = at + length
                for piece in reversed(pieces):
                    place -= len(piece)
                    if whole:
                        self._add(piece + rest)
                        taken = place
                        if self._is_full():
                            return taken
                    whole, rest = True, b""
                    place -= 1
                rest = (first + rest)[: LINE_BYTES + 1]
        finally:
            os.close(descriptor)
        if at:  # enough was read: a line longer than that is passed over
            self.unreadable += taken == end
            return at if taken == end else taken
        if whole:
            self._add(rest)
        return 0

    def _add(self, text: bytes) -> None:
        record = audit_chain.read(text) if len(text) <= LINE_BYTES else None
        if record is None:
            self.unreadable += 1
        elif self._is_wanted(record.kind):
            self.records.append(audit_chain.fields(text) or {})
            self.size += len(text)

    def _is_wanted(self, kind: str) -> bool:
        return not self.kinds or kind in self.kinds or kind.partition("/")[0] in self.kinds


def _parsed(cursor: str) -> tuple[str, int]:
    found = _CURSOR.fullmatch(cursor)
    if found is None:
        raise AuditPageError("`cursor` isn't the `nextCursor` of a page")
    return found[1], int(found[2])
