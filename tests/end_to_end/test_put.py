"""`appmux put` and `get`: files from a shell to a thread, and back."""

from __future__ import annotations

import base64
import json
import os
import subprocess
from pathlib import Path

import trio

from tests.end_to_end.brokered import brokered, client
from tests.end_to_end.doors import APPMUX, environ
from tests.end_to_end.native import Native
from tests.end_to_end.peer import PATIENCE

PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
"""A picture."""


async def _run(
    broker: Native, *arguments: str, cwd: Path | None = None
) -> subprocess.CompletedProcess[bytes]:
    with trio.fail_after(PATIENCE):
        return await trio.run_process(
            [APPMUX, *arguments],
            env=environ(broker.home),
            capture_stdout=True,
            capture_stderr=True,
            stdin=subprocess.DEVNULL,
            check=False,
            cwd=cwd or broker.home.work,
        )


async def _put(broker: Native, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    return await _run(broker, "put", *arguments)


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


async def test_what_is_said_brings_files_along(tmp_path: Path) -> None:
    picture, log = tmp_path / "screen.png", tmp_path / "build.log"
    picture.write_bytes(PIXEL)
    log.write_text("failed")
    async with brokered() as broker, client(broker, "desk") as desk:
        thread = await desk.start_thread(broker.home.work)
        await desk.run_turn(thread, "hello")
        named = ("--file", str(picture), "-f", str(log))
        done = await _run(broker, "say", thread[-6:], *named, "--wait", "look at this")
        assert done.returncode == 0, done.stderr.decode()
        folder = broker.home.work / "uploads"
        (said,) = (
            each["params"]["item"]["content"]
            for each in desk.heard("item/completed", threadId=thread)
            if each["params"]["item"]["type"] == "userMessage"
            and len(each["params"]["item"]["content"]) > 1
        )
        assert [each["type"] for each in said] == ["text", "localImage", "mention"]
        assert said[1]["path"] == str(folder / "screen.png")
        assert (said[2]["name"], said[2]["path"]) == ("build.log", str(folder / "build.log"))
        shown = [
            part
            for item in broker.model.requests[-1]["input"]
            for part in item.get("content") or []
            if part.get("type") == "input_image"
        ]
        assert shown[-1]["image_url"].startswith("data:image/png;base64,")


async def test_files_of_a_thread_are_listed_and_fetched(tmp_path: Path) -> None:
    source = tmp_path / "a.bin"
    source.write_bytes(os.urandom(600_000))
    async with brokered() as broker, client(broker, "desk") as desk:
        thread = await desk.start_thread(broker.home.work)
        await desk.run_turn(thread, "hello")
        await _put(broker, str(source), "--thread", thread[-6:])
        listed = await _run(broker, "get", thread[-6:])
        assert f"uploaded  {broker.home.work}/uploads/a.bin" in listed.stdout.decode()
        done = await _run(broker, "get", thread[-6:], "a.bin")
        assert done.returncode == 0, done.stderr.decode()
        assert _read(broker.home.work / "a.bin") == _read(source)
        again = await _run(broker, "get", thread[-6:], "a.bin")
        assert b"is there already" in again.stderr
        piped = await _run(broker, "get", thread[-6:], "a.bin", "-o", "-")
        assert piped.stdout == _read(source)
        other = await _run(broker, "get", thread[-6:], str(source), "-o", "-")
        assert other.stdout == _read(source)  # the host's owner may have any
        gone = await _run(broker, "get", thread[-6:], "/nonsense")
        assert b"can't be opened" in gone.stderr


async def test_without_a_broker_it_says_so(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text("hello")
    async with brokered() as broker:
        pass
    done = await _run(broker, "put", str(file), cwd=tmp_path)
    assert done.returncode == 1
    assert b"no appmux runs" in done.stderr


def _read(path: Path) -> bytes:
    return path.read_bytes()
