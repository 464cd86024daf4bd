"""Every method of the installed codex's own schema, against every set of scopes.

The core decides, so all of them are put to it; and those that must be refused to the whole broker,
on the real app-server.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

from mux.core.policy import scopes
from mux.core.policy.principal import Principal
from mux.core.policy.scopes import ALL
from mux.core.protocol.scope import Scope
from mux.core.protocol.threads import thread_overrides
from tests.core.stories import Json, Story
from tests.end_to_end.brokered import brokered
from tests.end_to_end.browsers import Browser, origin_of
from tests.end_to_end.devices import DEVICES_ONLY, operator_of, pair
from tests.end_to_end.native import codex_bin
from tests.end_to_end.peer import Peer, connect_ws

FORBIDDEN = -32003

HOLDINGS = [
    frozenset(held)
    for count in range(len(ALL) + 1)
    for held in itertools.combinations(sorted(ALL), count)
]
"""Every set of scopes, the empty one too."""


@attrs.frozen
class Schema:
    """The requests of codex's schema: by method, the names of its params at the top level.

    ``params``: their schemas; ``definitions``: what these refer to.
    """

    methods: dict[str, frozenset[str]]
    params: dict[str, Json]
    definitions: dict[str, Json]

    def suspicious(
        self, part: Json, place: str = "", seen: frozenset[str] = frozenset()
    ) -> Iterator[str]:
        """The places in a schema where the name, or the type's, sounds as if it mattered."""
        reference = part.get("$ref", "").rpartition("/")[2]
        if thread_overrides.SUSPICIOUS.search(reference) and place:
            yield place
        if reference in seen:
            return
        seen |= {reference} - {""}
        whole = self.definitions[reference] if reference else part
        variants = (each for word in ("anyOf", "oneOf", "allOf") for each in whole.get(word, ()))
        for each in variants:
            yield from self.suspicious(each, place, seen)
        for name, each in whole.get("properties", {}).items():
            if thread_overrides.SUSPICIOUS.search(name):
                yield f"{place}.{name}"
            if isinstance(each, dict):
                yield from self.suspicious(each, f"{place}.{name}", seen)
        for word, mark in (("items", "[]"), ("additionalProperties", "{}")):
            if isinstance(whole.get(word), dict):
                yield from self.suspicious(whole[word], place + mark, seen)


@pytest.fixture(scope="module")
def schema(tmp_path_factory: pytest.TempPathFactory) -> Schema:
    """Of the binary that the tests run with."""
    out = tmp_path_factory.mktemp("schema")
    asked = ("app-server", "generate-json-schema", "--experimental", "--out", str(out))
    command = [str(codex_bin()), *asked]
    subprocess.run(command, check=True, env={"CODEX_HOME": str(out)}, capture_output=True)
    request = json.loads((out / "ClientRequest.json").read_text())
    methods, schemas = {}, {}
    for each in request["oneOf"]:
        (method,) = each["properties"]["method"]["enum"]
        params = each["properties"].get("params", {}).get("$ref", "").rpartition("/")[2]
        fields = request["definitions"].get(params, {}).get("properties", {})
        methods[method] = frozenset(fields)
        schemas[method] = each["properties"].get("params", {})
    assert len(methods) > 150
    return Schema(methods, schemas, request["definitions"])


# -- what each method needs ------------------------------------------------------------------------

LOOKING = r".*/(get|list|read|search|searchOccurrences|status|installed|diagnostics|readiness)"
"""What a method that changes nothing is called, at its end."""

LOOKING_TOO = {
    "initialize",
    "thread/resume",
    "thread/unsubscribe",
    "thread/readState/update",  # of the person who reads
    "account/bedrock/checkGovCloudRequirements",
    "thread/realtime/listVoices",
    "app/installed",
    "thread/search/stream",
    "thread/search/stream/cancel",  # of the own search alone
    "thread/search/cancel",
}

HOSTS_OWN = (
    "account/login/", "account/logout", "command/", "config/", "environment/", "experimental",
    "externalAgentConfig/", "fs/", "fuzzyFileSearch", "marketplace/", "mcpServer/", "memory/reset",
    "plugin/install", "plugin/reconcile", "plugin/share/", "plugin/uninstall", "process/",
    "remoteControl/", "skills/config/", "skills/extraRoots/", "thread/shellCommand",
    "userVerification/", "windowsSandbox/setup",
)  # fmt: skip
"""What reaches beyond threads and turns: settings, accounts, files, processes, the shell."""


def test_what_observers_may_ask_is_called_looking(schema: Schema) -> None:
    """So that a slip in the table is seen by a rule of another kind."""
    open_to_observers = {m for m in schema.methods if scopes.SCOPES.get(m) == "observe"}
    odd = {m for m in open_to_observers if not re.fullmatch(LOOKING, m)} - LOOKING_TOO
    assert not odd


def test_what_reaches_beyond_threads_needs_admin(schema: Schema) -> None:
    beyond = {m for m in schema.methods if m.startswith(HOSTS_OWN)}
    # (of the configuration others than `admin` are shown no more than a thread tells)
    harmless = {"config/read", "experimentalFeature/list", "plugin/installed"}
    assert not {m for m in beyond if scopes.SCOPES.get(m, "admin") != "admin"} - harmless


def test_every_method_of_the_installed_version_is_listed(schema: Schema) -> None:
    """What isn't needs `admin` too; but then nobody has looked at it, and doctor says so."""
    unlisted = schema.methods.keys() - scopes.SCOPES.keys()
    assert not unlisted or "APPMUX_CODEX_BIN" in os.environ


HARMLESS = {
    # What is said to the model, or shown: files that the agent may read as well.
    r"(turn/\w+|thread/queue/\w+) \.input\[\]\.(path|url|fileId)": "read, as the agent may",
    r"thread/prepareApprovedPlan \.attachmentPath": "of the thread's own attachments",
    r"thread/resume \.history.*": "`history` is judged as a whole",
    # What is listed, by directory: names and descriptions, and nothing is run.
    r"(thread/list|permissionProfile/list|config/read) \.cwd": "lists",
    r"(skills|hooks|plugin)/\w+ \.(cwds|marketplacePath).*": "lists",
    # Labels.
    r"project/(create|import|update) \.roots.*": "a label: threads of a project get no root by it",
    r"thread/approveGuardianDeniedAction .*": "needs `approve`, and says what was denied",
    r"thread/metadata/update \.gitInfo.*": "a label",
    r"\S+ .*sortDirection": "an order",
    r"initialize \.capabilities\.\w+": "what the client can show",
    r"turn/start \.rootTurnId": "names a turn",
    r"mcpServerStatus/list \.environmentId": "with `threadId`, which is judged (`clearance`)",
}
"""Params that are called as if they mattered, of methods open to others, by method and place."""


def test_every_param_that_may_loosen_is_judged(schema: Schema) -> None:
    """By its name or its type's, however deep it stands; a later version's as well."""
    unknown = []
    for method, params in schema.params.items():
        if scopes.SCOPES.get(method, "admin") == "admin":
            continue
        for place in sorted(set(schema.suspicious(params))):
            name = place.lstrip(".").split(".")[0].split("[")[0]
            judged = method in thread_overrides.METHODS and name in thread_overrides.JUDGED
            listed = name in thread_overrides.HARMLESS or any(
                re.fullmatch(pattern, f"{method} {place}") for pattern in HARMLESS
            )
            if not judged and not listed:
                unknown.append(f"{method} {place}")
    assert not unknown, "do they loosen anything?"


def test_what_is_judged_is_there(schema: Schema) -> None:
    """Else it is judged under a name that nobody says."""
    named = {name for method in thread_overrides.METHODS for name in schema.methods[method]}
    assert thread_overrides.JUDGED.keys() <= named
    assert schema.methods.keys() >= thread_overrides.METHODS


# -- the core --------------------------------------------------------------------------------------


@pytest.mark.parametrize("held", HOLDINGS, ids=lambda held: "+".join(sorted(held)) or "nothing")
def test_every_method_against_these_scopes(schema: Schema, held: frozenset[Scope]) -> None:
    story = Story.begun(in_flight=10_000, in_flight_per_client=10_000)
    principal = Principal("someone", "device", None, held, "d1")
    for method in schema.methods:
        if method == "initialize":
            continue
        peer = story.peer(principal=principal)
        story.written()
        # (what it says of a thread's servers, it says by starting them)
        id = peer.asks(method, {"threadId": "t"} if method != "mcpServerStatus/list" else {})
        written = story.written(method)
        answers = [each for each in peer.heard() if each.get("id") == id]
        need = scopes.SCOPES.get(method, "admin")
        if need in held:
            assert not [each for each in answers if _forbidden(each)], method
            assert written or answers, method
        else:
            (answer,) = answers
            assert _forbidden(answer), method
            error = answer["error"]
            assert error["data"] == {"method": method, "needs": need, "has": sorted(held)}
            for word in (f"`{method}`", f"`{need}`", *held):
                assert word in error["message"]
            assert not written, f"{method} went upstream"


def _forbidden(answer: Json) -> bool:
    return bool(answer.get("error", {}).get("code") == FORBIDDEN)


@pytest.mark.parametrize(
    "method", ["made/up", "thread/start/", "Thread/start", "thread/start ", ""]
)
def test_a_method_that_nobody_knows_needs_admin(method: str) -> None:
    story = Story.begun()
    peer = story.peer(principal=Principal("x", "device", None, ALL - {"admin"}, "d1"))
    peer.asks(method, {})
    (answer,) = peer.heard()
    assert _forbidden(answer)
    assert not story.written(method)


# -- the whole broker ------------------------------------------------------------------------------


async def test_devices_of_one_scope_each_on_the_real_app_server(schema: Schema) -> None:
    async with brokered(*DEVICES_ONLY) as broker, operator_of(broker) as operator:
        for scope in sorted(ALL):
            token = await pair(broker, operator, f"only {scope}", scope)
            async with connect_ws(broker.url, token) as device:
                await device.initialize(f"only {scope}")
                others = schema.methods.keys() - {"initialize"}
                closed = [m for m in others if scopes.SCOPES.get(m, "admin") != scope]
                await _has_that_scope_alone(device, scope, closed, broker.home.work)


async def test_browsers_of_one_scope_each_on_an_open_listener(schema: Schema) -> None:
    """Whoever else comes there has all four: a browser has its session's, and no more."""
    async with brokered() as broker, operator_of(broker) as operator:
        for scope in sorted(ALL):
            browser = Browser(origin_of(broker))
            await browser.pair(operator, scope)
            async with browser.connect() as device:
                await device.initialize(f"only {scope}")
                others = (schema.methods.keys() | scopes.SCOPES.keys()) - scopes.NEED_NOTHING
                closed = [m for m in others if scopes.SCOPES.get(m, "admin") != scope]
                await _has_that_scope_alone(device, scope, closed, broker.home.work)


async def _has_that_scope_alone(device: Peer, scope: str, closed: list[str], work: Path) -> None:
    asked = {await device.ask(method): method for method in closed}
    for id, method in asked.items():
        answer = await _answer(device, id)
        assert _forbidden(answer), (scope, method, answer)
    for method, params in _harmless(work)[scope].items():
        answer = await _answer(device, await device.ask(method, params))
        assert not _forbidden(answer), (scope, method, answer)


async def _answer(device: Any, id: int | str) -> Json:
    answer: Json = await device.wait(lambda m: "method" not in m and m.get("id") == id)
    return answer


def _harmless(work: Path) -> dict[str, dict[str, Json]]:
    """Of each scope, requests that may be asked for real."""
    return {
        "observe": {"thread/list": {}, "model/list": {}, "account/read": {}, "config/read": {}},
        "approve": {"thread/approveGuardianDeniedAction": {}},
        "drive": {"thread/start": {"cwd": str(work)}, "turn/start": {}},
        "admin": {"remoteControl/status/read": {}, "fs/readDirectory": {"path": str(work)}},
    }
