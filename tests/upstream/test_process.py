"""The app-server's process: its lines, its stderr, and every way in which it ends."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import pytest
import structlog
import trio
from hypothesis import given
from hypothesis import strategies as st

from mux.core.broker import Broker
from mux.core.events import Event, UpstreamExited, UpstreamSent, UpstreamStarted
from mux.core.limits import Limits
from mux.core.protocol.envelope.long_line import LONG_BYTES, LongLine
from mux.core.state.app_server import Introduction
from mux.dispatch.dispatcher import Dispatcher
from mux.upstream import lines as module
from mux.upstream import process
from mux.upstream.lines import Lines, MessageLines
from mux.upstream.process import STDERR_KEPT, STDERR_LINE_BYTES, Upstream
from tests.end_to_end.scenes import eventually

FAULTY = str(Path(__file__).parents[1] / "faulty_app_server.py")
PATIENCE = 20.0

# --- Lines ----------------------------------------------------------------------------------------


@given(st.lists(st.binary(max_size=20), max_size=20), st.data())
def test_lines_come_whole_however_they_are_cut(pieces: list[bytes], data: st.DataObject) -> None:
    stream = b"\n".join(pieces)
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=10).map(sorted))
    lines = Lines()
    found: list[bytes] = []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        found += lines.split(stream[start:end])
    assert found == [line for line in stream.split(b"\n")[:-1] if line]


def test_a_long_line_in_many_chunks_costs_its_length_once() -> None:
    lines = Lines()
    chunk = b"x" * 65536
    for _ in range(3200):  # 200 MiB: copied with every chunk it would be 300 GiB
        assert list(lines.split(chunk)) == []
    [line] = lines.split(b"\nrest")
    assert len(line) == 3200 * 65536


@given(st.lists(st.binary(max_size=40), max_size=20), st.data())
def test_messages_come_whole_too_and_the_long_ones_in_pieces(
    pieces: list[bytes], data: st.DataObject
) -> None:
    stream = b"\n".join(pieces)
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=10).map(sorted))
    found: list[bytes] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "LONG_BYTES", 10)
        lines = MessageLines()
        for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
            for line in lines.split(stream[start:end]):
                if isinstance(line, LongLine):
                    assert len(line) >= 10
                    found.append(line.rope().whole())
                else:
                    found.append(line)
    assert found == [line for line in stream.split(b"\n")[:-1] if line]


def test_a_long_line_is_never_joined() -> None:
    """But for its beginning, until it is long."""
    lines = MessageLines()
    chunk = b"x" * LONG_BYTES
    for _ in range(30):
        assert lines.split(chunk) == []
    [line, rest] = lines.split(b"y\nshort\nz")
    assert isinstance(line, LongLine)
    assert all(piece is chunk for piece in line.rope().pieces[1:-1])
    assert len(line) == 30 * LONG_BYTES + 1
    assert rest == b"short"


# --- The process ----------------------------------------------------------------------------------


@attrs.define(eq=False)
class Listening(Dispatcher):
    """Keeps what it hears, instead of having anything decided."""

    heard: list[Event] = attrs.field(factory=list)
    news: trio.Event = attrs.field(factory=trio.Event)

    def handle(self, event: Event) -> None:
        self.heard.append(event)
        self.news.set()
        self.news = trio.Event()

    def handle_lines(self, lines: Iterable[bytes | LongLine]) -> int:
        """One at a time, as if each took long."""
        for line in lines:
            assert isinstance(line, bytes)
            self.handle(UpstreamSent(line))
            return 1
        return 0

    async def wait_for(self, kind: type[Event], count: int = 1) -> list[Event]:
        """The events of a kind, once there are so many."""
        with trio.fail_after(PATIENCE):
            while len(found := [each for each in self.heard if type(each) is kind]) < count:
                await self.news.wait()
        return found


@asynccontextmanager
async def _running(*command: str) -> AsyncIterator[tuple[Upstream, Listening]]:
    broker = Broker(Limits(), Introduction("appmux", "0"), first_id=0, epoch="e", head=0)
    listening = Listening(broker)
    runs = Upstream(command, listening)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(listening.run)
        nursery.start_soon(runs.run)
        yield runs, listening
        nursery.cancel_scope.cancel()


def _faulty(fault: str) -> tuple[str, ...]:
    return (sys.executable, FAULTY, fault)


def _script(text: str) -> tuple[str, ...]:
    return ("/bin/sh", "-c", text)


async def _reason(listening: Listening, count: int = 1) -> str:
    exited = (await listening.wait_for(UpstreamExited, count))[-1]
    assert isinstance(exited, UpstreamExited)
    return exited.reason


async def test_lines_go_both_ways() -> None:
    async with _running("cat") as (runs, listening):
        await listening.wait_for(UpstreamStarted)
        sent = [b'{"id":%d}' % n + b"x" * n * 100 for n in range(200)]
        for line in sent:
            runs.send(line)
        heard = await listening.wait_for(UpstreamSent, len(sent))
        assert [each.line for each in heard if isinstance(each, UpstreamSent)] == sent
        runs.stop()
        assert await _reason(listening) == "exit status 0"
        assert (runs.pid, runs.status) == (None, 0)


async def test_one_life_follows_another() -> None:
    async with _running(*_script("exit 3")) as (runs, listening):
        for life in range(1, 4):
            assert await _reason(listening, life) == "exit status 3"
            started = await listening.wait_for(UpstreamStarted, life)
            assert started[-1] == UpstreamStarted(life)
            runs.start(0.0)


async def test_how_it_ended_is_told_in_words() -> None:
    async with _running(*_script("kill -9 $$")) as (runs, listening):
        assert await _reason(listening) == "killed by SIGKILL"
        assert runs.status == -9
    async with _running("cat") as (runs, listening):
        await listening.wait_for(UpstreamStarted)
        runs.kill("it said nothing")
        assert await _reason(listening) == "it said nothing"
    async with _running("/no/such/codex") as (_, listening):
        reason = await _reason(listening)
        assert reason == "/no/such/codex can't be started: No such file or directory"


async def test_its_last_words_are_kept_without_colours() -> None:
    async with _running(*_faulty("dies")) as (runs, listening):
        assert await _reason(listening) == "exit status 7"
        assert list(runs.stderr) == ["first words", "last words"]
    wordy = f"for n in $(seq {STDERR_KEPT + 5}); do echo $n >&2; done; printf '%0100000d\\n' 0 >&2"
    async with _running(*_script(wordy)) as (runs, listening):
        await _reason(listening)
        assert len(runs.stderr) == STDERR_KEPT
        assert runs.stderr[0] == "7"
        assert len(runs.stderr[-1]) == STDERR_LINE_BYTES


@pytest.mark.parametrize(
    ("line", "level"),
    [
        ("2026-11-30T01:02:03.4Z ERROR codex_app_server: no bubblewrap", "error"),
        ("2026-11-30T01:02:03.4Z  WARN codex_core: slow", "warning"),
        ("2026-11-30T01:02:03.4Z  INFO codex_core: ERROR is a word here", "info"),
        ("thread 'main' panicked at src/main.rs", "info"),
    ],
)
def test_its_levels_are_kept(line: str, level: str) -> None:
    dispatcher = Dispatcher(Broker(Limits(), Introduction("x", "1")))
    with structlog.testing.capture_logs() as lines:
        Upstream(("codex",), dispatcher)._log_errors([line.encode()])
    assert [(each["log_level"], each["line"]) for each in lines] == [(level, line)]


async def test_last_words_that_are_cut_by_its_end_are_put_together() -> None:
    """Half a line was read while it ran; the other half comes once its stdout has ended."""
    before = "printf 'whole\\nfirst half, ' >&2; read go"
    halves = f"{before}; exec >&-; read eof; echo second >&2; exit 6"
    async with _running(*_script(halves)) as (runs, listening):
        await eventually(lambda: runs.stderr, "its first words were read")
        runs.send(b"go")
        assert await _reason(listening) == "exit status 6"
        assert list(runs.stderr) == ["whole", "first half, second"]


async def test_one_that_closes_its_stdout_has_ended() -> None:
    async with _running(*_script("exec >&-; cat >/dev/null; exit 5")) as (_, listening):
        assert await _reason(listening) == "exit status 5"


async def test_one_that_ignores_the_end_of_stdin_and_sigterm_is_killed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(process, "EOF_DEADLINE", 0.2)
    monkeypatch.setattr(process, "TERMINATE_DEADLINE", 0.2)
    async with _running(*_faulty("stubborn")) as (runs, listening):
        await listening.wait_for(UpstreamStarted)
        runs.send(b'{"id":1,"method":"x","params":{}}')
        await listening.wait_for(UpstreamSent)  # so it ignores SIGTERM by now
        runs.stop()
        assert await _reason(listening) == "killed by SIGKILL"
    # The same when the broker itself is cancelled.
    async with _running(*_faulty("stubborn")) as (runs, listening):
        await listening.wait_for(UpstreamStarted)
        runs.send(b'{"id":1,"method":"x","params":{}}')
        await listening.wait_for(UpstreamSent)
    assert runs.status == -9


async def test_one_that_is_blocked_on_a_full_pipe_ends_in_order() -> None:
    talks = "dd if=/dev/zero bs=1048576 count=8 2>/dev/null; cat >/dev/null; exit 0"
    async with _running(*_script(talks)) as (runs, listening):
        await listening.wait_for(UpstreamStarted)
    assert runs.status == 0


async def test_a_grandchild_that_holds_stderr_open_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(process, "TERMINATE_DEADLINE", 0.2)
    async with _running(*_script("sleep 3 >/dev/null & echo words >&2; exit 4")) as (
        runs,
        listening,
    ):
        assert await _reason(listening) == "exit status 4"
        assert list(runs.stderr) == ["words"]
