"""Writes the audit log's files (see ``audit_chain``). Everything blocks, in one thread at a time.

The writer continues where the last broker ended. A line that a crash cut off is removed. Whatever
else was cut off or changed stays as it is; a record tells of it, and a new file is begun.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path

import msgspec
import structlog

from mux.core.part import Part
from mux.posix import private_file
from mux.storage import audit_chain, json_file
from mux.storage.audit_chain import BATCH, BROKEN, NOTHING, TRIMMED, Head

FILE_BYTES = 16 * 1024 * 1024
"""A new file is begun each day, and past this size: old files are removed whole."""

DAY = 86_400.0

log = structlog.get_logger()


class PendingRecord(msgspec.Struct, frozen=True):
    """A record that has no number yet."""

    at: float
    """Unix seconds."""
    kind: str
    fields: dict[str, object]


def _date(at: float) -> date:
    return datetime.fromtimestamp(at, UTC).date()


class AuditWriter(Part):
    """Writes the files. Everything here blocks, and runs in one thread at a time."""

    directory: Path
    max_bytes: int
    max_age: float
    clock: Callable[[], float] = time.time
    n: int = 0
    """The number of the last record written; 0: none."""
    digest: str = NOTHING
    """The digest of the last record written."""
    used: int = 0
    """Bytes of all files."""
    taken: int = 0
    """How many of the records given to the last `work` are on the disk, even if it failed after
    that."""
    _file: Path | None = None
    _size: int = 0
    _latest: date = date.min
    _attempt: Path | None = None
    _owed: list[PendingRecord] = msgspec.field(default_factory=list)
    _begun: bool = False
    _head_owed: bool = False

    def work(self, records: list[PendingRecord]) -> None:
        """Write the records, and remove files that are too old.

        Raises ``OSError``: then try again, without the first ``taken`` records.
        """
        self.taken = 0
        if not self._begun:
            self._begin()
        if self._head_owed:
            self._write_head()
        if self._owed or records:
            self._write(self._owed + records, taken=len(records))
        self._trim()

    # ── where the last broker left it ─────────────────────────────────────────────────────────

    def _begin(self) -> None:
        private_file.make_directory(self.directory)
        head = audit_chain.read_head(self.directory)
        paths = self._without_stillborn(head)
        if head is None and not paths:
            self._write_head()
        self.used = sum(path.lstat().st_size for path in paths)
        fault = self._find_end(head, paths[-1]) if paths else _none_of(head)
        if not paths and head is not None:
            self.n, self.digest = head.n, head.digest
        if fault and paths:  # or the next file could have the name of this one
            self.n = max(self.n, _number_of(paths[-1]))
        self._begun = True
        if fault:
            log.error("the audit log isn't as it was left", found=fault, path=str(self.directory))
            self._owed.append(PendingRecord(self.clock(), BROKEN, {"found": fault}))

    def _without_stillborn(self, head: Head | None) -> list[Path]:
        """List the files. Remove the last one if a crash cut off its very first record, or came
        before it."""
        paths = audit_chain.files(self.directory)
        if paths:
            last = paths[-1]
            self._latest = _date_of(last)
            text = private_file.read(last)
            # Without a head nothing tells a piece of a first record from one that was changed.
            cut = not text if head is None else b"\n" not in text
            if cut and (head is None or head.n < _number_of(last)):
                paths.pop().unlink()
        return paths

    def _find_end(self, head: Head | None, path: Path) -> str | None:
        """Find the record to continue after: the last one, or the one that the head names.

        Returns what is wrong with the end of the log, or None.
        """
        text = private_file.read(path)
        whole = text[: text.rfind(b"\n") + 1]
        last = _last_line(whole)
        record = audit_chain.read(last)
        if record is not None:
            self.n, self.digest = record.n, audit_chain.digest_of(last)
            if head is not None and self._continues(head, whole):
                if len(text) > len(whole):  # cut off by a crash: the head doesn't know it
                    os.truncate(path, len(whole))
                self._file, self._size = path, len(whole)
                return None
        # Begin a new file, so that the old one stays as it is and the next record is beyond doubt.
        if head is None:
            return f"{audit_chain.HEAD} is missing or no head"
        if head.n >= self.n:
            self.n, self.digest = head.n, head.digest
        return f"the end isn't the record {head.n} that {audit_chain.HEAD} knows"

    def _continues(self, head: Head, whole: bytes) -> bool:
        """Return whether the head's record is there, with at most a batch of good records after
        it."""
        if not 0 <= self.n - head.n <= BATCH:
            return False
        before = head.digest
        for text in whole.split(b"\n")[:-1]:
            record = audit_chain.read(text)
            if record is None:
                return False
            if record.n > head.n:
                if record.before != before:
                    return False
                before = audit_chain.digest_of(text)
        return before == self.digest

    # ── writing ───────────────────────────────────────────────────────────────────────────────

    def _write(self, records: list[PendingRecord], taken: int = 0) -> None:
        n, digest, texts = self.n, self.digest, []
        for record in records:
            n += 1
            at = datetime.fromtimestamp(record.at, UTC).isoformat(timespec="milliseconds")
            line = audit_chain.write(
                n, at.replace("+00:00", "Z"), record.kind, record.fields, digest
            )
            digest = audit_chain.digest_of(line)
            texts.append(line + b"\n")
        self._append(b"".join(texts))
        self.n, self.digest = n, digest
        self.taken += taken
        self._owed.clear()
        self._write_head()

    def _append(self, text: bytes) -> None:
        path = self._present_file()
        size = self._size if path == self._file else 0
        new = 0 if size or path == self._attempt else os.O_EXCL
        descriptor = private_file.open_file(path, os.O_WRONLY | os.O_CREAT | new)
        self._attempt = path
        try:
            os.ftruncate(descriptor, size)  # remove what a failed attempt left
            os.lseek(descriptor, size, os.SEEK_SET)
            view = memoryview(text)
            while view:
                view = view[os.write(descriptor, view) :]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if not size:
            private_file.sync_directory(self.directory)
        self._file, self._size, self._attempt = path, size + len(text), None
        self._latest = _date_of(path)
        self.used += len(text)
        self._head_owed = True

    def _present_file(self) -> Path:
        """Return the file to append to.

        The current file is used while it is of today, not too big, and as this writer left it;
        otherwise the path is that of a new file.
        """
        today = _date(self.clock())
        if self._file is not None and today <= self._latest and self._size < FILE_BYTES:
            if self._is_as_left(self._file):
                return self._file
            text = "somebody else has changed the audit log; a new file is begun"
            log.error(text, path=str(self._file))
        # Keep names in the order of the records, even if the clock is set back.
        today = max(today, self._latest)
        return self.directory / f"{today.isoformat()}-{self.n + 1:012d}{audit_chain.SUFFIX}"

    def _is_as_left(self, path: Path) -> bool:
        try:
            size = path.lstat().st_size
        except FileNotFoundError:
            return False
        return size == self._size or (path == self._attempt and size > self._size)

    def _write_head(self) -> None:
        head = msgspec.json.encode(Head(self.n, self.digest)).decode()
        json_file.replace(self.directory / audit_chain.HEAD, head)
        self._head_owed = False

    # ── age and size ──────────────────────────────────────────────────────────────────────────

    def _trim(self) -> None:
        """Remove the oldest files one by one, each after its anchor is on the disk."""
        paths = audit_chain.files(self.directory)
        while len(paths) > 1 and self._too_much(paths):
            oldest = paths.pop(0)
            text = private_file.read(oldest)
            last = _last_line(text)
            record = audit_chain.read(last)
            through = record.n if record is not None else _number_of(paths[0]) - 1
            anchor = {
                "file": oldest.name,
                "through": through,
                "digest": audit_chain.digest_of(last),
            }
            self._write([PendingRecord(self.clock(), TRIMMED, anchor)])
            oldest.unlink()
            private_file.sync_directory(self.directory)
            self.used -= len(text)

    def _too_much(self, paths: list[Path]) -> bool:
        ended = datetime.combine(_date_of(paths[0]), datetime.min.time(), UTC).timestamp() + DAY
        return ended + self.max_age < self.clock() or self.used > self.max_bytes


def _none_of(head: Head | None) -> str | None:
    return f"all of its {head.n} records are gone" if head is not None and head.n else None


def _last_line(text: bytes) -> bytes:
    return text.removesuffix(b"\n").rpartition(b"\n")[2]


def _date_of(path: Path) -> date:
    try:
        return date.fromisoformat(path.name[:10])
    except ValueError:  # not named by us
        return date.min


def _number_of(path: Path) -> int:
    digits = path.name[11:].removesuffix(audit_chain.SUFFIX)
    return int(digits) if digits.isdigit() else 0
