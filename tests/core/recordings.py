"""Turns that the real app-server wrote, played to the core; and what it would answer in between.

A recording is made by `tests.record_turns`. Played, its lines come to the broker as they were; what
the clients did (begin a turn, answer an approval) is done by a *veteran*, who started the thread.

Hands to: the properties of late joins, lag and replay. Hears from: the files in `recorded/`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import attrs

from tests.core.stories import Json, Peer, Story, dumps
from tests.view import View

DIRECTORY = Path(__file__).parent / "recorded"
NAMES = sorted(path.stem for path in DIRECTORY.glob("*.jsonl"))
SHOWN_WHILE_RUNNING = frozenset({"commandExecution", "fileChange"})
"""Items that a native snapshot shows before they are complete, without what they streamed."""


@attrs.frozen
class Recording:
    """One recording. ``lines``: without the first and the last, which are the two answers."""

    started: Json
    lines: tuple[bytes, ...]
    messages: tuple[Json, ...]
    ended: Json

    @property
    def thread(self) -> str:
        return str(self.started["thread"]["id"])

    def snapshot(self, position: int, *, turns: bool = True) -> Json:
        """The result of a `thread/resume` after so many lines, as natively given."""
        begun: list[Json] = []
        for turn in self.ended["thread"]["turns"]:
            shown = self._turn(turn, self.messages[:position])
            if shown is not None:
                begun.append(shown)
        status: Json = {"type": "idle"}
        for message in self.messages[:position]:
            if message.get("method") == "thread/status/changed":
                status = message["params"]["status"]
        thread = self.ended["thread"] | {"status": status, "turns": begun if turns else []}
        return self.ended | {"thread": thread}

    def _turn(self, final: Json, said: tuple[Json, ...]) -> Json | None:
        latest: Json | None = None
        items: dict[str, Json] = {}
        running: dict[str, Json] = {}
        for message in said:
            params = message.get("params", {})
            if params.get("turn", {}).get("id") == final["id"]:
                latest = params["turn"]
            elif params.get("turnId") == final["id"] and "item" in params:
                item = params["item"]
                if message["method"] == "item/completed":
                    running.pop(item["id"], None)
                    items[item["id"]] = item
                elif item["type"] in SHOWN_WHILE_RUNNING:
                    running[item["id"]] = item
        if latest is None:
            return None
        shown = [*items.values(), *running.values()]
        if latest["status"] == "inProgress":  # then under ids that nobody has seen
            shown = [item | {"id": f"item-{place + 1}"} for place, item in enumerate(shown)]
        return latest | {"itemsView": "full", "items": shown}


@cache
def recording(name: str) -> Recording:
    """A recording by its name, one of `NAMES`."""
    lines = (DIRECTORY / f"{name}.jsonl").read_bytes().splitlines()
    messages = [json.loads(line) for line in lines]
    return Recording(
        messages[0]["result"], tuple(lines[1:-1]), tuple(messages[1:-1]), messages[-1]["result"]
    )


@attrs.define(eq=False)
class Viewer:
    """A client with its view of the recording's thread, kept up to date by ``look``."""

    peer: Peer
    view: View
    seen: int = 0
    joined: Any = None

    def look(self) -> View:
        """Take in what was heard since the last look, a joining's answer too."""
        for message in self.peer.inbox[self.seen :]:
            if self.joined is not None and message.get("id") == self.joined:
                self.view.take(message["result"])
            self.view.hear(message)
        self.seen = len(self.peer.inbox)
        return self.view


@attrs.define(eq=False)
class Playback:
    """A recording on its way through a broker. ``position``: lines played so far."""

    story: Story
    recording: Recording
    ephemeral: bool = False
    veteran: Viewer = attrs.field(init=False)
    position: int = 0

    def __attrs_post_init__(self) -> None:
        self.veteran = Viewer(self.story.peer("veteran"), View(self.recording.thread))
        started = self.recording.started
        if self.ephemeral:
            started = started | {"thread": started["thread"] | {"ephemeral": True}}
        self.veteran.joined = self.veteran.peer.asks("thread/start")
        self.story.answers(self.story.written("thread/start")[-1], started)

    def __iter__(self) -> Iterator[int]:
        """Every position, each time with one line more played."""
        yield self.position
        while self.position < len(self.recording.lines):
            self.play()
            yield self.position

    def play(self) -> None:
        """One line more."""
        line, message = (
            self.recording.lines[self.position],
            self.recording.messages[self.position],
        )
        self.position += 1
        if "result" in message:
            self._begin_turn(message["result"])
            return
        if message["method"] == "serverRequest/resolved":
            for id in list(self.veteran.look().asked):
                self.veteran.peer.answers(id, {"decision": "accept"})
        self.story.says(line)

    def _begin_turn(self, result: Json) -> None:
        self.veteran.peer.asks("turn/start", {"threadId": self.recording.thread, "input": []})
        self.story.answers(self.story.written("turn/start")[-1], result)

    @property
    def only_the_broker_knows_it(self) -> bool:
        """Whether the app-server, asked to resume the thread, fails: it has no rollout yet."""
        begun = any(
            each.get("method") == "turn/started"
            for each in self.recording.messages[: self.position]
        )
        return self.ephemeral or not begun

    def ask_to_join(self, viewer: Viewer, *, turns: bool = True) -> Json:
        """Ask `thread/resume`; what is to be given to ``answer`` once the answer comes."""
        params: Json = {"threadId": self.recording.thread}
        if not turns:
            params["excludeTurns"] = True
        viewer.joined = viewer.peer.asks("thread/resume", params)
        asked = self.story.written("thread/resume")[-1]
        if self.only_the_broker_knows_it:
            text = f"no rollout found for thread id {self.recording.thread}"
            return {"error": {"code": -32600, "message": text}, "id": asked["id"]}
        return {"id": asked["id"], "result": self.recording.snapshot(self.position, turns=turns)}

    def answer(self, answer: Json) -> None:
        """The app-server's answer to a `thread/resume`, and to what it is then asked."""
        self.story.says(dumps(answer))
        for asked in self.story.written("thread/read"):
            self.story.answers(asked, {"thread": self.recording.started["thread"]})

    def join(self, name: str, *, turns: bool = True) -> Viewer:
        """A new client that joins now, and is answered at once."""
        viewer = Viewer(self.story.peer(name), View(self.recording.thread))
        self.answer(self.ask_to_join(viewer, turns=turns))
        return viewer
