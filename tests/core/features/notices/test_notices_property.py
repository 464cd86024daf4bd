"""Whatever happens, in whatever order: nobody is told twice, nothing that waits is missed.

A state machine plays app-server, clients and devices on a clock of its own, and keeps a book of its
own of who looks. After each step it compares what the broker has told with what must hold.
"""

from __future__ import annotations

from collections import Counter

import attrs
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from mux.core.commands import Notify, Withdraw
from mux.core.events import RecipientsChanged
from mux.core.policy.approval_policy import Policies
from mux.core.policy.notice import Rule, Timing
from mux.core.policy.principal import Principal
from tests.core.noticed import peopled, recipient
from tests.core.stories import APPROVAL, Peer, Story

TIMING = Timing()
DEVICES = ("d1", "d2", "bob")
THREADS = ("t", "u")
QUIET = Rule(on=False, why="quiet hours")
LOOKS_EVERY = 5.0
ACCEPT = {"decision": "accept"}
WATCHER = Principal("wall", "device", scopes=frozenset({"observe"}), device="d3")


@attrs.define(eq=False)
class Seat:
    """A client as the test knows it. ``focus``: absent for one that never says it."""

    peer: Peer
    may_approve: bool
    says_focus: bool
    focus: str | None = None
    heard: float = 0.0
    acted: dict[str, float] = attrs.field(factory=dict)
    abstained: set[int] = attrs.field(factory=set)

    def looks(self, thread: str, now: float) -> bool:
        if self.says_focus:
            return self.focus == thread and self.heard + TIMING.focus > now
        return self.acted.get(thread, float("-inf")) + TIMING.looking > now


@attrs.define(eq=False)
class Waiting:
    """An approval that waits. ``alone``: since when nobody looks at it."""

    upstream: int
    id: int
    thread: str
    alone: float | None = None


class Noticing(RuleBasedStateMachine):
    """Approvals on two threads, up to four clients, three devices of which one is told last."""

    @initialize()
    def begin(self) -> None:
        self.story = Story.under(Policies(machines_wait=False))  # seats answer at once
        peopled(self.story, "p")
        self.seats: list[Seat] = []
        self.waiting: dict[int, Waiting] = {}
        self.upstream = 0
        self.quiet: set[str] = set()
        self.registered: set[str] = set()
        self.sent: Counter[tuple[str, str]] = Counter()
        self.standing: dict[str, set[str]] = {}
        anchor = self._seat(may_approve=False, says_focus=True)  # keeps the threads loaded
        self._follow(anchor)
        for says_focus in (True, False):
            self._follow(self._seat(may_approve=True, says_focus=says_focus))
        for device in DEVICES:
            self.registers(device)

    def _seat(self, *, may_approve: bool, says_focus: bool) -> Seat:
        peer = self.story.peer("p") if may_approve else self.story.peer("p", WATCHER)
        seat = Seat(peer, may_approve, says_focus)
        self.seats.append(seat)
        if says_focus:
            self._focus(seat, None)
        return seat

    def _follow(self, seat: Seat) -> None:
        for thread in THREADS:
            seat.heard = self.story.now
            self.story.follows(seat.peer, thread)

    def _focus(self, seat: Seat, thread: str | None) -> None:
        seat.peer.asks("mux/focus", {"threadId": thread})
        seat.focus, seat.heard = thread, self.story.now

    # ── what happens ──────────────────────────────────────────────────────────────────────────

    @precondition(lambda self: len(self.seats) < 5)
    @rule(may_approve=st.booleans(), says_focus=st.booleans())
    def comes(self, may_approve: bool, says_focus: bool) -> None:
        self._follow(self._seat(may_approve=may_approve, says_focus=says_focus))

    @precondition(lambda self: len(self.seats) > 1)
    @rule(data=st.data())
    def leaves(self, data: st.DataObject) -> None:
        seat = data.draw(st.sampled_from(self.seats[1:]))
        self.seats.remove(seat)
        seat.peer.leaves()

    @rule(data=st.data(), thread=st.sampled_from((*THREADS, None)))
    def focuses(self, data: st.DataObject, thread: str | None) -> None:
        seats = [seat for seat in self.seats if seat.says_focus]
        self._focus(data.draw(st.sampled_from(seats)), thread)

    @rule(data=st.data(), thread=st.sampled_from(THREADS))
    def drives(self, data: st.DataObject, thread: str) -> None:
        able = [seat for seat in self.seats if seat.may_approve]
        if able:
            seat = data.draw(st.sampled_from(able))
            seat.peer.asks("turn/steer", {"threadId": thread})
            seat.heard = seat.acted[thread] = self.story.now

    @rule(thread=st.sampled_from(THREADS))
    def asks(self, thread: str) -> None:
        self.upstream += 1
        self.story.asks(self.upstream, APPROVAL, threadId=thread, itemId=f"i{self.upstream}")
        id = self.story.broker.state.pending_requests.next_id
        self.waiting[id] = Waiting(self.upstream, id, thread)

    @rule(thread=st.sampled_from(THREADS), seconds=st.sampled_from((61.0, 130.0, 620.0)))
    def is_left_alone(self, thread: str, seconds: float) -> None:
        """Often, as few other ways lead to where it goes to others."""
        self.asks(thread)
        self.holds()
        self.time_passes(seconds)

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def asks_again(self, data: st.DataObject) -> None:
        """As a resume makes the app-server do."""
        one = data.draw(st.sampled_from(list(self.waiting.values())))
        self.story.asks(one.upstream, APPROVAL, threadId=one.thread, itemId=f"i{one.upstream}")

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def is_answered(self, data: st.DataObject) -> None:
        able = [seat for seat in self.seats if seat.may_approve]
        if able:
            seat = data.draw(st.sampled_from(able))
            one = data.draw(st.sampled_from(list(self.waiting.values())))
            seat.peer.asks("mux/approvals/answer", {"id": one.id, "result": ACCEPT})
            assert "result" in seat.peer.heard()[-1]
            seat.heard = seat.acted[one.thread] = self.story.now
            del self.waiting[one.id]
            if len(self.waiting) % 2:
                self.story.resolves(one.upstream, one.thread)

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def is_withdrawn(self, data: st.DataObject) -> None:
        one = data.draw(st.sampled_from(list(self.waiting.values())))
        del self.waiting[one.id]
        self.story.resolves(one.upstream, one.thread)

    @rule(device=st.sampled_from(DEVICES))
    def registers(self, device: str) -> None:
        self.registered ^= {device}
        self._tell_reachable()

    @rule(device=st.sampled_from(DEVICES))
    def hours_change(self, device: str) -> None:
        self.quiet ^= {device}
        self._tell_reachable()

    def _tell_reachable(self) -> None:
        recipients = [
            recipient(each, 0.0, *([QUIET] if each in self.quiet else []), further=each == "bob")
            for each in DEVICES
            if each in self.registered
        ]
        self.story.tell(RecipientsChanged(tuple(recipients)))

    @rule(seconds=st.sampled_from((1.0, 29.0, 59.0, 61.0, 119.0, 121.0, 490.0)))
    def time_passes(self, seconds: float) -> None:
        end = self.story.now + seconds
        while self.story.now < end:  # so that the book is kept on the way
            self.story.waits(min(LOOKS_EVERY, end - self.story.now))
            self.holds()

    # ── what must hold ────────────────────────────────────────────────────────────────────────

    @invariant()
    def holds(self) -> None:
        if hasattr(self, "story"):
            lookers = {id: self._lookers(one) for id, one in self.waiting.items()}
            self._take_what_was_told(lookers)
            self._check_that_none_is_missed(lookers)

    def _lookers(self, one: Waiting) -> list[Seat]:
        now = self.story.now
        return [s for s in self.seats if s.may_approve and s.looks(one.thread, now)]

    def _take_what_was_told(self, lookers: dict[int, list[Seat]]) -> None:
        notices, self.story.notices = self.story.notices, []
        for each in notices:
            match each:
                case Notify(notice, device):
                    self.sent[notice.subject, device] += 1
                    assert self.sent[notice.subject, device] == 1, "told twice"
                    self.standing.setdefault(notice.subject, set()).add(device)
                    assert not lookers.get(notice.request or 0), "told while somebody looks"
                    name = device.removeprefix("device:")
                    assert name in self.registered - self.quiet, "told one that wants nothing"
                case Withdraw(notice, devices):
                    assert set(devices) == self.standing.pop(notice.subject), "not where it went"
                    assert len(set(devices)) == len(devices)
        things = {f"asked/{id}" for id in self.waiting}
        assert self.standing.keys() <= things, "it is over, and stands"

    def _check_that_none_is_missed(self, lookers: dict[int, list[Seat]]) -> None:
        own = self.registered - self.quiet - {"bob"}
        for id, one in self.waiting.items():
            went = self.standing.get(f"asked/{id}", set())
            if lookers[id]:
                one.alone = None
                continue
            if one.alone is None:
                one.alone = self.story.now
            assert went or not own, "nobody saw it and nobody was told"
            alone = self.story.now - one.alone
            if alone > TIMING.escalate_after + LOOKS_EVERY:
                assert {f"device:{each}" for each in own} <= went, "not all were told in time"
            if alone > TIMING.escalate_further_after + LOOKS_EVERY:
                bob = (self.registered - self.quiet) & {"bob"}
                assert {f"device:{each}" for each in bob} <= went, "bob wasn't told"


TestNoticing = Noticing.TestCase
TestNoticing.settings = settings(max_examples=100, stateful_step_count=40)
