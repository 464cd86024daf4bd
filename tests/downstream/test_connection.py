"""One client's share of the loop: so few frames a step, so many a second that ask for nothing.

Real sockets; what is counted is work, not time: another task runs between any two steps.
"""

from __future__ import annotations

import math
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

import attrs
import pytest
import trio
import trio.testing

from mux.core.broker import Broker
from mux.core.commands import Charge, Command
from mux.core.events import ClientSent, Event
from mux.core.limits import Limits
from mux.core.policy.principal import Principal
from mux.core.state.app_server import Introduction
from mux.dispatch.dispatcher import Dispatcher
from mux.dispatch.outbox import ClientPort
from mux.downstream import connection
from mux.downstream.http.request import AcceptedUpgrade
from mux.downstream.sockets.streams import Patient
from mux.downstream.websocket.websocket import FrameReader
from tests.end_to_end.frames import CLOSE, CONTINUATION, PING, PONG, TEXT, frame
from tests.shells import idle_shells

PATIENCE: Final = 20.0
MANY: Final = 1500
A_ROUND: Final = 2 * (connection.FRAMES_AT_ONCE + 1)
"""Frames looked at between two steps of another task, between which a reader may have two: trio
goes through its tasks in any order. One more is looked at to see that there is more."""
KEY: Final = b"dGhlIHNhbXBsZSBub25jZQ=="


class Counted(Broker):
    """A broker that counts what clients send; ``refuses``: each message is charged."""

    def __init__(self, *, refuses: bool) -> None:
        super().__init__(Limits(), Introduction("appmux", "0.1"))
        self.refuses = refuses
        self.heard = 0

    def handle(self, event: Event, now: float) -> list[Command]:
        if not isinstance(event, ClientSent):
            return super().handle(event, now)
        self.heard += 1
        return [Charge(event.client)] if self.refuses else []


@attrs.define
class Line:
    """A connection that is served, as its client sees it."""

    broker: Counted
    port: ClientPort
    stream: trio.SocketStream
    over: trio.Event

    async def hears(self, count: int) -> None:
        """Wait until the broker has heard so many messages."""
        with trio.fail_after(PATIENCE):
            while self.broker.heard < count:  # noqa: ASYNC110 (a test's clock jumps only in a sleep)
                await trio.sleep(0.001)

    async def close_code(self) -> int:
        """Read to the end; the code of the close frame there."""
        received = b""
        with trio.fail_after(PATIENCE):
            while more := await self.stream.receive_some():
                received = (received + more)[-1000:]
        at = received.rindex(bytes([0x88]))
        return int.from_bytes(received[at + 2 : at + 4])


@asynccontextmanager
async def served(*, refuses: bool = False) -> AsyncIterator[Line]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    broker = Counted(refuses=refuses)
    admission = AcceptedUpgrade(
        Principal("local", "local-user"), "somewhere", True, KEY, "unix", b""
    )
    over, dispatcher = trio.Event(), Dispatcher(broker)
    dispatcher.connect(idle_shells())

    async def serve(nursery: trio.Nursery) -> None:
        stream = Patient(trio.socket.from_stdlib_socket(ours))
        await connection.serve(
            stream,
            admission,
            dispatcher,
            nursery,
            message_bytes=2**20,
            outbox_bytes=2**22,
        )
        over.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(dispatcher.run)
        nursery.start_soon(serve, nursery)
        stream = trio.SocketStream(trio.socket.from_stdlib_socket(theirs))
        await stream.receive_some()  # the answer to the upgrade
        async with stream:
            yield Line(broker, dispatcher._ports[1], stream, over)
        nursery.cancel_scope.cancel()


async def most_at_once(
    monkeypatch: pytest.MonkeyPatch, line: Line, sent: bytes, done: Callable[[], bool]
) -> int:
    """Send this; the most frames that were looked at while another task waited for its turn."""
    looked, most = [0], 0
    payload = FrameReader._payload

    def counted(frames: FrameReader, at: int) -> tuple[int, int] | None:
        looked[0] += 1
        return payload(frames, at)

    monkeypatch.setattr(FrameReader, "_payload", counted)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(send_until_broken, line.stream, sent, 1)
        with trio.fail_after(PATIENCE):
            while not done():
                before = looked[0]
                await trio.lowlevel.checkpoint()
                most = max(most, looked[0] - before)
    return most


FRAMES: Final = {
    "pings": frame(PING, b"") * MANY,
    "pongs": frame(PONG, b"") * MANY,
    "empty fragments": frame(TEXT, b"", final=False)
    + frame(CONTINUATION, b"", final=False) * (MANY - 2)
    + frame(CONTINUATION, b""),
}


@pytest.mark.parametrize("what", FRAMES)
async def test_ten_thousand_frames_are_looked_at_a_few_a_step(
    what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with served() as line:
        sent = FRAMES[what] + frame(TEXT, b"{}")
        last = 2 if what == "empty fragments" else 1
        most = await most_at_once(monkeypatch, line, sent, lambda: line.broker.heard == last)
        assert most <= A_ROUND


async def test_a_thousand_requests_in_one_piece_are_heard_a_few_a_step(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with served() as line:
        sent = frame(TEXT, b'{"id":1}') * 1000
        most = await most_at_once(monkeypatch, line, sent, lambda: line.broker.heard == 1000)
        assert most <= A_ROUND


async def test_a_message_that_takes_its_time_is_the_last_of_its_step(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connection, "TURN_SECONDS", -1.0)
    async with served() as line:
        await line.stream.send_all(frame(TEXT, b"{}") * 100)
        with trio.fail_after(PATIENCE):
            while line.broker.heard < 100:
                before = line.broker.heard
                await trio.lowlevel.checkpoint()
                assert line.broker.heard - before <= 2  # its step of this round, and of the next


@pytest.mark.parametrize("what", ["pings", "refused"])
async def test_what_asks_for_nothing_is_read_at_its_rate_then_its_client_is_cut(
    what: str, autojump_clock: trio.testing.MockClock
) -> None:
    """By the clock of the test: nobody waits for it."""
    idle = connection.IDLE_BURST + connection.IDLE_PER_SECOND * 5
    one = frame(PING, b"") if what == "pings" else frame(TEXT, b"{}")
    async with served(refuses=what == "refused") as line:
        began = trio.current_time()
        await line.stream.send_all(one * idle + frame(TEXT, b"last"))
        last = idle + 1 if what == "refused" else 1
        await line.hears(last)
        assert trio.current_time() - began == pytest.approx(5, abs=0.5)
        await trio.sleep(60)  # a rest: it may again
        await line.stream.send_all(one * connection.IDLE_BURST + frame(TEXT, b"again"))
        await line.hears(last + 1)
        assert trio.current_time() - began < 5 + 60 + 1
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send_until_broken, line.stream, one * 100)
            assert await line.close_code() == connection.TOO_MUCH
            await line.over.wait()
        assert trio.current_time() - began < 5 + 60 + 1 + 20


async def send_until_broken(stream: trio.SocketStream, piece: bytes, times: int = 60) -> None:
    try:
        for _ in range(times):
            await stream.send_all(piece)
    except trio.BrokenResourceError:
        pass


async def test_fragments_of_a_usual_size_are_no_idle_ones(
    autojump_clock: trio.testing.MockClock,
) -> None:
    parts = [frame(TEXT, b"x" * 256, final=False)]
    parts += [frame(CONTINUATION, b"x" * 256, final=False)] * 3999
    async with served() as line:
        began = trio.current_time()
        await line.stream.send_all(b"".join(parts) + frame(CONTINUATION, b"x" * 256))
        await line.hears(1)
        assert trio.current_time() - began < 0.1


async def test_a_flood_behind_our_close_frame_is_read_a_few_a_step_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with served() as line:
        line.port.close(1001, "the broker shuts down")
        sent = frame(PING, b"") * MANY + frame(CLOSE, (1001).to_bytes(2))
        most = await most_at_once(monkeypatch, line, sent, line.over.is_set)
        assert 0 < most <= A_ROUND


async def test_who_answers_our_close_frame_is_hung_up_on_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Browsers wait for the server's end of the connection, up to two seconds, before they go."""
    monkeypatch.setattr(connection, "CLOSE_DEADLINE", math.inf)
    async with served() as line:
        line.port.close(1012, "come back")
        with trio.fail_after(PATIENCE):
            assert (await line.stream.receive_some())[0] == 0x80 | CLOSE
            await line.stream.send_all(frame(CLOSE, (1012).to_bytes(2)))
            assert await line.stream.receive_some() == b""
            await line.stream.aclose()
            await line.over.wait()
