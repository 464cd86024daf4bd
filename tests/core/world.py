"""An app-server for the state machine: it keeps what the real one would, and watches the broker.

What a request does, it does when it is written (the real one takes the requests of one thread in
order); its answer comes when ``deliver`` says so, in any order. An overloaded one does nothing.
Whatever the broker writes that it must not, is an ``AssertionError`` here.
"""

from __future__ import annotations

from typing import Literal

import attrs

from mux.core.limits import Limits
from tests.core.stories import APPROVAL, QUESTION, REFRESH, RESOLVED, TOOL_CALL, Json, Story

Kind = Literal["approval", "human", "question", "unknown", "tool", "refresh"]

METHODS: dict[Kind, str] = {
    "approval": APPROVAL,
    "human": APPROVAL,
    "question": QUESTION,
    "unknown": "item/made/up",
    "tool": TOOL_CALL,
    "refresh": REFRESH,
}
VALID: dict[Kind, Json] = {
    "approval": {"decision": "decline"},
    "human": {"decision": "accept"},
    "question": {"answers": {}},
    "unknown": {"any": "object"},
    "tool": {"contentItems": [], "success": True},
    "refresh": {"accessToken": "secret", "chatgptAccountId": "account"},
}
OVERLOADED = -32001
ROUNDING = 1e-6


@attrs.define(eq=False)
class Asked:
    """A request that was written, until its answer is delivered. ``since``: the first time."""

    message: Json
    since: float
    result: Json | None  # None: an error
    overloaded: bool = False

    @property
    def wire(self) -> int:
        return int(self.message["id"])

    @property
    def method(self) -> str:
        return str(self.message["method"])

    @property
    def thread(self) -> str | None:
        """The thread that its answer joins."""
        return self.result["thread"]["id"] if self.result and "thread" in self.result else None

    def gives_back(self, thread: str) -> bool:
        return self.method == "thread/unsubscribe" and self.message["params"]["threadId"] == thread


@attrs.define(eq=False)
class ServerRequest:
    """A server request: what the app-server knows of it, and who was offered it by the broker.

    ``n`` tells it from all others; ``id`` is the app-server's, ``offered_as`` the broker's.
    ``offered`` are the clients that have it before them; ``abstained`` those that gave no answer.
    """

    n: int
    id: int
    kind: Kind
    thread: str | None
    turn: str | None = None  # one that says so is withdrawn with it
    answered: bool = False
    resolved: bool = False
    offered_as: int | None = None
    offered: set[int] = attrs.field(factory=set)
    abstained: set[int] = attrs.field(factory=set)

    @property
    def open(self) -> bool:
        return not (self.answered or self.resolved)

    @property
    def is_told_resolved(self) -> bool:
        """Whether the app-server says when it is over."""
        return self.thread is not None and self.kind != "tool"


@attrs.define(eq=False, repr=False)
class World:
    """One app-server after another, and what each has loaded."""

    story: Story
    limits: Limits
    generation: int = 0
    up: bool = False
    overloaded_next: int = 0
    on_disk: set[str] = attrs.field(factory=lambda: {"old1", "old2"})
    loaded: set[str] = attrs.field(factory=set)
    subscribed: set[str] = attrs.field(factory=set)
    announced: set[str] = attrs.field(factory=set)
    running: dict[str, str] = attrs.field(factory=dict)  # thread: its turn
    unannounced_turns: set[str] = attrs.field(factory=set)
    told_running: set[str] = attrs.field(factory=set)
    watches: set[str] = attrs.field(factory=set)
    asked: dict[int, Asked] = attrs.field(factory=dict)
    refused: set[int] = attrs.field(factory=set)
    wires: dict[int, float] = attrs.field(factory=dict)
    requests: list[ServerRequest] = attrs.field(factory=list)
    past: list[ServerRequest] = attrs.field(factory=list)
    threads: list[str] = attrs.field(factory=lambda: ["old1", "old2"])
    next_id: int = 0
    serial: int = 0

    # ── its lives ─────────────────────────────────────────────────────────────────────────────

    def start(self) -> None:
        self.generation += 1
        self.up = True
        self.story.starts(self.generation)

    def exit(self) -> None:
        self.up = False
        for kept in (
            self.loaded, self.subscribed, self.announced, self.running, self.unannounced_turns,
            self.told_running,
            self.watches, self.asked, self.refused,
        ):  # fmt: skip
            kept.clear()
        self.past += self.requests
        self.requests.clear()
        self.next_id = self.overloaded_next = 0
        self.story.exits()

    # ── what it is written ────────────────────────────────────────────────────────────────────

    def receive(self, message: Json) -> None:
        assert self.up, "written to an app-server that isn't there"
        if "method" not in message:
            self._answered(message)
        elif "id" in message:
            self._asked(message)

    def _answered(self, message: Json) -> None:
        (request,) = [each for each in self.requests if each.id == message["id"]]
        assert not request.answered, "a server request is answered twice"
        assert not request.resolved, "a server request is answered that is over"
        if "error" in message and request.kind != "refresh":
            assert request.offered, "nobody was asked, and an error goes up"
            assert request.offered <= request.abstained, "not all have abstained"
        request.answered = True

    def _asked(self, message: Json) -> None:
        wire = message["id"]
        assert wire not in self.wires or wire in self.refused, "sent twice"
        self.refused.discard(wire)
        since = self.wires.setdefault(wire, self.story.now)
        asked = self.asked[wire] = Asked(message, since, {})
        if message["method"] != "initialize" and self.overloaded_next:
            self.overloaded_next -= 1
            asked.overloaded, asked.result = True, None
        else:
            asked.result = self._do(message["method"], message["params"])
        # One that the broker gave up on has its slot back there.
        since = self.story.now - self.limits.request_deadline + ROUNDING
        in_flight = [
            each for each in self.asked.values() if each.since > since and not _waits(each.method)
        ]
        assert len(in_flight) <= self.limits.in_flight, "too much in flight"

    def _do(self, method: str, params: Json) -> Json | None:  # noqa: PLR0911 (a table)
        thread = params.get("threadId", "")
        match method:
            case "thread/start":
                self.serial += 1
                return self._join(f"t{self.serial}")
            case "thread/resume":
                return self._join(thread) if thread in self.on_disk else None
            case "thread/unsubscribe":
                self._check_idle(thread)
                self.subscribed.discard(thread)
                return {"status": "unsubscribed"}
            case "turn/start":
                if thread not in self.announced & self.loaded:
                    return None
                if thread not in self.running:
                    self.serial += 1
                    self.running[thread] = f"turn {self.serial}"
                    self.unannounced_turns.add(thread)
                    self.on_disk.add(thread)
                return {"turn": {"id": self.running[thread], "status": "inProgress", "items": []}}
            case "fs/watch":
                if params["watchId"] in self.watches:
                    return None
                self.watches.add(params["watchId"])
                return {"path": "/x"}
            case "fs/unwatch":
                self.watches.discard(params["watchId"])
                return {}
            case "made/up":
                return None
        return {"of": params.get("of")}

    def _check_idle(self, thread: str) -> None:
        """Whether the thread may be given back, as far as was told of it."""
        if any(each.overloaded and each.gives_back(thread) for each in self.asked.values()):
            return  # the broker has given it back already, and doesn't know yet that it failed
        assert thread not in self.told_running, "given back while a turn runs"
        waits = [each for each in self.requests if each.thread == thread and not each.resolved]
        assert not waits, "given back while a server request waits"

    def _join(self, thread: str) -> Json:
        self.loaded.add(thread)
        self.subscribed.add(thread)
        return {"thread": {"id": thread, "status": {"type": "idle"}, "turns": []}}

    # ── what it says ──────────────────────────────────────────────────────────────────────────

    def deliver(self, asked: Asked) -> None:
        """Answer one request."""
        del self.asked[asked.wire]
        if asked.overloaded:
            self.refused.add(asked.wire)
            self.story.fails(asked.message, OVERLOADED, "Server overloaded; retry later.")
        elif asked.method == "initialize":
            self.story.answers(asked.message, INITIALIZED)
        elif asked.result is None:
            self.story.fails(asked.message)
        else:
            if asked.thread is not None:
                self.announced.add(asked.thread)
                if asked.thread not in self.threads:  # nobody can name it before
                    self.threads.append(asked.thread)
            self.story.answers(asked.message, asked.result)

    def repeat(self, thread: str) -> None:
        """After a resume: what is pending is sent again, even if it was answered meanwhile."""
        for request in self.requests:
            if request.thread == thread and not request.resolved and thread in self.subscribed:
                self._send(request)

    def raise_request(self, kind: Kind, thread: str | None) -> ServerRequest:
        self.serial += 1
        turn = self.running.get(thread or "") if self.serial % 2 else None
        request = ServerRequest(self.serial, self.next_id, kind, thread, turn)
        self.next_id += 1
        self.requests.append(request)
        self._send(request)
        return request

    def _send(self, request: ServerRequest) -> None:
        params: Json = {"n": request.n}
        if request.thread is not None:
            params["threadId"] = request.thread
            if request.turn is not None:
                params["turnId"] = request.turn
        if request.kind == "human":
            params["kind"] = "humanCommand"
        if request.kind == "tool":
            params["tool"] = "look"
        self.story.asks(request.id, METHODS[request.kind], **params)

    def resolve(self, request: ServerRequest) -> None:
        request.resolved = True
        if request.is_told_resolved:
            self.story.notifies(
                RESOLVED, {"threadId": request.thread, "requestId": request.id, "n": request.n}
            )

    def announce_turn(self, thread: str) -> None:
        self.unannounced_turns.discard(thread)
        self._answer_what_began(thread)
        if thread in self.subscribed:
            self.told_running.add(thread)
            self.story.begins_turn(thread, self.running[thread])

    def _answer_what_began(self, thread: str) -> None:
        """The answer to what began a turn precedes it; of those that joined it, it needn't."""
        for asked in list(self.asked.values()):
            turn = (asked.result or {}).get("turn")
            if turn is not None and turn["id"] == self.running[thread]:
                self.deliver(asked)
                return

    def end_turn(self, thread: str) -> None:
        """The turn is over, and with it what was pending; of tool calls nothing is said."""
        turn = self.running.pop(thread)
        self.told_running.discard(thread)
        if thread in self.subscribed:
            self.story.ends_turn(thread, turn)
        for request in self.requests:
            if request.thread == thread and not request.resolved:
                self.resolve(request)

    def close(self, thread: str) -> None:
        """Unload a thread that nobody is subscribed to."""
        self.loaded.discard(thread)
        self.announced.discard(thread)
        self.story.notifies("thread/closed", {"threadId": thread})


def _waits(method: str) -> bool:
    return method == "mcpServer/tool/call"


INITIALIZED: Json = {"userAgent": "appmux/0.163.0 (x) y (appmux; 0.1)", "codexHome": "/home"}
