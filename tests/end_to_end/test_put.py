"""`appmux put`: a file from a shell to a thread, also over a broker that is killed meanwhile."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import trio

from tests.end_to_end.brokered import brokered, client
from tests.end_to_end.doors import APPMUX, environ
from tests.end_to_end.native import Native
from tests.end_to_end.peer import PATIENCE


async def _put(broker: Native, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    with trio.fail_after(PATIENCE):
        return await trio.run_process(
            [APPMUX, "put", *arguments],
            env=environ(broker.home),
            capture_stdout=True,
            capture_stderr=True,
            stdin=subprocess.DEVNULL,
            check=False,
        )


async def test_files_come_to_a_thread(tmp_path: Path) -> None:
    first, second = tmp_path / "a.txt", tmp_path / "core dump.bin"
    first.write_text("hello")
    second.write_bytes(os.urandom(1_000_000))
    async with brokered() as broker, client(broker, "desk") as desk:
        thread = await desk.start_thread(broker.home.work)
        await desk.run_turn(thread, "hello")
        done = await _put(broker, str(first), str(second), "--thread", thread[-6:])
        assert done.returncode == 0, done.stderr.decode()
        folder = broker.home.work / "uploads"
        assert done.stdout.decode().splitlines() == [
            str(folder / "a.txt"), str(folder / "core dump.bin"),
        ]  # fmt: skip
        assert _read(folder / "core dump.bin") == _read(second)
        done = await _put(broker, str(first), "--json")
        (told,) = json.loads(done.stdout)
        assert "/appmux/files/" in told["path"]
        assert told["threadId"] is None
        done = await _put(broker, str(first), "--thread", "nonsense")
        assert done.returncode == 1


async def test_without_a_broker_it_says_so(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text("hello")
    async with brokered() as broker:
        pass
    done = await _put(broker, str(file))
    assert done.returncode == 1
    assert b"no appmux runs" in done.stderr


def _read(path: Path) -> bytes:
    return path.read_bytes()
