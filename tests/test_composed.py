"""Every message that the broker composes is one that the installed codex's schema allows.

Turns that the real app-server wrote are played, and all happens to them in which the broker speaks
for itself: joiners, laggards, a crash after any line, tools and clients that are gone, errors of
every kind. A judge reads along, whatever is sent to clients and to the app-server.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import attrs
import pytest

from mux.core.commands import Command, Forward, Publish, ReportWhenDrained
from mux.core.events import (
    ClientDrained,
    ClientLags,
    ClientSent,
    Event,
    ExperimentalSchemaLoaded,
    UpstreamSent,
)
from mux.core.limits import Limits
from mux.core.protocol.experimental import gate_of
from tests.codex_bundles import bundle
from tests.core.recordings import NAMES, Playback, recording
from tests.core.stories import REFRESH, TOOL_CALL, Json, Peer, Story
from tests.wire import Judge

AWARE: Json = {"extensions": {"appmux": {"version": 1}}}
EVERY = 4
"""Of so many lines one is the last before a crash: with every single one it takes a minute."""


@pytest.fixture(scope="module")
def judge() -> Judge:
    return Judge()


@attrs.define(eq=False, repr=False)
class Judged(Story):
    """A story whose messages are judged. ``composed``: of which kinds the broker made some."""

    judge: Judge = attrs.field(factory=Judge)
    faults: list[str] = attrs.field(factory=list)
    composed: set[str] = attrs.field(factory=set)
    _passed: set[bytes] = attrs.field(factory=set)
    _asked_down: dict[tuple[int, str], str] = attrs.field(factory=dict)
    _asked_up: dict[str, str] = attrs.field(factory=dict)
    _answered: dict[str, str] = attrs.field(factory=dict)

    @classmethod
    def by(cls, judge: Judge, **limits: float) -> Judged:
        story = cls(Limits(**limits), judge=judge)  # type: ignore[arg-type]
        story.starts()
        story.initialized()
        story.written()
        return story

    def tell(self, event: Event) -> list[Command]:
        if isinstance(event, ClientSent):
            self._note(event.text, lambda id, method: self._asks(event.client, id, method))
        elif isinstance(event, UpstreamSent):
            self._passed.add(event.line)
            self._note(event.line, lambda id, method: self._asked_up.update({id: method}))
        commands = super().tell(event)
        for command in commands:
            if isinstance(command, Publish):
                self._judge_down(command)
            elif isinstance(command, Forward):
                self._judge_up(command)
        return commands

    def _perform(self, command: Command) -> None:
        if not isinstance(command, ReportWhenDrained):  # the test says when
            super()._perform(command)

    def _note(self, text: bytes, note: Callable[[str, str], object]) -> None:
        try:
            message = json.loads(text)
        except ValueError:
            return
        if isinstance(message, dict) and "id" in message and "method" in message:
            note(json.dumps(message["id"]), message["method"])

    def _asks(self, client: int, id: str, method: str) -> None:
        self._asked_down[client, id] = method

    def _judge_down(self, command: Publish) -> None:
        if not command.recipients:
            return
        assert isinstance(command.message, bytes)
        message = json.loads(command.message)
        asked = None
        if "method" in message and command.message in self._passed:
            return
        if "method" not in message:
            asked = self._asked_down.get((command.recipients[0], json.dumps(message["id"])))
        self.composed.add(message.get("method") or ("error" if "error" in message else f"{asked}!"))
        if message.get("id", 0) is None and "error" in message:
            message["id"] = 0  # of a message without an id: the one thing that the schema has not
        self.faults += self.judge.down(message, asked)

    def _judge_up(self, command: Forward) -> None:
        message = json.loads(command.line)
        asked = None
        if "method" not in message:
            asked = self._asked_up.get(json.dumps(message["id"]))
        kind = message.get("method") or ("error" if "error" in message else f"{asked}!")
        self.composed.add(f"up: {kind}")
        if kind in PLAYED:
            return  # what a client of the story asked, in the story's own few words
        self.faults += self.judge.up(message, asked)

    def well(self) -> None:
        """Nothing was wrong so far."""
        assert not self.faults, "\n".join(dict.fromkeys(self.faults))


PLAYED = frozenset({"thread/start", "turn/start", "process/spawn", "slow/one"})


# ── turns that the real app-server wrote ──────────────────────────────────────────────────────────


def crashes(story: Judged, playback: Playback) -> None:
    """The app-server ends, the next one is ready and has loaded what it was asked to."""
    story.written()
    story.exits("killed by SIGKILL")
    story.starts(2)
    story.initialized()
    snapshot = playback.recording.snapshot(playback.position)
    for asked in story.written("thread/resume"):
        story.answers(asked, snapshot)
    for asked in story.written("thread/settings/update"):
        story.answers(asked)


@pytest.mark.parametrize("ephemeral", [False, True], ids=["kept", "ephemeral"])
@pytest.mark.parametrize("name", NAMES)
def test_a_crash_after_any_line(judge: Judge, name: str, ephemeral: bool) -> None:
    composed: set[str] = set()
    for end in range(0, len(recording(name).lines) + 1, EVERY):
        story = Judged.by(judge)
        playback = Playback(story, recording(name), ephemeral)
        aware = story.peer("aware", **AWARE)
        slow = story.peer("slow", **AWARE)
        for position in playback:
            if position == end // 2:
                for peer in (aware, slow):
                    peer.asks("thread/resume", {"threadId": playback.recording.thread})
                    for asked in story.written("thread/resume"):
                        story.answers(asked, playback.recording.snapshot(position))
                story.tell(ClientLags(slow.id))
            if position == end:
                break
        playback.join("late")
        playback.join("late and without turns", turns=False)
        story.tell(ClientDrained(slow.id))
        crashes(story, playback)
        story.tell(ClientDrained(slow.id))
        story.well()
        composed |= story.composed
    assert composed >= {"turn/completed", "thread/status/changed", "thread/resume!", "initialize!"}
    if ephemeral:
        assert "thread/closed" in composed


def test_a_fresh_thread_is_resumed_by_another(judge: Judge) -> None:
    story = Judged.by(judge)
    playback = Playback(story, recording("text"))
    playback.join("another")
    story.well()
    assert "thread/resume!" in story.composed


# ── what is asked and answered ────────────────────────────────────────────────────────────────────

RECORDED = {
    message["method"]: message["params"]
    for name in NAMES
    for message in recording(name).messages
    if "requestApproval" in message.get("method", "")
}
APPROVALS = sorted(RECORDED)
ENDED_TURN = next(line for line in recording("text").lines if b'"method":"turn/completed"' in line)
ANSWERS = {"fs/watch": {"path": "/tmp"}}
CALL: Json = {"callId": "c", "tool": "shout", "arguments": {}, "turnId": "u", "threadId": "t"}


def followed(story: Judged, *names: str, **capabilities: Any) -> list[Peer]:
    """Clients that follow the thread of the recording `text`, which one of them started."""
    thread = recording("text").started["thread"]["id"]
    first, *others = peers = [story.peer(name, **capabilities) for name in names]
    first.asks("thread/start", {"dynamicTools": [{"name": "shout"}]})
    story.answers(story.written("thread/start")[-1], recording("text").started)
    for peer in others:
        peer.asks("thread/resume", {"threadId": thread})
        for asked in story.written("thread/resume"):
            story.fails(asked)
    return peers


def of_thread(params: Json) -> Json:
    return params | {"threadId": recording("text").started["thread"]["id"]}


@pytest.mark.parametrize("method", APPROVALS)
def test_an_approval_on_each_of_its_ways(judge: Judge, method: str) -> None:
    turn = json.loads(ENDED_TURN)["params"]["turn"]["id"]
    more = {"additionalPermissions": {"network": None}, "turnId": turn}
    params = of_thread(RECORDED[method] | more)
    for way in ("abstained", "answered", "interrupted", "obsolete", "closed", "crashed"):
        story = Judged.by(judge)
        a, b = followed(story, "a", "b")
        plain = story.peer("plain", experimentalApi=False)
        plain.asks("thread/resume", {"threadId": params["threadId"]})
        story.fails(story.written("thread/resume")[-1])
        story.asks(0, method, **params)
        id = a.heard(method)[0]["id"]
        a.asks("mux/approvals/list")
        if way == "abstained":
            for peer in (a, b, plain):
                peer.refuses(id)
        elif way == "answered":
            a.answers(id, {"decision": "accept"})
            b.answers(id, {"decision": "decline"})
            b.asks("mux/approvals/answer", {"id": id, "result": {"decision": "decline"}})
            story.resolves(0, params["threadId"])
        elif way == "interrupted":
            story.resolves(0, params["threadId"])
        elif way == "obsolete":
            story.says(ENDED_TURN)
        elif way == "closed":
            story.notifies("thread/closed", {"threadId": params["threadId"]})
        else:
            story.exits()
        if way != "abstained":
            assert "serverRequest/resolved" in story.composed
        assert story.composed >= {method, "mux/approvals/list!"}
        story.well()


@pytest.mark.parametrize("way", ["left", "gone", "refused", "nonsense"])
def test_a_tool_whose_client_can_t_run_it(judge: Judge, way: str) -> None:
    story = Judged.by(judge)
    owner, _ = followed(story, "owner", "other")
    if way == "gone":
        owner.leaves()
    story.asks(0, TOOL_CALL, **of_thread(CALL))
    if way == "left":
        owner.leaves()
    elif way != "gone":
        id = owner.heard(TOOL_CALL)[0]["id"]
        owner.refuses(id) if way == "refused" else owner.answers(id, 5)
    assert f"up: {TOOL_CALL}!" in story.composed
    story.well()


def test_requests_that_a_machine_answers_and_none_can(judge: Judge) -> None:
    story = Judged.by(judge)
    (only,) = followed(story, "only")
    story.asks(0, REFRESH, reason="unauthorized")
    only.refuses(only.heard(REFRESH)[0]["id"])
    assert "up: error" in story.composed
    story.well()


def test_what_a_client_left_behind_is_ended(judge: Judge) -> None:
    story = Judged.by(judge)
    peer = story.peer()
    for method, params in (
        ("fs/watch", {"watchId": "w", "path": "/tmp"}),
        ("process/spawn", {"processHandle": "h", "command": ["x"], "cwd": "/"}),
        ("fuzzyFileSearch/sessionStart", {"sessionId": "s", "roots": []}),
    ):
        peer.asks(method, params)
        story.answers(story.written(method)[-1], ANSWERS.get(method))
    peer.asks("command/exec", {"command": ["x"]})
    story.written()
    peer.leaves()
    ended = {each["method"] for each in story.written()}
    assert ended == {
        "fs/unwatch",
        "process/kill",
        "fuzzyFileSearch/sessionStop",
        "command/exec/terminate",
    }
    story.well()


def test_a_process_ends_with_its_app_server_and_watches_go_on(judge: Judge) -> None:
    story = Judged.by(judge)
    peer = story.peer()
    spawn = {"processHandle": "h", "command": ["x"], "cwd": "/"}
    for method, params in (
        ("fs/watch", {"watchId": "w", "path": "/tmp"}),
        ("process/spawn", spawn),
    ):
        peer.asks(method, params)
        story.answers(story.written(method)[-1], ANSWERS.get(method))
    story.exits()
    assert "process/exited" in story.composed
    story.starts(2)
    story.initialized()
    assert "up: fs/watch" in story.composed
    story.well()


def test_who_unfollows_is_told(judge: Judge) -> None:
    story = Judged.by(judge)
    a, b = followed(story, "a", "b")
    params = of_thread({})
    for peer in (a, a, b):
        peer.asks("thread/unsubscribe", params)
    assert "thread/unsubscribe!" in story.composed
    story.waits(60.0)  # a fresh thread is kept for a while
    story.well()


def test_turns_that_wait_for_another(judge: Judge) -> None:
    story = Judged.by(judge, queued_turns=1)
    playback = Playback(story, recording("text"))
    thread = playback.recording.thread
    peer = story.peer("peer", **AWARE)
    peer.asks("thread/resume", {"threadId": thread})
    for asked in story.written("thread/resume"):
        story.answers(asked, playback.recording.snapshot(0))
    while b'"method":"item/started"' not in playback.recording.lines[playback.position]:
        playback.play()
    for busy in ("queue", "queue", "reject", "steer"):
        peer.asks("turn/start", {"threadId": thread, "input": [], "ifBusy": busy})
    peer.asks("mux/queue/list", {"threadId": thread})
    peer.asks("mux/queue/remove", {"threadId": thread, "id": 1})
    codes = {each["error"]["code"] for each in peer.inbox if "error" in each}
    assert len(codes) == 2
    assert story.composed >= {"turn/start!", "mux/queue", "mux/queue/list!", "mux/queue/remove!"}
    story.well()


# ── errors and what is beyond the app-server's protocol ───────────────────────────────────────────


def test_every_error(judge: Judge) -> None:
    story = Judged.by(judge, queued_per_client=2, request_deadline=5.0, deaths_in_a_minute=2)
    peer, stranger = story.peer("peer", **AWARE), story.attach()
    stable, whole = (bundle(experimental=each).text for each in (False, True))
    story.tell(ExperimentalSchemaLoaded(gate_of("1", stable, whole, {})))
    stranger.asks("thread/list")
    peer.asks("initialize", {"clientInfo": {"name": "x", "version": "1"}})
    peer.asks("mux/replay", {"after": 5})
    peer.asks("mux/replay", {"after": {"epoch": "another", "seq": 0}})
    peer.asks("mux/approvals/answer", {"id": 5, "result": {}})
    plain = story.peer("plain", experimentalApi=False)
    plain.asks("memory/reset")
    for text in (
        "no json",
        "[]",
        "{}",
        '{"id":1.5,"method":"x"}',
        '{"id":1}',
        '{"id":2,"method":5}',
    ):
        peer.says(text)
    peer.says_binary()
    for _ in range(40):
        peer.asks("slow/one")
    story.waits(6.0)
    for generation in (2, 3):
        story.exits("killed")
        story.starts(generation)
        story.initialized()
    peer.asks("slow/one")
    story.exits("killed")
    codes = {each["error"]["code"] for each in peer.heard() if "error" in each}
    assert codes >= {-32700, -32600, -32001, -32010, -32011}
    story.well()


def test_a_restart_is_answered(judge: Judge) -> None:
    story = Judged.by(judge)
    peer = story.peer(**AWARE)
    peer.asks("mux/restart")
    story.exits("exit status 0")
    story.starts(2)
    story.initialized()
    assert {"mux/restart!", "mux/presence"} <= story.composed
    story.well()
