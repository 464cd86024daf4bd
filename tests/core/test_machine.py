"""Any story at all: clients and an app-server do what they like, and what must hold, holds.

Each client is watched as it would see itself: it follows what it was told that it follows, and has
before it the server requests that it was offered. So for every message there is a reason why this
client may see it, and for every request one answer. In the end everything settles (answers come,
turns end), and nothing may be left over.
"""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import attrs
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from mux.core.commands import KillUpstream
from mux.core.limits import Limits
from mux.core.state import NEVER
from tests.core.stories import DELTA, RESOLVED, Json, Peer, Story
from tests.core.world import VALID, Asked, Kind, ServerRequest, World

LIMITS = Limits(
    in_flight=3,
    in_flight_per_client=2,
    queued_per_client=6,
    deaths_in_a_minute=10**6,
    probe_interval=NEVER,
)
TOOL: Json = {"type": "function", "name": "look", "description": "", "inputSchema": {}}
MANY_LIVES = 3


@attrs.define(eq=False)
class Ask:
    """A request to join or leave a thread. ``number``: of all that its client asked."""

    number: int
    thread: str | None
    unwanted: bool = False  # whether the client has left again before the answer


@attrs.define(eq=False, repr=False)
class View:
    """One client, and what it knows from what it was sent."""

    peer: Peer
    opted_out: frozenset[str] = frozenset()
    human: bool = False
    ready: bool = False
    initializing: bool = False
    follows: dict[str, int] = attrs.field(factory=dict)  # thread: which of its asks joined it
    unanswered: Counter[str] = attrs.field(factory=Counter)
    joins: dict[str, Ask] = attrs.field(factory=dict)
    leaves: dict[str, Ask] = attrs.field(factory=dict)
    errors_owed: int = 0
    deltas: set[int] = attrs.field(factory=set)
    tools_of: set[str] = attrs.field(factory=set)
    asked: int = 0

    @property
    def id(self) -> int:
        return self.peer.id

    def __repr__(self) -> str:
        return f"client {self.id}"


def key(id: object) -> str:
    """Tells 1 from "1"."""
    return repr(id)


class AnyStory(RuleBasedStateMachine):
    """The rules are what may happen; ``look`` checks after each of them."""

    def __init__(self) -> None:
        super().__init__()
        self.story = Story(LIMITS)
        self.world = World(self.story, LIMITS)
        self.views: dict[int, View] = {}
        self.by_offer: dict[int, ServerRequest] = {}
        self.deltas = 0
        self.early: set[str] = set()
        self.with_tool: set[str] = set()
        self.intact = True

    # ── looking at what happened ──────────────────────────────────────────────────────────────

    def look(self) -> None:
        """Take in what was written to each side, and check it."""
        self.intact = False
        if self.story.lives and isinstance(self.story.lives[-1], KillUpstream) and self.world.up:
            self.story.lives.clear()
            self.world.exit()
        for message in self.story.written():
            self.world.receive(message)
        for view in self.views.values():
            before = set(view.follows)
            for message in view.peer.heard():
                if "method" not in message:
                    self._answer(view, message)
                elif "id" in message:
                    self._offer(view, message)
                else:
                    self._notification(view, message, before)
            # What came of a thread before the answer that joins it has been explained by now.
            assert self.early <= set(view.follows), "heard of a thread that it doesn't follow"
            self.early.clear()
        self._check_state()

    def _answer(self, view: View, message: Json) -> None:
        id = message["id"]
        if id is None:
            view.errors_owed -= 1
            assert view.errors_owed >= 0, "an error that nothing was wrong for"
            return
        name = key(id)
        view.unanswered[name] -= 1
        assert view.unanswered[name] >= 0, f"{name} is answered twice, or was never asked"
        if name == key("initialize"):
            assert "result" in message
            view.ready = True
        elif (join := view.joins.pop(name, None)) is not None:
            if "result" in message and not join.unwanted:
                view.follows[message["result"]["thread"]["id"]] = join.number
        elif (leave := view.leaves.pop(name, None)) is not None and "result" in message:
            self._left(view, leave)

    def _left(self, view: View, leave: Ask) -> None:
        """It follows the thread no more; what it asked after that may still join it."""
        assert leave.thread is not None
        for join in view.joins.values():
            join.unwanted |= join.thread == leave.thread and join.number < leave.number
        if view.follows.get(leave.thread, leave.number) < leave.number:
            del view.follows[leave.thread]
            for request in self.world.requests:
                if request.thread == leave.thread and request.kind != "tool":
                    request.offered.discard(view.id)

    def _offer(self, view: View, message: Json) -> None:
        (request,) = [each for each in self.world.requests if each.n == message["params"]["n"]]
        offered_as = message["id"]
        assert view.ready
        assert not request.resolved, "offered what is over"
        assert view.id not in request.offered, "offered twice"
        assert request.offered_as in (None, offered_as), "offered under two ids"
        assert self.by_offer.setdefault(offered_as, request) is request, "an id for two of them"
        assert request.kind != "human" or view.human, "offered to one that can't answer it"
        if request.kind == "tool":
            assert request.thread in view.tools_of, "a tool call for somebody else"
        elif request.thread is not None:
            assert request.thread in view.follows, "offered to one that doesn't follow"
        request.offered_as = offered_as
        request.offered.add(view.id)

    def _notification(self, view: View, message: Json, before: set[str]) -> None:
        method, params = message["method"], message["params"]
        assert view.ready, "told something before its handshake"
        assert method not in view.opted_out
        if method == "thread/closed":
            view.follows.pop(params["threadId"], None)
            before.discard(params["threadId"])
        elif method == RESOLVED:
            request = self.by_offer[params["requestId"]]
            assert view.id in request.offered, "resolved what it hasn't been offered, or twice"
            request.offered.discard(view.id)
        elif method != "thread/status/changed":
            thread = params["threadId"]
            if thread not in before | set(view.follows):
                self.early.add(thread)
            if method == DELTA:
                assert params["n"] not in view.deltas, "the same delta twice"
                view.deltas.add(params["n"])

    def _check_state(self) -> None:
        state = self.story.broker.state
        assert 0 <= state.flow.in_flight <= LIMITS.in_flight
        assert set(state.clients) == set(self.views)
        self.intact = True

    def ready(self) -> list[View]:
        return [view for view in self.views.values() if view.ready]

    # ── clients ───────────────────────────────────────────────────────────────────────────────

    @initialize(clients=st.integers(0, 3), threads=st.integers(0, 2), asked=st.booleans())
    def begin(self, clients: int, threads: int, asked: bool) -> None:
        """Some way into a story; without clients, at its very beginning."""
        if not clients:
            return
        self.app_server_starts(settles=True)
        for _ in range(clients):
            self.client_attaches(opted_out=set(), human=False, now=True)
        for at in range(threads):
            view = self.views[1 + at % clients]
            self._asks(view, "thread/start", {"dynamicTools": [TOOL]}, view.joins)
            self.answer_all()
            for other in self.views.values():
                self._asks(other, "turn/start", {"threadId": f"t{at + 1}"})
                self.answer_all()
                self._asks(other, "thread/resume", {"threadId": f"t{at + 1}"}, other.joins)
                self.answer_all()

            if asked:
                self.world.raise_request("approval", f"t{at + 1}")
                self.look()

    def answer_all(self) -> None:
        for _ in range(1000):
            if not self.world.asked:
                return
            self.deliver(next(iter(self.world.asked.values())))
        raise AssertionError("the broker never stops asking")

    @precondition(lambda self: len(self.views) < 5)
    @rule(
        opted_out=st.sets(st.sampled_from([DELTA, RESOLVED, "turn/started", "thread/closed"])),
        human=st.booleans(),
        now=st.booleans(),
    )
    def client_attaches(self, opted_out: set[str], human: bool, now: bool) -> None:
        # Without `thread/closed` its own picture of what it follows would be wrong.
        opted = frozenset(opted_out - {"thread/closed"})
        peer = self.story.attach()
        self.views[peer.id] = View(peer, opted, human)
        if now:
            self.client_initializes(self.views[peer.id])

    @precondition(lambda self: any(not view.initializing for view in self.views.values()))
    @rule(data=st.data())
    def client_initializes_late(self, data: st.DataObject) -> None:
        waiting = [view.id for view in self.views.values() if not view.initializing]
        self.client_initializes(self.views[data.draw(st.sampled_from(waiting))])

    def client_initializes(self, view: View) -> None:
        view.initializing = True
        view.unanswered[key("initialize")] += 1
        view.peer.initializes(
            f"client {view.id}",
            id="initialize",
            optOutNotificationMethods=sorted(view.opted_out),
            requiredHumanApproval=view.human,
        )
        self.look()

    @precondition(lambda self: self.views)
    @rule(data=st.data())
    def client_leaves(self, data: st.DataObject) -> None:
        view = self.views.pop(data.draw(st.sampled_from(sorted(self.views))))
        for request in self.world.requests:
            request.offered.discard(view.id)
        view.peer.leaves()
        self.look()

    @precondition(lambda self: self.views)
    @rule(
        data=st.data(),
        id=st.sampled_from([0, 1, "1", "", -5, 2**53]),
        method=st.sampled_from(["thread/list", "made/up", "mcpServer/tool/call", "mux/replay"]),
    )
    def client_asks(self, data: st.DataObject, id: Any, method: str) -> None:
        view = self.views[data.draw(st.sampled_from(sorted(self.views)))]
        view.unanswered[key(id)] += 1
        view.peer.asks(method, {"of": view.id}, id)
        self.look()

    @precondition(lambda self: self.views)
    @rule(data=st.data(), text=st.sampled_from(["{", "[]", '{"id":1.5,"method":"x"}', "5"]))
    def client_says_what_is_no_message(self, data: st.DataObject, text: str) -> None:
        view = self.views[data.draw(st.sampled_from(sorted(self.views)))]
        view.errors_owed += 1
        view.peer.says(text)
        assert view.errors_owed == 1
        self.look()
        assert view.errors_owed == 0

    @precondition(lambda self: self.ready())
    @rule(data=st.data(), tools=st.booleans())
    def client_starts_a_thread(self, data: st.DataObject, tools: bool) -> None:
        view = self._client(data)
        params: Json = {"dynamicTools": [TOOL]} if tools else {}
        self._asks(view, "thread/start", params, view.joins)

    @precondition(lambda self: self.ready())
    @rule(data=st.data())
    def client_resumes(self, data: st.DataObject) -> None:
        view, thread = self._client_and_thread(data)
        self._asks(view, "thread/resume", {"threadId": thread}, view.joins)

    @precondition(lambda self: self.ready())
    @rule(data=st.data())
    def client_unsubscribes(self, data: st.DataObject) -> None:
        view, thread = self._client_and_thread(data)
        self._asks(view, "thread/unsubscribe", {"threadId": thread}, view.leaves)

    @precondition(lambda self: self.ready())
    @rule(data=st.data())
    def client_starts_a_turn(self, data: st.DataObject) -> None:
        view, thread = self._client_and_thread(data)
        self._asks(view, "turn/start", {"threadId": thread})

    @precondition(lambda self: self.ready())
    @rule(
        data=st.data(),
        method=st.sampled_from(["fs/watch", "fs/watch", "fs/unwatch"]),
        own=st.sampled_from(["w", "1:w", ""]),
    )
    def client_watches(self, data: st.DataObject, method: str, own: str) -> None:
        view = self._client(data)
        self._asks(view, method, {"watchId": own, "path": "/x"})

    def _client_and_thread(self, data: st.DataObject) -> tuple[View, str]:
        thread = st.sampled_from([*self.world.threads, "nowhere"])
        return self._client(data), data.draw(thread)

    def _client(self, data: st.DataObject) -> View:
        # By its number, which is what a failure's story shows.
        return self.views[data.draw(st.sampled_from([view.id for view in self.ready()]))]

    def _asks(
        self, view: View, method: str, params: Json, kept: dict[str, Ask] | None = None
    ) -> None:
        view.asked += 1
        id = f"{method} {view.asked}"
        view.unanswered[key(id)] += 1
        if kept is not None:
            kept[key(id)] = Ask(view.asked, params.get("threadId"))
        view.peer.asks(method, params, id)
        self.look()

    @precondition(lambda self: self.ready() and self.by_offer)
    @rule(data=st.data(), how=st.sampled_from(["valid", "valid", "malformed", "error"]))
    def client_answers(self, data: st.DataObject, how: str) -> None:
        """Any client answers anything that was ever offered to anybody."""
        offered = data.draw(st.sampled_from(sorted(self.by_offer)[-6:]))
        self._client_answers(self._client(data), offered, how)

    @precondition(lambda self: any(each.offered and each.open for each in self.world.requests))
    @rule(data=st.data(), how=st.sampled_from(["valid", "malformed", "error"]), over=st.booleans())
    def client_answers_what_it_was_offered(self, data: st.DataObject, how: str, over: bool) -> None:
        waiting = [
            (view, each.offered_as)
            for each in self.world.requests
            if each.open and each.offered_as is not None
            for view in sorted(each.offered)
        ]
        client, offered_as = data.draw(st.sampled_from(waiting))
        self._client_answers(self.views[client], offered_as, how)
        request = self.by_offer[offered_as]
        if over and request.answered:
            self.world.resolve(request)
            self.look()

    def _client_answers(self, view: View, offered_as: int, how: str) -> None:
        request = self.by_offer[offered_as]
        counts = request in self.world.requests and request.open and view.id in request.offered
        before = request.answered
        if how == "valid":
            view.peer.answers(offered_as, VALID[request.kind])
        elif how == "error":
            view.peer.refuses(offered_as)
        else:
            view.peer.answers(offered_as, [1])
        if counts and how == "valid":
            assert not request.answered
            answer = self._answer_written()
            assert answer == {"id": request.id, "result": VALID[request.kind]}
        elif counts:
            request.abstained.add(view.id)
        self.look()
        if counts and how == "valid":
            assert request.answered
        elif not counts:
            assert request.answered is before, "an answer that doesn't count changed something"

    def _answer_written(self) -> Json:
        (answer,) = [line for line in self.story.lines if b'"method"' not in line]
        message: Json = json.loads(answer)
        return message

    # ── the app-server ────────────────────────────────────────────────────────────────────────

    @precondition(lambda self: not self.world.up)
    @rule(settles=st.booleans())
    def app_server_starts(self, settles: bool) -> None:
        self.world.start()
        self.look()
        # A first handshake that never came about ends the broker, which isn't what this is about.
        settles = settles or not self.story.broker.state.appserver.known
        while settles and self.story.broker.state.appserver.state.value != "ready":
            self.deliver(next(iter(self.world.asked.values())))
            if self.world.refused:
                self.pass_time(30.0)

    # A handshake that never came about ends the broker, which isn't what this is about.
    @precondition(
        lambda self: (
            self.world.up
            and self.story.broker.state.appserver.known
            and self.world.generation < MANY_LIVES
        )
    )
    @rule()
    def app_server_exits(self) -> None:
        self.world.exit()
        self.look()

    @precondition(lambda self: self.world.asked)
    @rule(data=st.data(), all_of_them=st.booleans())
    def app_server_answers(self, data: st.DataObject, all_of_them: bool) -> None:
        if all_of_them:
            self.answer_all()
        else:
            self.deliver(self.world.asked[data.draw(st.sampled_from(list(self.world.asked)))])

    def deliver(self, asked: Asked) -> None:
        self.world.deliver(asked)
        if (
            asked.method == "thread/start"
            and asked.thread
            and "dynamicTools" in asked.message["params"]
        ):
            for view in self.views.values():
                if any(key(each.get("id")) in view.joins for each in view.peer.inbox):
                    view.tools_of.add(asked.thread)
                    self.with_tool.add(asked.thread)
        self.look()
        if asked.method == "thread/resume" and asked.thread:
            self.world.repeat(asked.thread)
            self.look()

    @precondition(lambda self: self.world.up and not self.world.overloaded_next)
    @rule(count=st.integers(1, 2))
    def app_server_is_overloaded(self, count: int) -> None:
        self.world.overloaded_next = count

    @invariant()
    def followers_and_nobody_else_hear_what_streams(self) -> None:
        for thread in sorted(self.world.subscribed):
            self.deltas += 1
            wants = [view for view in self.ready() if thread in view.follows]
            params = {"threadId": thread, "itemId": "i", "delta": "x", "n": self.deltas}
            self.story.notifies(DELTA, params)
            self.look()
            for view in wants:
                heard = self.deltas in view.deltas
                assert heard is (DELTA not in view.opted_out), "a follower missed something"

    @precondition(lambda self: self.world.unannounced_turns)
    @rule(data=st.data())
    def turn_is_announced(self, data: st.DataObject) -> None:
        thread = data.draw(st.sampled_from(sorted(self.world.unannounced_turns)))
        self.world.announce_turn(thread)
        self.look()

    @precondition(lambda self: self.world.running.keys() - self.world.unannounced_turns)
    @rule(data=st.data())
    def turn_ends(self, data: st.DataObject) -> None:
        running = sorted(self.world.running.keys() - self.world.unannounced_turns)
        self.world.end_turn(data.draw(st.sampled_from(running)))
        self.look()

    @precondition(lambda self: self.world.announced & self.world.subscribed)
    @rule(
        data=st.data(),
        kind=st.sampled_from(["approval", "approval", "human", "question", "unknown", "tool"]),
    )
    def server_request_is_raised(self, data: st.DataObject, kind: Kind) -> None:
        threads = self.world.announced & self.world.subscribed
        if kind == "tool":  # one that the thread was started with, in a turn
            threads &= self.with_tool & (self.world.running.keys() - self.world.unannounced_turns)
        if not threads:
            return
        thread = data.draw(st.sampled_from(sorted(threads)))
        request = self.world.raise_request(kind, thread)
        self.look()
        for view in self.ready():
            if kind not in ("tool", "human") and thread in view.follows:
                assert view.id in request.offered, "a follower wasn't asked"

    @precondition(lambda self: self.story.broker.state.appserver.state.value == "ready")
    @rule()
    def tokens_are_to_be_refreshed(self) -> None:
        request = self.world.raise_request("refresh", None)
        self.look()
        assert len(request.offered) == 1 or (request.answered and not self.ready())

    @precondition(lambda self: any(each.answered for each in self.world.requests))
    @rule(data=st.data())
    def server_request_is_resolved(self, data: st.DataObject) -> None:
        done = [each for each in self.world.requests if each.answered and not each.resolved]
        if done:
            self.world.resolve(done[data.draw(st.integers(0, len(done) - 1))])
            self.look()

    @precondition(lambda self: self.closable())
    @rule(data=st.data())
    def thread_is_closed(self, data: st.DataObject) -> None:
        self.world.close(data.draw(st.sampled_from(self.closable())))
        self.look()

    def closable(self) -> list[str]:
        world = self.world
        busy = world.subscribed | world.running.keys()
        busy |= {each.thread for each in world.requests if each.thread and not each.resolved}
        return sorted(world.loaded - busy)

    @rule(seconds=st.sampled_from([0.06, 1.0, 11.0, 61.0, 121.0]))
    def time_passes(self, seconds: float) -> None:
        self.pass_time(seconds)

    def pass_time(self, seconds: float) -> None:
        for request in self.world.requests:  # what is waited for no longer has abstained
            if request.kind == "refresh":
                request.abstained |= request.offered
        end = self.story.now + seconds
        self._refuse()
        while self.story.broker.wakeup < end:
            self.story.waits_until(self.story.broker.wakeup)
            self.look()
            self._refuse()
        self.story.waits_until(end)
        self.look()

    def _refuse(self) -> None:
        """An app-server that is overloaded says so at once."""
        for asked in list(self.world.asked.values()):
            if asked.overloaded:
                self.deliver(asked)

    # ── the end ───────────────────────────────────────────────────────────────────────────────

    def teardown(self) -> None:
        if not (self.intact and self.story.intact):
            return  # what failed is told already
        if not self.world.up:
            self.app_server_starts(settles=True)
        self.world.overloaded_next = 0
        for _ in range(3):
            self._settle()
            self.pass_time(LIMITS.kept_for_return + 1)
        self._settle()
        self._check_the_end()

    def _settle(self) -> None:
        world = self.world
        rounds = 0
        while world.asked or world.refused or world.running or self._unresolved():
            rounds += 1
            assert rounds < 100, "it never settles"
            for asked in list(world.asked.values()):
                if asked.wire in world.asked:
                    self.deliver(asked)
            if world.refused:
                self.pass_time(20.0)
                world.refused &= set(self._wires_waiting())
            for thread in sorted(world.running):
                world.announce_turn(thread)
                self.look()
                world.end_turn(thread)
                self.look()
            for request in self._unresolved():
                if request.answered or request.kind != "refresh":
                    world.resolve(request)
                    self.look()
                else:
                    self.pass_time(LIMITS.one_client_deadline + 1)

    def _wires_waiting(self) -> list[int]:
        return list(self.story.broker.state.flow.upstream)

    def _unresolved(self) -> list[ServerRequest]:
        return [each for each in self.world.requests if not each.resolved]

    def _check_the_end(self) -> None:
        state, world = self.story.broker.state, self.world
        for view in self.views.values():
            owed = +view.unanswered
            assert not owed, f"never answered: {owed}"
        for request in [*world.past, *world.requests]:
            told = {
                id
                for id in request.offered
                if id in self.views and RESOLVED not in self.views[id].opted_out
            }
            assert not told or not request.is_told_resolved, "never told that it is resolved"
        followed = {thread for view in self.views.values() for thread in view.follows}
        assert world.subscribed == followed, "subscribed to what nobody follows, or the reverse"
        owners = {int(watch.partition(":")[0]) for watch in world.watches}
        assert owners <= set(self.views), "a watch of one that left"
        assert (state.flow.upstream, state.flow.queued, state.flow.in_flight) == ({}, 0, 0)
        assert not list(state.approvals.pending())
        assert not +state.threads.joining
        assert not +state.threads.beginning
        assert not -state.threads.joining
        assert {client for client, _ in state.scoped.running()} <= set(self.views)


EXPLORES = settings.get_current_profile_name() == "explore"
AnyStory.TestCase.settings = settings(
    stateful_step_count=40,
    # To find the shortest story that fails takes minutes, longer than a test may take.
    phases=[phase for phase in Phase if EXPLORES or phase is not Phase.shrink],
)
TestAnyStory = AnyStory.TestCase
