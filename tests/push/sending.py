"""Pushes at work, for tests: with a clock of the test's own.

As a program it is one life of a broker's pushes, to be killed: it raises what its stdin names.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import trio

from mux.config import model
from mux.push.queue import Row
from mux.push.sender import Pushes
from tests.end_to_end.scenes import eventually
from tests.push.told import NOW, push


@attrs.define
class Clock:
    """A wall clock that stands still unless it is told."""

    now: float = NOW

    def __call__(self) -> float:
        return self.now


def webhook(tmp_path: Path, url: str, **more: Any) -> model.Push:
    """Settings with a webhook there, which stands for the device ``host``."""
    secret = tmp_path / "secret"
    if not secret.exists():
        secret.write_text("s" * 32)
        secret.chmod(0o600)
    hook = model.Webhook(url=url, secret_file=secret, level="full")
    return model.Push(webhook=hook, private_hosts=("127.0.0.1",), **more)


@asynccontextmanager
async def running(pushes: Pushes) -> AsyncIterator[Pushes]:
    """Its life, until the end of the block."""
    async with trio.open_nursery() as nursery:
        await nursery.start(pushes.run)
        yield pushes
        nursery.cancel_scope.cancel()


async def settled(pushes: Pushes) -> list[Row]:
    """Wait until nothing waits any more; all rows."""
    await eventually(lambda: not pushes.queue.waiting(), "nothing waits")
    return list(pushes.queue.rows.values())


async def _live(state_dir: Path, url: str) -> None:
    """Raise a push for each line of stdin, and say so once it is on disk; until killed."""
    pushes = Pushes.open(state_dir, webhook(state_dir, url))
    async with running(pushes):
        stdin = trio.wrap_file(sys.stdin)
        async for line in stdin:
            word = line.strip()
            told = push(id=word, collapse=word, expires_at=pushes.clock() + 3600)
            pushes.send("host", told)
            for row in list(pushes.queue.rows.values()):
                await pushes.keeper.kept(row)
            sys.stdout.write(f"{word}\n")
            sys.stdout.flush()
        await trio.sleep_forever()


def on_disk(directory: Path, text: str) -> set[str]:
    """The files that hold a text anywhere, in what SQLite has deleted and in its logs too."""
    return {
        path.name
        for path in directory.rglob("*")
        if path.is_file() and text.encode() in path.read_bytes()
    }


if __name__ == "__main__":
    trio.run(_live, Path(sys.argv[1]), sys.argv[2])
