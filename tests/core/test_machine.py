"""Any story at all: clients and an app-server do what they like, and what must hold, holds.

The rules here are what may happen. ``world`` is the app-server; ``watched`` judges what came of it.
In the end everything settles (answers come, turns end), and nothing may be left over.
"""

from __future__ import annotations

import json
from typing import Any

from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.core.stories import DELTA, RESOLVED, Json
from tests.core.watched import LIMITS, Ask, View, Watched, key
from tests.core.world import VALID, Kind

TOOL: Json = {"type": "function", "name": "look", "description": "", "inputSchema": {}}
MANY_LIVES = 3


class AnyStory(Watched, RuleBasedStateMachine):
    """Clients that come, ask, answer and leave; an app-server that answers, raises and dies."""

    # ── clients ───────────────────────────────────────────────────────────────────────────────

    @initialize(
        clients=st.integers(0, 3), threads=st.integers(0, 2), old=st.booleans(), asked=st.booleans()
    )
    def begin(self, clients: int, threads: int, old: bool, asked: bool) -> None:
        """Some way into a story; without clients, at its very beginning."""
        if not clients:
            return
        self.start(settles=True)
        for _ in range(clients):
            self.client_attaches(opted_out=set(), human=False, now=True)
        for at in range(1, threads + 1):
            thread = self._begin_old(f"old{at}") if old else self._begin_new()
            if asked:
                self.world.raise_request("approval", thread)
                self.look()

    def _begin_new(self) -> str:
        """A thread of the first client's, with a turn; the last one doesn't follow it."""
        first, *others = self.views.values()
        self._asks(first, "thread/start", {"dynamicTools": [TOOL]}, first.joins)
        self.answer_all()
        thread = self.world.threads[-1]
        self._asks(first, "turn/start", {"threadId": thread})
        for other in others[:-1]:
            self._asks(other, "thread/resume", {"threadId": thread}, other.joins)
            self.answer_all()
        return thread

    def _begin_old(self, thread: str) -> str:
        """A thread on which nothing runs; the first client follows it."""
        first = self.views[1]
        self._asks(first, "thread/resume", {"threadId": thread}, first.joins)
        self.answer_all()
        return thread

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
        self._answer_some(data)

    @precondition(lambda self: self.ready())
    @rule(data=st.data())
    def client_resumes(self, data: st.DataObject) -> None:
        view, thread = self._client_and_thread(data)
        self._asks(view, "thread/resume", {"threadId": thread}, view.joins)
        self._answer_some(data)

    @precondition(lambda self: self.ready())
    @rule(data=st.data())
    def client_unsubscribes(self, data: st.DataObject) -> None:
        view, thread = self._client_and_thread(data)
        self._asks(view, "thread/unsubscribe", {"threadId": thread}, view.leaves)
        self._answer_some(data)

    @precondition(lambda self: self.ready())
    @rule(data=st.data())
    def client_starts_a_turn(self, data: st.DataObject) -> None:
        view, thread = self._client_and_thread(data)
        self._asks(view, "turn/start", {"threadId": thread})
        self._answer_some(data)

    @precondition(lambda self: self.ready())
    @rule(
        data=st.data(),
        method=st.sampled_from(["fs/watch", "fs/watch", "fs/unwatch"]),
        own=st.sampled_from(["w", "1:w", ""]),
    )
    def client_watches(self, data: st.DataObject, method: str, own: str) -> None:
        view = self._client(data)
        self._asks(view, method, {"watchId": own, "path": "/x"})

    def _answer_some(self, data: st.DataObject) -> None:
        """Mostly there is nothing in between; what is, is the point of the other half."""
        if data.draw(st.booleans()):
            self.answer_all()

    def _client_and_thread(self, data: st.DataObject) -> tuple[View, str]:
        alive = sorted(self.world.announced)
        thread = st.sampled_from([*alive, *alive, *self.world.threads, "nowhere"])
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
        elif counts and request.offered <= request.abstained and request.kind != "refresh":
            assert request.answered, "all have abstained, and the app-server wasn't told"
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
        self.start(settles=settles)

    @precondition(lambda self: self.world.up and self.world.generation < MANY_LIVES)
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
        self.world.raise_request(kind, thread)
        self.look()

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

    # ── the end ───────────────────────────────────────────────────────────────────────────────

    def teardown(self) -> None:
        if not (self.intact and self.story.intact):
            return  # what failed is told already
        if not self.world.up:
            self.start(settles=True)
        self.world.overloaded_next = 0
        for _ in range(3):
            self.settle()
            self.pass_time(LIMITS.kept_for_return + 1)
        self.settle()
        self.check_the_end()


EXPLORES = settings.get_current_profile_name() == "explore"
AnyStory.TestCase.settings = settings(
    stateful_step_count=50,
    # To find the shortest story that fails takes minutes, longer than a test may take.
    phases=[phase for phase in Phase if EXPLORES or phase is not Phase.shrink],
)
TestAnyStory = AnyStory.TestCase
