"""A client's view of one thread: what a person would see, rebuilt from the messages it got.

This is how a client is meant to read them: ``item/started`` introduces an item and replaces what
was there under its id, deltas add to it, ``item/completed`` is the last word.

It is strict: what a client must never be sent is kept in ``faults``.

Hands to: the tests of late joins, lag, replay and crashes; the soak.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import attrs

STREAMS = {
    "item/agentMessage/delta": "",
    "item/plan/delta": "",
    "item/reasoning/textDelta": "contentIndex",
    "item/reasoning/summaryTextDelta": "summaryIndex",
    "item/commandExecution/outputDelta": "",
    "item/fileChange/outputDelta": "",
}
"""What streams a text, and what tells one text of an item from another."""

OUTPUT = "item/commandExecution/outputDelta"
"""Of a short command the app-server now and then tells the output after the completion, as two
tasks of its own tell them. So of one that isn't running it is a fault only if that begins, or
completes, after it."""

LATEST = frozenset({"turn/plan/updated", "turn/diff/updated", "thread/tokenUsage/updated"})
"""Of these the last one says all."""

Stream = tuple[str, int]


@attrs.define
class View:
    """One thread as one client sees it.

    ``items``: by id, in the order in which they were introduced; ``turn_of`` names their turns.
    ``streamed``: by id, the texts of those still running; ``told``: of those that completed.
    ``turns``: their states. ``asked``: what waits for an answer, by id; ``resolved``: what did.
    ``latest``: by method. ``announced``: turns whose beginning was told. ``faults``: whatever a
    client must not be sent.
    """

    thread: str
    snapshot: Any = None
    items: dict[str, Any] = attrs.field(factory=dict)
    turn_of: dict[str, str] = attrs.field(factory=dict)
    streamed: dict[str, dict[Stream, str]] = attrs.field(factory=dict)
    told: dict[str, dict[Stream, str]] = attrs.field(factory=dict)
    turns: dict[str, str] = attrs.field(factory=dict)
    asked: dict[Any, Any] = attrs.field(factory=dict)
    resolved: list[Any] = attrs.field(factory=list)
    latest: dict[str, Any] = attrs.field(factory=dict)
    announced: set[str] = attrs.field(factory=set)
    status: str = ""
    closed: bool = False
    faults: list[str] = attrs.field(factory=list)
    _late: set[str] = attrs.field(factory=set)

    def __attrs_post_init__(self) -> None:
        if self.snapshot is not None:
            self.take(self.snapshot)

    def take(self, snapshot: Any) -> View:
        """Take in the result of a request that joins; returns itself."""
        self.closed = False
        self.status = snapshot["thread"].get("status", {}).get("type", "")
        for turn in snapshot["thread"]["turns"]:
            self.turns[turn["id"]] = turn["status"]
            for item in turn["items"]:
                self.items[item["id"]] = item
                self.turn_of[item["id"]] = turn["id"]
        return self

    def hear_all(self, messages: Iterable[Any]) -> View:
        """Take in all messages that are of this thread; returns itself."""
        for message in messages:
            self.hear(message)
        return self

    def hear(self, message: Any) -> None:
        """Take in a message, if it is of this thread."""
        params = message.get("params") if isinstance(message, dict) else None
        if not isinstance(params, dict) or params.get("threadId") != self.thread:
            return
        method = message["method"]
        if "id" in message:
            self.asked[message["id"]] = params
        elif method == "serverRequest/resolved":
            self._resolved(params["requestId"])
        elif method.startswith("turn/") and "turn" in params:
            self._turn(method, params["turn"])
        elif method.startswith("item/"):
            self._item(method, params)
        elif method == "thread/status/changed":
            self.status = params["status"]["type"]
        elif method == "thread/closed":
            self.closed = True
        if method in LATEST:
            self.latest[method] = {name: params[name] for name in params if name != "emittedAtMs"}

    def _resolved(self, id: Any) -> None:
        self.asked.pop(id, None)
        if id in self.resolved:
            self.faults.append(f"resolved twice: {id}")
        self.resolved.append(id)

    def _turn(self, method: str, turn: Any) -> None:
        before = self.turns.get(turn["id"])
        if method == "turn/completed" and before not in (None, "inProgress"):
            self.faults.append(f"completed twice: turn {turn['id']}")
        if method == "turn/started":
            # The app-server's snapshots may show a turn that it announces only after that.
            if before not in (None, "inProgress") or turn["id"] in self.announced:
                self.faults.append(f"started twice: turn {turn['id']}")
            self.announced.add(turn["id"])
        self.turns[turn["id"]] = turn["status"]

    def _item(self, method: str, params: Any) -> None:
        if method in ("item/started", "item/completed"):
            item = params["item"]
            self.items[item["id"]] = item
            self.turn_of[item["id"]] = params["turnId"]
            if method == "item/started":
                if item["id"] in self._late:
                    self.faults.append(f"delta, not running: item {item['id']}")
                self.streamed[item["id"]] = {}
            elif item["id"] in self.streamed:
                self.told[item["id"]] = self.streamed.pop(item["id"])
            else:
                self.faults.append(f"completed, not running: item {item['id']}")
        elif method in STREAMS:
            id = params["itemId"]
            if id not in self.streamed and method == OUTPUT:
                self._late.add(id)
                return
            if id not in self.streamed:
                self.faults.append(f"delta, not running: item {id}")
                return
            stream = (method, params.get(STREAMS[method], 0))
            texts = self.streamed[id]
            texts[stream] = texts.get(stream, "") + params["delta"]

    @property
    def unintroduced(self) -> list[str]:
        """Faults of items that weren't introduced before something else was said of them."""
        return [fault for fault in self.faults if "not running" in fault]

    def texts(self) -> list[str]:
        """What the agent has said, finished or not."""
        return [
            item["text"] or "".join(self.streamed.get(id, {}).values())
            for id, item in self.items.items()
            if item["type"] == "agentMessage"
        ]
