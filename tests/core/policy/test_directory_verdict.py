"""`mux.core.policy.directory_verdict`: what is said of a request, field by field.

What it is for is told by `features/requests/test_directory_clearance`, as stories.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from mux.core.policy.directory_verdict import STATUS_OF_SERVERS, Facts, Verdict, verdict
from mux.core.protocol.threads.directories import Home, Host, ResolvedPath
from mux.core.protocol.threads.thread_overrides import Held

UNTRUSTED = {"trust_level": "untrusted"}
HOST = Host(projects={"/trusted": True, "/no": False, "/gone": True}, servers=("files",))
PLACES = {
    "": ResolvedPath("/own"),
    "/trusted": ResolvedPath("/trusted"),
    "/trusted/t": ResolvedPath("/trusted/t"),
    "/no": ResolvedPath("/no"),
    "/x": ResolvedPath("/x"),
    "/away": ResolvedPath("/away"),
    "/l": ResolvedPath("/l", listed=True, within=True),
    "/l/b": ResolvedPath("/l/b", within=True),
}


def judged(
    method: str, params: dict[str, Any], home: Home | None = None, held: Held | None = None
) -> Verdict:
    fields = {name: json.dumps(value).encode() for name, value in params.items()}
    return verdict(Facts(method, fields, held or Held(), HOST, home, PLACES))


def sent(told: Verdict) -> Any:
    assert told.params is not None
    assert told.refusal == ""
    return json.loads(told.params)


def refused(told: Verdict) -> str:
    assert told == Verdict(None, told.refusal)
    return told.refusal


def test_what_loosens_is_refused_by_its_name() -> None:
    told = judged("turn/start", {"approvalPolicy": "never"}, Home("/x"))
    assert refused(told) == "`turn/start` with `approvalPolicy` needs the scope `admin`"


def test_a_list_of_servers_is_refused_with_what_it_would_start() -> None:
    asked = {"threadId": "t"}
    assert judged(STATUS_OF_SERVERS, asked, Home("/l")) == Verdict(b'{"threadId":"t"}')
    needs = "`mcpServerStatus/list` with `threadId` needs the scope `admin`: it starts what"
    unlisted = "configures, which isn't in the setting `devices.directories`"
    for home, where in (
        (Home("/x"), "/x"),
        (Home("/l/b"), "/l/b"),
        (None, "the thread's directory"),
    ):
        assert refused(judged(STATUS_OF_SERVERS, asked, home)) == f"{needs} {where} {unlisted}"


@pytest.mark.parametrize(
    ("cwd", "distrusted", "directory", "read_only"),
    [
        ("/l", [], "", False),
        ("/l/b", ["/l/b", "/l", "/", "/trusted", "/gone"], "/l/b", False),
        ("/trusted/t", ["/trusted/t", "/trusted", "/", "/gone"], "/trusted/t", False),
        ("/x", ["/x", "/", "/trusted", "/gone"], "/x", True),
        ("/no", ["/no", "/", "/trusted", "/gone"], "/no", True),
        (None, ["/own", "/", "/trusted", "/gone"], "/own", True),
    ],
)
def test_where_a_thread_is_started(
    cwd: str | None, distrusted: list[str], directory: str, read_only: bool
) -> None:
    asked = {"model": "m"} if cwd is None else {"model": "m", "cwd": cwd}
    told = judged("thread/start", asked)
    assert (list(told.distrusted), told.directory, told.read_only) == (
        distrusted,
        directory,
        read_only,
    )
    more: dict[str, Any] = {"sandbox": "read-only"} if read_only else {}
    if distrusted:
        more["config"] = {"projects": dict.fromkeys(distrusted, UNTRUSTED)}
    assert sent(told) == asked | more


def test_a_profile_that_allows_no_more_stands_for_the_sandbox() -> None:
    held = Held(profile=b'{"id":":read-only"}')
    told = judged("thread/start", {"cwd": "/x", "permissions": ":read-only"}, held=held)
    assert told.read_only
    assert sent(told).keys() == {"cwd", "permissions", "config"}
    told = judged("thread/start", {"cwd": "/x", "permissions": None}, held=held)
    assert sent(told)["sandbox"] == "read-only"


@pytest.mark.parametrize(
    ("home", "directory"), [(None, ""), (Home("/l", here=False), ""), (Home("/l", ("/x",)), "/x")]
)
def test_a_thread_that_works_elsewhere_too_is_read_only(home: Home | None, directory: str) -> None:
    told = judged("thread/resume", {"threadId": "t"}, home)
    assert (told.directory, told.read_only) == (directory, True)
    assert {"/trusted", "/gone"} <= told.distrusted.keys()
    params = sent(told)
    assert params["sandbox"] == "read-only"
    assert params["config"]["projects"].keys() == told.distrusted.keys()


TOOLS = ("shell_tool", "unified_exec", "code_mode", "plugins", "apps", "multi_agent")
CONFINED = {
    "ephemeral": True,
    "sandbox": "read-only",
    "approvalPolicy": "never",
    "config": {**{f"features.{name}": False for name in TOOLS}, "mcp_servers": {}},
}


@pytest.mark.parametrize(
    ("cwd", "distrusted", "directory"),
    [
        ("/x", ["/x", "/", "/trusted", "/gone"], "/x"),
        ("/l", ["/l", "/", "/trusted", "/gone"], ""),
    ],
)
def test_one_that_can_do_nothing_writes_nothing(
    cwd: str, distrusted: list[str], directory: str
) -> None:
    fields = {name: json.dumps(each).encode() for name, each in CONFINED.items()}
    fields |= {"cwd": json.dumps(cwd).encode(), "environments": b"[]"}
    told = verdict(Facts("thread/start", fields, Held(), HOST, None, PLACES))
    assert told == Verdict(told.params, "", dict.fromkeys(distrusted), directory, read_only=True)
    assert told.read_only is True
    assert sent(told)["config"]["mcp_servers"] == {"files": {"enabled": False}}


@pytest.mark.parametrize(
    ("param", "params"),
    [
        ("cwd", {"cwd": "/x"}),
        ("cwd", {"cwd": "/trusted", "environments": [{"environmentId": "local", "cwd": "/x"}]}),
        ("environments", {"cwd": None, "environments": [{"environmentId": "local", "cwd": "/x"}]}),
        ("runtimeWorkspaceRoots", {"runtimeWorkspaceRoots": ["/away", "/x"]}),
    ],
)
def test_one_that_runs_is_sent_nowhere_else(param: str, params: dict[str, Any]) -> None:
    assert refused(judged("turn/start", params, Home("/away"))) == (
        f"`turn/start` with `{param}` needs the scope `admin`: /x is neither in the setting"
        " `devices.directories` nor in a directory that this host trusts"
    )
    assert judged("turn/start", {"cwd": "/x"}, None).params is None


@pytest.mark.parametrize(
    ("cwd", "distrusted"),
    [
        ("/l", ["/trusted", "/gone"]),
        ("/away", ["/away", "/", "/trusted", "/gone"]),
        ("/trusted", ["/trusted", "/", "/gone"]),
    ],
)
def test_one_that_runs_takes_nothing_from_where_it_is_sent(cwd: str, distrusted: list[str]) -> None:
    told = judged("turn/start", {"cwd": cwd}, Home("/away"))
    assert told == Verdict(told.params, "", dict.fromkeys(distrusted))
    assert sent(told) == {"cwd": cwd}
