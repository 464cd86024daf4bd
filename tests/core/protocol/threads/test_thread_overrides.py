"""`protocol.threads.thread_overrides`: whether a value is looser than the one that holds."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mux.core.protocol.threads.thread_overrides import (
    JUDGED,
    METHODS,
    Held,
    cwd_in,
    directories_in,
    environments_in,
    loosens,
    resolved,
    steers,
)

GRANULAR = {"granular": {"sandbox_approval": True, "rules": True, "mcp_elicitations": True}}
READS: dict[str, Any] = {"type": "readOnly", "networkAccess": False}
READS_NET: dict[str, Any] = {"type": "readOnly", "networkAccess": True}
WRITES: dict[str, Any] = {
    "type": "workspaceWrite",
    "writableRoots": ["/a", "/b"],
    "networkAccess": False,
    "excludeTmpdirEnvVar": False,
    "excludeSlashTmp": True,
}
ANYTHING: dict[str, Any] = {"type": "dangerFullAccess"}
OUTSIDE: dict[str, Any] = {"type": "externalSandbox", "networkAccess": "restricted"}


def text(value: Any) -> bytes:
    return json.dumps(value).encode()


def looser(name: str, value: Any, now: Any) -> bool:
    """Whether the value is looser than what holds; None for what isn't known."""
    kept = b"" if now is None else text(now)
    fields = {
        "approvalPolicy": Held(approval=kept),
        "sandboxPolicy": Held(sandbox=kept),
        "approvalsReviewer": Held(reviewer=kept),
        "sandbox": Held(mode=kept),
    }
    return loosens({name: text(value)}, fields[name]) == name


@pytest.mark.parametrize(
    ("value", "now", "is_looser"),
    [
        ("untrusted", None, False),
        ("on-request", None, True),
        ("never", None, True),
        ("on-request", "untrusted", True),
        ("untrusted", "on-request", False),
        ("on-request", "on-request", False),
        ("on-request", "never", False),
        ("never", "never", False),
        ("never", "on-request", True),
        ("novel", "never", True),
        ("novel", "novel", False),
        (GRANULAR, GRANULAR, False),
        (GRANULAR, "never", True),
        ({"granular": {**GRANULAR["granular"], "rules": False}}, GRANULAR, True),
        ("untrusted", GRANULAR, True),
        (5, 5, False),
        ([], "never", True),
    ],
)
def test_an_approval_policy(value: Any, now: Any, is_looser: bool) -> None:
    assert looser("approvalPolicy", value, now) is is_looser


@pytest.mark.parametrize(
    ("value", "now", "is_looser"),
    [
        (READS, None, False),
        ({"type": "readOnly"}, None, False),
        (READS_NET, None, True),
        (READS_NET, READS, True),
        (READS_NET, READS_NET, False),
        (READS_NET, {**WRITES, "networkAccess": True}, False),
        (READS_NET, ANYTHING, False),
        ({**READS, "networkAccess": "enabled"}, ANYTHING, True),
        ({**READS, "novel": False}, ANYTHING, True),
        (WRITES, None, True),
        (WRITES, READS, True),
        (WRITES, WRITES, False),
        (dict(reversed(WRITES.items())), WRITES, False),
        ({**WRITES, "writableRoots": ["/a"]}, WRITES, False),
        ({**WRITES, "writableRoots": ["/a", "/a/b"]}, WRITES, True),
        ({**WRITES, "writableRoots": "/a"}, WRITES, True),
        ({**WRITES, "networkAccess": True}, WRITES, True),
        ({**WRITES, "excludeTmpdirEnvVar": True}, WRITES, False),
        ({**WRITES, "excludeSlashTmp": False}, WRITES, True),
        (
            {name: value for name, value in WRITES.items() if name != "excludeSlashTmp"},
            WRITES,
            True,
        ),
        ({**WRITES, "novel": 1}, WRITES, True),
        ({"type": "workspaceWrite", "excludeSlashTmp": True}, WRITES, False),  # no roots at all
        ({"type": "workspaceWrite"}, READS, True),
        ({"type": "novel"}, WRITES, True),
        ({**WRITES, "writableRoots": []}, {"type": "workspaceWrite"}, False),
        ({"type": "workspaceWrite"}, {"type": "workspaceWrite", "writableRoots": "/a"}, True),
        ({**WRITES, "writableRoots": ["/a"]}, {"type": "workspaceWrite"}, True),
        ({**WRITES, "writableRoots": ["/a"]}, {**WRITES, "writableRoots": "/a"}, True),
        ({**WRITES, "writableRoots": ""}, WRITES, True),
        (WRITES, ANYTHING, True),
        (ANYTHING, ANYTHING, False),
        (ANYTHING, OUTSIDE, True),
        (OUTSIDE, OUTSIDE, False),
        ({**OUTSIDE, "networkAccess": "enabled"}, OUTSIDE, True),
        (OUTSIDE, ANYTHING, True),
        ("readOnly", ANYTHING, True),
        ({"type": "novel"}, ANYTHING, True),
    ],
)
def test_a_sandbox_policy(value: Any, now: Any, is_looser: bool) -> None:
    assert looser("sandboxPolicy", value, now) is is_looser


@pytest.mark.parametrize(
    ("value", "now", "is_looser"),
    [
        ("read-only", None, False),
        ("workspace-write", None, True),
        ("workspace-write", "read-only", True),
        ("workspace-write", "workspace-write", False),
        ("workspace-write", "danger-full-access", False),
        ("danger-full-access", "workspace-write", True),
        ("novel", "danger-full-access", True),
        ("novel", "novel", True),
    ],
)
def test_a_sandbox_to_be_loaded_with(value: Any, now: Any, is_looser: bool) -> None:
    assert looser("sandbox", value, now) is is_looser


def test_a_reviewer() -> None:
    assert not looser("approvalsReviewer", "user", None)
    assert looser("approvalsReviewer", "auto_review", "user")
    assert not looser("approvalsReviewer", "auto_review", "auto_review")


@given(name=st.sampled_from(sorted(JUDGED)), value=st.binary(max_size=20))
def test_what_is_no_json_never_passes(name: str, value: bytes) -> None:
    try:
        json.loads(value)
    except ValueError:
        assert loosens({name: value}, Held()) == name


def test_null_is_absence() -> None:
    assert not loosens(dict.fromkeys(JUDGED, b"null"), Held())
    assert steers(dict.fromkeys(("model", "cwd", "novel"), b"null")) == ""


def test_every_directory_is_named_as_it_was_resolved() -> None:
    places = {"/l": "/real", "/x": "/x", "rel": "/own/rel"}
    environment = {"environmentId": "local", "cwd": "rel", "runtimeWorkspaceRoots": ["/l", "/x"]}
    fields = {
        "cwd": text("/l"),
        "runtimeWorkspaceRoots": text(["/x", "rel"]),
        "environments": text([environment, {"environmentId": "local", "cwd": "/x"}]),
        "model": text("m"),
    }
    changed = {name: json.loads(each) for name, each in resolved(fields, places).items()}
    assert changed == {
        "cwd": "/real",
        "runtimeWorkspaceRoots": ["/x", "/own/rel"],
        "environments": [
            {
                "environmentId": "local",
                "cwd": "/own/rel",
                "runtimeWorkspaceRoots": ["/real", "/x"],
            },
            {"environmentId": "local", "cwd": "/x"},
        ],
        "model": "m",
    }


def test_every_directory_that_is_named_is_found() -> None:
    environment = {"environmentId": "local", "cwd": "/e", "runtimeWorkspaceRoots": ["/f", "/g"]}
    fields = {
        "cwd": text("/a"),
        "runtimeWorkspaceRoots": text(["/b", "/c"]),
        "environments": text([environment, {"environmentId": "local", "cwd": "/h"}]),
    }
    assert list(directories_in(fields)) == ["/a", "/b", "/c", "/e", "/f", "/g", "/h"]
    assert environments_in(fields) == json.loads(fields["environments"])
    for none in ({}, dict.fromkeys(fields, b"null")):
        assert cwd_in(none) is None
        assert environments_in(none) == []
        assert list(directories_in(none)) == []
    assert list(directories_in({"cwd": b'""'})) == [""]  # the app-server's own
    assert resolved({"cwd": b'""', "model": b'"m"'}, {"": "/own"}) == {
        "cwd": b'"/own"',
        "model": b'"m"',
    }


def test_what_is_resolved_already_stays_as_it_came() -> None:
    fields = {"cwd": b'"\\u002fx"', "environments": b"[ ]", "runtimeWorkspaceRoots": b"null"}
    assert resolved(fields, {"/x": "/x"}) == fields
    assert "thread/start" in METHODS


@pytest.mark.parametrize(
    ("value", "now", "is_looser"),
    [
        (":read-only", {"id": ":read-only", "extends": None}, False),
        (":read-only", {"id": "mine", "extends": ":read-only"}, True),  # it may hide files
        (":read-only", None, True),
        ("mine", {"id": "mine"}, True),
        ({"id": ":read-only"}, {"id": ":read-only"}, True),
    ],
)
def test_a_permission_profile(value: Any, now: Any, is_looser: bool) -> None:
    held = Held(profile=text(now))
    assert (loosens({"permissions": text(value)}, held) == "permissions") is is_looser
