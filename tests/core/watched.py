"""Clients as they see themselves, between a broker and a world: the judge of the state machine.

Each is watched through what it is sent: it follows what it was told that it follows, and has before
it the server requests that it was offered. So for every message there is a reason why this client
may see it, and for every request one answer.

Heard from: ``test_machine``, whose rules make things happen and ``look`` afterwards.
"""

from __future__ import annotations

from collections import Counter

import attrs

from mux.core.commands import KillUpstream
from mux.core.limits import Limits
from mux.core.state.state import NEVER
from tests.core.stories import DELTA, RESOLVED, Json, Peer, Story
from tests.core.world import Asked, ServerRequest, World

LIMITS = Limits(
    in_flight=3,
    in_flight_per_client=2,
    queued_per_client=6,
    deaths_in_a_minute=10**6,
    probe_interval=NEVER,
)


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


class Watched:
    """Everything of a story but what happens in it. ``look`` checks what came of the last event."""

    def __init__(self) -> None:
        super().__init__()
        self.story = Story(LIMITS)
        self.world = World(self.story, LIMITS)
        self.views: dict[int, View] = {}
        self.by_offer: dict[int, ServerRequest] = {}
        self.deltas = 0
        self.early: set[str] = set()
        self.joined: set[tuple[int, str]] = set()  # by an answer of this look
        self.with_tool: set[str] = set()
        self.intact = True

    # ── looking at what happened ──────────────────────────────────────────────────────────────

    def look(self) -> None:
        """Take in what was written to each side, and check it."""
        self.intact = False
        for message in self.story.written():
            self.world.receive(message)
        if self.story.lives and isinstance(self.story.lives[-1], KillUpstream) and self.world.up:
            self.story.lives.clear()
            self.world.exit()
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
        self.joined.clear()
        self._check_offers()
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
                thread = message["result"]["thread"]["id"]
                view.follows[thread] = join.number
                self.joined.add((view.id, thread))
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
        again = (view.id, request.thread) in self.joined  # as natively
        assert again or view.id not in request.offered, "offered twice"
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

    def _check_offers(self) -> None:
        """What waits for a person's word is before everybody who may give it."""
        for request in self.world.requests:
            if not request.open or request.thread is None or request.kind == "tool":
                continue
            for view in self.ready():
                able = view.human or request.kind != "human"
                if able and request.thread in view.follows:
                    assert view.id in request.offered, "a follower wasn't asked"

    def _check_state(self) -> None:
        state = self.story.broker.state
        assert 0 <= state.scheduler.in_flight <= LIMITS.in_flight
        assert set(state.clients) == set(self.views)
        self.intact = True

    def ready(self) -> list[View]:
        return [view for view in self.views.values() if view.ready]

    # ── what more than one rule does ──────────────────────────────────────────────────────────

    def start(self, *, settles: bool) -> None:
        """The app-server starts; ``settles``: and is ready at once."""
        self.world.start()
        self.look()
        # A first handshake that never came about ends the broker, which isn't what this is about.
        settles = settles or not self.story.broker.state.appserver.known
        while settles and self.story.broker.state.appserver.state.value != "ready":
            self.deliver(next(iter(self.world.asked.values())))
            if self.world.refused:
                self.pass_time(30.0)

    def answer_all(self) -> None:
        for _ in range(1000):
            if not self.world.asked:
                return
            self.deliver(next(iter(self.world.asked.values())))
        raise AssertionError("the broker never stops asking")

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

    def pass_time(self, seconds: float) -> None:
        for request in self.world.requests:  # what is waited for no longer has abstained
            if request.kind == "refresh":
                request.abstained |= request.offered
        end = self.story.now + seconds
        self._refuse()
        while self.story.broker.next_wakeup < end:
            self.story.waits_until(self.story.broker.next_wakeup)
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

    def settle(self) -> None:
        """Let all that was begun come to its end."""
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
        return list(self.story.broker.state.scheduler.upstream)

    def _unresolved(self) -> list[ServerRequest]:
        return [each for each in self.world.requests if not each.resolved]

    def check_the_end(self) -> None:
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
        assert (state.scheduler.upstream, state.scheduler.queued, state.scheduler.in_flight) == (
            {},
            0,
            0,
        )
        assert not list(state.pending_requests.pending())
        assert not +state.threads.joining
        assert not +state.threads.beginning
        assert not -state.threads.joining
        assert {client for client, _ in state.scoped_ids.running()} <= set(self.views)
