"""What the clients of a story heard, in a form in which two plays can be compared.

A *transcript* holds for each client named *channels*, each a list of events:

- one channel for each request, with its answer alone;
- one for each thread, with what its turns and items say, what is asked and resolved, and its
  beginnings and ends. Its order is compared;
- one for each thread and method of all else that names it (its status, goal, name, settings, queue,
  warnings): natively several tasks speak of a thread at once, and these come in any order among
  each other and among the first;
- one for each thing of a client's own (a watch, a process, a search): the same;
- one for each command of the agent's, with what it printed meanwhile (see `OUTPUT`);
- one for each method of notifications that name none of these, and one for stray answers.

So the order is total within a thread's turns, and nothing is said of the order between threads, or
between answers and notifications (natively it varies from play to play). Deltas of one item (or one
process's stream) are joined, and stand where the first stood: how a text is cut up is chance.

Ids, times, paths of the home and ports are replaced by names, in the order of their first
appearance when the transcript is read client by client, answers first. The order of the members of
a JSON object is none: natively some are maps that are written in a random order. They are read in
the order of what they are called and hold, told without the ids that have no name yet.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import attrs

from tests.conformance.stage import BARRIER, Player
from tests.end_to_end.peer import Json

Channels = dict[str, list[Json]]
Transcript = dict[str, Channels]

# ── names in the place of what differs in every run ───────────────────────────────────────────────

_ID: Final = re.compile(
    r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"  # threads, turns, items
    r"|\b(?:msg|rs|fc|call|resp)_\d+\b"  # the model's
)
_SINGLE: Final = (
    (re.compile(r"\b127\.0\.0\.1:\d+"), "<host:port>"),
    (re.compile(r"\bsha256:[0-9a-f]{64}\b"), "<digest>"),
    (re.compile(r"/sessions/\d{4}/\d\d/\d\d/"), "/sessions/<date>/"),
    (re.compile(r"rollout-\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d-"), "rollout-<time>-"),
)
_TIME: Final = re.compile(r"(At|AtMs|Ms|Seconds)$")
# Of a command that is ended from outside; which of them is chance.
_KILLED: Final = (-1, 137)
# Of a sub-agent; drawn by lot.
_NICKNAMES: Final = ("agentNickname", "agent_nickname")
# Of a sub-agent too: which of them its parent sees is chance.
_BEGUN: Final = ("pendingInit", "running")
# Where an id stands says what it is of: the letter of its name.
_LETTERS: Final = {
    "thread": "t",
    "receiverThreadIds": "t",
    "turn": "u",
    "turns": "u",
    "item": "i",
    "items": "i",
}


@attrs.define
class Names:
    """Names given so far. `paths` are those of this side's home, longest first."""

    paths: Mapping[str, str]
    _given: dict[Any, str] = attrs.field(factory=dict)
    _counts: dict[str, int] = attrs.field(factory=dict)

    def name(self, what: Any, letter: str) -> str:
        """The name of an id."""
        if what not in self._given:
            self._counts[letter] = self._counts.get(letter, 0) + 1
            self._given[what] = f"{letter}{self._counts[letter]}"
        return self._given[what]

    def plain(self, value: Any, key: str = "", holder: str = "") -> Any:
        """`value` with names in it. `key`: under which it stands, in what stands under `holder`."""
        if isinstance(value, dict):
            members = sorted(value.items(), key=self._known)
            return {self._text(k, ""): self.plain(v, k, key) for k, v in members}
        if isinstance(value, list):
            return [self.plain(each, key, holder) for each in value]
        return self._scalar(value, key, holder)

    def _known(self, member: tuple[str, Any]) -> tuple[str, str]:
        """What can be said of an object's member before its ids have names."""
        name = self._blank(member[0])
        # What it holds is looked at only where what it is called may be another's, too.
        return name, self._blank(json.dumps(member[1], sort_keys=True)) if "<?>" in name else ""

    def _blank(self, text: str) -> str:
        return _ID.sub(lambda found: self._given.get(found[0], "<?>"), text)

    def _scalar(self, value: Any, key: str, holder: str) -> Any:
        if key == "exitCode" and value in _KILLED:
            return "<killed>"
        if isinstance(value, str):
            if key in _NICKNAMES:
                return "<nickname>"
            if key == "status" and value in _BEGUN:
                return "<begun>"
            if key == "processId" and value.isdigit():
                return self.name((key, value), "p")
            if key.lower().endswith("cursor"):
                return "<cursor>"
            if key == "revision" and _ID.fullmatch(value):
                return "<revision>"  # drawn by lot; which of two threads has one first is chance
            return self._text(value, holder if key == "id" else key.removesuffix("Id"))
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        return "<time>" if is_number and _TIME.search(key) else value

    def _text(self, text: str, of: str) -> str:
        for path, name in self.paths.items():
            text = text.replace(path, name)
        for pattern, name in _SINGLE:
            text = pattern.sub(name, text)
        letter = _LETTERS.get(of, "x")
        return _ID.sub(lambda found: self.name(found[0], letter), text)


def paths_of(home: Path, story: str) -> dict[str, str]:
    """The paths of a side's home that stand in messages, longest first."""
    return {str(home / "work" / story): "<work>", str(home): "<home>"}


# ── channels ──────────────────────────────────────────────────────────────────────────────────────

SAID_AGAIN: Final = ("fuzzyFileSearch/sessionCompleted", "fuzzyFileSearch/sessionUpdated")
"""What a search has found may be said twice in the same words: chance. It counts once."""

OUTPUT: Final = "item/commandExecution/outputDelta"
"""What a command prints in its first moments comes so, or only with its completion: chance."""

_IN_ORDER: Final = (
    "error",
    "serverRequest/resolved",
    "thread/archived",
    "thread/closed",
    "thread/compacted",
    "thread/deleted",
    "thread/reverted",
    "thread/started",
    "thread/tokenUsage/updated",
    "thread/unarchived",
)
_OWN: Final = ("processHandle", "processId", "watchId", "sessionId", "subscriptionId")


def transcript(
    players: list[Player], paths: Mapping[str, str], is_foreign: Callable[[str], bool]
) -> Transcript:
    """What each client heard. `is_foreign` tells of a thread id whether another story made it."""
    names = Names(paths)
    sorted_out = {player.name: _channels(player, is_foreign) for player in players}
    told: Transcript = {player.name: {} for player in players}
    # Answers first, for all, so that names don't depend on what was heard when.
    for answers in (True, False):
        for player, channels in sorted_out.items():
            chosen = [key for key in channels if key.startswith("answer") is answers]
            keys = {str(names.plain(key, "thread")): key for key in chosen if not _by_chance(key)}
            for name in keys if answers else sorted(keys):
                told[player][name] = [_named(names, each) for each in channels[keys[name]]]
    # What may be missing by chance gives no names before all else has its.
    for player, channels in sorted_out.items():
        for key in filter(_by_chance, channels):
            told[player][str(names.plain(key, "item"))] = [
                _named(names, each) for each in channels[key]
            ]
    return told


def _by_chance(channel: str) -> bool:
    return channel.startswith("output of ")


def _named(names: Names, event: Json) -> Json:
    if "method" in event and "id" in event:
        event = event | {"id": names.name(("request", event["id"]), "r")}
    if event.get("method") == "serverRequest/resolved":
        request = names.name(("request", event["params"]["requestId"]), "r")
        event = event | {"params": event["params"] | {"requestId": request}}
    return names.plain(event)  # type: ignore[no-any-return]


def _channels(player: Player, is_foreign: Callable[[str], bool]) -> Channels:
    channels: Channels = {}
    asked = list(player.asked)
    for message in player.peer.inbox:
        if not isinstance(message, dict):
            channels.setdefault("stray", []).append({"text": message})
        elif "method" in message:
            thread = thread_of(message)
            if thread is None or not is_foreign(thread):
                channels.setdefault(_channel(message, thread), []).append(message)
        elif message.get("id") != BARRIER:
            at = next((n for n, (id, _) in enumerate(asked) if _same(id, message.get("id"))), None)
            if at is None:
                channels.setdefault("stray", []).append(message)
                continue
            number = next(n for n, each in enumerate(player.asked) if each is asked[at])
            key = f"answer {number + 1} {asked.pop(at)[1]}"
            channels[key] = [{part: message[part] for part in message if part != "id"}]
    for id, method in asked:
        number = next(n for n, each in enumerate(player.asked) if each == (id, method))
        channels[f"answer {number + 1} {method}"] = []
    return {key: list(_joined(events)) for key, events in sorted(channels.items(), key=_place)}


def _place(item: tuple[str, list[Json]]) -> tuple[int, str]:
    """Answers in the order of their questions; the rest in that of the alphabet."""
    words = item[0].split()
    return (int(words[1]), "") if words[0] == "answer" else (1 << 30, "")


def _same(one: Any, other: Any) -> bool:
    return one == other and type(one) is type(other)


def thread_of(message: Json) -> str | None:
    """The thread that a notification or server request names."""
    params = message.get("params") or {}
    thread = params.get("threadId") or params.get("conversationId")
    return thread or (params.get("thread") or {}).get("id")


def _channel(message: Json, thread: str | None) -> str:
    if message["method"] == OUTPUT:
        return f"output of {message['params']['itemId']}"
    if thread is not None:
        method = message["method"]
        in_order = "id" in message or method.startswith(("turn/", "item/")) or method in _IN_ORDER
        return f"thread {thread}" if in_order else f"thread {thread}: {method}"
    for field in _OWN:
        if field in message.get("params", {}):
            return f"{field} {message['params'][field]}"
    return f"of no thread: {message['method']}"


# ── deltas ────────────────────────────────────────────────────────────────────────────────────────


def _joined(events: list[Json]) -> Iterator[Json]:
    """The events, deltas of one stream as one, and what is said again once."""
    streams: dict[tuple[Any, ...], Json] = {}
    kept: list[Json] = []
    said: list[Json] = []
    for event in events:
        key = _stream(event)
        if event.get("method") in SAID_AGAIN:
            words = {name: part for name, part in event.items() if name != "emittedAtMs"}
            if words not in said:
                kept.append(event)
                said.append(words)
        elif key is None:
            kept.append(event)
        elif key in streams:
            _append(streams[key]["params"], event["params"])
        else:
            streams[key] = event | {"params": dict(event["params"])}
            kept.append(streams[key])
    yield from kept


def _stream(event: Json) -> tuple[Any, ...] | None:
    params = event.get("params")
    if not isinstance(params, dict) or not {"delta", "deltaBase64"} & params.keys():
        return None
    fields = ("itemId", "summaryIndex", "contentIndex", "stream", *_OWN)
    return (event["method"], *(json.dumps(params.get(field)) for field in fields))


def _append(params: Json, more: Json) -> None:
    if "delta" in params:
        params["delta"] += more["delta"]
    else:
        whole = base64.b64decode(params["deltaBase64"]) + base64.b64decode(more["deltaBase64"])
        params["deltaBase64"] = base64.b64encode(whole).decode()
