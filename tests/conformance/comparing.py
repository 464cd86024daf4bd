"""Two transcripts, and what is different between them.

Hands to: the test. Hears from: `transcript`; which differences are meant is `intended`'s.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator
from typing import Any, Final

import attrs

from tests.conformance.transcript import Channels, Transcript
from tests.end_to_end.peer import Json

# What of a value a failure shows.
SHOWN: Final = 600


class Missing:
    """Stands for what isn't there: an event that only the other side had, or a field."""

    def __repr__(self) -> str:
        return "nothing"


MISSING: Final = Missing()


@attrs.frozen
class Difference:
    """One difference: what this client heard in this channel, natively and from the broker.

    `path` leads to the field that differs (`params.item.id`), and `method` is the event's; for a
    whole event that only one side had, `path` is empty and the other side is `MISSING`.
    """

    client: str
    channel: str
    method: str
    path: str
    native: Any
    broker: Any

    def __str__(self) -> str:
        where = f"{self.client}, {self.channel}: {self.method} {self.path}".rstrip()
        return f"{where}\n    native: {_shown(self.native)}\n    broker: {_shown(self.broker)}"


def _shown(value: Any) -> str:
    text = repr(value) if value is MISSING else json.dumps(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}… ({len(text)} characters)"


def differences(native: Transcript, broker: Transcript) -> list[Difference]:
    """All that differs."""
    return [
        found
        for client in native | broker
        for found in _in_channels(client, native.get(client, {}), broker.get(client, {}))
    ]


def _in_channels(client: str, native: Channels, broker: Channels) -> Iterator[Difference]:
    for channel in native | broker:
        yield from _in_channel(client, channel, native.get(channel, []), broker.get(channel, []))


def _in_channel(
    client: str, channel: str, native: list[Json], broker: list[Json]
) -> Iterator[Difference]:
    if channel.startswith("output"):
        if native and broker and not _ends_alike(*(each[0]["params"] for each in (native, broker))):
            yield from _in_event(client, channel, native[0], broker[0])
        return
    if channel.startswith("answer") and native and broker:
        yield from _in_event(client, channel, native[0], broker[0])
        return
    # Events of one kind are paired first, then looked into.
    ours, theirs = ([_kind(event) for event in events] for events in (native, broker))
    matcher = difflib.SequenceMatcher(None, ours, theirs, autojunk=False)
    for tag, n1, n2, b1, b2 in matcher.get_opcodes():
        if tag == "equal":
            for one, other in zip(native[n1:n2], broker[b1:b2], strict=True):
                yield from _in_event(client, channel, one, other)
            continue
        for event in native[n1:n2]:
            yield Difference(client, channel, method_of(event), "", event, MISSING)
        for event in broker[b1:b2]:
            yield Difference(client, channel, method_of(event), "", MISSING, event)


def _ends_alike(native: Json, broker: Json) -> bool:
    """Whether one saw more of a command's beginning than the other, and nothing else differs."""
    one, other = native["delta"], broker["delta"]
    return bool(one.endswith(other) or other.endswith(one))


def _kind(event: Json) -> str:
    """What two events must have in common to be versions of one another."""
    params = event.get("params")
    params = params if isinstance(params, dict) else {}
    item = params.get("item") or {}
    turn = params.get("turn") or {}
    of = params.get("itemId") or item.get("id"), params.get("turnId") or turn.get("id")
    told = params.get("status"), params.get("query"), params.get("files") == []
    return json.dumps((method_of(event), of, told, event.get("id")))


def method_of(event: Json) -> str:
    """Its method; that of an answer is what it is."""
    return str(event.get("method") or ("error" if "error" in event else "result"))


def _in_event(client: str, channel: str, native: Json, broker: Json) -> Iterator[Difference]:
    method = method_of(native)
    for path, ours, theirs in _in_value("", native, broker):
        yield Difference(client, channel, method, path, ours, theirs)


def _in_value(path: str, native: Any, broker: Any) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(native, dict) and isinstance(broker, dict):
        for key in native | broker:
            inner = f"{path}.{key}".lstrip(".")
            yield from _in_value(inner, native.get(key, MISSING), broker.get(key, MISSING))
    elif isinstance(native, list) and isinstance(broker, list) and len(native) == len(broker):
        for at, (ours, theirs) in enumerate(zip(native, broker, strict=True)):
            yield from _in_value(f"{path}[{at}]", ours, theirs)
    elif type(native) is not type(broker) or native != broker:
        yield path, native, broker
