"""A client's view of one thread: what a person would see, rebuilt from the messages it got.

This is how a client is meant to read them: ``item/started`` introduces an item and replaces what
was there under its id, deltas add to it, ``item/completed`` is the last word.

Hands to: the tests of late joins, lag, crashes, and the soak.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import attrs

TEXT_OF = {
    "item/agentMessage/delta": "text",
    "item/plan/delta": "text",
    "item/reasoning/textDelta": "content",
    "item/reasoning/summaryTextDelta": "summary",
    "item/commandExecution/outputDelta": "aggregatedOutput",
}


@attrs.define
class View:
    """One thread as one client sees it.

    ``items``: by id, in the order in which they were introduced. ``streamed``: the text of those
    still running. ``unintroduced``: deltas of items that weren't, which must not happen.
    """

    thread: str
    snapshot: Any = None
    items: dict[str, Any] = attrs.field(factory=dict)
    streamed: dict[str, str] = attrs.field(factory=dict)
    turns: dict[str, str] = attrs.field(factory=dict)
    unintroduced: list[str] = attrs.field(factory=list)

    def __attrs_post_init__(self) -> None:
        for turn in (self.snapshot or {"thread": {"turns": []}})["thread"]["turns"]:
            self.turns[turn["id"]] = turn["status"]
            for item in turn["items"]:
                self.items[item["id"]] = item

    def hear_all(self, messages: Iterable[Any]) -> View:
        """Take in all messages that are of this thread; returns itself."""
        for message in messages:
            params = message.get("params") if isinstance(message, dict) else None
            if isinstance(params, dict) and params.get("threadId") == self.thread:
                self.hear(message["method"], params)
        return self

    def hear(self, method: str, params: Any) -> None:
        """Take in one notification."""
        if method == "item/started":
            self.items[params["item"]["id"]] = params["item"]
            self.streamed[params["item"]["id"]] = ""
        elif method == "item/completed":
            self.items[params["item"]["id"]] = params["item"]
            self.streamed.pop(params["item"]["id"], None)
        elif method in TEXT_OF:
            if params["itemId"] in self.items:
                self.streamed[params["itemId"]] += params["delta"]
            else:
                self.unintroduced.append(params["itemId"])
        elif method in ("turn/started", "turn/completed"):
            self.turns[params["turn"]["id"]] = params["turn"]["status"]

    def texts(self) -> list[str]:
        """What the agent has said, finished or not."""
        return [
            item["text"] or self.streamed.get(id, "")
            for id, item in self.items.items()
            if item["type"] == "agentMessage"
        ]
