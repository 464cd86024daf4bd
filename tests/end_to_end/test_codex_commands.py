"""Codex's own commands that dial the control socket: `codex queue` and `codex remote-control`."""

from __future__ import annotations

import re

import pytest
import trio

from tests.end_to_end.brokered import brokered
from tests.end_to_end.native import Native, codex_bin, native_unix
from tests.end_to_end.peer import connect_unix
from tests.end_to_end.scenes import DELTA, TURN_COMPLETED, shared_thread

PATIENCE = 60.0


async def codex(running: Native, *arguments: str) -> tuple[int, str, str]:
    """Run a command of codex beside it: exit status, stdout, stderr."""
    with trio.fail_after(PATIENCE):
        done = await trio.run_process(
            [str(codex_bin()), *arguments],
            env=running.home.environ(),
            cwd=running.home.work,
            stdin=b"",
            capture_stdout=True,
            capture_stderr=True,
            check=False,
        )
    return done.returncode, done.stdout.decode(), done.stderr.decode()


@pytest.mark.parametrize("more", [(), ("--remote", "unix://")])
async def test_a_message_queued_from_a_shell_runs_and_is_seen(more: tuple[str, ...]) -> None:
    async with brokered() as broker, connect_unix(broker.socket) as desk:
        await desk.initialize("desk", experimentalApi=True)
        thread = await shared_thread(broker, desk)
        since = len(desk.inbox)
        queue = ("queue", "--thread", thread, "--message", "one more")
        status, out, _ = await codex(broker, *queue, *more)
        assert (status, "Queued message" in out) == (0, True)
        await desk.wait_method("thread/queue/changed", since=since, threadId=thread)
        await desk.wait_method(TURN_COMPLETED, since=since, threadId=thread)
        assert desk.heard(DELTA, since=since)


def _error(said: str) -> str:
    found = re.search(r"^Error: .*", said, re.MULTILINE)
    assert found, said
    return found[0]


async def _remote_control(running: Native) -> list[tuple[int, str]]:
    told = []
    for command in ("start", "stop", "pair"):
        status, _, said = await codex(running, "remote-control", command)
        told.append((status, _error(said)))
    return told


async def test_remote_control_finds_a_server_that_is_not_its_own() -> None:
    """As beside a listener of one's own; and `pair` reaches the broker's app-server."""
    async with native_unix() as native:
        expected = await _remote_control(native)
    async with brokered() as broker:
        told = await _remote_control(broker)
    assert told == expected
    assert told[0] == told[1]
    assert "is running but is not managed by" in told[0][1]
    assert "requires remote control to be enabled" in told[2][1]
