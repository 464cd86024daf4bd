"""Entries for tests of the journal, and the ways to have them all back."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from mux.core.protocol.journal_entry import Entry
from mux.storage.journal import Store

DELTA = "item/agentMessage/delta"
EVENT = "item/completed"

EVERYTHING = 2**60
DAY = 86_400.0
PATIENCE = 20.0


def entry(seq: int, thread: str | None = "t", method: str = DELTA, size: int = 100) -> Entry:
    """One whose message depends on its number in each byte, so that no other passes for it."""
    word = b"%d;" % seq
    return Entry(seq, thread, method, (word * (size // len(word) + 1))[:size])


def entries(seqs: Iterable[int], thread: str | None = "t", method: str = DELTA) -> list[Entry]:
    return [entry(seq, thread, method) for seq in seqs]


def open_store(
    path: Path,
    max_bytes: int = 512 * 1024 * 1024,
    max_age: float = 7 * DAY,
    wall_clock: Callable[[], float] = time.time,
) -> Store:
    return Store.open(path, max_bytes=max_bytes, max_age=max_age, wall_clock=wall_clock)


@asynccontextmanager
async def opened(
    path: Path,
    max_bytes: int = 512 * 1024 * 1024,
    max_age: float = 7 * DAY,
    wall_clock: Callable[[], float] = time.time,
) -> AsyncIterator[Store]:
    """A store that isn't run, and is closed in order."""
    store = open_store(path, max_bytes, max_age, wall_clock)
    try:
        yield store
    finally:
        await store.close()


@asynccontextmanager
async def running(store: Store) -> AsyncIterator[None]:
    async with trio.open_nursery() as nursery:
        await nursery.start(store.run)
        yield
        nursery.cancel_scope.cancel()


async def put(store: Store, *several: Entry) -> None:
    """Append them, and write them as one batch."""
    for each in several:
        store.append(each)
    await store.flush()


async def at_rest(store: Store) -> None:
    """Wait until one that runs has nothing more to look at: an entry wakes it also if a ``put``
    has written it meanwhile, and its first look is at the start."""
    behind = store._behind
    await until(
        lambda: not (behind.more or behind._wake.is_set() or behind._one_writer.borrowed_tokens)
    )


async def tidy(store: Store) -> None:
    """Flush until there is nothing more to trim."""
    await store.flush()
    while store._behind.more:
        await store.flush()


async def read_all(
    store: Store,
    after: int = 0,
    until: int = EVERYTHING,
    threads: Collection[str] | None = None,
    max_bytes: int = 1024 * 1024,
) -> list[Entry]:
    """As a client that catches up reads: piece by piece, until one isn't full."""
    found: list[Entry] = []
    while True:
        piece = await store.read(after, until, threads, max_bytes)
        found += piece
        if sum(len(each.message) for each in piece) < max_bytes:
            return found
        after = piece[-1].seq


async def until(true: Callable[[], bool]) -> None:
    with trio.fail_after(PATIENCE):
        while not true():  # noqa: ASYNC110 (a thread makes it true, and tells nobody)
            await trio.sleep(0.005)


def select(path: Path, query: str) -> list[tuple[object, ...]]:
    """What SQL says of the file, seen from outside."""
    connection = sqlite3.connect(path)
    try:
        return connection.execute(query).fetchall()
    finally:
        connection.close()
