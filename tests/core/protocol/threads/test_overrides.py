"""Overrides of a client's command line: their values, whom they hold for, what they add."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mux.core.protocol.envelope import client_message
from mux.core.protocol.threads.overrides import (
    LONGEST,
    Overrides,
    additions,
    completed,
    is_override,
    may_tighten,
    read_header,
    read_value,
)
from mux.core.protocol.threads.thread_overrides import read

ALL = frozenset({"admin", "approve", "drive", "observe"})
NET = "sandbox_workspace_write.network_access"
ROOTS = "sandbox_workspace_write.writable_roots"


def added(params: dict[str, Any], **values: object) -> dict[str, Any]:
    fields = read(json.dumps(params).encode())
    assert fields is not None
    given = {key.replace("__", "."): value for key, value in values.items()}
    return {name: json.loads(text) for name, text in additions(fields, given).items()}


@pytest.mark.parametrize(
    ("params", "values", "expected"),
    [
        ({}, {"approval_policy": "never"}, {"approvalPolicy": "never"}),
        ({"approvalPolicy": None}, {"approval_policy": "never"}, {"approvalPolicy": "never"}),
        ({"approvalPolicy": "on-request"}, {"approval_policy": "never"}, {}),
        ({"config": {"approval_policy": "on-request"}}, {"approval_policy": "never"}, {}),
        ({}, {"approvals_reviewer": "user"}, {"approvalsReviewer": "user"}),
        ({}, {"sandbox_mode": "read-only"}, {"sandbox": "read-only"}),
        ({"permissions": ":workspace"}, {"sandbox_mode": "read-only"}, {}),
        ({"sandbox": "read-only"}, {"default_permissions": "mine"}, {}),
        ({"config": {"sandbox_mode": "read-only"}}, {"default_permissions": "mine"}, {}),
        (
            {},
            {"sandbox_mode": "read-only", "default_permissions": "mine"},
            {"permissions": "mine"},
        ),
        ({}, {"sandbox_workspace_write__network_access": True}, {"config": {NET: True}}),
        (
            {"config": {"model": "x", NET: False}},
            {"sandbox_workspace_write__network_access": True},
            {},
        ),
        (
            {"config": {"sandbox_workspace_write": {"network_access": False}}},
            {
                "sandbox_workspace_write__network_access": True,
                "sandbox_workspace_write__writable_roots": ["/x"],
            },
            {
                "config": {
                    "sandbox_workspace_write": {"network_access": False, "writable_roots": ["/x"]}
                }
            },
        ),
        (
            {"config": {"model": "x"}},
            {"sandbox_workspace_write__writable_roots": ["/x"]},
            {"config": {"model": "x", ROOTS: ["/x"]}},
        ),
        ({"config": 7}, {"approval_policy": "never"}, {}),
    ],
)
def test_a_request_is_completed_where_it_says_nothing(
    params: dict[str, Any], values: dict[str, object], expected: dict[str, Any]
) -> None:
    assert added(params, **values) == expected


@pytest.mark.parametrize(
    ("method", "scopes", "completes"),
    [
        ("thread/start", ALL, True),
        ("thread/fork", ALL, True),
        ("thread/resume", ALL, True),
        ("thread/resume", frozenset({"observe"}), False),
        ("turn/start", ALL, False),
        ("thread/settings/update", ALL, False),
    ],
)
def test_which_requests_are_completed(method: str, scopes: frozenset[str], completes: bool) -> None:
    text = b'{"id":1,"method":"%b","params":{"threadId":"t","x":[1, 2]}}' % method.encode()
    message = client_message.read_client(text)
    after = completed(message, {"sandbox_mode": "read-only"}, scopes)
    if not completes:
        assert after is message
        return
    assert json.loads(after.params) == {"threadId": "t", "x": [1, 2], "sandbox": "read-only"}
    assert after.came == message.params


def test_without_admin_only_the_tightest_hold() -> None:
    said = Overrides(
        {
            "approval_policy": "untrusted",
            "sandbox_mode": "workspace-write",
            "default_permissions": ":read-only",
            NET: False,
        },
        ["-c model"],
    )
    assert said.within(ALL) is said
    held = said.within(frozenset({"drive"}))
    assert held.values == {"approval_policy": "untrusted"}
    assert held.ignored == ["-c model", "default_permissions", "sandbox_mode", NET]


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("approval_policy", "never", False),
        ("approval_policy", "on-request", True),
        ("approvals_reviewer", "user", True),
        ("approvals_reviewer", "auto_review", False),
        ("sandbox_mode", "danger-full-access", False),
        ("sandbox_mode", "workspace-write", True),
        ("default_permissions", ":workspace", True),
        (NET, True, False),
        (NET, False, True),
        (ROOTS, ["/x"], False),
        (ROOTS, [], True),
        ("sandbox_workspace_write.exclude_slash_tmp", True, True),
        ("sandbox_workspace_write.exclude_slash_tmp", False, False),
        ("sandbox_workspace_write.something_new", 1, True),
    ],
)
def test_what_may_be_stricter(key: str, value: object, expected: bool) -> None:
    assert may_tighten(key, value) is expected


def test_keys() -> None:
    assert is_override("approval_policy")
    assert is_override("sandbox_workspace_write")
    assert is_override(NET)
    assert not is_override("model")
    assert not is_override("sandbox_workspace_writer")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("approval_policy", "sometimes"),
        ("approval_policy", {"other": 1}),
        ("sandbox_mode", True),
        ("default_permissions", 7),
        (NET, "yes"),
        (ROOTS, "/x"),
        (ROOTS, [1]),
    ],
)
def test_values_that_are_none(key: str, value: object) -> None:
    with pytest.raises(ValueError, match=key):
        read_value(key, value)


def test_values() -> None:
    assert read_value("approval_policy", "on-failure") == "on-request"
    granular = {"granular": {"rules": True}}
    assert read_value("approval_policy", granular) == granular
    assert read_value(ROOTS, []) == []


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"[]",
        b"{",
        b'{"values":{"model":"x"}}',
        b'{"values":{"sandbox_workspace_write":{}}}',
        b'{"values":{"approval_policy":"x"}}',
        b'{"values":{},"ignored":[1]}',
        b'{"ignored":["' + b"x" * LONGEST + b'"]}',
        b'{"ignored":[' + b",".join([b'"x"'] * 65) + b"]}",
        b'{"values":{"approval_policy":' + b"[" * 4000 + b"}}",
    ],
)
def test_headers_that_are_none(header: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 (each has words of its own)
        read_header(header)


def test_a_header() -> None:
    read = read_header(b'{"values":{"approval_policy":"on-failure"},"ignored":["-m"]}')
    assert read == Overrides({"approval_policy": "on-request"}, ["-m"])
