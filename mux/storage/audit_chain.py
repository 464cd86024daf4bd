"""The audit log's format: records that each carry the digest of the one before, and `verify`.

A record is a line of canonical JSON (keys sorted, nothing between tokens): its number ``n``, its
time (``at``, UTC), its ``kind``, the fields of that kind, and ``before``: the SHA-256 of the line
before it, without line end. Records stand in files ``DATE-NUMBER.jsonl``, named for the day and the
number of their first record. Read in the order of their names, the files are one chain.
``head.json`` beside them holds number and digest of the last record, so that a tail that was cut
off is noticed.

Lines are on the disk before the head names them. A crash in between leaves the head behind by one
batch at most, and perhaps an unfinished line after it. ``verify`` tells that apart from a record
that the head names and that isn't there. Old files are removed whole. Before that, a ``TRIMMED``
record stores the digest of the last record removed, which is where the chain then begins.

Whoever can write these files can also rewrite all of them. The digests show a change to those who
kept an earlier head elsewhere, and any change that didn't rewrite everything after it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec

from mux.posix import private_file

HEAD = "head.json"
SUFFIX = ".jsonl"

NOTHING = "0" * 64
"""The digest of "the record before" in the very first record."""

BATCH = 1_000
"""Most records written at once, and so the most by which the head may be behind after a crash."""

TRIMMED = "audit/trimmed"
"""The kind of a record that says that old files were removed."""
BROKEN = "audit/broken"
"""The kind of a record that says what the writer found wrong at its start; it then went on."""

READ_AGAIN = 3
"""How often the files are listed when one of them is trimmed meanwhile."""


class Head(msgspec.Struct, frozen=True):
    """Number and digest of the last record."""

    n: int
    digest: str


class Record(msgspec.Struct):
    """The fields of a record that ``verify`` needs."""

    n: int
    kind: str
    before: str
    at: str = ""
    through: int | None = None
    """In a ``TRIMMED`` record: the number of the last record removed."""
    digest: str | None = None
    """In a ``TRIMMED`` record: the digest of the last record removed."""
    found: str | None = None
    """In a ``BROKEN`` record: what was wrong."""


def write(n: int, at: str, kind: str, fields: dict[str, object], before: str) -> bytes:
    """Return one record as a line, without line end."""
    envelope: dict[str, object] = {"n": n, "at": at, "kind": kind, "before": before}
    try:
        return msgspec.json.encode(fields | envelope, order="deterministic")
    except (TypeError, ValueError) as odd:  # a lone surrogate, for example: the chain goes on
        return msgspec.json.encode({"unwritable": repr(odd)} | envelope, order="deterministic")


def digest_of(line: bytes) -> str:
    """Return the digest that the next record carries."""
    return sha256(line).hexdigest()


def read(line: bytes) -> Record | None:
    """Parse a line as a record; None if it isn't one, all of whose fields can be read."""
    whole = fields(line)
    try:
        return None if whole is None else msgspec.convert(whole, Record)
    except msgspec.ValidationError:
        return None


def fields(line: bytes) -> dict[str, Any] | None:
    """Parse a line as an object, with all that is in it; None if that can't be read."""
    try:
        return _object_decoder.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def read_head(directory: Path) -> Head | None:
    """Read ``head.json``; None if it is missing or holds no head. Raises ``OSError``."""
    try:
        return _head_decoder.decode(private_file.read(directory / HEAD, foreign=True))
    except (FileNotFoundError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def files(directory: Path) -> list[Path]:
    """List the files of the chain, in its order."""
    return sorted(directory.glob(f"*{SUFFIX}"))


class Line(msgspec.Struct, frozen=True):
    """A line of the chain."""

    place: str
    """File and line number, for people."""
    text: bytes
    whole: bool = True
    """True if the line has its line end."""
    last: bool = False
    """True if the line is in the last file."""


def lines(directory: Path) -> Iterator[Line]:
    """Yield every line, in order.

    Raises ``OSError``; that is ``FileNotFoundError`` if a file was trimmed meanwhile.
    """
    paths = files(directory)
    for path in paths:
        # Files of other owners are read as well: the digests show changes, and reading makes none.
        descriptor = private_file.open_file(path, os.O_RDONLY, foreign=True)
        with os.fdopen(descriptor, "rb") as opened:
            for number, text in enumerate(opened, 1):
                whole = text.endswith(b"\n")
                place = f"{path.name}, line {number}"
                yield Line(place, text.removesuffix(b"\n"), whole, path == paths[-1])


# ── verifying ─────────────────────────────────────────────────────────────────────────────────


class Verdict(msgspec.Struct):
    """The result of ``verify``."""

    faults: list[str] = msgspec.field(default_factory=list)
    """Changes and gaps."""
    notes: list[str] = msgspec.field(default_factory=list)
    """Remarks about a log that nobody changed, for example a line that a crash cut off."""
    records: int = 0
    """How many lines there are."""
    first: int = 0
    """The number of the first record; 0: there is none."""
    last: int = 0
    """The number of the last record; 0: there is none."""
    digest: str = NOTHING
    """The digest of the last record."""

    def to_json(self) -> dict[str, Any]:
        """Return the verdict as JSON values."""
        return {"ok": not self.faults, **msgspec.structs.asdict(self)}


def verify(directory: Path) -> Verdict:
    """Check the whole chain. Raises ``OSError`` if it can't be read."""
    for _ in range(READ_AGAIN - 1):
        try:
            return _Verifying(directory).run()
        except FileNotFoundError:
            continue  # trimmed by its age between the listing and the reading
    return _Verifying(directory).run()


class _Link(msgspec.Struct, frozen=True):
    """A parsed line."""

    n: int
    """The record's number, or the expected one if the line is no record."""
    digest: str
    line: Line
    record: Record | None
    """None if the line is no record."""


class _Verifying(msgspec.Struct):
    directory: Path
    verdict: Verdict = msgspec.field(default_factory=Verdict)
    _accused: set[int] = msgspec.field(default_factory=set)
    _anchors: dict[int, str | None] = msgspec.field(default_factory=dict)
    _first: _Link | None = None
    _known: dict[int, str] = msgspec.field(default_factory=dict)

    def run(self) -> Verdict:
        # The head is read before the lines, and again after: a broker may be writing meanwhile.
        head = read_head(self.directory)
        heads = {head.n} if head is not None else set()
        last = self._follow(head, heads)
        after = read_head(self.directory)
        self._check_start()
        if head is None or after is None:
            self.verdict.faults.append(f"{HEAD} is missing or no head: a cut tail wouldn't be seen")
        else:
            self._check_end(last, head, after)
        return self.verdict

    def _follow(self, head: Head | None, heads: set[int]) -> _Link | None:
        """Check every link against the one before, and return the last one."""
        before: _Link | None = None
        present: _Link | None = None
        for line in lines(self.directory):
            link = self._link(line, present, head)
            if link is None:
                continue
            if link.n in heads:
                self._known[link.n] = link.digest
            if present is not None:
                self._judge(before, present, link.record)
            before, present = present, link
        if present is not None:
            confirmed = head is not None and (head.n, head.digest) == (present.n, present.digest)
            self._judge(before, present, None, confirmed=confirmed)
            self.verdict.last, self.verdict.digest = present.n, present.digest
        return present

    def _link(self, line: Line, previous: _Link | None, head: Head | None) -> _Link | None:
        """Parse a line and note its own faults; None for a line that a crash left unfinished."""
        record = read(line.text)
        n = record.n if record is not None else (previous.n + 1 if previous is not None else 1)
        if not line.whole:
            if line.last and (head is None or head.n < n):
                self.verdict.notes.append(f"an unfinished line at the end ({line.place}): a crash")
                return None
            self._accuse(n, line, "is cut off")
        elif record is None:
            self._accuse(n, line, "was changed: it is no record any more")
        link = _Link(n, digest_of(line.text), line, record)
        self._first = self._first or link
        self.verdict.records += 1
        if record is not None and record.kind == TRIMMED and record.through is not None:
            self._anchors[record.through] = record.digest
        if record is not None and record.kind == BROKEN:
            self._accuse(n, line, f"tells what the broker found as it began: {record.found}")
        return link

    def _judge(
        self,
        before: _Link | None,
        link: _Link,
        after: Record | None,
        *,
        confirmed: bool = False,
    ) -> None:
        """Check a record against the one before it; on a mismatch, accuse the changed one."""
        if before is None or link.record is None:
            return
        if link.n != before.n + 1:
            self._misplaced(before, link)
        elif link.record.before != before.digest and before.n not in self._accused:
            confirmed = confirmed or (after is not None and after.before == link.digest)
            changed = before if confirmed else link
            self._accuse(changed.n, changed.line, "was changed")

    def _misplaced(self, before: _Link, link: _Link) -> None:
        if link.n > before.n + 1:
            missing = _range(before.n + 1, link.n - 1)
            self.verdict.faults.append(f"{missing} missing, before {link.line.place}")
        else:
            self._accuse(link.n, link.line, f"stands out of its place, after record {before.n}")

    def _accuse(self, n: int, line: Line, what: str) -> None:
        if n not in self._accused:
            self._accused.add(n)
            self.verdict.faults.append(f"record {n} ({line.place}) {what}")

    def _check_start(self) -> None:
        first = self._first
        if first is None:
            return
        self.verdict.first = first.n
        if first.record is None:
            return
        if first.n == 1:
            known: str | None = NOTHING
        else:
            known = self._anchors.get(first.n - 1)
            if known is None:
                self.verdict.faults.append(
                    f"{_range(1, first.n - 1)} missing at the start, and not removed for their age"
                )
                return
        if first.record.before != known:
            self._accuse(first.n, first.line, "was changed")

    def _check_end(self, last: _Link | None, head: Head, after: Head) -> None:
        n = last.n if last is not None else 0
        if n < head.n:
            missing = _range(n + 1, head.n)
            self.verdict.faults.append(f"{missing} missing at the end: {HEAD} knows of {head.n}")
        elif last is None:
            return
        elif head.n and self._known.get(head.n) != head.digest:
            self._accuse(head.n, last.line, f"was changed: it isn't the one that {HEAD} knows")
        elif n > after.n + BATCH:
            self.verdict.faults.append(f"{_range(after.n + 1, n)} unknown to {HEAD}: too many")
        elif n > after.n:
            self.verdict.notes.append(
                f"{_range(after.n + 1, n)} not in {HEAD} yet: being written, or a crash"
            )


def _range(first: int, last: int) -> str:
    return f"record {first} is" if first == last else f"records {first} to {last} are"


_object_decoder = msgspec.json.Decoder(dict[str, Any])
_head_decoder = msgspec.json.Decoder(Head)
