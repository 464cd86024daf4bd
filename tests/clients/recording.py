"""What went over the wire between a program and its app-server, in a form that can be compared.

A recording is a list of `(who, message)`, `who` being the client or the server. It is told as the
conformance stories are (`tests.conformance.transcript`), and with the client's own words: what it
is answered decides what it says next.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final, cast

from tests.conformance.comparing import MISSING, Difference, differences
from tests.conformance.intended import INTENDED
from tests.conformance.stage import Player
from tests.conformance.transcript import Names, Transcript, thread_of, transcript
from tests.end_to_end.peer import Json

Recording = list[tuple[str, Json]]

SAID: Final = "what it said"


def read(directory: Path) -> list[Recording]:
    """The recordings of a directory, the oldest first: one for each connection."""
    files = sorted(directory.glob("*.jsonl"), key=lambda file: int(file.stem.split("-")[0]))
    return [recording for file in files if (recording := _read(file))]


def _read(file: Path) -> Recording:
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    return [(who, json.loads(text)) for who, text in lines]


def told(recordings: Sequence[Recording], paths: dict[str, str]) -> Transcript:
    """What each connection heard and said, with names for ids, times and paths."""
    names = [f"connection {number}" for number in range(1, len(recordings) + 1)]
    players = [_player(name, each) for name, each in zip(names, recordings, strict=True)]
    own = [_threads(recording) for recording in recordings]
    everywhere = set().union(*own) if own else set()
    # A connection hears of the others' threads, too: natively they have processes of their own.
    heard: Transcript = {}
    for player, threads in zip(players, own, strict=True):
        foreign = everywhere - threads
        heard |= transcript([player], paths, foreign.__contains__)
    for name, recording in zip(names, recordings, strict=True):
        spoken = Names(paths)
        answers = [m["result"] for who, m in recording if who == "server" and "result" in m]
        spoken.plain(answers)  # first, so that ids have the names of where they come from
        lines = [message for who, message in recording if who == "client"]
        asked = {json.dumps(m["id"]) for who, m in recording if who == "server" and _is_request(m)}
        heard[name][SAID] = [spoken.plain(_own(line, asked)) for line in lines]
    return heard


def _own(line: Json, asked: set[str]) -> Json:
    """A client's line as it is compared: an answer without the id that the server chose."""
    if "method" not in line and json.dumps(line.get("id")) in asked:
        return {part: line[part] for part in line if part != "id"} | {"method": "(an answer)"}
    return line


def _is_request(message: Json) -> bool:
    return {"id", "method"} <= message.keys()


def _player(name: str, recording: Recording) -> Player:
    asked = [(m["id"], m["method"]) for who, m in recording if who == "client" and _is_request(m)]
    inbox = [message for who, message in recording if who == "server"]
    peer = SimpleNamespace(inbox=inbox)
    return cast(Player, SimpleNamespace(name=name, asked=asked, peer=peer))


def _threads(recording: Recording) -> set[str]:
    """The threads that a connection named, or was answered with."""
    found = set()
    for who, message in recording:
        if who == "client" or "result" in message:
            holder = message.get("params") if who == "client" else message.get("result")
            if isinstance(holder, dict):
                thread = holder.get("thread")
                found |= {thread_of({"params": holder})} if "threadId" in holder else set()
                found |= {thread["id"]} if isinstance(thread, dict) else set()
    return {each for each in found if each}


def unexplained(
    native: Transcript, broker: Transcript, may: Iterable[str] = ()
) -> list[Difference]:
    """What differs and no intended difference covers.

    `may` are keys of intended differences that a story shows, besides those that any may.
    """
    usable = [
        each for key, each in INTENDED.items() if each.anywhere or each.crowd or key in set(may)
    ]
    found = [each for each in differences(native, broker) if not _is_loaded_already(each)]
    return [each for each in found if not any(key.covers(each) for key in usable)]


def _is_loaded_already(found: Difference) -> bool:
    """Whether native tells that a thread is idle now that it is loaded, by a process of its own.

    On the broker the thread still is loaded from the program's connection before.
    """
    idle = isinstance(found.native, dict) and found.native.get("params", {}).get("status")
    lone = found.path == "" and found.method == "thread/status/changed"
    return lone and found.broker is MISSING and idle == {"type": "idle"}


def methods(recordings: Sequence[Recording], who: str) -> list[Any]:
    """The methods that were said, over all connections."""
    return [m["method"] for each in recordings for by, m in each if by == who and "method" in m]
