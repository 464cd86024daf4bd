"""What went over the wire between a program and its app-server, in a form that can be compared.

A recording is a list of `(who, message)`, `who` being the client or the server. It is told as the
conformance stories are (`tests.conformance.transcript`), and with the client's own words: what it
is answered decides what it says next.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Final, cast

from tests.conformance.comparing import MISSING, Difference, differences
from tests.conformance.intended import INTENDED
from tests.conformance.stage import Player
from tests.conformance.transcript import Channels, Names, Transcript, thread_of, transcript
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


def told(
    recordings: Sequence[Recording], paths: dict[str, str], polled: Iterable[str] = ()
) -> Transcript:
    """What each connection heard and said, with names for ids, times and paths.

    Of a method that is `polled`, only the last request counts; of a notification, none.
    """
    recordings = [list(_without_polls(each, set(polled))) for each in recordings]
    names = [f"connection {number}" for number in range(1, len(recordings) + 1)]
    players = [_player(name, each) for name, each in zip(names, recordings, strict=True)]
    own = [_threads(recording) for recording in recordings]
    everywhere = set().union(*own) if own else set()
    heard: Transcript = {}
    for player, threads, recording in zip(players, own, recordings, strict=True):
        # A connection hears of the others' threads, too: natively they have processes of their own.
        foreign = everywhere - threads
        [channels] = transcript([player], paths, foreign.__contains__).values()
        if player.asked:  # the last answer may come when the program has left
            channels.pop(f"answer {len(player.asked)} {player.asked[-1][1]}", None)
        heard[player.name] = _by_method(channels)
        heard[player.name][SAID] = list(_said(recording, Names(paths)))
    return heard


def _without_polls(recording: Recording, polled: set[str]) -> Iterator[tuple[str, Json]]:
    asked = [m for who, m in recording if who == "client" and m.get("method") in polled]
    last = {message["method"]: message["id"] for message in asked}
    dropped = {message["id"] for message in asked} - set(last.values())
    for who, message in recording:
        if _is_request(message) is (who == "server"):  # a server request, or a client's own answer
            yield who, message
        elif "id" in message:
            if message["id"] not in dropped:
                yield who, message
        elif message["method"] not in polled:
            yield who, message


def _by_method(channels: Channels) -> Channels:
    """The channels with answers numbered for each method.

    In which order a program asks about different things may depend on how quick it is.
    """
    counts: dict[str, int] = {}
    numbered: Channels = {}
    for key, events in channels.items():
        words = key.split()
        if words[0] == "answer":
            counts[words[2]] = counts.get(words[2], 0) + 1
            words[1] = str(counts[words[2]])
        numbered[" ".join(words)] = events
    return numbered


def _said(recording: Recording, names: Names) -> Iterator[Json]:
    """A client's own lines by method, without ids: the order of each method's is told."""
    methods = {m["id"]: m["method"] for who, m in recording if who == "client" and _is_request(m)}
    answers = [m for who, m in recording if who == "server" and "result" in m]
    for answer in sorted(answers, key=lambda m: str(methods.get(m["id"]))):
        names.plain(answer["result"])  # first, so that ids have the names of where they come from
    lines = [m for who, m in recording if who == "client"]
    for line in sorted(lines, key=lambda m: str(m.get("method", ""))):
        plain = {part: value for part, value in line.items() if part != "id"}
        yield names.plain(plain if "method" in line else plain | {"method": "(an answer)"})


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
    found = [each for each in differences(native, broker) if not _is_of_the_process(each)]
    return [each for each in found if not any(key.covers(each) for key in usable)]


def _is_of_the_process(found: Difference) -> bool:
    """Whether it differs because each connection has a process of its own natively.

    There a thread that a program had by an earlier connection is idle once it is loaded; on the
    broker it was loaded still, and may be loaded anew.
    """
    event = found.native if found.broker is MISSING else found.broker
    if found.path or found.method != "thread/status/changed" or not isinstance(event, dict):
        return False
    kind = event["params"]["status"]["type"]
    return bool(kind == ("idle" if found.broker is MISSING else "notLoaded"))
