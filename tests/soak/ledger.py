"""What was told to whom, checked against what was told to one that never left.

A client's *stay* is its time on one thread: from the answer that made it follow, over all replays,
until it left. What it was told in a stay is what brings a newcomer up to date where it came in, and
from there on a stretch of what the *resident* was told: nothing is missing in it, nothing stands
twice, nothing stands elsewhere. Deltas may come merged, so of them the texts are compared: what an
item has streamed when it completes.

Hands to: `soak`. Hears from: `roamer`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import attrs

from tests.end_to_end.peer import Json
from tests.view import STREAMS, View

RESOLVED = "serverRequest/resolved"
LATEST = ("turn/plan/updated", "turn/diff/updated")
SHOWN = 300
"""Characters of a message that stand in a fault."""


@attrs.define(eq=False)
class Stay:
    """One client on one thread. ``whole``: whether its snapshot had the thread's turns.

    ``again``: ids of server requests that may be offered once more, as natively after each resume.
    """

    who: str
    thread: str
    snapshot: Json
    whole: bool
    messages: list[Json] = attrs.field(factory=list)
    again: set[Any] = attrs.field(factory=set)

    def expect_again(self) -> None:
        """The client has resumed what it follows: what waits for an answer comes again."""
        self.again = {each["id"] for each in self.messages if "id" in each}

    def take_in(self, message: Json) -> None:
        """Keep what the client was told; not what it has already, and was to be told again."""
        if message.get("id") in self.again:
            self.again.remove(message["id"])
        else:
            self.messages.append(message)

    def view(self) -> View:
        """What the client sees."""
        return View(self.thread, self.snapshot).hear_all(self.messages)


def events(messages: list[Json], thread: str) -> Iterator[Json]:
    """What is of the thread alone and is never merged, without its number."""
    for message in messages:
        method = message.get("method", "")
        mine = message.get("params", {}).get("threadId") == thread
        if mine and method.startswith(("item/", "turn/", RESOLVED)) and method not in STREAMS:
            yield {key: message[key] for key in message if key not in ("seq", "cursor")}


@attrs.define(eq=False)
class Past:
    """All that the resident was told of one thread.

    For each place in ``told``: what a newcomer is brought up to date with there (``running``), and
    what waits for an answer (``asked``; of these the answered ones aren't offered any more).
    """

    view: View
    told: list[str] = attrs.field(factory=list)
    running: list[tuple[str, ...]] = attrs.field(factory=list)
    asked: list[frozenset[str]] = attrs.field(factory=list)

    @classmethod
    def of(cls, thread: str, messages: list[Json]) -> Past:
        past = cls(View(thread).hear_all(messages))
        items: dict[str, tuple[str, list[str]]] = {}
        latest: dict[str, str] = {}
        asked: dict[Any, str] = {}
        past._stand(items, latest, asked)
        for event in events(messages, thread):
            method, params, name = event["method"], event["params"], canonical(event)
            if method == RESOLVED:  # who came in just before it was still offered it
                asked.pop(params["requestId"], None)
                continue
            past.told.append(name)
            if "id" in event:
                asked[event["id"]] = name
            elif method in LATEST:
                latest[method] = name
            elif method == "turn/completed":
                latest.clear()
                ended = params["turn"]["id"]
                items = {id: item for id, item in items.items() if item[0] != ended}
            elif method.startswith("item/"):
                _run(items, method, params, name)
            past._stand(items, latest, asked)
        return past

    def _stand(
        self, items: dict[str, tuple[str, list[str]]], latest: dict[str, str], asked: dict[Any, str]
    ) -> None:
        running = [name for _, names in items.values() for name in names]
        self.running.append((*running, *latest.values()))
        self.asked.append(frozenset(asked.values()))

    def has(self, names: list[str]) -> bool:
        """Whether a stay was told what it should have been, wherever it came in."""
        return any(self._begins(names, place) for place in range(len(self.told) + 1))

    def _begins(self, names: list[str], place: int) -> bool:
        begin = len(self.running[place])
        if tuple(names[:begin]) != self.running[place]:
            return False
        while begin < len(names) and names[begin] in self.asked[place]:
            begin += 1
        rest = names[begin:]
        return self.told[place : place + len(rest)] == rest


def _run(items: dict[str, tuple[str, list[str]]], method: str, params: Json, name: str) -> None:
    """What an event of an item changes in what runs."""
    if method == "item/started":
        items[params["item"]["id"]] = (params["turnId"], [name])
    elif method == "item/completed":
        items.pop(params["item"]["id"], None)
    elif params.get("itemId") in items:
        items[params["itemId"]][1].append(name)


@attrs.define(eq=False)
class Ledger:
    """All stays, and the checks; with how much was compared."""

    stays: list[Stay] = attrs.field(factory=list)
    events: int = 0
    texts: int = 0
    views: int = 0

    def faults(self, resident: list[Json], threads: tuple[str, ...]) -> list[str]:
        """What is wrong with the stays; `resident`: all that the one that never left was told."""
        found: list[str] = []
        for thread in threads:
            past = Past.of(thread, resident)
            found += [f"resident: {fault}" for fault in (*past.view.faults, *_texts(past.view))]
            for stay in self.stays:
                if stay.thread == thread:
                    found += [f"{stay.who}: {fault}" for fault in self._check(stay, past)]
        return found

    def _check(self, stay: Stay, past: Past) -> list[str]:
        names = [
            canonical(event)
            for event in events(stay.messages, stay.thread)
            if event["method"] != RESOLVED
        ]
        self.events += len(names)
        view = stay.view()
        found = list(view.faults)
        if not past.has(names):
            found.append(_what_is_wrong(names, past))
        for item, texts in view.told.items():
            self.texts += 1
            if texts != past.view.told.get(item):
                whole = past.view.told.get(item)
                found.append(f"item {item}: {_short(texts)}, to the resident {_short(whole)}")
        return found

    def faults_at_end(self, stay: Stay, resident: View, history: View) -> list[str]:
        """Whether its view at the end, of what is over, is that of the one that never left.

        `history`: the app-server's own. What isn't in it (a declined command) no snapshot shows.
        """
        view = stay.view()
        self.views += 1
        over = {id for id, state in resident.turns.items() if state == "completed"}
        found = []
        for id, item in resident.items.items():
            if resident.turn_of[id] not in over or id in resident.streamed:
                continue
            if id in view.items and view.items[id] != item:
                found.append(f"item {_short(view.items[id])}, to the resident {_short(item)}")
            elif id not in view.items and stay.whole and id in history.items:
                found.append(f"item missing: {_short(item)}")
        missing = resident.turns.keys() - view.turns.keys() if stay.whole else set()
        for turn in view.turns.keys() | missing:
            mine, whole = view.turns.get(turn), resident.turns.get(turn)
            if mine != whole and not _cut_off(mine, whole, history.turns.get(turn)):
                found.append(f"turn {turn} is {mine}, to the resident {whole}")
        if view.asked.keys() != resident.asked.keys():
            found.append(f"asked {list(view.asked)}, the resident {list(resident.asked)}")
        return [f"{stay.who}, at the end: {fault}" for fault in found]


def _cut_off(mine: str | None, whole: str | None, stored: str | None) -> bool:
    """Whether the app-server was killed between doing something and saying it.

    To those that were there the turn is interrupted, or never was; a snapshot is what was stored.
    """
    between = (("completed", "interrupted"), (None, "interrupted"), ("interrupted", None))
    return mine == stored and (mine, whole) in between


def _texts(view: View) -> Iterator[str]:
    """Where what an agent's message streamed isn't what it was in the end."""
    for id, texts in view.told.items():
        item = view.items[id]
        if item["type"] == "agentMessage" and "".join(texts.values()) != item["text"]:
            yield f"item {id} streamed {_short(texts)}, and was {_short(item['text'])}"


def _what_is_wrong(names: list[str], past: Past) -> str:
    """For people: the longest part that is right, and what follows it."""
    good = 0
    while good < len(names) and past.has(names[: good + 1]):
        good += 1
    wrong = names[good] if good < len(names) else "nothing more"
    doubled = wrong in names[:good]
    kind = "doubled" if doubled else "lost something before" if wrong in past.told else "unknown"
    return f"{kind}: event {good} of {len(names)}: {wrong[:SHOWN]}"


def _short(value: object) -> str:
    return repr(value)[:SHOWN]


def canonical(message: Json) -> str:
    """One text for one message, whoever was sent it."""
    return json.dumps(message, sort_keys=True, separators=(",", ":"))
