"""Stories for the core: events in, commands out, and both ends' words as parsed JSON.

A ``Story`` is a broker with an app-server that is played by the test. Its verbs are what the two
sides do (``story.notifies``, ``peer.asks``, ``peer.leaves``); ``story.written()`` is what the
app-server has been written since the last look, ``peer.heard()`` what a client was sent.

With every command a story checks what must hold always: one line upstream, one JSON text each way,
recipients that are attached, each once.
"""

from __future__ import annotations

import itertools
import json
from typing import Any

import attrs

from mux.core.broker import Broker
from mux.core.commands import (
    AnswerOutside,
    Charge,
    Close,
    Command,
    Forward,
    GiveUp,
    KillUpstream,
    LoadExperimentalSchema,
    Log,
    LogNoticeDecision,
    NoticeAnswerJudged,
    Notify,
    Publish,
    PublishRun,
    ReadOn,
    Record,
    Resolve,
    SaveState,
    StartUpstream,
    StopReading,
    StopUpstream,
    Withdraw,
)
from mux.core.events import (
    ClientAttached,
    ClientLeft,
    ClientSent,
    ClientSentBinary,
    Event,
    Resolved,
    TimePassed,
    UpstreamExited,
    UpstreamHandedOver,
    UpstreamSent,
    UpstreamSentLong,
    UpstreamStarted,
)
from mux.core.limits import Limits
from mux.core.policy.approval_policy import Policies
from mux.core.policy.principal import ClientId, Principal
from mux.core.protocol.envelope.long_line import LongLine
from mux.core.protocol.envelope.rope import Rope
from mux.core.protocol.journal_entry import Entry
from mux.core.protocol.threads.directories import ResolvedPath
from mux.core.state.app_server import Introduction
from mux.core.state.requests.scheduler import BROKER

Json = dict[str, Any]

APPROVAL = "item/commandExecution/requestApproval"
QUESTION = "item/tool/requestUserInput"
TOOL_CALL = "item/tool/call"
REFRESH = "account/chatgptAuthTokens/refresh"
RESOLVED = "serverRequest/resolved"
DELTA = "item/agentMessage/delta"

_KNOWN = {"config/read", "thread/read"}
"""What the broker asks for its own before a request may go on."""

LOCAL = Principal("local", "local-user")
USER_AGENT = "appmux/0.163.0 (Debian 12.0.0; x86_64) xterm (appmux; 0.1)"
INITIALIZED: Json = {
    "userAgent": USER_AGENT,
    "codexHome": "/home/someone/.codex",
    "platformFamily": "unix",
    "platformOs": "linux",
}
TICK = 1e-6
"""Seconds by which an alarm may come late; without it a rounded sum would never be reached."""
FIRST_ID = 7_000
"""Where a story's broker begins to count the ids under which it offers server requests."""


def dumps(value: object) -> bytes:
    """JSON as the app-server writes it: compact, raw UTF-8."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def in_pieces(line: bytes, size: int) -> LongLine:
    """A line that comes in pieces of so many bytes, but for the first, which tells what it is."""
    first = max(size, 64)
    long = LongLine(line[:first])
    for at in range(first, len(line), size):
        long.add(line[at : at + size])
    return long


@attrs.define(eq=False, repr=False)
class Peer:
    """One client, played by the test."""

    story: Story
    id: ClientId
    inbox: list[Json] = attrs.field(factory=list)
    raw: list[bytes] = attrs.field(factory=list)
    closed: list[int] = attrs.field(factory=list)
    charged: int = 0
    is_read: bool = True
    _ids: itertools.count[int] = attrs.field(factory=lambda: itertools.count(1))

    def says(self, text: bytes | str) -> None:
        """Send one text message."""
        self.story.tell(ClientSent(self.id, text.encode() if isinstance(text, str) else text))

    def says_json(self, message: object) -> None:
        self.says(dumps(message))

    def says_binary(self) -> None:
        self.story.tell(ClientSentBinary(self.id))

    def asks(self, method: str, params: object = None, id: object = None) -> Any:
        """Ask; returns the id under which it was asked."""
        id = next(self._ids) if id is None else id
        self.says_json({"id": id, "method": method, "params": {} if params is None else params})
        return id

    def notifies(self, method: str, params: object = None) -> None:
        self.says_json({"method": method, "params": {} if params is None else params})

    def answers(self, id: object, result: object) -> None:
        """Answer a server request."""
        self.says_json({"id": id, "result": result})

    def refuses(self, id: object, message: str = "no such method") -> None:
        """Answer a server request with an error."""
        self.says_json({"id": id, "error": {"code": -32601, "message": message}})

    def initializes(self, name: str = "peer", id: object = None, **capabilities: object) -> Any:
        declared = {"experimentalApi": True} | capabilities
        params = {"clientInfo": {"name": name, "version": "1.2"}, "capabilities": declared}
        return self.asks("initialize", params, id)

    def leaves(self) -> None:
        self.story.tell(ClientLeft(self.id))

    def heard(self, method: str | None = None) -> list[Json]:
        """What it was sent since the last look; with ``method``, only that of it."""
        heard, self.inbox, self.raw = self.inbox, [], []
        return [each for each in heard if method is None or each.get("method") == method]

    def heard_methods(self) -> list[str]:
        """The methods of what it was sent since the last look; answers count as their ids."""
        return [each.get("method") or str(each["id"]) for each in self.heard()]

    def only(self, method: str | None = None) -> Json:
        """The one message that it was sent since the last look."""
        (message,) = self.heard(method)
        return message


@attrs.define(eq=False, repr=False)
class Story:
    """A broker between an app-server and clients that the test plays.

    ``intact``: whether the last event was handled without an exception.
    ``host``: what ``config/read`` says; ``places``: by path, what a shell makes of it, if not
    itself; ``homes``: by thread, its directory as ``thread/read`` gives it. All are told at once,
    unless the story is ``slow``. ``pieces``: of so many bytes come all answers, and what is ten
    times as long, as if they were long.
    """

    limits: Limits = attrs.field(factory=Limits)
    policies: Policies = attrs.field(factory=Policies)
    introduction: Introduction = attrs.field(factory=lambda: Introduction("appmux", "0.1"))
    now: float = 100.0
    broker: Broker = attrs.field(init=False)
    peers: dict[ClientId, Peer] = attrs.field(factory=dict)
    lines: list[bytes] = attrs.field(factory=list)
    logs: list[Log] = attrs.field(factory=list)
    served: list[AnswerOutside] = attrs.field(factory=list)
    records: list[Record] = attrs.field(factory=list)
    judged: list[NoticeAnswerJudged] = attrs.field(factory=list)
    notices: list[Notify | Withdraw | LogNoticeDecision] = attrs.field(factory=list)
    intact: bool = True
    given_up: list[str] = attrs.field(factory=list)
    learning: int = 0
    host: Json = attrs.field(factory=dict)
    places: dict[str, ResolvedPath] = attrs.field(factory=dict)
    homes: dict[str, str] = attrs.field(factory=dict)
    slow: bool = False
    resolving: list[Resolve] = attrs.field(factory=list)
    pieces: int = 0
    durable: bool = False
    saved: dict[str, bytes] = attrs.field(factory=dict)
    entries: list[Entry] = attrs.field(factory=list)
    lives: list[StartUpstream | StopUpstream | KillUpstream] = attrs.field(factory=list)
    _ids: itertools.count[int] = attrs.field(factory=lambda: itertools.count(1))

    def __attrs_post_init__(self) -> None:
        self._begins()

    def _begins(self) -> None:
        self.broker = Broker(
            self.limits,
            self.introduction,
            first_id=FIRST_ID,
            head=len(self.entries),
            policies=self.policies,
            durable=self.durable,
        )

    def hands_over(self, generation: int = 1) -> None:
        """The broker is killed with all its connections, and the next one begins."""
        self.peers.clear()
        self.lines.clear()
        self._begins()
        self.tell(UpstreamHandedOver(generation, dict(self.saved), tuple(self.entries)))
        self._ids = itertools.count(self.broker.state.durable.clients + 1)

    def handed_over(self, *loaded: str) -> None:
        """The same, with an app-server that has these threads loaded and resumes each."""
        self.hands_over()
        self.answers(self.only("thread/loaded/list"), {"data": list(loaded)})
        for asked in self.written("thread/resume"):
            thread = {"id": asked["params"]["threadId"], "status": {"type": "active"}}
            self.answers(asked, {"thread": thread})

    @classmethod
    def begun(cls, **limits: float) -> Story:
        """A story whose app-server is ready, and has been written nothing else."""
        return cls.under(Policies(), **limits)

    @classmethod
    def under(cls, policies: Policies, **limits: float) -> Story:
        """The same, where approvals have these policies."""
        story = cls(Limits(**limits), policies)  # type: ignore[arg-type]
        story.starts()
        story.initialized()
        story.written()
        return story

    # ── both ends speak ───────────────────────────────────────────────────────────────────────

    def tell(self, event: Event) -> list[Command]:
        """Let the broker hear an event, and hand what it commands to those it is for."""
        if isinstance(event, ClientLeft):
            del self.peers[event.client]
        self.intact = False
        commands = self.broker.handle(event, self.now)
        for command in commands:
            self._perform(command)
        self.intact = True
        if not self.slow:
            self.clear()
        return commands

    def clear(self) -> None:
        """Tell the broker what it wants to know before a request may go on."""
        upstream = self.broker.state.scheduler.upstream
        for line in list(self.lines):
            asked = json.loads(line)
            if "method" not in asked:
                continue  # an answer: its id is the app-server's, not one of ours
            request = upstream.get(asked.get("id"))
            if request is None or request.account != BROKER or asked["method"] not in _KNOWN:
                continue
            if not self.broker._local_resumes.has_made(request):
                self.lines.remove(line)
                self._clear(asked)
        while self.resolving:
            wanted = self.resolving.pop(0)
            places = tuple(
                self.places.get(path, ResolvedPath(path or "/own")) for path in wanted.paths
            )
            self.tell(Resolved(wanted.case, places))

    def _clear(self, asked: Json) -> None:
        if asked["method"] == "config/read":
            self.answers(asked, {"config": {"approval_policy": "on-request"} | self.host})
        elif asked["params"]["threadId"] in self.homes:
            thread = {"id": asked["params"]["threadId"]}
            thread["cwd"] = self.homes[thread["id"]]
            self.answers(asked, {"thread": thread})
        else:
            self.fails(asked, message="thread not loaded")

    def _perform(self, command: Command) -> None:
        match command:
            case Publish() | PublishRun():
                self._publish(command)
            case Forward(line):
                assert b"\n" not in line
                assert b"\r" not in line
                json.loads(line)
                self.lines.append(line)
            case Close() | Charge() | StopReading() | ReadOn():
                self._perform_on_client(command)
            case Log():
                self.logs.append(command)
            case AnswerOutside() | Record() | Resolve() | SaveState():
                self._keep(command)
            case Notify() | Withdraw() | LogNoticeDecision() | NoticeAnswerJudged():
                self._perform_on_notices(command)
            case GiveUp(reason):
                self.given_up.append(reason)
            case LoadExperimentalSchema():
                self.learning += 1
            case StartUpstream() | StopUpstream() | KillUpstream():
                self.lives.append(command)
            case _:
                raise AssertionError(f"no such command: {command!r}")

    def _publish(self, command: Publish | PublishRun) -> None:
        if isinstance(command, PublishRun):
            messages, entries = command.messages, command.entries
        else:
            whole = command.message
            messages = [whole.whole() if isinstance(whole, Rope) else whole]
            entries = () if command.entry is None else (command.entry,)
        if self.durable:
            self.entries += entries
        for each in messages:
            self._sends(each, command.recipients)

    def _sends(self, message: bytes, recipients: tuple[ClientId, ...]) -> None:
        assert b"\n" not in message
        parsed = json.loads(message)
        assert len(set(recipients)) == len(recipients), "a recipient stands twice"
        for id in recipients:
            self.peers[id].inbox.append(parsed)
            self.peers[id].raw.append(message)

    def _saves(self, key: str, value: bytes | None) -> None:
        if value is None:
            del self.saved[key]
        else:
            assert self.saved.get(key) != value, "saved again, though nothing has changed"
            self.saved[key] = value

    def _keep(self, command: AnswerOutside | Record | Resolve | SaveState) -> None:
        match command:
            case SaveState(key, value):
                self._saves(key, value)
            case AnswerOutside():
                self.served.append(command)
            case Record():
                self.records.append(command)
            case Resolve():
                self.resolving.append(command)

    def _perform_on_client(self, command: Close | Charge | StopReading | ReadOn) -> None:
        peer = self.peers[command.client]
        match command:
            case Close(_, code, reason):
                assert len(reason.encode()) <= 123, "more than a close frame holds"
                peer.closed.append(code)
            case Charge():
                peer.charged += 1
            case StopReading():
                assert peer.is_read
                peer.is_read = False
            case ReadOn():
                assert not peer.is_read
                peer.is_read = True

    def _perform_on_notices(
        self, command: Notify | Withdraw | LogNoticeDecision | NoticeAnswerJudged
    ) -> None:
        if isinstance(command, NoticeAnswerJudged):
            self.judged.append(command)
        else:
            self.notices.append(command)

    def written(self, method: str | None = None) -> list[Json]:
        """What the app-server was written since the last look; with ``method``, only that."""
        lines, self.lines = self.lines, []
        messages = [json.loads(line) for line in lines]
        return [each for each in messages if method is None or each.get("method") == method]

    def only(self, method: str | None = None) -> Json:
        """The one message that the app-server was written since the last look."""
        (message,) = self.written(method)
        return message

    # ── the app-server ────────────────────────────────────────────────────────────────────────

    def starts(self, generation: int = 1) -> None:
        self.tell(UpstreamStarted(generation))

    def initialized(self, result: object = None) -> None:
        """Answer the broker's ``initialize``."""
        asked = self.only("initialize")
        self.answers(asked, INITIALIZED if result is None else result)

    def says(self, line: bytes | str) -> None:
        """One raw line of the app-server."""
        line = line.encode() if isinstance(line, str) else line
        if self.pieces and (line.startswith(b'{"id":') or len(line) > 10 * self.pieces):
            self.tell(UpstreamSentLong(in_pieces(line, self.pieces)))
        else:
            self.tell(UpstreamSent(line))

    def says_at_once(self, *lines: bytes) -> list[int]:
        """Lines of the app-server that are read at once. Returns how many each step handled."""
        steps: list[int] = []
        while (at := sum(steps)) < len(lines):
            handled, commands = self.broker.handle_run(lines, at, self.now)
            for command in commands:
                self._perform(command)
            if not handled:
                self.tell(UpstreamSent(lines[at]))
            steps.append(handled or 1)
        return steps

    def answers(self, asked: Json, result: object = None) -> None:
        """Answer what it was asked (a message that ``written`` gave)."""
        self.says(dumps({"id": asked["id"], "result": {} if result is None else result}))

    def fails(self, asked: Json, code: int = -32600, message: str = "no") -> None:
        """Answer it with an error, which natively stands before the id."""
        self.says(dumps({"error": {"code": code, "message": message}, "id": asked["id"]}))

    def notifies(self, method: str, params: object = None) -> None:
        self.says(dumps({"method": method, "params": params or {}, "emittedAtMs": 1_795_398_334}))

    def asks(self, id: int, method: str = APPROVAL, **params: object) -> None:
        """A server request, as natively written: method, then id, then params."""
        self.says(dumps({"method": method, "id": id, "params": params}))

    def resolves(self, id: int, thread: str = "t") -> None:
        self.notifies(RESOLVED, {"threadId": thread, "requestId": id})

    def exits(self, reason: str = "exited with status 1") -> None:
        self.tell(UpstreamExited(reason))

    def delta(self, thread: str = "t", text: str = "…") -> None:
        self.notifies(DELTA, {"threadId": thread, "turnId": "u", "itemId": "i", "delta": text})

    def begins_turn(self, thread: str = "t", id: str | None = None) -> None:
        turn = {"id": id or f"{thread}-turn", "status": "inProgress", "items": []}
        self.notifies("turn/started", {"threadId": thread, "turn": turn})

    def ends_turn(self, thread: str = "t", id: str | None = None) -> None:
        turn = {"id": id or f"{thread}-turn", "status": "completed", "items": []}
        self.notifies("turn/completed", {"threadId": thread, "turn": turn})

    # ── clients ───────────────────────────────────────────────────────────────────────────────

    def attach(self, principal: Principal = LOCAL, *, local: bool = False) -> Peer:
        """A client that passed the door."""
        id = next(self._ids)
        peer = self.peers[id] = Peer(self, id)
        self.tell(ClientAttached(id, principal, "ws", f"127.0.0.1:{id}", local=local))
        return peer

    def peer(
        self,
        name: str = "peer",
        principal: Principal = LOCAL,
        *,
        local: bool = False,
        **capabilities: object,
    ) -> Peer:
        """A client that is past its handshake, and was sent nothing else."""
        peer = self.attach(principal, local=local)
        peer.initializes(name, **capabilities)
        assert "result" in peer.heard()[0]
        return peer

    def follows(self, peer: Peer, thread: str = "t", **params: object) -> None:
        """``thread/resume``, answered; the answer itself isn't left in the inbox."""
        self._joined(peer, "thread/resume", thread, {"threadId": thread, **params})

    def creates(self, peer: Peer, thread: str = "t", **params: object) -> None:
        """``thread/start``, answered; the answer itself isn't left in the inbox."""
        self._joined(peer, "thread/start", thread, params)

    def _joined(self, peer: Peer, method: str, thread: str, params: Json) -> None:
        id = peer.asks(method, params)
        self.answers(self.written(method)[-1], {"thread": {"id": thread}})
        at = next(at for at, each in enumerate(peer.inbox) if each.get("id") == id)
        assert peer.inbox.pop(at)["result"]["thread"]["id"] == thread
        del peer.raw[at]

    # ── time ──────────────────────────────────────────────────────────────────────────────────

    def waits(self, seconds: float) -> None:
        """Let time pass, waking the broker whenever it wants to be woken."""
        self.waits_until(self.now + seconds)

    def waits_until(self, end: float) -> None:
        """Let time pass up to this moment."""
        idle = 0
        while self.broker.next_wakeup <= end:
            before = self.broker.next_wakeup
            self.now = max(self.now, before) + idle * TICK
            self.tell(TimePassed())
            idle = 0 if self.broker.next_wakeup > before else idle + 1
            assert idle < 3, "the broker would be woken without end"
        self.now = max(self.now, end)


def two_followers() -> tuple[Story, Peer, Peer]:
    """A story with two clients that follow the thread ``t``."""
    story = Story.begun()
    a, b = story.peer("a"), story.peer("b")
    for peer in (a, b):
        story.follows(peer)
    story.written()
    return story, a, b


def offered(peer: Peer) -> Json:
    """The one server request that it was sent since the last look."""
    (offer,) = [each for each in peer.heard() if "method" in each and "id" in each]
    return offer
