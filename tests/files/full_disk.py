"""An upload to a disk that is full, and has room again: run where that disk is, in a process.

    python -m tests.files.full_disk DIRECTORY

Hands to: `test_full_disk`, by its exit status. Hears from: `mux.files`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from mux.core.policy.principal import Principal
from mux.files import limits
from mux.files.errors import NO_ROOM, UploadError
from mux.files.spool import Spool
from mux.files.uploads import More, Uploads

ADA = Principal("Ada's phone", "device", device="1")
BODY = os.urandom(1024 * 1024)


def coming(body: bytes) -> More:
    """A body in pieces."""
    pieces = [body[at : at + 50_000] for at in range(0, len(body), 50_000)]

    async def more(write: Callable[[memoryview], None]) -> bool:
        if not pieces:
            return False
        await trio.to_thread.run_sync(write, memoryview(pieces.pop(0)))
        return True

    return more


async def main(disk: Path) -> None:
    """Play it."""
    limits.FREE_BYTES = -(2**40)  # type: ignore[misc]  # a disk so small would take nothing
    broker = Uploads(Spool(disk / "uploads"), lambda _thread: "", lambda _placed: None)
    upload = await broker.begin(ADA, len(BODY), name="a.bin", thread=None)
    other = disk / "other"
    room = os.statvfs(disk)
    other.write_bytes(bytes(room.f_bavail * room.f_frsize - len(BODY) // 2))
    for _ in range(2):
        with pytest.raises(UploadError, match="No space left") as full:
            await broker.receive(upload, ADA, upload.offset, coming(BODY[upload.offset :]))
        assert full.value.status == NO_ROOM
        assert 0 < upload.offset < len(BODY)
    other.unlink()
    await broker.receive(upload, ADA, upload.offset, coming(BODY[upload.offset :]))
    assert upload.placed is not None
    assert await trio.Path(upload.placed.path).read_bytes() == BODY


if __name__ == "__main__":
    trio.run(main, Path(sys.argv[1]))
