"""The audit log's files: records that each carry the digest of the one before.

A record is a line of canonical JSON (keys sorted, nothing between tokens): its number ``n``, when
(``at``, UTC), what (``kind``), fields of that kind, and ``before``: the SHA-256 of the line before
it, without line end. They stand in files ``DATE-NUMBER.jsonl``, of the day and the number of their
first record; read in the order of their names they are one chain. ``head.json`` beside them holds
number and digest of the last record, so that a tail that was cut off is missed.

Lines are on the disk before the head says so. A crash in between leaves the head behind by one
batch at most, and perhaps an unfinished line after it; that is told apart from a record that the
head knows and that isn't there. Old files are removed whole; before that, ``TRIMMED`` records the
digest of the last record removed, which is where the chain then begins.

Whoever can write these files can also write them all anew: the digests show changes to those who
kept an earlier head elsewhere, or made by somebody who changed less than everything.

Hands to: ``audit_writer``, ``audit`` (reading and ``verify``). Hears from: the files.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import attrs
import msgspec

from mux.posix import private_file

HEAD = "head.json"
SUFFIX = ".jsonl"

NOTHING = "0" * 64
"""What the first record of all carries as the digest of the one before."""

BATCH = 1_000
"""Records written at once, at most: so far the head may be behind after a crash."""

TRIMMED = "audit/trimmed"
BROKEN = "audit/broken"
"""What the writer found wrong when it began, and went on after."""

READ_AGAIN = 3
"""Times that the files are listed anew when one was removed by its age meanwhile."""


class Head(msgspec.Struct, frozen=True):
    """Number and digest of the last record."""

    n: int
    digest: str


class Record(msgspec.Struct):
    """What ``verify`` wants to know of a record. ``through`` and ``digest``: of ``TRIMMED``."""

    n: int
    kind: str
    before: str
    at: str = ""
    through: int | None = None
    digest: str | None = None
    found: str | None = None


def write(n: int, at: str, kind: str, fields: dict[str, object], before: str) -> bytes:
    """One record as a line, without line end."""
    envelope: dict[str, object] = {"n": n, "at": at, "kind": kind, "before": before}
    try:
        return msgspec.json.encode(fields | envelope, order="deterministic")
    except (TypeError, ValueError) as odd:  # a lone surrogate, say: the rest of the chain goes on
        return msgspec.json.encode({"unwritable": repr(odd)} | envelope, order="deterministic")


def digest_of(line: bytes) -> str:
    """The digest that the next record carries."""
    return sha256(line).hexdigest()


def read(line: bytes) -> Record | None:
    """A line as a record; None if it is none."""
    try:
        return _record_decoder.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def read_head(directory: Path) -> Head | None:
    """What ``head.json`` says; None if it isn't there or says nothing. Raises ``OSError``."""
    try:
        return _head_decoder.decode(private_file.read(directory / HEAD, foreign=True))
    except (FileNotFoundError, msgspec.DecodeError, UnicodeDecodeError):
        return None


def files(directory: Path) -> list[Path]:
    """The files of the chain, in its order."""
    return sorted(directory.glob(f"*{SUFFIX}"))


class Line(msgspec.Struct, frozen=True):
    """One line of the chain. ``whole``: whether it has its line end."""

    place: str
    text: bytes
    whole: bool = True
    last: bool = False


def lines(directory: Path) -> Iterator[Line]:
    """Every line, in order. Raises ``OSError``, ``FileNotFoundError`` if one was trimmed now."""
    there = files(directory)
    for path in there:
        # Whose they are is for the digests to show; and who looks changes nothing.
        descriptor = private_file.open_file(path, os.O_RDONLY, foreign=True)
        with os.fdopen(descriptor, "rb") as opened:
            for number, text in enumerate(opened, 1):
                whole = text.endswith(b"\n")
                place = f"{path.name}, line {number}"
                yield Line(place, text.removesuffix(b"\n"), whole, path == there[-1])


# ── verifying ─────────────────────────────────────────────────────────────────────────────────


@attrs.define
class Verdict:
    """What ``verify`` found. ``faults``: what was changed or is missing; ``notes``: what wasn't.

    ``first`` and ``last``: numbers of the records there; 0 if there are none.
    """

    faults: list[str] = attrs.field(factory=list)
    notes: list[str] = attrs.field(factory=list)
    records: int = 0
    first: int = 0
    last: int = 0
    digest: str = NOTHING

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return {"ok": not self.faults, **attrs.asdict(self)}


def verify(directory: Path) -> Verdict:
    """Go through the whole chain. Raises ``OSError`` if it can't be read."""
    for _ in range(READ_AGAIN - 1):
        try:
            return _Verifying(directory).run()
        except FileNotFoundError:
            continue  # trimmed by its age between the listing and the reading
    return _Verifying(directory).run()


class _Link(msgspec.Struct, frozen=True):
    """One line, looked at. ``record``: None where it is none; ``n``: as it should be then."""

    n: int
    digest: str
    line: Line
    record: Record | None


@attrs.define
class _Verifying:
    directory: Path
    verdict: Verdict = attrs.field(factory=Verdict)
    _accused: set[int] = attrs.field(factory=set)
    _anchors: dict[int, str | None] = attrs.field(factory=dict)
    _first: _Link | None = None
    _known: dict[int, str] = attrs.field(factory=dict)

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
        """From link to link; returns the last one."""
        before: _Link | None = None
        present: _Link | None = None
        for line in lines(self.directory):
            found = self._link(line, present, head)
            if found is None:
                continue
            if found.n in heads:
                self._known[found.n] = found.digest
            if present is not None:
                self._judge(before, present, found.record)
            before, present = present, found
        if present is not None:
            confirmed = head is not None and (head.n, head.digest) == (present.n, present.digest)
            self._judge(before, present, None, confirmed=confirmed)
            self.verdict.last, self.verdict.digest = present.n, present.digest
        return present

    def _link(self, line: Line, previous: _Link | None, head: Head | None) -> _Link | None:
        """Take in a line; None for one that a crash left unfinished."""
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
        """Whether a record fits the one before it; and if not, which of the two was changed."""
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


_record_decoder = msgspec.json.Decoder(Record)
_head_decoder = msgspec.json.Decoder(Head)
