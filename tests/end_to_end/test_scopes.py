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
from pathlib import Path
from typing import Any

import attrs
import pytest

from mux.core import scopes
from mux.core.principal import Principal
from mux.core.scopes import ALL, Scope
from tests.core.stories import Json, Story
from tests.end_to_end.brokered import brokered
from tests.end_to_end.devices import DEVICES_ONLY, operator_of, pair
from tests.end_to_end.native import codex_bin
from tests.end_to_end.peer import connect_ws

FORBIDDEN = -32003

HOLDINGS = [
    frozenset(held)
    for count in range(len(ALL) + 1)
    for held in itertools.combinations(sorted(ALL), count)
]
"""Every set of scopes, the empty one too."""


@attrs.frozen
class Schema:
    """The requests of codex's schema: by method, the names of its params at the top level."""

    methods: dict[str, frozenset[str]]


@pytest.fixture(scope="module")
def schema(tmp_path_factory: pytest.TempPathFactory) -> Schema:
    """Of the binary that the tests run with."""
    out = tmp_path_factory.mktemp("schema")
    asked = ("app-server", "generate-json-schema", "--experimental", "--out", str(out))
    command = [str(codex_bin()), *asked]
    subprocess.run(command, check=True, env={"CODEX_HOME": str(out)}, capture_output=True)
    request = json.loads((out / "ClientRequest.json").read_text())
    methods = {}
    for each in request["oneOf"]:
        (method,) = each["properties"]["method"]["enum"]
        params = each["properties"].get("params", {}).get("$ref", "").rpartition("/")[2]
        fields = request["definitions"].get(params, {}).get("properties", {})
        methods[method] = frozenset(fields)
    assert len(methods) > 150
    return Schema(methods)


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
    harmless = {"experimentalFeature/list", "plugin/installed"}
    assert not {m for m in beyond if scopes.SCOPES.get(m, "admin") != "admin"} - harmless


def test_every_method_of_the_installed_version_is_listed(schema: Schema) -> None:
    """What isn't needs `admin` too; but then nobody has looked at it, and doctor says so."""
    unlisted = schema.methods.keys() - scopes.SCOPES.keys()
    assert not unlisted or "APPMUX_CODEX_BIN" in os.environ


def test_every_param_that_loosens_is_judged(schema: Schema) -> None:
    """A method of a later version that takes one of them must not be overlooked."""
    loosening = set(scopes._Overrides.__struct_fields__)
    for method, params in schema.methods.items():
        found = params & loosening
        if found and scopes.SCOPES.get(method, "admin") != "admin":
            assert method in scopes._MAY_OVERRIDE, f"{method} takes {sorted(found)}"
    names = {name for params in schema.methods.values() for name in params}
    suspicious = {n for n in names if re.search(r"(?i)sandbox|approval|permission|policy", n)}
    known = loosening | {"approvalId", "permissionProfile", "requestedPermissions"}
    new = {name for name in suspicious - known if _open_to_others(schema, name)}
    assert not new, f"do they loosen anything? {sorted(new)}"


def _open_to_others(schema: Schema, name: str) -> list[str]:
    return [m for m, params in schema.methods.items() if name in params and m in scopes.SCOPES]


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
        id = peer.asks(method, {"threadId": "t"})
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
                asked = {await device.ask(method): method for method in closed}
                for id, method in asked.items():
                    answer = await _answer(device, id)
                    assert _forbidden(answer), (scope, method, answer)
                for method, params in _harmless(broker.home.work)[scope].items():
                    answer = await _answer(device, await device.ask(method, params))
                    assert not _forbidden(answer), (scope, method, answer)


async def _answer(device: Any, id: int | str) -> Json:
    answer: Json = await device.wait(lambda m: "method" not in m and m.get("id") == id)
    return answer


def _harmless(work: Path) -> dict[str, dict[str, Json]]:
    """Of each scope, requests that may be asked for real."""
    return {
        "observe": {"thread/list": {}, "model/list": {}, "account/read": {}, "mux/status": {}},
        "approve": {"thread/approveGuardianDeniedAction": {}},
        "drive": {"thread/start": {"cwd": str(work)}, "turn/start": {}},
        "admin": {"config/read": {}, "fs/readDirectory": {"path": str(work)}},
    }
