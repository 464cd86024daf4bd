"""The dispatcher: decides and performs in one step, and delivers what belongs together at once."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import attrs
import pytest
import trio
import trio.testing

from mux.core.broker import Broker
from mux.core.commands import Close, Command, Log, Publish, PublishRun, ReadJournal
from mux.core.events import ClientLags, ClientSent, ClockMoved, Event, TimePassed, UpstreamSent
from mux.core.limits import Limits
from mux.core.policy.principal import ClientId, Principal
from mux.core.protocol.envelope.rope import Rope
from mux.core.protocol.journal_entry import Entry
from mux.core.state.app_server import Introduction
from mux.dispatch.dispatcher import LINES_A_LOOK, LOOK_AGAIN, MOVED, Dispatcher
from mux.dispatch.outbox import ClientPort, Outbox, text_frame
from tests.shells import Nothing, idle_shells

LOCAL = Principal("local", "local-user")


class Scripted(Broker):
    """A broker that answers each line with what the test gave it, and remembers what it heard."""

    def __init__(self, script: dict[bytes, list[Command]]) -> None:
        super().__init__(Limits(), Introduction("appmux", "0.1"))
        self.script = script
        self.heard: list[Event] = []

    def handle(self, event: Event, now: float) -> list[Command]:
        self.heard.append(event)
        if isinstance(event, UpstreamSent):
            if event.line == b"unheard of":
                raise RuntimeError("a bug")
            return self.script[event.line]
        return super().handle(event, now)


@attrs.define
class Kept(Outbox):
    """An outbox that keeps what it was given, piece by piece."""

    pieces: list[bytes] = attrs.field(factory=list)

    def append(self, frame: bytes | memoryview) -> None:
        assert isinstance(frame, bytes)
        self.pieces.append(frame)
        super().append(frame)


def connected(broker: Broker, wall: Callable[[], float] = time.time, **shells: Any) -> Dispatcher:
    """A dispatcher whose shells do nothing, but for ``shells``."""
    dispatcher = Dispatcher(broker, wall=wall)
    dispatcher.connect(idle_shells(**shells))
    return dispatcher


def attached(dispatcher: Dispatcher, limit: float = float("inf")) -> tuple[ClientId, Kept]:
    """A client, and its outbox."""
    outbox = Kept(limit)
    closed: list[Any] = []
    port = ClientPort(outbox, lambda code, reason: closed.append((code, reason)))
    return dispatcher.attach(port, LOCAL, "ws", "somewhere"), outbox


def publish(text: bytes, to: tuple[ClientId, ...]) -> Publish:
    return Publish(text, to, "x")


async def test_a_long_message_is_owed_in_its_pieces_behind_what_came_before() -> None:
    pieces = [bytes([65 + n]) * 100_000 for n in range(3)]
    both = (1, 2)
    script: dict[bytes, list[Command]] = {
        b"a": [publish(b"1", both)],
        b"b": [Publish(Rope(pieces), both, "x")],
        b"c": [publish(b"2", both)],
    }
    dispatcher = connected(Scripted(script))
    outboxes = [attached(dispatcher)[1] for _ in both]
    dispatcher.handle_lines([b"a", b"b", b"c"])
    for outbox in outboxes:
        before, *owed, after = outbox.pieces
        frame = text_frame(b"".join(pieces))
        assert before + b"".join(owed) == text_frame(b"1") + frame
        assert all(mine is piece for mine, piece in zip(owed, pieces, strict=True))
        assert after == text_frame(b"2")
    assert dispatcher.traffic.bytes_to_clients == sum(outbox.owed for outbox in outboxes)
    assert dispatcher.traffic.to_clients == 3 * len(outboxes)


async def test_a_reads_entries_are_stored_at_once_and_before_the_journal_is_read() -> None:
    entries = [Entry(seq, "t", "x", b"{}") for seq in (1, 2, 3)]
    read = ReadJournal(1, 0, 0, frozenset(), 9)
    one, two, three = (Publish(b"1", (), "x", each) for each in entries)
    script: dict[bytes, list[Command]] = {b"a": [one], b"b": [two], b"c": [read, three]}
    done: list[object] = []
    dispatcher = connected(
        Scripted(script), keep=lambda *some: done.append(some), read_journal=done.append
    )
    dispatcher.handle_lines([b"a", b"b", b"c"])
    assert done == [tuple(entries[:2]), read, (entries[2],)]


async def test_frames_for_the_same_clients_go_out_as_one_piece_in_their_order() -> None:
    both, first = (1, 2), (1,)
    script: dict[bytes, list[Command]] = {
        b"a": [publish(b"1", both)],
        b"b": [publish(b"2", both)],
        b"c": [publish(b"3", first)],
        b"d": [publish(b"4", both)],
    }
    dispatcher = connected(Scripted(script))
    outboxes = [attached(dispatcher)[1] for _ in range(2)]
    dispatcher.handle_lines([b"a", b"b", b"c", b"d"])
    one, two, three, four = (text_frame(text) for text in (b"1", b"2", b"3", b"4"))
    assert outboxes[0].pieces == [one + two, three, four]
    assert outboxes[1].pieces == [one + two, four]


async def test_what_was_published_is_delivered_before_another_command() -> None:
    ended: list[list[bytes]] = []
    script: dict[bytes, list[Command]] = {b"a": [publish(b"1", (1,)), Close(1, 1000, "")]}
    dispatcher = connected(Scripted(script))
    outbox = Kept()
    port = ClientPort(outbox, lambda _code, _reason: ended.append(list(outbox.pieces)))
    dispatcher.attach(port, LOCAL, "ws", "somewhere")
    dispatcher.handle_lines([b"a"])
    assert ended == [[text_frame(b"1")]]


async def test_an_outbox_that_fills_is_told_once_and_after_the_lines() -> None:
    script: dict[bytes, list[Command]] = {
        text: [publish(b"x" * 100, (1,)), Log("debug", "parts them", {})] for text in (b"a", b"b")
    }
    broker = Scripted(script)
    dispatcher = connected(broker)
    attached(dispatcher, limit=50)
    dispatcher.handle_lines([b"a", b"b"])
    assert [each for each in broker.heard if isinstance(each, ClientLags)] == [ClientLags(1)]
    assert isinstance(broker.heard[-1], ClientLags)


@pytest.mark.parametrize(("seconds", "heard"), [(60.0, 100), (0.0, LINES_A_LOOK)])
async def test_hearing_lines_ends_in_time_and_says_how_many_were_heard(
    seconds: float, heard: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mux.dispatch.dispatcher.LINES_SECONDS", seconds)
    dispatcher = connected(Scripted({b"a": [publish(b"1", (1,))]}))
    _, outbox = attached(dispatcher)
    assert dispatcher.handle_lines([b"a"] * 100) == heard
    assert outbox.pieces == [text_frame(b"1") * heard]
    assert dispatcher.traffic.from_app_server == heard


@pytest.mark.parametrize("place", [0, 1, 2])
async def test_a_line_that_cannot_be_handled_costs_only_itself(place: int) -> None:
    dispatcher = connected(Scripted({b"a": [publish(b"1", (1,))], b"b": [publish(b"2", (1,))]}))
    _, outbox = attached(dispatcher)
    lines = [b"a", b"b"]
    lines.insert(place, b"unheard of")
    assert dispatcher.handle_lines(lines) == 3
    assert b"".join(outbox.pieces) == text_frame(b"1") + text_frame(b"2")


async def test_a_run_is_framed_counted_and_stored_as_its_lines_are() -> None:
    stored: list[Entry] = []
    entries = [Entry(seq, "t", "x", b"%d" % seq) for seq in range(1, 10)]
    run = PublishRun([each.message for each in entries], (1,), "x", entries)
    script: dict[bytes, list[Command]] = {b"a": [publish(b"0", (1,))], b"run": [run]}
    dispatcher = connected(Scripted(script), keep=lambda *some: stored.extend(some))
    _, outbox = attached(dispatcher)
    assert dispatcher.handle_lines([b"a", b"run"]) == 2
    assert outbox.pieces == [b"".join(text_frame(b"%d" % each) for each in range(10))]
    assert dispatcher.traffic.to_clients == 10
    assert stored == entries


@attrs.define(eq=False)
class Wall:
    """A wall's clock that is set by hand, and else goes with trio's."""

    ahead: float = 1_800_000_000.0

    def __call__(self) -> float:
        return trio.current_time() + self.ahead


def expiring(dispatcher: Dispatcher, seconds: float) -> tuple[ClientId, list[Any]]:
    """A client with a JWT that ends so many seconds from now, and with what it was closed."""
    closed: list[Any] = []
    port = ClientPort(Kept(float("inf")), lambda code, _reason: closed.append(code))
    until = dispatcher.wall() + seconds
    principal = Principal("ada", "jwt", until)
    return dispatcher.attach(port, principal, "ws", "somewhere"), closed


async def test_whose_time_is_over_by_the_wall_is_neither_heard_nor_told() -> None:
    """The machine slept: the first that happens is a word of the client's own."""
    broker, wall = Scripted({}), Wall()
    jumps: list[float] = []

    class Sink(Nothing):
        def clock_moved(self) -> None:
            jumps.append(wall.ahead)

    dispatcher = connected(broker, wall=wall, notices=Sink())
    client, closed = expiring(dispatcher, 60.0)
    dispatcher.handle(ClientSent(client, b'{"method": "initialized"}'))
    assert closed == []
    wall.ahead += 3600
    before = dispatcher.traffic.to_app_server
    dispatcher.handle(ClientSent(client, b'{"id": 1, "method": "initialize", "params": {}}'))
    assert closed == [4401]
    assert dispatcher.traffic.to_app_server == before
    assert [type(each) for each in broker.heard[-2:]] == [ClockMoved, ClientSent]
    assert jumps == [wall.ahead]
    dispatcher.handle(ClientSent(client, b"{}"))
    assert len(jumps) == 1  # told once


async def test_what_the_app_server_writes_finds_the_clock_moved_too() -> None:
    broker, wall = Scripted({b"a": []}), Wall()
    dispatcher = connected(broker, wall=wall)
    _, closed = expiring(dispatcher, 60.0)
    wall.ahead += 61
    dispatcher.handle_lines([b"a"])
    assert closed == [4401]


async def test_where_nothing_happens_the_clock_is_looked_at_within_a_minute(
    autojump_clock: trio.testing.MockClock,
) -> None:
    broker, wall = Scripted({}), Wall()
    dispatcher = connected(broker, wall=wall)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(dispatcher.run)
        _, closed = expiring(dispatcher, 86_400.0)
        await trio.sleep(1000)
        assert closed == []
        wall.ahead += 86_400
        await trio.sleep(LOOK_AGAIN)
        assert closed == [4401]
        nursery.cancel_scope.cancel()


async def test_a_clock_that_is_kept_right_is_no_jump() -> None:
    broker, wall = Scripted({}), Wall()
    dispatcher = connected(broker, wall=wall)
    _, closed = expiring(dispatcher, 10.0)
    for _ in range(8):
        wall.ahead += 0.9 * MOVED
        dispatcher.handle(TimePassed())
    moved = [each.seconds for each in broker.heard if isinstance(each, ClockMoved)]
    assert len(moved) == 4
    assert sum(moved) == pytest.approx(7.2)  # and what adds up is told
    assert closed == []
