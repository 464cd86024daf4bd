"""What is new, gone or changed between two versions of codex, and what our tables say of it.

    python -m tests.drift [OLD [NEW]]

The binaries are, where none are named, the package's and the one that `APPMUX_CODEX_BIN` names (or
the same one twice). What is shown is to be looked at before a version is called supported:

* a new request: its scope (unlisted, it needs `admin`) and its row in THE TABLE (or it passes);
* a new notification: who hears it; and whether it is experimental, which the schema can't tell;
* a new server request: to whom it is offered, and whether the broker knows a valid answer;
* of all these: each field that is called like an id of a client's own, and has no row;
* a new field: whether it loosens what a turn may do, belongs to one client, or names a thread.

Hands to: a person. Hears from: `generate-json-schema` of both, `mux.core`'s tables.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import attrs

from mux.config.codex_binary import find_codex
from mux.core.policy import scopes
from mux.core.protocol import answers, methods
from mux.core.protocol.experimental import WITHHELD
from mux.core.protocol.rules import Route
from mux.core.protocol.threads import thread_overrides
from mux.core.state.requests import id_fields
from tests.codex_bundles import Bundle, Json, generated

REQUESTS: Final = "ClientRequest"
SERVER_REQUESTS: Final = "ServerRequest"
NOTIFICATIONS: Final = "ServerNotification"
FROM_CLIENTS: Final = "ClientNotification"

TITLES: Final = {
    REQUESTS: "requests of clients",
    SERVER_REQUESTS: "server requests",
    NOTIFICATIONS: "notifications",
    FROM_CLIENTS: "notifications of clients",
}

DEEPEST: Final = 12
"""Levels into a type; what lies deeper is some item's detail, which passes as it is."""


UNSURE: Final = "withheld without experimentalApi? try it: the schema doesn't say (experimental.py)"


@attrs.frozen
class Codex:
    """One version: its schema with and without what is experimental."""

    version: str
    stable: Bundle
    whole: Bundle

    def methods(self, kind: str) -> dict[str, Json]:
        """All methods of a kind, with the schema of their params."""
        return self.whole.params(kind) if kind in self.whole.whole["definitions"] else {}

    def is_experimental(self, kind: str, method: str) -> bool:
        return method not in self.stable.params(kind)

    def hides(self, reference: str | None, field: str) -> bool:
        """Whether a field of a type is experimental."""
        if reference is None:
            return False
        known = self.stable.resolved({"$ref": reference}).get("properties")
        return known is not None and field not in known


@attrs.frozen
class Change:
    """One difference inside a method: where, and what it is."""

    place: str
    what: str


@attrs.frozen
class Drifted:
    """A method that isn't as it was. ``notes``: what the tables say of it, what to look at."""

    kind: str
    method: str
    how: str
    notes: list[str]
    changes: list[Change] = attrs.field(factory=list)


def compare(old: Codex, new: Codex) -> list[Drifted]:
    """All that differs, by kind and method."""
    found = []
    for kind in TITLES:
        before, after = old.methods(kind), new.methods(kind)
        for method in sorted(before.keys() | after.keys()):
            if method not in before:
                unsure = kind == NOTIFICATIONS and method not in WITHHELD
                asked = [UNSURE] if unsure else []
                found.append(Drifted(kind, method, "new", said(new, kind, method) + asked))
            elif method not in after:
                found.append(Drifted(kind, method, "gone", said(old, kind, method)))
            elif drifted := _changed(old, new, kind, method):
                found.append(drifted)
    return found


def _changed(old: Codex, new: Codex, kind: str, method: str) -> Drifted | None:
    was, now = old.is_experimental(kind, method), new.is_experimental(kind, method)
    notes = []
    if was != now:
        notes.append("experimental now" if now else "stable now")
    a, b = old.methods(kind)[method], new.methods(kind)[method]
    changes = list(Differences(old, new).of(a, b, "params"))
    if kind in (REQUESTS, SERVER_REQUESTS):
        changes += Differences(old, new).of(_result(old, a), _result(new, b), "result")
    notes += [note for each in changes for note in _suspicion(each)]
    if not notes and not changes:
        return None
    return Drifted(kind, method, "changed", said(new, kind, method) + notes, changes)


def _result(codex: Codex, params: Json) -> Json:
    """The schema of the result: its type is called like that of the params."""
    reference = params.get("$ref", "").removesuffix("Params") + "Response"
    return {"$ref": reference} if codex.whole.resolved({"$ref": reference}) else {}


def _suspicion(change: Change) -> Iterator[str]:
    name = change.place.rpartition(".")[2]
    if not change.place.startswith("params.") or not change.what.startswith("new"):
        return
    known = thread_overrides.JUDGED.keys() | thread_overrides.HARMLESS.keys()
    if thread_overrides.SUSPICIOUS.search(name) and name not in known:
        yield f"does `{name}` loosen what may be done? (overrides.py)"
    if id_fields.kind_of(name) is not None:
        yield f"does `{name}` belong to one client? (methods.py)"


# ── inside a type ─────────────────────────────────────────────────────────────────────────────────


@attrs.frozen
class Differences:
    """What differs between two types, with its place (`params.input[].url`).

    Types that have a name of their own are compared by `types`, once for all that use them.
    """

    old: Codex
    new: Codex

    def of(self, a: Any, b: Any, place: str, depth: int = 0) -> Iterator[Change]:
        """Between two schemas of what stands at `place`."""
        if depth > DEEPEST or (depth and _reference(a) and _reference(a) == _reference(b)):
            return
        was, now = self.old.whole.resolved(a), self.new.whole.resolved(b)
        if (kinds := _kinds(was)) != (others := _kinds(now)):
            yield Change(place, f"was {kinds}, is {others}")
        yield from self._properties(was, now, _reference(b), place, depth)
        for how, values in (
            ("new", _values(now) - _values(was)),
            ("gone", _values(was) - _values(now)),
        ):
            if values:
                yield Change(place, f"{how} value {', '.join(map(repr, sorted(values)))}")
        for word, mark in (("items", "[]"), ("additionalProperties", ".*")):
            if isinstance(was.get(word), dict) and isinstance(now.get(word), dict):
                yield from self.of(was[word], now[word], place + mark, depth + 1)
        yield from self._variants(was, now, place, depth)

    def _properties(
        self, was: Json, now: Json, reference: str | None, place: str, depth: int
    ) -> Iterator[Change]:
        before, after = was.get("properties", {}), now.get("properties", {})
        for name in sorted(before.keys() | after.keys()):
            inner = f"{place}.{name}"
            needed = [name in each.get("required", ()) for each in (was, now)]
            if name not in before:
                words = ["new", *["required"] * needed[1]]
                words += ["experimental"] * self.new.hides(reference, name)
                yield Change(inner, ", ".join(words))
            elif name not in after:
                yield Change(inner, "gone")
            else:
                if needed[0] != needed[1]:
                    yield Change(inner, "required now" if needed[1] else "optional now")
                yield from self.of(before[name], after[name], inner, depth + 1)

    def _variants(self, was: Json, now: Json, place: str, depth: int) -> Iterator[Change]:
        before, after = _variants(self.old, was), _variants(self.new, now)
        for label in sorted(before.keys() | after.keys()):
            if label not in before:
                yield Change(place, f"new variant {label}")
            elif label not in after:
                yield Change(place, f"gone variant {label}")
            else:
                inner = place if len(after) < MANY else f"{place}<{label}>"
                yield from self.of(before[label], after[label], inner, depth + 1)


def types(old: Codex, new: Codex) -> Iterator[tuple[str, list[Change]]]:
    """The named types that differ and aren't one method's own, with what differs in each."""
    before, after = old.whole.types(), new.whole.types()
    own = ("Params", "Response", "Notification", *TITLES)
    for name in sorted(before.keys() & after.keys()):
        if not name.endswith(own):
            changes = list(Differences(old, new).of(before[name], after[name], name))
            if changes:
                yield name, changes


def _variants(codex: Codex, schema: Json) -> dict[str, Any]:
    """The variants of a type by what they are called; those that are plain values aside."""
    every = [each for word in ("oneOf", "anyOf", "allOf") for each in schema.get(word, ())]
    return {_label(codex, each): each for each in every if not _is_value(each)}


def _is_value(schema: Any) -> bool:
    return isinstance(schema, dict) and schema.get("type") == "string" and "enum" in schema


def _values(schema: Json) -> set[str]:
    """The plain values that a type allows, however they are written down."""
    every = [schema, *schema.get("oneOf", ()), *schema.get("anyOf", ())]
    return {value for each in every if _is_value(each) for value in each["enum"]}


def _label(codex: Codex, variant: Any) -> str:
    """What a variant is called: by its type's name, the field that tells it, its title or kind."""
    reference = _reference(variant)
    if reference:
        return reference.rpartition("/")[2]
    whole = codex.whole.resolved(variant)
    for tag in ("type", "mode", "kind"):
        told = whole.get("properties", {}).get(tag, {}).get("enum")
        if told:
            return str(told[0])
    return str(whole.get("title") or _kinds(whole))


MANY: Final = 3
"""Variants of which each is named in a place; two are mostly a type and null."""


def _reference(schema: Any) -> str | None:
    return schema.get("$ref") if isinstance(schema, dict) else None


def _kinds(schema: Json) -> str:
    if _values(schema):
        return "values"
    if any(word in schema for word in ("oneOf", "anyOf", "allOf")):
        return "variants"
    kinds = schema.get("type", "anything")
    return kinds if isinstance(kinds, str) else " | ".join(sorted(kinds))


# ── what the tables say ───────────────────────────────────────────────────────────────────────────


def said(codex: Codex, kind: str, method: str) -> list[str]:
    """What the gate, the scopes and THE TABLE say of a method."""
    of_kind: dict[str, Callable[[str], Iterator[str]]] = {
        REQUESTS: _said_of_request,
        SERVER_REQUESTS: _said_of_server_request,
        NOTIFICATIONS: _said_of_notification,
    }
    gate = ["experimental"] if codex.is_experimental(kind, method) else []
    dropped = ["dropped, but for `initialized`, which the broker says (broker.py)"]
    told = list(of_kind[kind](method)) if kind in of_kind else dropped
    return gate + told + [LIKE_AN_ID.format(name) for name in told_by_name(codex, kind, method)]


LIKE_AN_ID: Final = "whose is `{}`? Until a row says so it is taken for a client's own (methods.py)"


def told_by_name(codex: Codex, kind: str, method: str) -> list[str]:
    """The params called like ids of a client's own, of which no row says whose they are."""
    fields = codex.whole.resolved(codex.methods(kind)[method]).get("properties", {})
    known: set[str] = set()
    if kind == REQUESTS:
        row = methods.request_rule(method)
        known = {row.names_request} | {name for name in fields if row.accounts_for(name)}
    elif kind == NOTIFICATIONS:
        rule = methods.notification_rule(method)
        known = {rule.own_id, rule.names_request, *rule.server_ids}
    return [name for name in fields if id_fields.kind_of(name) and name not in known]


def _said_of_request(method: str) -> Iterator[str]:
    yield scopes.SCOPES.get(method, "UNLISTED, so it needs admin (scopes.py)")
    rule = methods.request_rule(method)
    words = {
        rule.route.value: rule.route is not Route.PLAIN,
        "reads": rule.reads,
        "waits": rule.waits,
        "begins work": rule.begins,
        f"own id {rule.own_id and rule.own_id.field}": rule.own_id is not None,
        f"names a request by {rule.names_request}": bool(rule.names_request),
    }
    listed = [word for word, holds in words.items() if holds]
    yield ", ".join(listed) if listed else "passes"


def _said_of_server_request(method: str) -> Iterator[str]:
    rule = methods.server_request_rule(method)
    yield f"offered to {rule.offer_to.value}" + (f", needs {rule.needs}" if rule.needs else "")
    if method in methods.SERVER_REQUESTS:
        yield f"of the scope {rule.scope}"
    else:
        yield "UNLISTED: of a thread's for `approve`, of none for `admin` (methods.py)"
    if method not in answers._DECODERS:
        yield "ANY object counts as its answer (answers.py)"


def _said_of_notification(method: str) -> Iterator[str]:
    rule = methods.notification_rule(method)
    field = rule.own_id or rule.names_request
    yield f"to {rule.audience.value}" + (f" of its {field}" if field else "")
    if method not in methods.NOTIFICATIONS:
        yield "UNSEEN: to whom its ids belong, if it names any (seen.py)"
    if method in WITHHELD:
        yield "withheld without experimentalApi"


def stale(codex: Codex) -> list[str]:
    """Rows of the tables for which this version has no method."""
    tables: dict[str, dict[str, object]] = {
        REQUESTS: {**methods.REQUESTS, **dict.fromkeys(scopes.SCOPES)},
        SERVER_REQUESTS: dict(methods.SERVER_REQUESTS),
        NOTIFICATIONS: {**methods.NOTIFICATIONS, **dict.fromkeys(WITHHELD)},
    }
    return [
        f"{method} ({TITLES[kind]})"
        for kind, table in tables.items()
        for method in sorted(table.keys() - codex.methods(kind).keys())
        if not method.startswith("mux/")
    ]


# ── for a person ──────────────────────────────────────────────────────────────────────────────────


def shown(old: Codex, new: Codex) -> Iterator[str]:
    """The whole report, line by line."""
    drift = compare(old, new)
    counts = [f"{len(new.methods(kind))} {title}" for kind, title in TITLES.items()]
    yield f"codex {old.version} → {new.version}: {', '.join(counts)}"
    for kind, title in TITLES.items():
        of_kind = [each for each in drift if each.kind == kind]
        yield f"\n{title}: {_count(of_kind)}"
        for each in sorted(of_kind, key=lambda each: (ORDER.index(each.how), each.method)):
            yield f"  {each.how:8}{each.method}  ({'; '.join(each.notes)})"
            for change in each.changes:
                yield f"            {change.place}: {change.what}"
    changed = list(types(old, new))
    yield f"\ntypes that several use: {len(changed)} changed"
    for name, changes in changed:
        yield f"  {name}"
        yield from (f"            {each.place}: {each.what}" for each in changes)
    left = stale(new)
    yield f"\nin our tables, and not in codex {new.version}: {', '.join(left) or 'nothing'}"
    unlisted = sorted(new.methods(REQUESTS).keys() - scopes.SCOPES.keys())
    yield f"without a scope in scopes.py: {', '.join(unlisted) or 'none'}"


ORDER: Final = ("new", "gone", "changed")


def _count(drift: list[Drifted]) -> str:
    counts = {how: sum(each.how == how for each in drift) for how in ORDER}
    return ", ".join(f"{count} {how}" for how, count in counts.items() if count) or "as they were"


def read(binary: Path) -> Codex:
    """What a binary says of itself."""
    said = subprocess.run([binary, "--version"], check=True, capture_output=True, text=True)
    stable, whole = (generated(binary, experimental=each) for each in (False, True))
    return Codex(said.stdout.split()[-1], stable, whole)


def main(named: list[str]) -> None:
    """Compare two binaries, and say what differs."""
    package = {name: each for name, each in os.environ.items() if name != "APPMUX_CODEX_BIN"}
    old = find_codex(Path(named[0]) if named else None, package)
    new = find_codex(Path(named[1]) if named[1:] else None, os.environ)
    for line in shown(read(old), read(new)):
        print(line)


if __name__ == "__main__":
    main(sys.argv[1:])
