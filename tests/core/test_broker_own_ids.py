"""Stories of what belongs to one client: watches, processes, searches, event streams."""

from __future__ import annotations

import pytest

from tests.core.stories import Json, Peer, Story

BEGINNINGS = [
    ("fs/watch", "watchId", {"path": "/x"}, "fs/unwatch"),
    ("command/exec", "processId", {"command": ["ls"]}, "command/exec/terminate"),
    ("process/spawn", "processHandle", {"command": ["ls"]}, "process/kill"),
    ("fuzzyFileSearch/sessionStart", "sessionId", {"roots": []}, "fuzzyFileSearch/sessionStop"),
    ("mcpServer/event/stream/start", "subscriptionId", {}, "mcpServer/event/stream/stop"),
]
USES = [
    ("fs/unwatch", "watchId"),
    ("command/exec/write", "processId"),
    ("command/exec/resize", "processId"),
    ("command/exec/terminate", "processId"),
    ("process/writeStdin", "processHandle"),
    ("process/resizePty", "processHandle"),
    ("process/kill", "processHandle"),
    ("fuzzyFileSearch", "cancellationToken"),
    ("fuzzyFileSearch/sessionUpdate", "sessionId"),
    ("fuzzyFileSearch/sessionStop", "sessionId"),
    ("mcpServer/event/stream/stop", "subscriptionId"),
]
NOTIFICATIONS = [
    ("fs/watch", "fs/changed", "watchId"),
    ("command/exec", "command/exec/outputDelta", "processId"),
    ("process/spawn", "process/outputDelta", "processHandle"),
    ("process/spawn", "process/exited", "processHandle"),
    ("fuzzyFileSearch/sessionStart", "fuzzyFileSearch/sessionUpdated", "sessionId"),
    ("fuzzyFileSearch/sessionStart", "fuzzyFileSearch/sessionCompleted", "sessionId"),
    ("mcpServer/event/stream/start", "mcpServer/event/stream/notification", "subscriptionId"),
]
OWN = ["w1", "", "1:w1", ":", 'é\n"quoted"', "~1"]


def begins(
    story: Story, peer: Peer, method: str, field: str, own: str = "w1", **params: object
) -> Json:
    """The client begins something, with an answer; returns what was written upstream."""
    peer.asks(method, {field: own, **params})
    asked = story.only(method)
    if method != "command/exec":  # that one is answered when it ends
        story.answers(asked)
        peer.heard()
    return asked


@pytest.mark.parametrize(("method", "field", "params", "_end"), BEGINNINGS)
def test_two_clients_may_use_the_same_id(method: str, field: str, params: Json, _end: str) -> None:
    story = Story.begun()
    a, b = story.peer("a"), story.peer("b")
    for_a = begins(story, a, method, field, **params)
    for_b = begins(story, b, method, field, **params)
    assert for_a["params"][field] != for_b["params"][field]
    for asked in (for_a, for_b):
        assert {name: asked["params"][name] for name in params} == params


@pytest.mark.parametrize(("method", "field"), USES)
def test_an_id_that_is_used_is_the_one_that_was_begun(method: str, field: str) -> None:
    story = Story.begun()
    a, b = story.peer("a"), story.peer("b")
    begun = {row[1]: row for row in BEGINNINGS}.get(field)
    wires = set()
    for peer in (a, b):
        first = None
        if begun is not None:
            first = begins(story, peer, begun[0], field)["params"][field]
        peer.asks(method, {field: "w1", "x": 1})
        used = story.only(method)
        assert used["params"]["x"] == 1
        assert first in (None, used["params"][field])
        wires.add(used["params"][field])
    assert len(wires) == 2


@pytest.mark.parametrize(("begin", "method", "field"), NOTIFICATIONS)
@pytest.mark.parametrize("own", OWN)
def test_each_sees_only_its_own_under_its_own_id(
    begin: str, method: str, field: str, own: str
) -> None:
    story = Story.begun()
    a, b = story.peer("a"), story.peer("b")
    for peer in (a, b):
        wire = begins(story, peer, begin, field, own)["params"][field]
        peer.heard()
        story.notifies(method, {field: wire, "for": peer.id})
    for peer in (a, b):
        message = peer.only()
        assert message["params"] == {field: own, "for": peer.id}
        assert message["emittedAtMs"]


def test_opt_outs_hold_for_them_too() -> None:
    story = Story.begun()
    a = story.peer(optOutNotificationMethods=["fs/changed"])
    wire = begins(story, a, "fs/watch", "watchId")["params"]["watchId"]
    story.notifies("fs/changed", {"watchId": wire})
    assert a.heard() == []


@pytest.mark.parametrize("wire", ["w1", "", ":w1", "x:w1", "-1:w1", "99:w1", "²:w1", 5, None])
def test_a_notification_about_an_id_of_nobody_goes_to_nobody(wire: object) -> None:
    story = Story.begun()
    a = story.peer()
    story.notifies("fs/changed", {"watchId": wire})
    story.notifies("fs/changed", [])
    assert a.heard() == []


@pytest.mark.parametrize(("method", "field", "params", "end"), BEGINNINGS)
def test_what_a_client_left_running_is_ended(
    method: str, field: str, params: Json, end: str
) -> None:
    story = Story.begun()
    a, b = story.peer("a"), story.peer("b")
    wire = begins(story, a, method, field, **params)["params"][field]
    begins(story, b, method, field, **params)
    a.leaves()
    ended = story.only()
    assert (ended["method"], ended["params"]) == (end, {field: wire})
    story.answers(ended)
    assert b.heard() == []


@pytest.mark.parametrize(("method", "field", "params", "end"), BEGINNINGS)
def test_it_is_ended_too_if_its_client_leaves_before_the_answer(
    method: str, field: str, params: Json, end: str
) -> None:
    story = Story.begun()
    a = story.peer()
    a.asks(method, {field: "w1", **params})
    asked = story.only()
    a.leaves()
    assert story.only(end)["params"] == {field: asked["params"][field]}


@pytest.mark.parametrize(("method", "field", "params", "end"), BEGINNINGS)
def test_what_never_began_is_not_ended(method: str, field: str, params: Json, end: str) -> None:
    story = Story.begun()
    a = story.peer()
    a.asks(method, {field: "w1", **params})
    story.fails(story.only())
    a.leaves()
    assert story.written() == []


@pytest.mark.parametrize(
    ("begin", "field", "end"),
    [
        ("fs/watch", "watchId", "fs/unwatch"),
        ("fuzzyFileSearch/sessionStart", "sessionId", "fuzzyFileSearch/sessionStop"),
        ("mcpServer/event/stream/start", "subscriptionId", "mcpServer/event/stream/stop"),
    ],
)
def test_what_its_client_ended_is_not_ended_again(begin: str, field: str, end: str) -> None:
    story = Story.begun()
    a = story.peer()
    begins(story, a, begin, field)
    a.asks(end, {field: "w1"})
    story.answers(story.only(end))
    a.leaves()
    assert story.written() == []


def test_a_process_that_ended_by_itself_is_not_ended_again() -> None:
    story = Story.begun()
    a = story.peer()
    spawned = begins(story, a, "process/spawn", "processHandle")
    story.notifies("process/exited", {"processHandle": spawned["params"]["processHandle"]})
    executed = begins(story, a, "command/exec", "processId")
    story.answers(executed, {"exitCode": 0})
    a.leaves()
    assert story.written() == []


def test_an_end_that_never_went_upstream_is_made_up_for() -> None:
    story = Story.begun(in_flight_per_client=1)
    a = story.peer()
    watched = begins(story, a, "fs/watch", "watchId")
    a.asks("x/y")
    a.asks("fs/unwatch", {"watchId": "w1"})
    assert [each["method"] for each in story.written()] == ["x/y"]
    a.leaves()
    assert story.only("fs/unwatch")["params"] == watched["params"]


def test_an_end_that_was_refused_for_overload_is_made_up_for() -> None:
    story = Story.begun(in_flight_per_client=1, queued_per_client=1)
    a = story.peer()
    watched = begins(story, a, "fs/watch", "watchId")
    for _ in range(2):
        a.asks("x/y")
    id = a.asks("fs/unwatch", {"watchId": "w1"})
    assert [each["id"] for each in a.heard() if each["error"]["code"] == -32001] == [id]
    story.written()
    a.leaves()
    assert story.only("fs/unwatch")["params"] == watched["params"]


@pytest.mark.parametrize("null", [True, False])
def test_a_command_without_an_id_gets_one_and_is_ended(null: bool) -> None:
    story = Story.begun()
    a, b = story.peer("a"), story.peer("b")
    wires = []
    for peer in (a, a, b):
        peer.asks("command/exec", {"command": ["sleep"]} | ({"processId": None} if null else {}))
        asked = story.only("command/exec")
        assert asked["params"]["command"] == ["sleep"]
        wires.append(asked["params"]["processId"])
    assert len(set(wires)) == 3
    a.leaves()
    ended = story.written("command/exec/terminate")
    assert sorted(each["params"]["processId"] for each in ended) == sorted(wires[:2])


def test_a_made_up_id_is_shown_to_nobody() -> None:
    story = Story.begun()
    a = story.peer()
    id = a.asks("command/exec", {"command": ["ls"]})
    asked = story.only()
    story.answers(asked, {"exitCode": 0, "stdout": "x", "stderr": ""})
    assert a.only() == {"id": id, "result": {"exitCode": 0, "stdout": "x", "stderr": ""}}
    a.leaves()
    assert story.written() == []


@pytest.mark.parametrize("flag", ["tty", "streamStdoutStderr"])
def test_a_command_that_needs_an_id_of_its_clients_own_gets_the_native_error(flag: str) -> None:
    story = Story.begun()
    a = story.peer()
    a.asks("command/exec", {"command": ["ls"], flag: True})
    asked = story.only()
    assert asked["params"] == {"command": ["ls"], flag: True}
    text = "command/exec tty or streaming requires a client-supplied processId"
    story.fails(asked, message=text)
    assert a.only()["error"]["message"] == text


@pytest.mark.parametrize(
    ("method", "field", "text"),
    [
        ("fs/watch", "watchId", "watchId already exists: {}"),
        ("command/exec", "processId", 'duplicate active command/exec process id: "{}"'),
        ("process/spawn", "processHandle", 'duplicate active process handle: "{}"'),
        ("command/exec/write", "processId", 'no active command/exec for process id "{}"'),
        ("command/exec/terminate", "processId", 'no active command/exec for process id "{}"'),
        ("process/kill", "processHandle", 'no active process for process handle "{}"'),
        ("fuzzyFileSearch/sessionUpdate", "sessionId", "fuzzy file search session not found: {}"),
    ],
)
@pytest.mark.parametrize("first", [True, False])
def test_errors_quote_the_clients_own_id(method: str, field: str, text: str, first: bool) -> None:
    story = Story.begun()
    a = story.peer()
    if not first and method in {row[0] for row in BEGINNINGS}:
        begins(story, a, method, field, "p1")
    a.asks(method, {field: "p1"})
    asked = story.only(method)
    story.fails(asked, message=text.format(asked["params"][field]))
    assert a.only()["error"]["message"] == text.format("p1")


def test_a_second_start_that_was_refused_does_not_end_the_first() -> None:
    story = Story.begun()
    a = story.peer()
    first = begins(story, a, "fs/watch", "watchId")
    a.asks("fs/watch", {"watchId": "w1"})
    story.fails(story.only())
    a.heard()
    story.notifies("fs/changed", {"watchId": first["params"]["watchId"]})
    assert a.only()["params"]["watchId"] == "w1"
    a.leaves()
    assert story.only("fs/unwatch")["params"] == first["params"]


@pytest.mark.parametrize("params", [None, 5, {}, {"watchId": 5}, {"watchId": None}])
def test_params_of_another_shape_are_the_app_servers_to_refuse(params: object) -> None:
    story = Story.begun()
    a = story.peer()
    a.says_json({"id": 1, "method": "fs/watch", "params": params})
    asked = story.only()
    assert asked["params"] == params
    story.fails(asked, message="invalid")
    assert a.only()["error"]["message"] == "invalid"
    a.leaves()
    assert story.written() == []


def test_an_id_with_a_colon_is_one_id() -> None:
    story = Story.begun()
    a, b = story.peer("a"), story.peer("b")
    for peer in (a, b):
        begins(story, peer, "fs/watch", "watchId", "9:x")
    assert (a.id, b.id) == (1, 2)
    for_other = begins(story, a, "fs/watch", "watchId", "2:9:x")
    story.notifies("fs/changed", {"watchId": for_other["params"]["watchId"]})
    assert a.only()["params"]["watchId"] == "2:9:x"
    assert b.heard() == []


def test_however_much_a_client_left_running_all_of_it_is_ended() -> None:
    story = Story.begun()
    a = story.peer()
    count = story.limits.queued_per_client + story.limits.in_flight + 10
    for at in range(count):
        begins(story, a, "fs/watch", "watchId", f"w{at}")
    a.leaves()
    ended = 0
    while asked := story.written("fs/unwatch"):
        ended += len(asked)
        for each in asked:
            story.answers(each)
    assert ended == count


@pytest.mark.parametrize("ran_before", [True, False])
@pytest.mark.parametrize("crossed", [False, True])
def test_what_is_ended_and_begun_again_in_one_breath_is_ended_at_last(
    ran_before: bool, crossed: bool
) -> None:
    story = Story.begun()
    a = story.peer()
    if ran_before:
        begins(story, a, "fs/watch", "watchId")
    a.asks("fs/unwatch", {"watchId": "w1"})
    a.asks("fs/watch", {"watchId": "w1", "path": "/x"})
    ended, begun = story.written()
    for asked in (begun, ended) if crossed else (ended, begun):
        story.answers(asked)
    a.leaves()
    assert story.only("fs/unwatch")["params"] == ended["params"]


def test_a_second_beginning_that_was_never_sent_does_not_hide_the_first() -> None:
    story = Story.begun(in_flight_per_client=1)
    a = story.peer()
    a.asks("fs/watch", {"watchId": "w1"})
    first = story.only()
    a.asks("fs/unwatch", {"watchId": "w1"})
    a.asks("fs/watch", {"watchId": "w1"})
    a.leaves()
    story.answers(first)
    assert story.only("fs/unwatch")["params"] == first["params"]


def test_what_is_begun_again_for_one_that_left_is_not_begun() -> None:
    story = Story.begun()
    a = story.peer()
    begins(story, a, "fs/watch", "watchId")
    story.exits()
    story.starts(2)
    story.initialized()
    story.fails(story.only("fs/watch"), -32001, "Server overloaded; retry later.")
    a.leaves()
    for asked in story.written("fs/unwatch"):
        story.answers(asked)
    story.waits(20)
    ends = [each["method"] for each in story.written() if each["method"].startswith("fs/")]
    assert ends in ([], ["fs/watch", "fs/unwatch"])
