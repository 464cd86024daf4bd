"""The app-server's protocol state: its handshake, its user agent, its greetings."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mux.core.state.app_server import AppServer, AppServerState, Introduction
from mux.core.state.clients.client import ClientInfo
from tests.core.stories import INITIALIZED, USER_AGENT, Json, dumps

PARSEABLE = re.compile(r"[^/]+/\d+\.\d+\.\d+\S* \(.*\)")


def answered(**result: object) -> AppServer:
    app_server = AppServer()
    app_server.begin(1, 0.0)
    assert app_server.initialized(dumps({"id": 1, "result": INITIALIZED | result}))
    return app_server


def user_agent(app_server: AppServer, name: str, version: str) -> str:

    told: str = json.loads(bytes(app_server.result_for(ClientInfo(name, version))["userAgent"]))
    return told


def test_states() -> None:
    app_server = AppServer()
    assert (app_server.state, app_server.runs, app_server.known) == (
        AppServerState.STARTING,
        False,
        False,
    )
    app_server.begin(3, 7.0)
    assert (app_server.state, app_server.runs, app_server.known) == (
        AppServerState.INITIALIZING, True, False,
    )  # fmt: skip
    assert (app_server.generation, app_server.started) == (3, 7.0)
    assert app_server.initialized(dumps({"id": 1, "result": INITIALIZED}))
    assert app_server.known
    app_server.end("exit status 1", 7.0)
    assert (app_server.state, app_server.runs) == (AppServerState.STARTING, False)
    # What is known of it goes on being said until the next life.
    assert app_server.known
    assert app_server.version == "0.163.0"


@pytest.mark.parametrize(
    "answer",
    [{"error": {"code": 1, "message": "no"}}, {"result": None}, {"result": []}, {"result": {}},
     {"result": {"userAgent": None}}, {"result": {"userAgent": 5}}],
)  # fmt: skip
def test_answers_that_clients_cannot_be_given(answer: Json) -> None:
    assert not AppServer().initialized(dumps({"id": 1, **answer}))
    assert not AppServer().initialized(b"x")


@pytest.mark.parametrize(
    ("native", "told"),
    [
        (USER_AGENT, "appmux/0.163.0 (Debian 12.0.0; x86_64) xterm (tui; 9.9)"),
        # The daemon's own name isn't claimed natively, and its user agent has no last bracket.
        ("codex_cli_rs/0.163.0 (Debian 12.0.0; x86_64) xterm", None),
    ],
)
def test_the_user_agent_is_each_clients_own_and_parses(native: str, told: str | None) -> None:
    app_server = answered(userAgent=native)
    own = user_agent(app_server, "tui", "9.9")
    assert PARSEABLE.match(own)
    assert app_server.version == "0.163.0"
    assert "0.163.0" in own
    if told is not None:
        assert own == told


@given(st.text(max_size=15), st.text(max_size=15))
def test_no_name_of_a_client_spoils_it(name: str, version: str) -> None:
    name, version = (each.encode(errors="replace").decode() for each in (name, version))
    own = user_agent(answered(), name, version)
    assert PARSEABLE.match(own)
    assert own.startswith("appmux/0.163.0 (Debian 12.0.0; x86_64) xterm (")


def test_the_rest_of_the_result_is_the_app_servers() -> None:
    line = b'{"id":1,"result":{"userAgent":"a/1.2.3 (x) (y; z)","codexHome":"/\\u00e9","n":1.50}}'
    app_server = AppServer()
    app_server.initialized(line)
    result = app_server.result_for(ClientInfo("x", "1"))
    assert bytes(result["codexHome"]) == b'"/\\u00e9"'
    assert bytes(result["n"]) == b"1.50"


@pytest.mark.parametrize(
    ("agent", "version"),
    [
        ("appmux/0.163.0 (x)", "0.163.0"),
        ("a/1.0.0-alpha.2", "1.0.0-alpha.2"),
        ("odd", ""),
        ("", ""),
    ],
)
def test_version(agent: str, version: str) -> None:
    app_server = AppServer()
    app_server.user_agent = agent
    assert app_server.version == version


def test_greetings_warnings_add_up_a_status_replaces() -> None:
    app_server = answered()
    for line in (b"1", b"2", b"1"):
        app_server.greet("configWarning", line)
        app_server.greet("remoteControl/status/changed", line)
    assert app_server.greetings == {
        "configWarning": [b"1", b"2"],
        "remoteControl/status/changed": [b"1"],
    }
    app_server.begin(2, 0.0)
    assert app_server.greetings == {}


def test_the_introduction_declares_what_is_configured() -> None:
    plain = Introduction("appmux", "1").params()
    assert plain["clientInfo"] == {"name": "appmux", "title": None, "version": "1"}
    declared = plain["capabilities"]
    assert isinstance(declared, dict)
    assert "extensions" not in declared
    forms = Introduction("appmux", "1", form_elicitation=True).params()["capabilities"]
    assert isinstance(forms, dict)
    assert forms["extensions"] == {"openai/form": {}}
