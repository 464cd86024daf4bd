"""Threads of many megabytes: the rollout of a real turn, with more turns like it written behind.

A model that says 83 MB takes minutes, since each request repeats the thread. So the real app-server
makes the first turn, and the rest is written into its file, as it would write it.

Hands to: `longs` and `page`, a file and its thread. Hears from: the app-server, once.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import attrs
import trio

from bench.sides import Driver, native

TEXT: Final = 'a line of "text", \u00e9\n'
TEXT_BYTES: Final = 100_000
"""Of one message: as many as a long file that is shown."""
MESSAGES: Final = 10
"""Of one turn."""

Json = dict[str, Any]


@attrs.frozen
class Rollout:
    """A thread on disk."""

    thread: str
    file: Path

    def put(self, home: Path) -> None:
        """Put it where an app-server with this HOME's root finds it."""
        place = home / "home" / ".codex" / "sessions" / "2026" / "01" / "01"
        place.mkdir(parents=True, exist_ok=True)
        shutil.copy(self.file, place / self.file.name)


@contextmanager
def rollouts(sizes: tuple[int, ...]) -> Iterator[dict[int, Rollout]]:
    """A thread of each size, in MB."""
    with tempfile.TemporaryDirectory(prefix="appmux-bench-") as place:
        yield {size: trio.run(_make, Path(place), *_of_size(size)) for size in sizes}


def _of_size(megabytes: int) -> tuple[int, str]:
    """Return the turns of a thread so large, and the text of each message."""
    turns = max(1, megabytes * 1_000_000 // (TEXT_BYTES * MESSAGES))
    return turns, TEXT * (TEXT_BYTES // (len(TEXT) + 4))


async def short_items(place: Path, number: int, text: str) -> Rollout:
    """Make a thread of so many short messages."""
    return await _make(place, number // MESSAGES, text)


async def _make(place: Path, turns: int, text: str) -> Rollout:
    async with native() as server:
        driver = Driver(server.url)
        thread = await driver.first_turn(server.home / "work")
        driver.close()
        (file,) = (server.home / "home" / ".codex" / "sessions").rglob("rollout-*.jsonl")
        kept = Path(shutil.copy(file, place / file.name))
    _grow(kept, turns, text)
    return Rollout(thread, kept)


def _grow(file: Path, turns: int, text: str) -> None:
    lines: list[Json] = [json.loads(line) for line in file.read_text().splitlines()]
    turn = [line for line in lines if line["type"] == "event_msg"]
    turn = [line for line in turn if "turn_id" in line["payload"]]
    id = str(turn[0]["payload"]["turn_id"])
    ordinal = int(lines[-1]["ordinal"])
    with file.open("a") as out:
        for number in range(1, turns + 1):
            # Ids are UUIDs that begin with the moment: a later turn has a greater one.
            later = str(uuid.UUID(int=uuid.UUID(id).int + (number << 80)))
            for line in turn:
                own = json.loads(json.dumps(line).replace(id, later))
                for again in _repeated(own, number, text):
                    ordinal += 1
                    out.write(json.dumps(again | {"ordinal": ordinal}) + "\n")


def _repeated(line: Json, number: int, text: str) -> Iterator[Json]:
    item = line["payload"].get("item")
    if item is None or item["type"] != "AgentMessage":
        yield line
        return
    own = item["id"]
    item["content"][0]["text"] = text
    for place in range(MESSAGES):
        item["id"] = f"{own}_{number}_{place}"
        yield line
