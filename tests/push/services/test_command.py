"""The command hook: what it is given, and how it ends."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import trio
import trio.testing

from mux.config import model
from mux.push.outcome import Delivered, Failed, Outcome, Retry
from mux.push.services.registry import open_services
from tests.end_to_end.scenes import alive, eventually
from tests.push.told import NOW, endpoint, push

HERE = endpoint("exec", device="host")


async def run(tmp_path: Path, script: str, timeout: float = 10.0) -> Outcome:
    program = tmp_path / "hook"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o700)
    settings = model.Exec(command=(str(program), "$HOME", "a b"), timeout=timeout)
    services = open_services(model.Push(exec=settings), tmp_path)
    return await services.deliver(HERE, push(), NOW)


async def test_it_gets_json_and_its_arguments_as_they_are(tmp_path: Path) -> None:
    outcome = await run(tmp_path, f'cat > {tmp_path}/got; printf "%s|" "$@" > {tmp_path}/args')
    assert outcome == Delivered("exit status 0")
    assert json.loads((tmp_path / "got").read_text()) == push().document()
    assert (tmp_path / "args").read_text() == "$HOME|a b|"


async def test_one_that_reads_nothing_and_leaves_something_running_is_done(tmp_path: Path) -> None:
    with trio.fail_after(60):
        outcome = await run(tmp_path, f"sleep 300 & echo $! > {tmp_path}/pid")
    assert outcome == Delivered("exit status 0")
    os.kill(int((tmp_path / "pid").read_text()), 9)


@pytest.mark.parametrize(
    ("script", "outcome"),
    [
        (
            "echo; echo 'no route\033[0m' >&2; echo >&2; exit 3",
            Retry(None, "exit status 3: no route?[0m", ours=True),
        ),
        ("kill -9 $$", Retry(None, "killed by signal 9", ours=True)),
    ],
)
async def test_one_that_fails_is_tried_again(tmp_path: Path, script: str, outcome: Outcome) -> None:
    assert await run(tmp_path, script) == outcome


async def test_one_that_hangs_is_killed_with_its_children(
    tmp_path: Path, mock_clock: trio.testing.MockClock
) -> None:
    mock_clock.rate = 1.0  # as any clock, until it jumps
    pid, outcomes = tmp_path / "pid", list[Outcome]()

    async def hang() -> None:
        script = f"trap '' TERM; sleep 300 & echo $! > {pid}; wait; sleep 300"
        outcomes.append(await run(tmp_path, script, timeout=250.0))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(hang)
        await eventually(lambda: pid.exists() and pid.read_text(), "its child runs")
        while not outcomes:  # it may be told that it runs after its child is, and count from then
            mock_clock.jump(250.0)
            await trio.sleep(0.01)
    assert outcomes == [Retry(None, "no end after 250 s: killed, with its group", ours=True)]
    child = int(pid.read_text())
    await eventually(lambda: not alive(child), "its child ended")


async def test_a_command_that_is_not_there(tmp_path: Path) -> None:
    settings = model.Exec(command=(str(tmp_path / "none"),))
    services = open_services(model.Push(exec=settings), tmp_path)
    outcome = await services.deliver(HERE, push(), NOW)
    assert outcome == Failed(
        f"{tmp_path / 'none'}: No such file or directory; see push.exec.command", ours=True
    )


async def test_one_that_is_called_off_is_killed(tmp_path: Path) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run, tmp_path, f"echo $$ > {tmp_path}/pid; exec sleep 300")
        pid = tmp_path / "pid"
        await eventually(lambda: pid.exists() and pid.read_text(), "it runs")
        nursery.cancel_scope.cancel()
    assert not alive(int(pid.read_text()))
