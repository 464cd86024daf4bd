"""The broker is killed while the disk of its state is full, and the next one goes on."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from pathlib import Path

import pytest

from mux.demo.scripted_model import Run, Say, Scripted
from tests.end_to_end.brokered import brokered, client
from tests.end_to_end.native import Native
from tests.end_to_end.scenes import (
    ACCEPT,
    APPROVAL,
    TURN_COMPLETED,
    eventually,
    join,
    shared_thread,
    status,
    status_shows,
)
from tests.end_to_end.test_handover import LISTENING, same_app_server

SMALL = 'mount -t tmpfs -o size=64m,mode=700 tmpfs "$1" && shift && exec "$@"'
"""In a mount namespace of its own: a disk that is soon full, but has room for codex's schema."""

ALONE = ("unshare", "--mount", "sh", "-c", SMALL, "sh")


def can_mount(place: Path) -> bool:
    try:
        done = subprocess.run([*ALONE, place, "true"], capture_output=True, check=False)
    except OSError:
        return False
    return done.returncode == 0


def fill(place: Path) -> Path:
    """Fill the disk to the last byte."""
    file = place / "filling"
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT, 0o600)
    for size in (64 * 1024, 4096, 1):
        with contextlib.suppress(OSError):
            while os.write(descriptor, bytes(size)):
                pass
    os.close(descriptor)
    return file


async def killed(broker: Native, pid: int) -> None:
    """Kill the broker, and wait until the next one serves."""
    before = broker.shown().count(LISTENING)
    os.kill(pid, signal.SIGKILL)
    await eventually(lambda: broker.shown().count(LISTENING) > before, "the next broker")


async def test_the_next_broker_goes_on_in_memory_until_there_is_room(tmp_path: Path) -> None:
    if not can_mount(tmp_path):
        pytest.skip("no disk of its own can be mounted here")
    model = Scripted()
    model.on("do it", (Run("echo done", escalated=True),), Say("I did."))
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    before = (*ALONE, str(state))
    arguments = ("--state-dir", str(state))
    async with (
        brokered(*arguments, model=model, before=before) as broker,
        client(broker, "one") as one,
        same_app_server(broker, one),
    ):
        thread = await shared_thread(broker, one)
        await one.start_turn(thread, "do it")
        offered = await one.wait_method(APPROVAL, threadId=thread)
        seen = Path(f"/proc/{broker.process.pid}/root{state}")
        filling = fill(seen)
        report = await status(one)
        await killed(broker, report["broker"]["pid"])
        async with client(broker, "two") as two:
            await join(two, thread)
            assert (await two.wait_method(APPROVAL, threadId=thread))["id"] == offered["id"]
            report = await status_shows(two, lambda each: each["broker"]["handoverTrouble"])
            assert "make room" in report["broker"]["handoverTrouble"]
            filling.unlink()
            await two.respond(offered["id"], ACCEPT)
            done = await two.wait_method(TURN_COMPLETED, threadId=thread)
            assert done["params"]["turn"]["status"] == "completed"
            while (await status(two))["broker"]["handoverTrouble"]:
                await two.run_turn(thread, "hello")
            report = await status(two)
        # There is room again, and so a third one goes on as well.
        await killed(broker, report["broker"]["pid"])
        async with client(broker, "three") as three:
            await join(three, thread)
            assert (await three.run_turn(thread, "hello"))["status"] == "completed"
