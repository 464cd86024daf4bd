"""`mux.core.features.requests.directory_clearance`: requests that wait until it is known what their
directories are."""

from __future__ import annotations

import json
from hashlib import sha256
from typing import Any

import pytest

from mux.core.events import Resolved
from mux.core.policy.principal import Principal
from mux.core.protocol.envelope import jsonrpc
from mux.core.protocol.scope import Scope
from mux.core.protocol.threads.directories import ResolvedPath
from tests.core.paced import AWARE, EPOCH, PacedStory
from tests.core.stories import Json, Peer, Story
from tests.core.test_broker_followers import spawns

FORBIDDEN = -32003
UNTRUSTED = {"trust_level": "untrusted"}


def phone(*scopes: Scope) -> Principal:
    held: frozenset[Scope] = frozenset(scopes or ("drive", "observe"))
    return Principal("phone", "device", None, held, "d1")


def begun(*scopes: Scope) -> tuple[Story, Peer]:
    """A host that trusts `/trusted`, and a device."""
    story = Story.begun(burst=1000)
    story.host = {
        "projects": {"/trusted": {"trust_level": "trusted"}, "/no": UNTRUSTED},
        "sandbox_mode": "workspace-write",
    }
    story.homes = {"t": "/trusted/t", "away": "/away"}
    return story, story.peer("phone", phone(*scopes))


def distrusted(*directories: str) -> Json:
    return {"projects": dict.fromkeys(directories, UNTRUSTED)}


def forbidden(peer: Peer) -> str:
    """The one refusal that it was sent."""
    error = peer.only()["error"]
    assert error["code"] == FORBIDDEN
    assert error["data"]["needs"] == "admin"
    return str(error["message"])


# ── whose settings count ──────────────────────────────────────────────────────────────────────


def test_a_thread_goes_up_with_all_distrusted_that_codex_would_look_at() -> None:
    story, peer = begun()
    peer.asks("thread/start", {"cwd": "/trusted/a/b", "model": "m"})
    params = story.only("thread/start")["params"]
    distrust = distrusted("/trusted/a/b", "/trusted/a", "/trusted", "/")
    assert params == {"cwd": "/trusted/a/b", "model": "m", "config": distrust}


def test_elsewhere_it_is_read_only_too() -> None:
    story, peer = begun()
    for asked in ({"cwd": "/x"}, {"cwd": "/no/x"}, {"cwd": None}, {}, {"cwd": ""}):
        peer.asks("thread/start", asked)
        params = story.only("thread/start")["params"]
        assert params["sandbox"] == "read-only"
        where = asked.get("cwd") or "/own"
        assert {where, "/", "/trusted"} <= params["config"]["projects"].keys()
        assert params.get("cwd") == (where if asked.get("cwd") is not None else None)


def test_a_trusted_directory_is_found_by_what_it_is() -> None:
    story, peer = begun()
    story.places = {
        "/trusted": ResolvedPath("/real"),
        "/l": ResolvedPath("/real/in"),
        "/s": ResolvedPath("/shady"),
    }
    peer.asks("thread/start", {"cwd": "/l"})
    params = story.only("thread/start")["params"]
    assert params["cwd"] == "/real/in"
    assert "sandbox" not in params
    assert {"/real/in", "/real", "/trusted", "/"} == params["config"]["projects"].keys()
    peer.asks("thread/start", {"cwd": "/s"})
    assert story.only("thread/start")["params"]["sandbox"] == "read-only"


def test_a_listed_directory_goes_up_as_it_is() -> None:
    story, peer = begun()
    story.places = {
        "/l": ResolvedPath("/l", listed=True, within=True),
        "/l/b": ResolvedPath("/l/b", listed=False, within=True),
    }
    peer.asks("thread/start", {"cwd": "/l"})
    assert story.only("thread/start")["params"] == {"cwd": "/l"}
    assert not [each for each in story.records if each.kind == "directory/unlisted"]
    peer.asks("thread/start", {"cwd": "/l/b"})
    params = story.only("thread/start")["params"]
    assert params.keys() == {"cwd", "config"}


@pytest.mark.parametrize("method", ["thread/resume", "thread/fork"])
def test_a_thread_that_is_there_has_a_directory_of_its_own(method: str) -> None:
    story, peer = begun()
    peer.asks(method, {"threadId": "t"})
    distrust = distrusted("/trusted/t", "/trusted", "/")
    asked = story.only(method)
    assert asked["params"] == {"threadId": "t", "config": distrust}
    story.fails(asked)  # of one client one with all turns is asked for at a time
    peer.asks(method, {"threadId": "away", "cwd": "/trusted/x"})
    params = story.only(method)["params"]
    assert params["sandbox"] == "read-only"  # it may be loaded already, and stays where it is
    assert {"/away", "/trusted/x"} <= params["config"]["projects"].keys()


def test_of_a_thread_that_isnt_there_nothing_is_known() -> None:
    story, peer = begun("observe")
    peer.asks("thread/resume", {"threadId": "none"})
    params = story.only("thread/resume")["params"]
    assert params["config"] == distrusted("/trusted")
    assert params["sandbox"] == "read-only"


def test_an_environment_is_a_directory_too() -> None:
    story, peer = begun()
    for place, read_only in (("/trusted/e", False), ("/x", True)):
        here = {"environmentId": "local", "cwd": place, "runtimeWorkspaceRoots": ["/trusted/r"]}
        peer.asks("thread/start", {"cwd": "/trusted/a", "environments": [here]})
        params = story.only("thread/start")["params"]
        assert ("sandbox" in params) is read_only
        assert {place, "/trusted/r", "/trusted/a"} <= params["config"]["projects"].keys()


def test_who_may_do_all_passes_byte_for_byte() -> None:
    story, _ = begun()
    desk = story.peer("desk")
    for method, params in (
        ("thread/start", '{ "cwd":"/x/../y" ,"config":{}}'),
        ("thread/resume", '{"threadId" :"t"}'),
        ("turn/start", '{"threadId":"t", "cwd":"/", "input":[ ]}'),
    ):
        desk.says(f'{{"id":1,"method":"{method}","params":{params}}}')
        assert story.lines.pop().endswith(f'"params":{params}}}'.encode())


def test_the_audit_log_has_it_and_the_digest_of_what_came() -> None:
    story, peer = begun()
    peer.asks("thread/start", {"cwd": "/x"})
    (record,) = [each.fields for each in story.records if each.kind == "directory/unlisted"]
    assert record["directory"] == "/x"
    assert record["readOnly"] is True
    story.follows(peer, "t")
    params = '{"threadId":"t","cwd":"/trusted/x/../y","input":[]}'
    story.places = {"/trusted/x/../y": ResolvedPath("/trusted/y")}
    peer.says(f'{{"id":77,"method":"turn/start","params":{params}}}')
    assert story.only("turn/start")["params"]["cwd"] == "/trusted/y"
    (asked,) = [each.fields for each in story.records if each.kind == "turn/asked"]
    assert asked["digest"] == sha256(params.encode()).hexdigest()


def test_what_a_server_list_would_start_needs_admin() -> None:
    story, peer = begun("observe")
    peer.asks("mcpServerStatus/list", {"threadId": "t"})
    assert "devices.directories" in forbidden(peer)
    story.places = {"/trusted/t": ResolvedPath("/trusted/t", listed=True, within=True)}
    peer.asks("mcpServerStatus/list", {"threadId": "t"})
    peer.asks("mcpServerStatus/list", {})
    assert len(story.written("mcpServerStatus/list")) == 2
    peer.says('{"id":77,"method":"mcpServerStatus/list","params":["t"]}')
    assert peer.only()["error"]["code"] == jsonrpc.INVALID_REQUEST  # of anybody, by any method


# ── a thread that runs ────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("method", ["turn/start", "thread/settings/update", "turn/settings/update"])
def test_one_that_runs_is_sent_where_it_may_write(method: str) -> None:
    story, peer = begun()
    story.follows(peer, "away", cwd=None)
    for place, allowed in (
        ("/away", True),
        ("/away/below", True),
        ("/trusted/x", True),
        ("/", False),
        ("", False),  # the app-server's own, there as here
        ("/awayward", False),
        ("/no/x", False),
    ):
        here = {"environmentId": "local", "cwd": place}
        for asked in (
            {"cwd": place},
            {"environments": [here]},
            {"runtimeWorkspaceRoots": ["/away", place]},
        ):
            peer.asks(method, {"threadId": "away", "input": [], **asked})
            assert bool(story.written(method)) is allowed, asked
            if not allowed:
                assert "devices.directories" in forbidden(peer)
    peer.heard()


def test_where_it_is_already_nothing_is_looked_up() -> None:
    story, peer = begun()
    _loaded(story, peer, "t", cwd="/trusted/t")
    story.slow = True
    params = '{"threadId":"t", "cwd":"/trusted/t","input":[]}'
    peer.says(f'{{"id":77,"method":"turn/start","params":{params}}}')
    assert story.lines.pop().endswith(params.encode() + b"}")


def _loaded(story: Story, peer: Peer, thread: str, cwd: str, **result: Any) -> None:
    peer.asks("thread/resume", {"threadId": thread})
    told = {"thread": {"id": thread, "cwd": cwd}, **result}
    story.answers(story.written("thread/resume")[-1], told)
    peer.heard()


def test_what_holds_is_what_was_told_last() -> None:
    story, peer = begun()
    _loaded(
        story, peer, "t", "/trusted/t", approvalPolicy="untrusted", sandbox={"type": "readOnly"}
    )
    asked = {"threadId": "t", "input": [], "approvalPolicy": "on-request"}
    peer.asks("turn/start", asked)
    assert "approvalPolicy" in forbidden(peer)
    settings = {"cwd": "/trusted/t", "approvalPolicy": "on-request", "sandboxPolicy": {}}
    told = {"threadId": "t", "threadSettings": settings}
    story.notifies("thread/settings/updated", told)
    peer.heard()
    peer.asks("turn/start", asked)
    assert story.only("turn/start")["params"] == asked


def test_a_start_is_compared_with_what_the_host_says() -> None:
    story, peer = begun()
    story.host |= {"approval_policy": "untrusted", "sandbox_mode": "read-only"}
    for asked in ({"approvalPolicy": "on-request"}, {"sandbox": "workspace-write"}):
        peer.asks("thread/start", {"cwd": "/trusted", **asked})
        assert next(iter(asked)) in forbidden(peer)
    story.host |= {"approval_policy": "never", "sandbox_mode": "workspace-write"}
    peer.asks(
        "thread/start",
        {"cwd": "/trusted", "approvalPolicy": "never", "sandbox": "workspace-write"},
    )
    assert story.only("thread/start")["params"]["sandbox"] == "workspace-write"


def test_a_turn_that_waited_is_compared_once_more() -> None:
    """What was no looser when it was queued is, by what holds when its time comes."""
    story, _ = begun()
    peer = story.peer("aware", phone(), **AWARE)
    _loaded(story, peer, "t", "/trusted/t", approvalPolicy="on-request")
    story.begins_turn()
    queued = {"threadId": "t", "ifBusy": "queue"}
    peer.asks("turn/start", {**queued, "input": [1], "approvalPolicy": "on-request"})
    peer.asks("turn/start", {**queued, "input": [2], "approvalPolicy": "untrusted"})
    settings = {"cwd": "/trusted/t", "approvalPolicy": "untrusted"}
    story.notifies("thread/settings/updated", {"threadId": "t", "threadSettings": settings})
    story.ends_turn()
    assert [each["params"]["input"] for each in story.written("turn/start")] == [[2]]
    (record,) = [each.fields for each in story.records if each.kind == "turn/unqueued"]
    assert "approvalPolicy" in str(record["why"])


# ── the next life, and loading for a replay ───────────────────────────────────────────────────


def _next_life(story: Story) -> Json:
    """The app-server dies and comes back: the params by which a thread is loaded again."""
    story.exits()
    story.waits(1.0)
    story.written()
    story.starts(2)
    story.initialized()
    params: Json = story.only("thread/resume")["params"]
    return params


def test_the_next_life_has_the_override() -> None:
    story, peer = begun()
    story.creates(peer, "new", cwd="/trusted/a")
    story.begins_turn("new")
    story.ends_turn("new")
    story.written()
    params = _next_life(story)
    assert params["config"] == distrusted("/trusted/a", "/trusted", "/")
    assert params["cwd"] == "/trusted/a"


def test_one_of_the_desks_that_was_sent_elsewhere_takes_nothing_from_there() -> None:
    story, peer = begun()
    desk = story.peer("desk")
    config = {"projects": {"/z": {"trust_level": "trusted"}}, "model": "m"}
    story.follows(desk, "t", config=config)
    peer.asks("turn/start", {"threadId": "t", "cwd": "/trusted/t/b", "input": []})
    story.written()
    params = _next_life(story)
    added = distrusted("/trusted/t/b", "/trusted/t", "/trusted", "/")["projects"]
    assert params["config"] == {"model": "m", "projects": config["projects"] | added}


def test_a_replay_loads_as_its_asker_may() -> None:
    story = PacedStory.with_disk()
    story.homes = {"away": "/away"}
    story.host = {"projects": {"/trusted": {"trust_level": "trusted"}}}
    peer = story.peer("aware", phone("observe"), **AWARE)
    desk = story.peer("desk", **AWARE)
    cursor = {"epoch": EPOCH, "seq": 0}
    desk.asks("mux/replay", {"after": cursor, "threadId": "other"})
    assert story.only("thread/resume")["params"] == {"threadId": "other", "excludeTurns": True}
    id = peer.asks("mux/replay", {"after": cursor, "threadId": "away"})
    asked = story.only("thread/resume")
    assert asked["params"]["sandbox"] == "read-only"
    assert {"/away", "/trusted"} <= asked["params"]["config"]["projects"].keys()
    story.answers(asked, {"thread": {"id": "away"}})
    (answer,) = [each for each in peer.heard() if each.get("id") == id]
    assert answer["result"]["threads"] == ["away"]


# ── waiting ───────────────────────────────────────────────────────────────────────────────────


def test_what_names_the_same_thread_waits_behind_it_and_no_more() -> None:
    story, peer = begun()
    story.slow = True
    peer.asks("thread/resume", {"threadId": "t"})
    peer.asks("turn/start", {"threadId": "t", "input": []})
    peer.asks("thread/unsubscribe", {"threadId": "t"})
    peer.asks("turn/start", {"threadId": "other", "input": []})
    story.peer("desk").asks("turn/start", {"threadId": "t", "input": [1]})
    turns = [each["params"] for each in _but_known(story)]
    assert turns == [{"threadId": "other", "input": []}, {"threadId": "t", "input": [1]}]
    story.slow = False
    story.clear()
    methods = [each["method"] for each in _but_known(story)]
    assert methods == ["thread/resume", "turn/start"]
    assert [each["result"] for each in peer.heard()] == [{"status": "unsubscribed"}]


def _but_known(story: Story) -> list[Json]:
    """What was written, but for what the broker wants to know itself; that stays."""
    lines = [json.loads(line) for line in story.lines]
    story.lines = [line for line in story.lines if json.loads(line)["method"] in KNOWN]
    return [each for each in lines if each["method"] not in KNOWN]


KNOWN = {"config/read", "thread/read"}


def test_one_that_is_refused_lets_go_of_those_behind_it() -> None:
    story, peer = begun()
    story.slow = True
    first = peer.asks("turn/start", {"threadId": "away", "cwd": "/", "input": []})
    peer.asks("turn/start", {"threadId": "away", "cwd": "/away", "input": []})
    peer.asks("turn/start", {"threadId": "away", "input": [2]})
    story.slow = False
    story.clear()
    inputs = [each["params"]["input"] for each in story.written("turn/start")]
    assert inputs == [[], [2]]
    assert peer.only()["id"] == first


def test_a_path_that_cant_be_resolved_is_refused() -> None:
    story, peer = begun()
    story.slow = True
    peer.asks("thread/start", {"cwd": "/hangs"})
    for asked in story.written("config/read"):
        story.answers(asked, {"config": {}})
    (wanted,) = story.resolving
    story.resolving.clear()
    story.tell(Resolved(wanted.case, (None,)))
    assert "/hangs" in peer.only()["error"]["message"]
    assert not story.written()
    story.tell(Resolved(wanted.case, (None,)))  # it is known no more


def test_without_the_hosts_configuration_nothing_is_loaded() -> None:
    story, peer = begun()
    story.slow = True
    peer.asks("thread/start", {"cwd": "/x"})
    story.fails(story.only("config/read"))
    assert "configuration" in peer.only()["error"]["message"]
    assert not story.written()


def test_an_app_server_that_dies_meanwhile_is_asked_anew_when_it_is_back() -> None:
    story, peer = begun()
    story.slow = True
    peer.asks("thread/resume", {"threadId": "t"})
    assert len(story.written()) == 2
    story.exits()
    peer.asks("thread/start", {"cwd": "/trusted"})
    assert not story.written()
    story.waits(1.0)
    story.slow = False
    story.starts(2)
    story.initialized()
    assert [each["method"] for each in _but_known(story)][-2:] == ["thread/resume", "thread/start"]
    assert not peer.heard("error")


def test_one_that_stays_away_is_told_of() -> None:
    story, peer = begun()
    story.slow = True
    peer.asks("thread/start", {"cwd": "/x"})
    for _ in range(5):
        story.exits()
    error = peer.only()["error"]
    assert error["code"] == -32010
    assert error["data"]["retryable"] is True
    peer.asks("thread/start", {"cwd": "/x"})
    assert peer.only()["error"]["code"] == -32010


def test_one_that_comes_up_too_slowly_is_told_of() -> None:
    story, peer = begun()
    story.slow = True
    story.exits()
    peer.asks("thread/start", {"cwd": "/x"})
    story.waits(story.limits.coming_up + 1)
    assert peer.only()["error"]["code"] == -32010


def test_who_leaves_takes_it_along() -> None:
    story, peer = begun()
    story.slow = True
    peer.asks("thread/resume", {"threadId": "t"})
    peer.asks("turn/start", {"threadId": "t", "input": []})
    peer.leaves()
    story.slow = False
    story.clear()
    assert not story.written()
    assert not story.broker.state.threads.joining["t"]


def test_more_than_may_queue_is_refused() -> None:
    story = Story.begun(queued_per_client=3)
    peer = story.peer("phone", phone())
    story.slow = True
    peer.asks("thread/resume", {"threadId": "t"})
    for n in range(4):
        peer.asks("turn/start", {"threadId": "t", "input": [n]})
    for _ in range(4):
        peer.asks("thread/start", {})
    assert {each["error"]["code"] for each in peer.heard()} == {-32001}
    assert len(story.written("config/read")) == 3


def test_a_sub_agent_that_is_loaded_again_for_a_device_takes_nothing_from_its_directory() -> None:
    story, peer = begun("observe")
    desk = story.peer("desk")
    story.follows(desk, "t")
    spawns(story, "t", "away")
    desk.leaves()
    for asked in story.written("thread/unsubscribe"):
        story.answers(asked, {"status": "unsubscribed"})
    peer.asks("thread/resume", {"threadId": "t"})
    story.answers(story.only("thread/resume"), {"thread": {"id": "t"}})
    loaded = story.only("thread/resume")["params"]
    assert loaded["threadId"] == "away"
    assert loaded["config"]["projects"]["/away"] == UNTRUSTED


# ── a thread that can do nothing ──────────────────────────────────────────────────────────────

OFF: Json = {
    **dict.fromkeys((f"features.{name}" for name in ("apps", "code_mode", "hooks")), False),
    **dict.fromkeys((f"features.{name}" for name in ("plugins", "shell_tool")), False),
    **dict.fromkeys((f"features.{name}" for name in ("multi_agent", "unified_exec")), False),
    "mcp_servers": {},
    "web_search": "disabled",
}

TITLES: Json = {
    "cwd": "/trusted",
    "runtimeWorkspaceRoots": [],
    "approvalPolicy": "never",
    "sandbox": None,
    "permissions": ":read-only",
    "config": OFF,
    "ephemeral": True,
    "environments": [],
}


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"cwd": "/away"},
        {"cwd": "/listed"},
        {"approvalPolicy": None},
        {"permissions": None, "sandbox": "read-only"},
        {"config": OFF | {"default_permissions": ":read-only"}},
        {"config": OFF | {"mcp_servers": {"mine": {"enabled": False}}}},
    ],
)
def test_one_that_can_do_nothing_keeps_its_config_and_gets_no_servers(more: Json) -> None:
    story, peer = begun()
    story.places = {"/listed": ResolvedPath("/listed", listed=True, within=True)}
    story.host |= {"approval_policy": "untrusted", "mcp_servers": {"files": {"command": "x"}}}
    asked = TITLES | more
    peer.asks("thread/start", asked)
    params = story.only("thread/start")["params"]
    projects = params["config"].pop("projects")
    assert projects[asked["cwd"]] == UNTRUSTED == projects["/trusted"]
    assert params["config"].pop("mcp_servers") == {"files": {"enabled": False}}
    assert params["config"] == {k: v for k, v in asked["config"].items() if k != "mcp_servers"}
    assert params | {"config": asked["config"]} == asked


@pytest.mark.parametrize(
    "more",
    [
        {"ephemeral": False},
        {"environments": [{"environmentId": "local", "cwd": "/trusted"}]},
        {"environments": None},
        {"permissions": ":workspace"},
        {"permissions": "mine"},
        {"permissions": None, "sandbox": "workspace-write"},
        {"permissions": None, "sandbox": None},
        {"dynamicTools": [{"name": "x"}]},
        {"selectedCapabilityRoots": [{"id": "x"}]},
        {"config": {name: value for name, value in OFF.items() if "shell_tool" not in name}},
        {"config": {name: value for name, value in OFF.items() if name != "mcp_servers"}},
        {"config": OFF | {"features.shell_tool": True}},
        {"config": OFF | {"mcp_servers": {"x": {"command": "/x"}}}},
        {"config": OFF | {"novel": False}},
        {"config": {}},
        {"config": 5},
    ],
)
def test_one_that_can_do_more_is_compared_as_any(more: Json) -> None:
    _, peer = begun()
    peer.asks("thread/start", TITLES | more)
    forbidden(peer)


def test_what_holds_for_it_is_loosened_by_no_turn() -> None:
    story, peer = begun()
    asked = peer.asks("thread/start", TITLES)
    held = {"approvalPolicy": "never", "sandbox": {"type": "readOnly", "networkAccess": False}}
    held["activePermissionProfile"] = {"id": ":read-only", "extends": None}
    thread = {"id": "title", "ephemeral": True, "cwd": "/trusted"}
    story.answers(story.only("thread/start"), {"thread": thread, "cwd": "/trusted", **held})
    assert [each["id"] for each in peer.heard() if "result" in each] == [asked]
    turn = {"threadId": "title", "input": []}
    for more in ({"sandboxPolicy": {"type": "workspaceWrite"}}, {"permissions": ":workspace"}):
        peer.asks("turn/start", {**turn, **more})
        forbidden(peer)
    peer.asks("turn/start", {**turn, "permissions": ":read-only"})
    assert story.only("turn/start")["params"]["permissions"] == ":read-only"
