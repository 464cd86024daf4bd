"""`appmux serve` as the first process of a container: a pid namespace of its own, where it is 1."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest
import trio

from mux.demo.scripted_model import Hold, Say, Scripted
from tests.end_to_end.brokered import brokered, client
from tests.end_to_end.scenes import (
    DELTA,
    TURN_COMPLETED,
    app_server_pid,
    eventually,
    join,
    shared_thread,
    status,
)

ALONE = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child")


def can_unshare() -> bool:
    try:
        return subprocess.run([*ALONE, "true"], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def children(pid: int) -> list[int]:
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def command(pid: int) -> bytes:
    """The process's command line; empty once it has ended, be it reaped or not."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


@pytest.mark.skipif(not can_unshare(), reason="no pid namespace can be made here")
async def test_it_reaps_what_is_left_to_it_and_ends_in_order(tmp_path: Path) -> None:
    model = Scripted()
    model.on("tell", Say(chunks=("one ", Hold("gate"), "two")))
    async with brokered(model=model, before=ALONE) as broker, client(broker, "one") as one:
        [supervisor] = children(broker.process.pid)
        report = await status(one)
        assert report["broker"]["supervisor"] == 1
        thread, app_server = await shared_thread(broker, one), await app_server_pid(one)

        # An agent leaves a process behind, which ends once the gate is there.
        gate, begun = tmp_path / "gate", tmp_path / "begun"
        waits = f"until [ -e {gate} ]; do sleep 0.05; done"
        free = {"sandboxPolicy": {"type": "dangerFullAccess"}}
        left = f"setsid sh -c ': > {begun}; {waits}' >/dev/null 2>&1 &"
        left += f" until [ -e {begun} ]; do sleep 0.05; done"
        await one.request("command/exec", {"command": ["sh", "-c", left]} | free)

        def orphans() -> list[int]:
            return [pid for pid in children(supervisor) if waits.encode() in command(pid)]

        await eventually(orphans, "that it is left to the first process")
        [orphan] = orphans()
        gate.touch()
        await eventually(lambda: not Path(f"/proc/{orphan}").exists(), "that it is reaped")

        # Its broker is killed, and the turn goes on.
        await one.start_turn(thread, "tell")
        await one.wait_method(DELTA, threadId=thread)
        [killed] = [pid for pid in children(supervisor) if b"\0serve\0" in command(pid)]
        os.kill(killed, signal.SIGKILL)
        async with client(broker, "two") as two:
            assert await app_server_pid(two) == app_server
            await join(two, thread)
            model.release("gate")
            done = await two.wait_method(TURN_COMPLETED, threadId=thread)
            assert done["params"]["turn"]["status"] == "completed"

            os.kill(supervisor, signal.SIGTERM)
            await two.wait_gone()
        with trio.fail_after(60):
            assert await broker.process.wait() == 0
