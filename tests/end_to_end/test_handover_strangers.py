"""Others beside the supervisor and its broker: a second broker, a stranger, who moves its files."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import trio

from mux.supervisor.channel import VARIABLE
from tests.end_to_end.brokered import brokered, client
from tests.end_to_end.native import Native
from tests.end_to_end.peer import PATIENCE
from tests.end_to_end.scenes import (
    app_server_pid,
    ended,
    eventually,
    join,
    shared_thread,
    status,
)
from tests.end_to_end.test_handover import LISTENING, next_broker, same_app_server


async def _serve(broker: Native, **environ: str) -> tuple[int, str]:
    """`appmux serve` beside that broker, to its end: exit status and stderr."""
    command = [sys.executable, "-m", "mux", "serve", "--listen", "ws://127.0.0.1:0"]
    done = await trio.run_process(
        command,
        check=False,
        capture_stderr=True,
        env=broker.home.environ() | environ,
        cwd=broker.home.work,
    )
    return done.returncode, done.stderr.decode()


async def test_a_second_broker_is_refused_and_disturbs_nobody() -> None:
    """The one that is there, and the one after it, go on."""
    async with brokered() as broker, client(broker, "one") as one:
        thread = await shared_thread(broker, one)
        async with same_app_server(broker, one):
            returncode, said = await _serve(broker)
            assert (returncode, said.count("\n")) == (1, 1), said
            assert "another appmux" in said
            await next_broker(broker)
            async with client(broker, "two") as two:
                await join(two, thread)
                assert (await two.run_turn(thread, "hello"))["status"] == "completed"


async def test_a_second_broker_is_refused_while_there_is_none() -> None:
    """It listens elsewhere, and tries just when the broker was killed: the next one goes on."""
    async with brokered() as broker, client(broker, "one") as one:
        thread, app_server = await shared_thread(broker, one), await app_server_pid(one)
        pid, supervisor = broker.broker_pid, broker.process.pid
        serving = broker.shown().count(LISTENING)
        os.kill(supervisor, signal.SIGSTOP)  # the time in which no broker runs takes longer
        try:
            os.kill(pid, signal.SIGKILL)
            await one.wait_gone()
            with trio.fail_after(PATIENCE):
                returncode, said = await _serve(broker)
        finally:
            os.kill(supervisor, signal.SIGCONT)
        assert (returncode, said.count("\n")) == (1, 1), said
        assert "another appmux" in said
        await eventually(lambda: broker.shown().count(LISTENING) > serving, "the next broker")
        assert "exit status" not in broker.shown(), "the next one started at once"
        async with client(broker, "two") as two:
            assert await app_server_pid(two) == app_server
            await join(two, thread)
            assert (await two.run_turn(thread, "hello"))["status"] == "completed"
        assert broker.broker_pid != pid  # the file names the one that runs


async def test_nobody_can_connect_to_the_supervisor() -> None:
    """It has no socket by which anybody could, and who pretends to be its broker gets an error."""
    async with brokered() as broker, client(broker, "one") as one:
        report = await status(one)
        held = {each["url"].partition("://")[2] for each in report["listeners"]}
        bound = _bound(broker.process.pid)
        assert all(any(name.endswith(Path(url).name) for url in held) for name in bound)
        returncode, said = await _serve(broker, **{VARIABLE: "99"})
        assert returncode == 1
        assert "the supervisor says nothing" in said


def _bound(pid: int) -> list[str]:
    """The paths of unix sockets that a process has open."""
    links = [str(each.readlink()) for each in Path(f"/proc/{pid}/fd").iterdir()]
    lines = [line.split() for line in Path("/proc/net/unix").read_text().splitlines()]
    return [words[7] for words in lines if len(words) > 7 and f"socket:[{words[6]}]" in links]


async def test_a_state_directory_that_is_moved_away() -> None:
    """The next broker finds nothing there, says so, and begins anew; the app-server ends."""
    async with brokered() as broker, client(broker, "one") as one:
        before, pid = await app_server_pid(one), broker.broker_pid
        thread = await shared_thread(broker, one)
        state = broker.home.home / ".local" / "state" / "appmux"
        state.rename(state.with_name("away"))
        serving = broker.shown().count(LISTENING)
        os.kill(pid, signal.SIGKILL)
        await eventually(lambda: broker.shown().count(LISTENING) > serving, "the next broker")
        async with client(broker, "two") as two:
            assert await app_server_pid(two) != before
            assert ended(before)
            await join(two, thread)
            assert "can't be used" in (await status(two))["broker"]["handoverTrouble"]
        await next_broker(broker)
        async with client(broker, "three") as three:
            assert (await status(three))["broker"]["handoverTrouble"] is None
