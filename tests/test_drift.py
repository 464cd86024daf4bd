"""`make drift`, on two small bundles made by hand, and on the installed codex against itself."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest

from mux.core.policy import scopes
from mux.core.protocol import methods
from tests.codex_bundles import Bundle, Json, bundle
from tests.drift import (
    LIKE_AN_ID,
    NOTIFICATIONS,
    REQUESTS,
    SERVER_REQUESTS,
    Codex,
    compare,
    shown,
    told_by_name,
)


def method(name: str, params: str) -> Json:
    properties = {"method": {"enum": [name]}, "params": {"$ref": f"#/definitions/v2/{params}"}}
    return {"properties": properties}


def struct(*required: str, **properties: Any) -> Json:
    return {"type": "object", "properties": properties, "required": list(required)}


def ref(name: str) -> Json:
    return {"$ref": f"#/definitions/v2/{name}"}


TEXT: Json = {"type": "string"}
NUMBER: Json = {"type": "integer"}
HIDDEN: Json = {"type": "boolean"}


def codex(
    version: str, requests: dict[str, str], types: Json, *, notices: str = "", hidden: str = ""
) -> Codex:
    """A version with these requests and types; the method or field `hidden` is experimental."""

    def written(*, experimental: bool) -> Bundle:
        kept = {n: each for n, each in requests.items() if experimental or n != hidden}
        shown = json.loads(json.dumps(types))
        for each in shown.values():
            if not experimental:
                each.get("properties", {}).pop(hidden, None)
        definitions: Json = {
            REQUESTS: {"oneOf": [method(name, params) for name, params in kept.items()]},
            SERVER_REQUESTS: {"oneOf": [method("item/tool/call", "CallParams")]},
            NOTIFICATIONS: {"oneOf": [method(name, "Notice") for name in notices.split()]},
            "ClientNotification": {"oneOf": []},
            "v2": {"Notice": types.get("NoteParams", {})} | shown,
        }
        return Bundle(json.dumps({"definitions": definitions}).encode())

    return Codex(version, written(experimental=False), written(experimental=True))


OLD = codex(
    "1.0",
    {"thread/start": "StartParams", "thread/rename": "NameParams", "thread/list": "ListParams"},
    {
        "StartParams": struct(cwd=TEXT, item=ref("Item"), mode={"enum": ["a"], "type": "string"}),
        "StartResponse": struct("thread", thread=TEXT),
        "Item": {"oneOf": [struct(type={"enum": ["text"], "type": "string"})]},
        "ListParams": struct(),
    },
    notices="turn/started",
)
NEW = codex(
    "2.0",
    {"thread/start": "StartParams", "thread/novel": "NameParams", "thread/list": "ListParams"},
    {
        "StartParams": struct(
            "cwd",
            cwd=NUMBER,
            item=ref("Item"),
            mode={"oneOf": [{"enum": ["a", "b"], "type": "string"}]},
            raw=HIDDEN,
            sandboxKind=TEXT,
        ),
        "StartResponse": struct(thread=TEXT, turnId=TEXT),
        "Item": {"oneOf": [struct(type={"enum": ["image"], "type": "string"}, url=TEXT)]},
        "ListParams": struct(),
    },
    notices="turn/started process/exited thread/novel/changed",
    hidden="raw",
)


def test_everything_that_differs_is_told() -> None:
    text = "\n".join(shown(OLD, NEW))
    lines = [line.strip() for line in text.split("\n")]
    assert text.startswith("codex 1.0 → 2.0: 3 requests of clients, 1 server requests")
    assert "requests of clients: 1 new, 1 gone, 1 changed" in lines
    assert "new     thread/novel  (UNLISTED, so it needs admin (scopes.py); passes)" in lines
    assert any(line.startswith("gone    thread/rename  (") for line in lines)
    (start,) = [line for line in lines if line.startswith("changed thread/start")]
    assert start == (
        "changed thread/start  (drive; follow;"
        " does `sandboxKind` loosen what may be done? (overrides.py))"
    )
    assert [line for line in lines if line.startswith(("params", "result"))] == [
        "params.cwd: required now",
        "params.cwd: was string, is integer",
        "params.mode: new value 'b'",
        "params.raw: new, experimental",
        "params.sandboxKind: new",
        "result.thread: optional now",
        "result.turnId: new",
    ]
    assert "server requests: as they were" in lines
    assert "notifications: 2 new" in lines
    (novel,) = [line for line in lines if line.startswith("new     thread/novel/changed")]
    assert "the schema doesn't say" in novel
    assert any(
        line.startswith("new     process/exited") and "withheld without" in line for line in lines
    )
    assert {"Item: gone variant text", "Item: new variant image"} <= set(lines)
    assert "thread/rename" not in lines[-1]
    assert lines[-1] == "without a scope in scopes.py: thread/novel"


def test_what_becomes_stable_or_experimental_is_told() -> None:
    requests = {"project/list": "ListParams"}
    types = {"ListParams": struct()}
    stable = codex("1", requests, types)
    experimental = codex("2", requests, types, hidden="project/list")
    (became,) = compare(stable, experimental)
    assert became.notes[0] == "experimental"
    assert "experimental now" in became.notes
    (back,) = compare(experimental, stable)
    assert "stable now" in back.notes


def test_fields_that_are_called_like_a_clients_ids_are_asked_about() -> None:
    fields = {"requestId": NUMBER, "streamHandle": TEXT, "threadId": TEXT, "processId": TEXT}
    new = codex(
        "2",
        {"a/new": "P", "thread/backgroundTerminals/terminate": "P"},
        {"P": struct(**fields), "NoteParams": struct(**fields)},
        notices="b/new item/commandExecution/terminalInteraction",
    )
    asked = {
        each.method: [name for name in fields if LIKE_AN_ID.format(name) in each.notes]
        for each in compare(codex("1", {"z": "P"}, {"P": struct()}, notices="z"), new)
        if each.how == "new"
    }
    assert asked["a/new"] == ["requestId", "streamHandle", "processId"]
    assert asked["thread/backgroundTerminals/terminate"] == ["requestId", "streamHandle"]


@pytest.mark.parametrize("kind", [REQUESTS, NOTIFICATIONS, SERVER_REQUESTS])
def test_of_each_field_that_is_called_like_a_clients_id_the_table_says_whose_it_is(
    kind: str,
) -> None:
    """Of every method that stands in it: a new field of one isn't decided by its name alone."""
    real = Codex("real", bundle(experimental=False), bundle(experimental=True))
    for method in real.methods(kind):
        if "APPMUX_CODEX_BIN" not in os.environ or method in scopes.SCOPES:
            assert told_by_name(real, kind, method) == [], method


def test_each_server_request_of_the_installed_one_names_who_may_be_asked() -> None:
    real = Codex("real", bundle(experimental=False), bundle(experimental=True))
    unlisted = real.methods(SERVER_REQUESTS).keys() - methods.SERVER_REQUESTS.keys()
    assert not unlisted or "APPMUX_CODEX_BIN" in os.environ


@pytest.mark.parametrize("same", [OLD, NEW])
def test_a_version_doesn_t_differ_from_itself(same: Codex) -> None:
    assert compare(same, same) == []


def test_the_installed_one_doesn_t_differ_from_itself() -> None:
    real = Codex("real", bundle(experimental=False), bundle(experimental=True))
    assert compare(real, real) == []
    lines = list(shown(real, real))
    assert sum("as they were" in line for line in lines) == 4
    if "APPMUX_CODEX_BIN" not in os.environ:  # of another nobody may have looked at all methods
        assert lines[-1] == "without a scope in scopes.py: none"
