"""What the next broker needs of this one, on the disk before it matters: ``broker-state``.

The file is a log of batches. A batch is written at once, before anything goes out that follows from
it: before a client or the app-server is sent a byte. It isn't synced: a process that is killed
loses no write, and after a power cut there is no app-server to go on with. Its records:

    put    a key, and a value or nothing
    entry  an entry of the journal, which has it some 50 ms later
    read   bytes that were read from the app-server's stdout, before they are handled
    done   how many of these bytes are handled, with all that follows from them

So what was read is handled once, also if the broker is killed in the middle of it: the next one
finds it here. A batch that was written in part (its checksum tells) counts as not written: nothing
of it went out. When the file has become large it is replaced by a new one, of what still counts.

If the disk doesn't take it the file is removed, as half a truth is none: the next broker then
begins with an app-server of its own. It is tried again with the next batch.

Used by: ``server``, which opens it; ``dispatcher``, by ``put`` and ``keep``; ``upstream``, by
``heard`` and ``handled``.
"""

from __future__ import annotations

import contextlib
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Final

import attrs
import msgspec
import structlog

from mux.core.protocol.journal_entry import Entry
from mux.posix import private_file
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

AGAIN_AFTER: Final = 64
"""Batches after which a file that couldn't be written is tried again."""

_HEAD: Final = struct.Struct("<II")
"""Of a batch: its length and its checksum."""

log = structlog.get_logger()


class Batch(msgspec.Struct, array_like=True):
    """What is written at once."""

    puts: dict[str, bytes | None] = msgspec.field(default_factory=dict)
    entries: list[tuple[int, str | None, str, bytes]] = msgspec.field(default_factory=list)
    read: bytes = b""
    done: int = 0
    renewed: bool = False
    """True if what was read before is of another app-server, and counts no more."""


@attrs.define(eq=False, repr=False)
class Saved:
    """What a former broker left."""

    values: dict[str, bytes] = attrs.field(factory=dict)
    entries: list[Entry] = attrs.field(factory=list)
    read: bytes = b""
    """What it had read from the app-server, and not handled."""


@attrs.define(eq=False, repr=False)
class BrokerState:
    """The file, and what is to be written to it next."""

    path: Path
    written: Callable[[], int] = attrs.field(default=lambda: 0)
    """Returns the number up to which the journal has all entries on the disk."""
    trouble: str | None = None
    """For people: why the next broker couldn't go on with this one's app-server."""
    _values: dict[str, bytes] = attrs.field(factory=dict)
    _entries: list[Entry] = attrs.field(factory=list)
    """Those that the journal may not have on the disk yet."""
    _unhandled: bytearray = attrs.field(factory=bytearray)
    _batch: Batch = attrs.field(factory=Batch)
    _pending: bool = False
    _descriptor: int | None = None
    _size: int = 0
    _begins_with: int = 0
    _waits: int = 0

    @classmethod
    def going_on(cls, path: Path, written: Callable[[], int], saved: Saved) -> BrokerState:
        """Return the state of a broker that goes on with what an earlier one saved."""
        state = cls(path, written)
        state._values = dict(saved.values)
        state._entries = list(saved.entries)
        state._unhandled = bytearray(saved.read)
        return state

    # ── what is to be kept ────────────────────────────────────────────────────────────────────

    def put(self, key: str, value: bytes | None) -> None:
        """Keep a value, or nothing any more, under a key."""
        if value is None:
            self._values.pop(key, None)
        else:
            self._values[key] = value
        self._batch.puts[key] = value
        self._pending = True

    def keep(self, entry: Entry) -> None:
        """Keep an entry of the journal until that has it on the disk."""
        self._batch.entries.append((entry.seq, entry.thread, entry.method, entry.message))
        self._entries.append(entry)
        self._pending = True

    def heard(self, chunk: bytes) -> None:
        """Keep what was read from the app-server; written at once."""
        self._unhandled += chunk
        self._write(Batch(read=chunk))

    def handled(self, count: int) -> None:
        """Note that so many bytes more of what was read are handled."""
        del self._unhandled[:count]
        self._batch.done += count
        self._pending = True

    def renewed(self) -> None:
        """Forget what was read: it is of an app-server that is gone."""
        self._unhandled.clear()
        self._batch.done = 0
        self._batch.renewed = True
        self._pending = True

    def commit(self) -> None:
        """Write what is to be kept. Call it before anything goes out that follows from that."""
        if self._pending:
            batch, self._batch, self._pending = self._batch, Batch(), False
            self._write(batch)

    # ── the file ──────────────────────────────────────────────────────────────────────────────

    def _write(self, batch: Batch) -> None:
        if self._descriptor is None:
            self._waits -= 1
            if self._waits < 0:
                self.rotate()  # which writes this batch, too
            return
        try:
            self._size += _append(self._descriptor, batch)
        except OSError as failure:
            self._failed(failure)
            return
        if self._size > max(ROTATE_BYTES, ROTATE_SHARE * self._begins_with):
            self.rotate()

    def rotate(self) -> None:
        """Begin a new file, with all that still counts."""
        self._forget_entries()
        whole = Batch(
            dict(self._values),
            [(each.seq, each.thread, each.method, each.message) for each in self._entries],
            bytes(self._unhandled),
            0,
            True,
        )
        new = self.path.with_name(self.path.name + NEW)
        descriptor = None
        try:
            new.unlink(missing_ok=True)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND
            descriptor = private_file.open_file(new, flags)
            head = MAGIC % VERSION
            os.write(descriptor, head)
            size = len(head) + _append(descriptor, whole)
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
        self._size = self._begins_with = size
        # What is pending stands in the new file already, but for what was handled of what it has.
        self._batch = Batch(done=0)
        self._pending = False
        if self.trouble is not None:
            self.trouble = None
            log.info("the broker's state is written again", path=str(self.path))

    def _forget_entries(self) -> None:
        written = self.written()
        self._entries = [each for each in self._entries if each.seq > written]

    def _failed(self, failure: OSError) -> None:
        self._close()
        with contextlib.suppress(OSError):
            self.path.unlink(missing_ok=True)
        self._forget_entries()
        self._waits = AGAIN_AFTER
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


def _append(descriptor: int, batch: Batch) -> int:
    content = _encoder.encode(batch)
    data = _HEAD.pack(len(content), zlib.crc32(content)) + content
    written = os.write(descriptor, data)
    while written < len(data):  # mostly because the disk is full, which the next try tells
        written += os.write(descriptor, data[written:])
    return len(data)


def load(path: Path) -> Saved | None:
    """Read what a former broker left; None if there is nothing, or nothing of this version.

    Blocks. Raises ``OSError``.
    """
    try:
        raw = private_file.read(path)
    except FileNotFoundError:
        return None
    head = MAGIC % VERSION
    if not raw.startswith(head):
        return None
    saved, at = Saved(), len(head)
    unhandled = bytearray()
    while len(raw) - at >= _HEAD.size:
        size, checksum = _HEAD.unpack_from(raw, at)
        content = raw[at + _HEAD.size : at + _HEAD.size + size]
        if len(content) < size or zlib.crc32(content) != checksum:
            break
        try:
            batch = _decoder.decode(content)
        except msgspec.DecodeError:
            break
        at += _HEAD.size + size
        for key, value in batch.puts.items():
            if value is None:
                saved.values.pop(key, None)
            else:
                saved.values[key] = value
        saved.entries += [Entry(*each) for each in batch.entries]
        if batch.renewed:
            unhandled.clear()
        unhandled += batch.read
        del unhandled[: batch.done]
    saved.read = bytes(unhandled)
    return saved


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Batch)
