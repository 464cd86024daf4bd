"""The outbox: in order, in batches, bounded by somebody who is told, sealed once."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import attrs
import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st
from wsproto.connection import Connection, ConnectionType
from wsproto.events import TextMessage

from mux.dispatch.outbox import BATCH_BYTES, DRAINED_SHARE, Outbox, WriteScheduler, text_frame
from tests.end_to_end.peer import PATIENCE


@attrs.define
class Pipe(trio.abc.SendStream):
    """Takes writes one by one: each waits until it is let through."""

    writes: list[bytes] = attrs.field(factory=list)
    broken: bool = False
    gate: trio.Event = attrs.field(factory=trio.Event)
    waiting: trio.Event = attrs.field(factory=trio.Event)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        self.waiting.set()
        await self.gate.wait()
        if self.broken:
            raise trio.BrokenResourceError
        self.writes.append(bytes(data))

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


def _open() -> Pipe:
    pipe = Pipe()
    pipe.gate.set()
    return pipe


# --- Writing --------------------------------------------------------------------------------------


async def test_what_is_owed_before_the_writer_comes_is_one_write() -> None:
    outbox, pipe = Outbox(), _open()
    for frame in (b"one ", b"two ", b"three"):
        outbox.append(frame)
    assert outbox.owed == len(b"one two three")
    outbox.finish()
    await outbox.write_to(pipe)
    assert pipe.writes == [b"one two three"]
    assert outbox.owed == 0


async def test_what_comes_while_a_write_waits_is_joined_behind_it() -> None:
    outbox, pipe = Outbox(), Pipe()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(outbox.write_to, pipe)
        await trio.testing.wait_all_tasks_blocked()
        outbox.append(b"first")
        await pipe.waiting.wait()
        for n in range(1000):
            outbox.append(b"%d," % n)
        assert outbox.owed == 5 + sum(len(b"%d," % n) for n in range(1000))
        pipe.gate.set()
        outbox.finish(b"last")
        outbox.append(b"never")
    assert pipe.writes == [b"first", b"".join(b"%d," % n for n in range(1000)) + b"last"]
    assert outbox.owed == 0


async def test_an_idle_writer_sends_a_frame_at_once_and_alone() -> None:
    outbox, pipe = Outbox(), _open()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(outbox.write_to, pipe)
        for n in range(3):
            await trio.testing.wait_all_tasks_blocked()
            outbox.append(b"%d" % n)
        await trio.testing.wait_all_tasks_blocked()
        assert pipe.writes == [b"0", b"1", b"2"]
        outbox.finish()


async def test_an_idle_writers_descriptor_is_written_at_once() -> None:
    ours, theirs = socket.socketpair()
    outbox = Outbox(descriptor=ours.fileno)
    ours.setblocking(False)
    theirs.settimeout(5)
    pipe = Pipe()  # what the socket doesn't take comes here
    with ours, theirs:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(outbox.write_to, pipe)
            await trio.testing.wait_all_tasks_blocked()
            outbox.append(b"one ")
            outbox.append(b"two")
            assert outbox.owed == 0
            assert theirs.recv(100) == b"one two"
            while not outbox.owed:  # until it is full
                outbox.append(b"x" * 1000)
            outbox.append(b"last")
            rest = outbox.owed
            await pipe.waiting.wait()
            outbox.append(b"still")  # not before what the writer has
            pipe.gate.set()
            await trio.testing.wait_all_tasks_blocked()
            outbox.finish()
    assert b"".join(pipe.writes) == b"x" * (rest - 4) + b"last" + b"still"


@asynccontextmanager
async def _begun_when_needed() -> AsyncIterator[tuple[Outbox, Pipe, socket.socket, list[str]]]:
    """An outbox whose writer begins when it is needed, which is told; and the socket's ends."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    outbox, pipe, begun = Outbox(descriptor=ours.fileno), _open(), list[str]()
    with ours, theirs:
        async with trio.open_nursery() as nursery:

            def begin() -> None:
                begun.append("begun")
                nursery.start_soon(outbox.write_to, pipe)

            outbox.wake_writer = begin
            yield outbox, pipe, theirs, begun
            outbox.discard()
            nursery.cancel_scope.cancel()


async def test_a_writer_begins_with_what_the_descriptor_does_not_take_and_stays() -> None:
    async with _begun_when_needed() as (outbox, pipe, theirs, begun):
        outbox.append(b"taken")
        assert (theirs.recv(100), begun) == (b"taken", [])
        for _ in range(2):
            while not outbox.owed:
                outbox.append(b"x" * 100_000)
            await trio.testing.wait_all_tasks_blocked()
            assert outbox.owed == 0
        assert begun == ["begun"]
        assert len(pipe.writes) == 2


async def test_a_writer_begins_for_one_who_wants_to_know_when_there_is_room() -> None:
    async with _begun_when_needed() as (outbox, _, _, begun):
        outbox.on_drained = lambda: begun.append("drained")
        outbox.report_when_drained()
        assert begun == ["begun"]
        await trio.testing.wait_all_tasks_blocked()
        assert begun == ["begun", "drained"]


async def test_of_a_dropped_outbox_nothing_is_written_and_no_writer_begins() -> None:
    async with _begun_when_needed() as (outbox, _, theirs, begun):
        outbox.discard()
        outbox.append(b"x")
        outbox.wake()
        outbox.report_when_drained()
        outbox.finish(b"bye")
        assert (outbox.owed, begun) == (0, [])
        theirs.setblocking(False)
        with pytest.raises(BlockingIOError):
            theirs.recv(1)


async def test_a_broken_descriptor_is_the_writers_to_tell() -> None:
    outbox, pipe = Outbox(descriptor=lambda: -1), _open()
    pipe.broken = True

    async def owe() -> None:
        await trio.testing.wait_all_tasks_blocked()
        outbox.append(b"x")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(owe)
        with pytest.raises(trio.BrokenResourceError):
            await outbox.write_to(pipe)


@asynccontextmanager
async def _written_together() -> AsyncIterator[tuple[Outbox, Pipe, socket.socket]]:
    """An outbox among ``WriteScheduler``, where the rest goes, and the other end: a packet a
    write."""
    writes, pipe = WriteScheduler(), Pipe()
    ours, theirs = socket.socketpair(type=socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    theirs.settimeout(5)
    outbox = Outbox(descriptor=ours.fileno, writes=writes)
    trio.lowlevel.add_instrument(writes)
    with ours, theirs:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(outbox.write_to, pipe)
            await trio.testing.wait_all_tasks_blocked()
            yield outbox, pipe, theirs
            outbox.finish()
    trio.lowlevel.remove_instrument(writes)


async def test_what_several_tasks_owe_in_one_round_of_the_loop_is_one_write() -> None:
    async with _written_together() as (outbox, _, theirs):

        async def owe() -> None:
            outbox.append(b"a")
            outbox.append(b"b")

        for _ in range(2):
            async with trio.open_nursery() as nursery:
                for _ in range(3):
                    nursery.start_soon(owe)
            await trio.testing.wait_all_tasks_blocked()
            assert (theirs.recv(100), outbox.owed) == (b"ababab", 0)


@pytest.mark.parametrize("size", [1000, BATCH_BYTES + 1])
async def test_what_the_loops_hook_could_not_write_is_the_writers_without_another_word(
    size: int,
) -> None:
    async with _written_together() as (outbox, pipe, _):
        assert outbox.descriptor
        with suppress(BlockingIOError):
            while True:
                os.write(outbox.descriptor(), b"full")
        outbox.append(b"x" * size)
        with trio.fail_after(PATIENCE):  # the loop has nothing else to wake for
            await pipe.waiting.wait()
        pipe.gate.set()
        await trio.testing.wait_all_tasks_blocked()
        assert (pipe.writes, outbox.owed) == ([b"x" * size], 0)


@given(st.lists(st.integers(1, 2 * BATCH_BYTES), max_size=8))
def test_batches_are_bounded_and_frames_whole(sizes: list[int]) -> None:
    outbox, pipe = Outbox(), _open()
    for size in sizes:
        outbox.append(b"x" * size)
    outbox.finish()
    trio.run(outbox.write_to, pipe)
    ends = {sum(sizes[:n]) for n in range(len(sizes) + 1)}
    written = 0
    for write in pipe.writes:
        written += len(write)
        assert written in ends  # a frame isn't cut
        assert len(write) < BATCH_BYTES + max(sizes)
    assert written == sum(sizes)
    assert len(pipe.writes) <= sum(sizes) // BATCH_BYTES + 1


async def test_a_broken_stream_is_the_writers_to_tell() -> None:
    outbox, pipe = Outbox(), _open()
    pipe.broken = True
    outbox.append(b"x")
    with pytest.raises(trio.BrokenResourceError):
        await outbox.write_to(pipe)


# --- Sealing --------------------------------------------------------------------------------------


async def test_a_seal_is_for_good() -> None:
    outbox, pipe = Outbox(), _open()
    outbox.append(b"a")
    outbox.finish(b"b")
    outbox.finish(b"c")
    outbox.append(b"d")
    await outbox.write_to(pipe)
    await outbox.write_to(pipe)
    assert b"".join(pipe.writes) == b"ab"


async def test_a_seal_wakes_an_idle_writer() -> None:
    outbox, pipe = Outbox(), _open()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(outbox.write_to, pipe)
        await trio.testing.wait_all_tasks_blocked()
        outbox.finish(b"bye")
    assert pipe.writes == [b"bye"]


# --- Full and drained -----------------------------------------------------------------------------


def _counted(limit: int) -> tuple[Outbox, list[str]]:
    told: list[str] = []
    outbox = Outbox(
        limit, on_full=lambda: told.append("full"), on_drained=lambda: told.append("drained")
    )
    return outbox, told


def test_full_is_told_once_past_the_limit() -> None:
    outbox, told = _counted(10)
    outbox.append(b"x" * 10)
    assert told == []
    for _ in range(5):
        outbox.append(b"x")
    assert told == ["full"]


async def test_drained_is_told_once_for_each_wish_and_full_again_after_it() -> None:
    outbox, told = _counted(100)
    pipe = Pipe()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(outbox.write_to, pipe)
        for _ in range(2):
            told.clear()
            pipe.gate, pipe.waiting = trio.Event(), trio.Event()
            outbox.append(b"x" * 101)
            outbox.report_when_drained()
            await pipe.waiting.wait()
            assert told == ["full"]
            pipe.gate.set()
            await trio.testing.wait_all_tasks_blocked()
            assert told == ["full", "drained"]
            assert outbox.owed == 0
        outbox.report_when_drained()  # it is drained already
        await trio.testing.wait_all_tasks_blocked()
        assert told == ["full", "drained", "drained"]
        outbox.finish()


async def test_drained_means_a_share_of_the_limit() -> None:
    limit = DRAINED_SHARE * BATCH_BYTES
    outbox, told = _counted(limit)
    pipe = _open()
    still: list[int] = []
    outbox.on_drained = lambda: still.append(outbox.owed)
    for _ in range(2 * DRAINED_SHARE):
        outbox.append(b"x" * BATCH_BYTES)
    outbox.report_when_drained()
    outbox.finish()
    await outbox.write_to(pipe)
    assert told == ["full"]
    assert still == [limit // DRAINED_SHARE]


# --- Frames ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65535, 65536, 70000])
def test_a_frame_is_what_a_websocket_client_reads(size: int) -> None:
    library = Connection(ConnectionType.CLIENT)
    library.receive_data(text_frame(b"x" * size) + text_frame(b"next"))
    events = list(library.events())
    assert all(isinstance(event, TextMessage) for event in events)
    texts = [event.data for event in events if isinstance(event, TextMessage)]
    assert texts == ["x" * size, "next"]
