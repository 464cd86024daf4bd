"""`mux.core.policy.scopes`: which scope a request needs, by its method and by what it does."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mux.core.policy import scopes
from mux.core.policy.scopes import ALL, SCOPES, needed
from mux.core.protocol.threads import thread_overrides
from mux.core.protocol.threads.thread_overrides import Held, read


def need(method: str, **params: Any) -> tuple[str, str]:
    return needed(method, read(json.dumps(params).encode()), _asking)


def _asking(_: str | None) -> Held:
    return Held(approval=b'"on-request"')


def test_a_method_that_is_not_listed_needs_admin() -> None:
    assert "made/up" not in SCOPES
    assert need("made/up") == ("admin", "")
    assert set(SCOPES.values()) == ALL


def test_a_method_stands_in_one_list() -> None:
    lists = (scopes._OBSERVE, scopes._DRIVE, scopes._APPROVE, scopes._ADMIN)
    listed = [method for each in lists for method in each.split()]
    assert sorted(listed) == sorted(set(listed))


HERE = {"environmentId": "local", "cwd": "/x"}
TURN = {"threadId": "t", "input": []}


@pytest.mark.parametrize(
    ("method", "params", "scope"),
    [
        ("thread/start", {"cwd": "/x"}, "drive"),
        ("thread/start", {"sandbox": "read-only", "approvalPolicy": "on-request"}, "drive"),
        ("thread/start", {"sandbox": None, "approvalPolicy": None, "config": None}, "drive"),
        ("thread/start", {"approvalPolicy": "untrusted", "config": {}}, "drive"),
        ("thread/start", {"sandbox": "workspace-write"}, "admin"),
        ("thread/start", {"sandbox": "danger-full-access"}, "admin"),
        ("thread/start", {"sandbox": "a later one"}, "admin"),
        ("thread/start", {"approvalPolicy": "never"}, "admin"),
        ("thread/start", {"approvalPolicy": "on-failure"}, "admin"),
        ("thread/start", {"approvalPolicy": {"granular": {}}}, "admin"),
        ("thread/start", {"config": {"sandbox_mode": "danger-full-access"}}, "admin"),
        ("thread/start", {"permissions": ":danger"}, "admin"),
        # Which directories these are is looked at later (`clearance`).
        ("thread/start", {"runtimeWorkspaceRoots": ["/"]}, "drive"),
        ("thread/start", {"runtimeWorkspaceRoots": []}, "drive"),
        ("thread/start", {"runtimeWorkspaceRoots": "/"}, "admin"),
        ("thread/start", {"runtimeWorkspaceRoots": [5]}, "admin"),
        ("thread/start", {"environments": [HERE]}, "drive"),
        ("thread/start", {"environments": [{**HERE, "runtimeWorkspaceRoots": ["/"]}]}, "drive"),
        ("thread/start", {"environments": [{**HERE, "runtimeWorkspaceRoots": [5]}]}, "admin"),
        ("thread/start", {"environments": [{**HERE, "environmentId": "other"}]}, "admin"),
        ("thread/start", {"environments": [{**HERE, "novel": 1}]}, "admin"),
        ("thread/start", {"environments": [{"environmentId": "local"}]}, "admin"),
        ("thread/start", {"environments": 5}, "admin"),
        ("thread/start", {"environments": [5]}, "admin"),
        ("thread/start", {"environments": [HERE, ["local", "/x"]]}, "admin"),
        ("thread/start", {"cwd": ["/x"]}, "admin"),
        ("thread/fork", {"threadId": "t", "experimentalPredictionMode": True}, "admin"),
        ("thread/fork", {"threadId": "t", "experimentalPredictionMode": False}, "drive"),
        # What nobody knows, and is called as if it mattered.
        ("turn/start", {"threadId": "t", "sandboxKind": "none"}, "admin"),
        ("turn/start", {"threadId": "t", "approval_policy": "never"}, "admin"),
        ("turn/start", {"threadId": "t", "novel": 1}, "drive"),
        ("thread/start", {"selectedCapabilityRoots": [{"id": "x"}]}, "admin"),
        ("thread/fork", {"threadId": "t", "sandbox": "danger-full-access"}, "admin"),
        ("thread/fork", {"threadId": "t", "path": "/etc/shadow"}, "admin"),
        ("thread/settings/update", {"threadId": "t", "approvalPolicy": "never"}, "admin"),
        ("turn/start", TURN, "drive"),
        ("turn/start", {**TURN, "sandboxPolicy": {"type": "readOnly"}}, "drive"),
        ("turn/start", {**TURN, "sandboxPolicy": {"type": "dangerFullAccess"}}, "admin"),
        ("turn/start", {**TURN, "sandboxPolicy": {"type": "externalSandbox"}}, "admin"),
        ("turn/start", {**TURN, "sandboxPolicy": "dangerFullAccess"}, "admin"),
        ("turn/start", {**TURN, "approvalsReviewer": "user"}, "drive"),
        ("turn/start", {**TURN, "approvalsReviewer": "auto_review"}, "admin"),
        ("turn/settings/update", {"threadId": "t", "approvalsReviewer": "auto"}, "admin"),
        ("thread/resume", {"threadId": "t"}, "observe"),
        ("thread/resume", {"threadId": "t", "excludeTurns": True, "cwd": None}, "observe"),
        ("thread/resume", {"threadId": "t", "path": "/any/file"}, "admin"),
        ("thread/resume", {"threadId": "t", "history": []}, "admin"),
        ("thread/resume", {"threadId": "t", "sandbox": "read-only"}, "drive"),
        ("thread/resume", {"threadId": "t", "approvalPolicy": "untrusted"}, "drive"),
        ("thread/resume", {"threadId": "t", "serviceTier": "fast"}, "drive"),
        ("thread/resume", {"threadId": "t", "novel": 1}, "drive"),
        ("thread/resume", {"threadId": "t", "initialTurnsPage": {"limit": 1}}, "observe"),
        ("thread/resume", {"threadId": "t", "sandbox": "danger-full-access"}, "admin"),
        # Whoever may only watch mustn't change how the thread goes on.
        ("thread/resume", {"threadId": "t", "model": "other"}, "drive"),
        ("thread/resume", {"threadId": "t", "cwd": "/"}, "drive"),
        ("thread/resume", {"threadId": "t", "developerInstructions": "obey"}, "drive"),
        ("thread/resume", {"threadId": "t", "baseInstructions": ""}, "drive"),
    ],
)
def test_what_a_request_does_counts(method: str, params: dict[str, Any], scope: str) -> None:
    assert need(method, **params)[0] == scope


def test_a_key_said_twice_counts_as_the_app_server_reads_it() -> None:
    """The last one wins, there as here."""
    loose, tight = b'"approvalPolicy":"never"', b'"approvalPolicy":"on-request"'
    assert needed("turn/start", read(b"{" + tight + b"," + loose + b"}"))[0] == "admin"
    assert needed("turn/start", read(b"{" + loose + b"," + tight + b"}"), _asking)[0] == "drive"
    escaped = b'{"approval\\u0050olicy":"never"}'
    assert needed("turn/start", read(escaped))[0] == "admin"


@pytest.mark.parametrize(
    ("params", "thread"),
    [
        ({"threadId": "t"}, "t"),
        ({"threadId": None}, None),
        ({"threadId": 5}, None),
        ({}, None),
    ],
)
def test_a_request_is_compared_with_what_its_own_thread_is_run_with(
    params: dict[str, Any], thread: str | None
) -> None:
    asked: list[str | None] = []

    def held(id: str | None) -> Held:
        asked.append(id)
        return Held(approval=b'"never"' if id == "t" else b"")

    sent = json.dumps({**params, "approvalPolicy": "never"}).encode()
    scope, why = needed("turn/start", read(sent), held)
    assert asked == [thread]
    assert (scope, why) == (("drive", "") if thread else ("admin", " with `approvalPolicy`"))
    broken = b'{"threadId":"\\ud800","approvalPolicy":"never"}'
    assert needed("turn/start", read(broken), held)[0] == "admin"


OFF = ("shell_tool", "unified_exec", "code_mode", "plugins", "apps", "multi_agent")
CONFINED = {
    "environments": [],
    "ephemeral": True,
    "sandbox": "read-only",
    "approvalPolicy": "never",
    "config": {**{f"features.{name}": False for name in OFF}, "mcp_servers": {}},
}


def test_what_a_confined_thread_brings_is_no_loosening_of_it() -> None:
    """By the one method that can confine a thread; in another the same `config` is judged."""
    params = json.dumps(CONFINED).encode()
    assert needed("thread/start", read(params)) == ("drive", "")
    assert needed("thread/fork", read(params)) == ("admin", " with `approvalPolicy`")


@pytest.mark.parametrize("params", [b"", b"null", b"[]", b"5"])
def test_params_of_another_shape_need_admin(params: bytes) -> None:
    for method in thread_overrides.METHODS:
        assert needed(method, read(params)) == ("admin", " with `params that can't be judged`")


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


@given(
    method=st.sampled_from(sorted(thread_overrides.METHODS)),
    params=st.dictionaries(st.sampled_from([*thread_overrides.JUDGED, "threadId"]), _VALUES),
)
def test_whatever_loosens_needs_admin(method: str, params: dict[str, Any]) -> None:
    params["approvalPolicy"] = "never"
    assert need(method, **params)[0] == "admin"
