"""What real clients and a real app-server say: the methods of the schema, and recorded turns.

Hands to: the fuzz of the core. Hears from: the recordings, the installed codex's schema, our own
methods' examples, and the broker's tables (whose methods the schema needn't have).
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable
from typing import Any

import attrs

from mux.core.policy.scopes import SCOPES
from mux.core.protocol.methods import NOTIFICATIONS, REQUESTS, SERVER_REQUESTS
from tests.codex_bundles import Bundle, bundle
from tests.core.recordings import NAMES, recording

Json = dict[str, Any]

USUAL: Json = {"threadId": "", "turnId": "turn", "itemId": "item", "requestId": 1, "processId": "p"}
"""Fields of methods of which no schema is at hand."""


@attrs.frozen
class Corpus:
    """Samples of params by method, with all that is optional; and recorded notifications.

    ``recorded``: texts in which ``THREAD`` stands for the thread's id.
    """

    requests: dict[str, Json]
    notifications: dict[str, Json]
    server_requests: dict[str, Json]
    recorded: tuple[tuple[str, ...], ...]
    started: Json


THREAD = "<thread>"


@functools.cache
def corpus() -> Corpus:
    """Of the codex that the tests run with, and of the tables alone where there is none."""
    try:
        schema: Bundle | None = bundle(experimental=True)
    except Exception:  # noqa: BLE001 (whatever keeps it from us, the tables are enough)
        schema = None
    names = ("ClientRequest", "ServerNotification", "ServerRequest")
    tables: tuple[Iterable[str], ...] = ([*SCOPES, *REQUESTS], NOTIFICATIONS, SERVER_REQUESTS)
    samples: list[dict[str, Json]] = []
    for name, table in zip(names, tables, strict=True):
        known = {} if schema is None else _samples(schema, name)
        samples.append({method: USUAL for method in table if method not in known} | known)
    requests, notifications, asked = samples
    return Corpus(requests, notifications, asked, _recorded(), recording(NAMES[0]).started)


def _samples(schema: Bundle, kind: str) -> dict[str, Json]:
    found: dict[str, Json] = {}
    for method, params in schema.params(kind).items():
        fields = schema.resolved(params).get("properties", {})
        found[method] = {name: _sample(schema, field) for name, field in fields.items()}
    return found


def _sample(schema: Bundle, field: Any) -> Any:
    try:
        return schema.sample(field)
    except (StopIteration, KeyError, RecursionError):
        return None


def _recorded() -> tuple[tuple[str, ...], ...]:
    turns = []
    for name in NAMES:
        each = recording(name)
        said = [
            line.decode().replace(each.thread, THREAD)
            for line, message in zip(each.lines, each.messages, strict=True)
            if "result" not in message
        ]
        turns.append(tuple(said))
    return tuple(turns)


def as_message(text: str, thread: str) -> Json:
    """A recorded line, of this thread."""
    message: Json = json.loads(text.replace(THREAD, thread))
    return message
