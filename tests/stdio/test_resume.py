"""What the stdio door remembers: stories of a connection, its loss, and the next one."""

from __future__ import annotations

import json
from typing import Any, Final

import pytest

from mux.stdio.rejoin import ClientSession, ReturnError

NOW: Final = 1000.0
FIRST: Final = {"epoch": "e", "seq": 10, "began": 10, "generation": 1, "version": 1}
AGAIN: Final = FIRST | {"seq": 500, "began": 400}
"""Another broker, with the first one's journal."""

ELSEWHERE: Final = AGAIN | {"epoch": "f"}
"""Another broker, without it."""

Json = dict[str, Any]


class Story:
    """A client, the door's memory, and a broker that says what the test wants."""

    def __init__(self, *, numbers: bool = True, **capabilities: Any) -> None:
        self.session = ClientSession(numbers=numbers)
        self.capabilities = capabilities
        self.told: list[Json] = []
        self.ids = 0

    def says(self, method: str, params: Any = None, id: Any = None) -> Json:
        """The client asks; the line that goes on to the broker."""
        self.ids += 1
        message = {"id": id or self.ids, "method": method, "params": params or {}}
        return self.passes(message)

    def passes(self, message: Json) -> Json:
        return json.loads(self.session.state.from_client(json.dumps(message).encode()))  # type: ignore[no-any-return]

    def hears(self, message: Json) -> list[Json]:
        """The broker says something; what of it the client gets."""
        lines = self.session.from_broker(json.dumps(message, separators=(",", ":")).encode())
        got = [json.loads(line) for line in lines]
        self.told += got
        return got

    def answers(self, asked: Json, result: Any = None, error: Any = None) -> list[Json]:
        body = {"error": error} if error else {"result": result or {}}
        return self.hears({"id": asked["id"], **body})

    def greets(self, life: Json | None = FIRST) -> None:
        info = {"clientInfo": {"name": "c", "version": "1"}, "capabilities": self.capabilities}
        asked = self.says("initialize", info)
        self.answers(asked, {"userAgent": "x"} | ({"appmux": life} if life else {}))
        self.passes({"method": "initialized"})

    def follows(self, thread: str, method: str = "thread/start", **params: Any) -> None:
        self.answers(self.says(method, params), {"thread": {"id": thread}})

    def notifies(self, method: str, seq: int = 0, **params: Any) -> list[Json]:
        number = {"seq": seq} if seq else {}
        return self.hears({**number, "method": method, "params": params})

    def loses(self, **how: Any) -> list[Json]:
        lines = [json.loads(line) for line in self.session.lost("the broker is gone", **how)]
        self.told += lines
        return lines

    def own(self) -> list[Json]:
        """What the door has to say to the broker itself."""
        lines, self.session.to_broker = self.session.to_broker, []
        return [json.loads(line) for line in lines]

    def returns(self, life: Json | None) -> list[Json]:
        """Another connection, up to the answer to `initialize`; what the door asks then."""
        self.session.back(NOW)
        (hello,) = self.own()
        assert hello["method"] == "initialize"
        self.answers(hello, {"userAgent": "y"} | ({"appmux": life} if life else {}))
        return self.own()

    def loads(self, asked: list[Json], *lost: str) -> Json:
        """The threads are loaded, but for those; the replay that is asked for then."""
        for each in asked:
            if each.get("method") == "thread/resume":
                fails = each["params"]["threadId"] in lost
                got = self.answers(each, {"thread": {}}, {"code": -1} if fails else None)
                assert got == []
        (*_, replay) = self.own()
        assert replay["method"] == "mux/replay"
        return replay

    def replays(self, replay: Json, *, complete: bool = True, missing: Any = ()) -> list[Json]:
        return self.answers(replay, {"complete": complete, "missing": list(missing)})

    def fences(self) -> list[Json]:
        """All that was asked before is said: what the client gets then."""
        (fence,) = self.own()
        return self.answers(fence)


def followed(*threads: str, **capabilities: Any) -> Story:
    story = Story(**capabilities)
    story.greets()
    for thread in threads:
        story.follows(thread)
    return story


def methods(messages: list[Json]) -> list[str]:
    return [each["method"] for each in messages]


# ── as long as it lasts ───────────────────────────────────────────────────────────────────────


def test_the_client_s_own_words_with_one_more_extension() -> None:
    story = Story()
    params = {"clientInfo": {"name": "c"}, "capabilities": {"extensions": {"x": 1}, "y": [2]}}
    said = story.says("initialize", params)
    assert said["params"]["capabilities"] == {
        "extensions": {"x": 1, "appmux": {"version": 1, "relay": True}},
        "y": [2],
    }
    (answer,) = story.answers(said, {"userAgent": "u", "appmux": FIRST, "z": 1})
    assert answer["result"] == {"userAgent": "u", "z": 1}


@pytest.mark.parametrize("params", [None, [], "x", 5])
def test_an_initialize_that_is_none_is_the_broker_s_to_refuse(params: Any) -> None:
    story = Story()
    message = {"id": 1, "method": "initialize", "params": params}
    assert story.passes(message) == message
    (answer,) = story.answers(message, error={"code": -32600})
    assert answer["error"] == {"code": -32600}


def test_numbers_come_off_and_the_rest_is_as_it_came() -> None:
    story = followed("t")
    line = b'{"method":"x/y","params":{"threadId":"t", "seq":1 }, "trace":null}'
    assert story.session.from_broker(b'{"seq":12,' + line[1:]) == [line]
    assert story.session.from_broker(b'{"seq":12,"cursor":14,' + line[1:]) == [line]
    assert story.session.from_broker(line) == [line]
    assert story.session.from_broker(b"no json") == [b"no json"]


def test_who_knows_the_broker_gets_all() -> None:
    story = followed("t", extensions={"appmux": {"version": 1}})
    assert "appmux" in story.told[0]["result"]
    (told,) = story.notifies("x", seq=12, threadId="t")
    assert told["seq"] == 12
    assert methods(story.notifies("mux/presence")) == ["mux/presence"]


# ── lost, and back on the same journal ────────────────────────────────────────────────────────


def test_what_was_in_flight_is_answered_with_an_error() -> None:
    story = followed()
    story.says("thread/list", id="reads")
    story.says("turn/start", {"threadId": "t"}, id=0.5)  # no id: the broker refuses it
    story.says("turn/start", {"threadId": "t"}, id="works")
    lost = {each["id"]: each["error"] for each in story.loses()}
    assert lost.keys() == {"reads", "works"}
    assert [lost[id]["data"]["retryable"] for id in ("reads", "works")] == [True, False]
    assert {each["code"] for each in lost.values()} == {-32010}
    assert lost["works"]["message"] == "the broker is gone before it answered `turn/start`"
    assert not story.session.live
    assert story.loses() == []


def test_an_initialize_in_flight_is_asked_again() -> None:
    story = Story()
    said = story.says("initialize", {"clientInfo": {"name": "c", "version": "1"}})
    story.passes({"method": "initialized"})
    assert story.loses() == []
    story.session.back(NOW)
    assert story.own() == [said, {"method": "initialized"}]
    assert story.session.live
    assert len(story.answers(said, {"appmux": FIRST})) == 1


def test_threads_are_loaded_as_they_were_and_read_on_from_the_cursor() -> None:
    story = followed("gone")
    story.follows("t", sandbox="read-only", model="m", dynamicTools=[])
    story.answers(story.says("thread/unsubscribe", {"threadId": "gone"}))
    story.notifies("item/started", seq=20, threadId="child")  # of a sub-agent's thread
    story.notifies("thread/settings/updated", seq=21, threadId="t", threadSettings={"model": "n"})
    story.loses()
    initialized, *asked = story.returns(AGAIN)
    assert initialized == {"method": "initialized"}
    assert [each["params"] for each in asked] == [
        {"threadId": "t", "excludeTurns": True, "sandbox": "read-only", "model": "m"},
        {"threadId": "child", "excludeTurns": True},
    ]
    for each in asked:
        story.answers(each, {"thread": {"id": "?"}})
    update, replay = story.own()
    assert update["params"] == {"threadId": "t", "model": "n"}
    assert story.answers(update) == []
    assert replay["params"] == {
        "after": {"epoch": "e", "seq": 21},
        "threadIds": ["t", "child"],
    }
    assert story.replays(replay) == []
    assert story.notifies("item/completed", seq=22, threadId="t") != []
    assert not story.session.live
    assert story.fences() == []
    assert story.session.live


def test_what_is_told_while_threads_load_comes_with_the_replay_alone() -> None:
    story = followed("t")
    story.loses()
    asked = story.returns(AGAIN)
    assert story.notifies("thread/status/changed", threadId="t") == []
    assert story.notifies("item/started", seq=600, threadId="t") == []
    assert story.notifies("thread/status/changed", threadId="another's") != []
    assert story.notifies("configWarning", summary="said before") == []
    replay = story.loads(asked)
    assert replay["params"]["after"]["seq"] == 10
    story.replays(replay)
    assert len(story.notifies("item/started", seq=600, threadId="t")) == 1


def test_what_ended_with_the_broker_ends_before_what_began_after_it() -> None:
    story = followed("t", "s")
    story.notifies("turn/started", seq=20, threadId="t", turn={"id": "T", "startedAt": 990})
    story.hears(
        {"seq": 21, "id": 7, "method": "item/x/requestApproval", "params": {"threadId": "t"}}
    )
    story.answers(story.says("turn/start", {"threadId": "s"}), {"turn": turn("S")})
    story.loses()
    story.replays(story.loads(story.returns(AGAIN)))
    missed = story.notifies("item/completed", seq=30, threadId="t")
    assert methods(missed) == ["item/completed"]
    first = story.notifies("turn/started", seq=401, threadId="t", turn={"id": "U"})
    assert methods(first) == [
        "serverRequest/resolved",
        "thread/status/changed",
        "turn/completed",
        "thread/status/changed",
        "turn/completed",
        "turn/started",
    ]
    resolved, _, ended, _, other, _ = (each["params"] for each in first)
    assert resolved == {"threadId": "t", "requestId": 7}
    assert ended["turn"] == {
        "id": "T", "startedAt": 990, "status": "interrupted", "completedAt": 1000,
        "durationMs": 10000,
    }  # fmt: skip
    assert (other["threadId"], other["turn"]["id"]) == ("s", "S")
    assert story.fences() == []


def turn(id: str, status: str = "inProgress") -> Json:
    return {"id": id, "status": status, "items": []}


def reviews(story: Story) -> None:
    """A review, which natively has two ids: one in its answer and its end, one in between."""
    asked = story.says("review/start", {"threadId": "t"})
    story.answers(asked, {"turn": turn("R"), "reviewThreadId": "t"})
    story.notifies("turn/started", seq=20, threadId="t", turn=turn("S") | {"rootTurnId": "R"})


def test_a_review_that_ended_with_the_broker_ends_by_either_id() -> None:
    story = followed("t")
    reviews(story)
    story.loses()
    story.replays(story.loads(story.returns(AGAIN)))
    ended = [each["params"] for each in story.fences() if each["method"] == "turn/completed"]
    assert [each["turn"]["id"] for each in ended] == ["S", "R"]


@pytest.mark.parametrize(
    ("latest", "told"),
    [
        ([turn("S")], []),
        ([turn("S"), turn("R", "completed")], [("R", "completed")]),
        ([turn("R", "completed"), turn("S")], [("R", "completed")]),
        ([turn("U")], [("S", "interrupted"), ("R", "interrupted")]),
    ],
)
def test_a_snapshot_says_whether_a_review_still_runs(latest: Any, told: Any) -> None:
    story = followed("t")
    reviews(story)
    story.loses()
    _, resume, turns, _fence = story.returns(ELSEWHERE)
    story.answers(resume, {"thread": {}})
    ended = [each["params"] for each in story.answers(turns, {"data": latest})]
    ends = [each["turn"] for each in ended if "turn" in each]
    assert [(each["id"], each["status"]) for each in ends] == told


def test_what_the_journal_ends_itself_is_not_ended_twice() -> None:
    story = followed("t")
    story.notifies("turn/started", seq=20, threadId="t", turn=turn("T"))
    story.loses()
    story.replays(story.loads(story.returns(AGAIN)))
    story.notifies("turn/completed", seq=25, threadId="t", turn=turn("T", "completed"))
    assert story.fences() == []


def test_the_same_broker_ends_nothing() -> None:
    """The connection was cut, the turn goes on; an answer that may be lost is given once more."""
    story = followed("t")
    story.notifies("turn/started", seq=20, threadId="t", turn=turn("T"))
    story.hears(
        {"seq": 21, "id": 7, "method": "item/x/requestApproval", "params": {"threadId": "t"}}
    )
    answer = story.passes({"id": 7, "result": {"decision": "accept"}})
    story.loses()
    story.replays(story.loads(story.returns(FIRST | {"seq": 90})))
    assert story.fences() == []
    assert story.own() == [answer]
    story.notifies("serverRequest/resolved", seq=91, threadId="t", requestId=7)
    story.loses()
    story.replays(story.loads(story.returns(FIRST | {"seq": 92})))
    story.fences()
    assert story.own() == []


def test_a_thread_that_cannot_be_loaded_is_closed() -> None:
    story = followed("t", "fresh")
    story.notifies("turn/started", seq=20, threadId="fresh", turn=turn("T"))
    story.loses()
    lost = story.replays(story.loads(story.returns(AGAIN), "fresh"), missing=["fresh"])
    assert methods(lost) == [
        "thread/status/changed",
        "turn/completed",
        "thread/status/changed",
        "thread/closed",
    ]
    assert story.fences() == []
    story.loses()
    assert [each["params"].get("threadId") for each in story.returns(AGAIN)[1:]] == ["t"]


def test_opted_out_is_opted_out() -> None:
    out = ["turn/completed", "thread/status/changed", "serverRequest/resolved"]
    story = followed("t", optOutNotificationMethods=out)
    story.notifies("turn/started", seq=20, threadId="t", turn=turn("T"))
    story.hears(
        {"seq": 21, "id": 7, "method": "item/x/requestApproval", "params": {"threadId": "t"}}
    )
    story.loses()
    story.replays(story.loads(story.returns(AGAIN)))
    assert story.fences() == []


def test_watches_are_begun_again_and_processes_reported() -> None:
    story = followed()
    watch = {"watchId": "w", "path": "/"}
    story.answers(story.says("fs/watch", watch))
    story.answers(story.says("fs/watch", {"watchId": "v", "path": "/"}))
    story.answers(story.says("fs/unwatch", {"watchId": "v"}))
    for handle in ("p", "q"):
        story.answers(story.says("process/spawn", {"processHandle": handle}))
    story.notifies("process/exited", processHandle="p", exitCode=0)
    (exited,) = story.loses()
    assert (exited["params"]["processHandle"], exited["params"]["exitCode"]) == ("q", -1)
    _, again, fence = story.returns(AGAIN)
    assert (again["method"], again["params"]) == ("fs/watch", watch)
    assert story.answers(again) == story.answers(fence) == []
    assert story.session.live


def test_lost_again_on_the_way_back() -> None:
    story = followed("t")
    story.notifies("turn/started", seq=20, threadId="t", turn=turn("T"))
    story.loses()
    story.returns(AGAIN)
    assert story.loses() == []
    replay = story.loads(story.returns(AGAIN | {"began": 450}))
    assert replay["params"]["after"]["seq"] == 20
    story.replays(replay)
    assert methods(story.fences()) == ["thread/status/changed", "turn/completed"]


def test_a_broker_that_refuses_the_handshake() -> None:
    story = followed()
    story.loses()
    story.session.back(NOW)
    (hello,) = story.own()
    with pytest.raises(ReturnError, match=r"refuses this client: no$"):
        story.answers(hello, error={"code": -5, "message": "no"})


# ── where the journal can't help ──────────────────────────────────────────────────────────────


@pytest.mark.parametrize("life", [ELSEWHERE, None])
@pytest.mark.parametrize(
    ("latest", "told"),
    [
        ([turn("T")], []),
        ([turn("T", "failed")], ["failed"]),
        ([turn("U")], ["interrupted"]),
        ([], ["interrupted"]),
        (None, ["interrupted"]),
    ],
)
def test_a_snapshot_says_whether_the_turn_still_runs(
    life: Json | None, latest: Any, told: list[str]
) -> None:
    story = followed("t", "lost")
    story.notifies("turn/started", seq=20, threadId="t", turn=turn("T"))
    for id in (7, 8):
        params = {"threadId": "t"}
        story.hears({"seq": 21, "id": id, "method": "item/x/requestApproval", "params": params})
    story.loses()
    _, resume, turns, other, fence = story.returns(life)
    assert (resume["params"]["threadId"], other["params"]["threadId"]) == ("t", "lost")
    assert story.answers(resume, {"thread": {}}) == []
    again = {"id": 8, "method": "item/x/requestApproval", "params": {"threadId": "t"}}
    assert story.hears(again) == []  # the client has it
    error = {"code": -1} if latest is None else None
    ended = story.answers(turns, {"data": latest}, error)
    ends = [each["params"]["turn"]["status"] for each in ended if "turn" in each["params"]]
    assert ends == told
    closed = story.answers(other, error={"code": -1})
    assert methods(closed) == ["thread/status/changed", "thread/closed"]
    (resolved,) = story.answers(fence)
    assert resolved["params"] == {"threadId": "t", "requestId": 7}
    assert story.session.live


def test_a_replay_that_is_not_complete_falls_back_to_snapshots() -> None:
    story = followed("t")
    story.loses()
    assert story.replays(story.loads(story.returns(AGAIN)), complete=False) == []
    resume, fence = story.own()
    assert resume["method"] == "thread/resume"
    assert story.answers(resume, {"thread": {}}) == story.answers(fence) == []
    assert story.session.live
