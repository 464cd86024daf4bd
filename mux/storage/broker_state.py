"""The state that the next broker needs, on the disk before it matters: ``broker-state``.

The file is a log. What an event changes is written in one batch, before anything goes out that
follows from it: before a client or the app-server is sent a byte. It isn't synced: a process that
is killed loses no write, and after a power cut there is no app-server to go on with. It holds:

    puts     a key each, and a value or nothing
    entries  of the journal, which has them some 50 ms later
    read     bytes that were read from the app-server's stdout, before they are handled
    done     how many of these bytes are handled, with all that follows from them
    cut      that what was read is the beginning of a long line, of which no more is kept

So what was read is handled once, also if the broker is killed in the middle of it: the next one
finds it here. A record that was written in part counts as not written: nothing of it went out. When
the file has become large it is replaced by a new one, of what still counts. One kind of line isn't
written: the answer to a request that only its asker waits for, whose connection ends with the
broker. The next one would drop it.

If the disk doesn't take it the file is removed, as half a truth is none: the next broker then
begins with an app-server of its own. It is tried again later.

Used by: ``server``, which opens it; ``dispatcher``, by ``put``; ``journal``, by ``fresh``;
``upstream``, by ``received`` and ``handled``.
"""

from __future__ import annotations

import contextlib
import errno
import os
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import attrs
import msgspec
import structlog

from mux.core.part import Part
from mux.core.protocol.journal_entry import Entry
from mux.posix import private_file
from mux.storage.journal import Store
from mux.storage.json_file import NEW

FILE: Final = "broker-state"

VERSION: Final = 1
"""Of the file's format and of what the core saves in it; a broker doesn't read another version's.
"""

MAGIC: Final = b"appmux broker state %d\n"

ROTATE_BYTES: Final = 4 * 1024 * 1024
"""Size from which the file is replaced by a new one, which takes a millisecond."""

ROTATE_SHARE: Final = 8
"""Nor before it is so many times as large as what it begins with, however much that is."""

MOST_UNHANDLED: Final = 4 * 1024 * 1024
"""Bytes of an unfinished line that are kept. A longer one is the answer to a request, whose asker
is gone with the broker: keeping it would cost everybody time."""

AGAIN_SECONDS: Final = 1.0
"""Seconds after which a file that couldn't be written is tried again, as soon as there is something
to write: until then a killed broker takes the app-server with it."""

READ: Final = 1
BATCH: Final = 2
CUT: Final = 3
_HEAD: Final = struct.Struct("<BQ")
"""The head of a record: its kind, and the length of its content."""
_pack_head, _HEAD_BYTES = _HEAD.pack, _HEAD.size

_ANSWER: Final = b'{"id":'
_OUTCOMES: Final = (b',"result":', b',"error":')
"""How the app-server begins its answers; one that begins otherwise is written."""

_SAVED_REQUEST: Final = "wire/"
"""Begins the key of a request whose answer matters whoever asked; its wire id follows."""

_LONGEST_WIRE: Final = 20
"""Digits that a wire id has at most."""

EPOCH: Final = "epoch/"
"""The key under which the journal's epoch stands."""

log = structlog.get_logger()


class Batch(msgspec.Struct, array_like=True):
    """A batch that is written at once."""

    puts: dict[str, bytes | None] = msgspec.field(default_factory=dict)
    entries: list[Entry] = msgspec.field(default_factory=list)
    done: int = 0
    renewed: bool = False
    """True if what was read before is of another app-server, and counts no more."""


class Saved(Part):
    """The state that a former broker left."""

    values: dict[str, bytes] = msgspec.field(default_factory=dict)
    entries: list[Entry] = msgspec.field(default_factory=list)
    """Entries that the journal may not have had on the disk."""
    read: bytes = b""
    """What it had read from the app-server, and not handled."""
    cut: bool = False
    """True if the line that comes next is a long one whose beginning wasn't kept."""


@attrs.define(eq=False, repr=False)
class BrokerState:
    """The file, and what is to be written to it next."""

    path: Path
    fresh: list[Entry] = attrs.field(factory=list)
    """The journal's entries that came since the last batch; the journal adds them."""
    unwritten: Callable[[], list[Entry]] = attrs.field(default=list)
    """Returns the entries that the journal may not have on the disk yet."""
    trouble: str | None = None
    """For people: why the next broker couldn't go on with this one's app-server."""
    _values: dict[str, bytes] = attrs.field(factory=dict)
    _unhandled: bytearray = attrs.field(factory=bytearray)
    _unkept: int = 0
    """Bytes of a long line, before ``_unhandled``, that aren't kept."""
    _cut: bool = False
    """True while that line isn't complete."""
    _puts: dict[str, bytes | None] = attrs.field(factory=dict)
    _needless: int = 0
    """Bytes that were read last and needn't be written."""
    _done: int = 0
    _renewed: bool = False
    _pending: bool = False
    _descriptor: int | None = None
    _size: int = 0
    _rotate_at: int = ROTATE_BYTES
    """The size above which it is replaced."""
    _again_at: float = 0.0

    @classmethod
    def begin(cls, path: Path, journal: Store, saved: Saved | None) -> BrokerState:
        """Begin to keep state, with what an earlier broker saved, if this one goes on with it."""
        state = cls(path, unwritten=journal.unwritten)
        journal.fresh = state.fresh
        if saved is not None:
            state._values = dict(saved.values)
            state._unhandled = bytearray(saved.read)
        state.put(EPOCH, journal.epoch.encode())
        state.rotate()
        return state

    # ── what is to be kept ────────────────────────────────────────────────────────────────────

    def put(self, key: str, value: bytes | None) -> None:
        """Keep a value, or nothing any more, under a key."""
        if value is None:
            self._values.pop(key, None)
        else:
            self._values[key] = value
        self._puts[key] = value
        self._pending = True

    def received(self, chunk: bytes) -> None:
        """Keep what was read from the app-server. It is written at once."""
        if not self._unhandled and self._is_dropped(chunk):
            self._needless = len(chunk)
            return
        if self._cut:
            piece, end, chunk = chunk.partition(b"\n")
            self._unkept += len(piece) + len(end)
            if not end:
                return
            self._cut = False
            self._write(CUT, b"")
        self._unhandled += chunk
        self._write(READ, chunk)
        if len(self._unhandled) > MOST_UNHANDLED and b"\n" not in self._unhandled:
            self._unkept, self._cut = len(self._unhandled), True
            self._unhandled.clear()
            self._write(CUT, b"cut")

    def _is_dropped(self, chunk: bytes) -> bool:
        """Return whether the next broker would drop what was read: one answer, whole.

        An answer that matters, whoever asked, has its request among what is saved.
        """
        end = chunk.find(b",", len(_ANSWER), len(_ANSWER) + _LONGEST_WIRE)
        return (
            chunk.startswith(_ANSWER)
            and chunk.startswith(_OUTCOMES, end)
            and chunk.find(b"\n") == len(chunk) - 1
            and not self._cut
            and _SAVED_REQUEST + chunk[len(_ANSWER) : end].decode() not in self._values
        )

    def handled(self, count: int) -> None:
        """Note that so many bytes more of what was read are handled."""
        if self._needless:
            self._needless -= count
            return
        unkept = min(count, self._unkept)
        self._unkept -= unkept
        del self._unhandled[: count - unkept]
        self._done += count - unkept
        self._pending = True

    def renewed(self) -> None:
        """Forget what was read: it is of an app-server that is gone."""
        self._unhandled.clear()
        self._unkept, self._cut = 0, False
        self._done, self._renewed, self._pending = 0, True, True

    def commit(self) -> None:
        """Write what is to be kept. Call it before anything goes out that follows from that."""
        if self._pending or self.fresh:
            content = _encode(Batch(self._puts, self.fresh, self._done, self._renewed))
            self._clear()
            self._write(BATCH, content)

    def _clear(self) -> None:
        self._puts.clear()
        self.fresh.clear()
        self._done, self._renewed, self._pending = 0, False, False

    # ── the file ──────────────────────────────────────────────────────────────────────────────

    def _write(self, kind: int, content: bytes) -> None:
        if self._descriptor is None:
            if time.monotonic() >= self._again_at:
                self.rotate()  # which writes this, too
            return
        try:
            self._size += _append(self._descriptor, kind, content)
        except OSError as failure:
            self._failed(failure)
            return
        if self._size > self._rotate_at:
            self.rotate()

    def rotate(self) -> None:
        """Begin a new file, with all that still counts."""
        whole = _encode(Batch(dict(self._values), self.unwritten(), 0, True))
        new = self.path.with_name(self.path.name + NEW)
        descriptor = None
        try:
            new.unlink(missing_ok=True)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND
            descriptor = private_file.open_file(new, flags)
            head = MAGIC % VERSION
            size = os.write(descriptor, head)
            size += _append(descriptor, BATCH, whole)
            size += _append(descriptor, READ, bytes(self._unhandled))
            size += _append(descriptor, CUT, b"cut") if self._cut else 0
            new.replace(self.path)
        except OSError as failure:
            if descriptor is not None:
                os.close(descriptor)
            with contextlib.suppress(OSError):
                new.unlink(missing_ok=True)
            self._failed(failure)
            return
        self._close()
        self._descriptor = descriptor
        self._size, self._rotate_at = size, max(ROTATE_BYTES, ROTATE_SHARE * size)
        self._clear()  # it stands in the new file already
        if self.trouble is not None:
            self.trouble = None
            log.info("the broker's state is written again", path=str(self.path))

    def _failed(self, failure: OSError) -> None:
        self._close()
        with contextlib.suppress(OSError):
            self.path.unlink(missing_ok=True)
        self._again_at = time.monotonic() + AGAIN_SECONDS
        trouble = (
            f"the broker's state {self.path} can't be written ({failure.strerror}): make room for"
            " it; until then a broker that is killed takes the app-server with it"
        )
        if trouble != self.trouble:
            self.trouble = trouble
            log.error(trouble)

    def _close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def close(self) -> None:
        """Write what is to be kept, and close the file, which stays for the next broker."""
        self.commit()
        self._close()

    def remove(self) -> None:
        """Remove the file: there will be nothing to go on with."""
        self._close()
        with contextlib.suppress(OSError):
            self.path.unlink(missing_ok=True)


def _append(descriptor: int, kind: int, content: bytes) -> int:
    """Write a record; returns its size. Raises ``OSError``, also if it was written in part."""
    length = len(content)
    written = os.writev(descriptor, (_pack_head(kind, length), content))
    if written < _HEAD_BYTES + length:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    return written


def load(path: Path) -> Saved | None:
    """Read what a former broker left; None if there is nothing, or nothing of this version.

    Blocks. Raises ``OSError``; ``msgspec.DecodeError`` if the file is damaged.
    """
    try:
        raw = private_file.read(path)
    except FileNotFoundError:
        return None
    head = MAGIC % VERSION
    if not raw.startswith(head):
        return None
    saved, at, unhandled = Saved(), len(head), bytearray()
    while len(raw) - at >= _HEAD.size:
        kind, size = _HEAD.unpack_from(raw, at)
        at += _HEAD.size
        content = raw[at : at + size]
        at += size
        if len(content) < size:
            break  # written in part, so nothing that follows from it went out
        if kind == READ:
            unhandled += content
            continue
        if kind == CUT:
            saved.cut = bool(content)
            if saved.cut:
                unhandled.clear()
            continue
        batch = _decoder.decode(content)
        for key, value in batch.puts.items():
            if value is None:
                saved.values.pop(key, None)
            else:
                saved.values[key] = value
        saved.entries += batch.entries
        if batch.renewed:
            unhandled.clear()
            saved.cut = False
        del unhandled[: batch.done]
    saved.read = bytes(unhandled)
    return saved


_encode = msgspec.msgpack.Encoder().encode
_decoder = msgspec.msgpack.Decoder(Batch)
