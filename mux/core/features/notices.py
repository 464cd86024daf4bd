"""Notices: what deserves a person's attention, when it is raised, and when it is over.

    raised ──nobody looks who may act──▶ sent to the device used last ──▶ to all ──▶ to the further
       │                                              │
       └── somebody looks: held back                  └── over: withdrawn wherever it went

A notice of an approval or a question (``notice.WAITING``) is held back while somebody looks at it
who may answer it, and sent when they go: none is missed. It is over when the request is answered or
gone. A notice that only informs is sent at once or never, and is over when somebody looks at its
thread. If nobody is known to look, nobody looks (see ``attention``).

Approvals aren't followed by hooks: whenever they have changed, the approvals that wait are compared
with those that were raised. So one that was raised and answered within one event is never sent.

Each notice goes once to one device, whatever is repeated: its id (``Notice.subject``) stays the
same over restarts, and those of earlier lives are brought back (``NoticesRestored``).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Final

import attrs

from mux.core import audit_events
from mux.core.commands import Notify, Withdraw
from mux.core.features import notice_sources
from mux.core.features.approval_items import item_about, params_of
from mux.core.features.attention import Attention, Glance
from mux.core.features.notice_escalation import NoticeEscalation, OpenNotice
from mux.core.features.notice_sources import Turn
from mux.core.features.server_requests import BY_NOTICE
from mux.core.policy import risk
from mux.core.policy.notice import WAITING, Kind, Notice, Recipient, RestoredNotice, Timing
from mux.core.protocol import jsonrpc
from mux.core.protocol.methods import OfferTo
from mux.core.state.app_server import AppServerState
from mux.core.state.client import Client
from mux.core.state.pending_requests import ServerRequest
from mux.core.state.state import NEVER, State
from mux.core.state.threads import Thread

REMEMBERED: Final = 4096
"""Subjects of notices that were raised, so that none is raised again."""

MOST_OPEN: Final = 256
"""Informing notices that nobody has seen; past that, the oldest is left where it is."""

INTERRUPT: Final = "turn/interrupt"
QUESTIONS: Final = frozenset({"item/tool/requestUserInput", "mcpServer/elicitation/request"})
"""Server requests that ask for words, not for leave."""

_TURN_KINDS: Final[dict[str, Kind]] = {
    "completed": "turn-completed",
    "failed": "turn-failed",
    "interrupted": "turn-interrupted",
}
_GOAL_KINDS: Final[dict[str, Kind]] = {
    "complete": "goal-reached",
    "blocked": "goal-blocked",
    "budgetLimited": "goal-blocked",
    "usageLimited": "usage-limit",
}


@attrs.define(eq=False, repr=False)
class Notices:
    """All notices of one broker."""

    state: State
    attention: Attention
    timing: Timing
    life: str = ""
    """Text that no other life of the broker has."""
    escalation: NoticeEscalation = attrs.field(init=False)
    _open: dict[str, OpenNotice] = attrs.field(factory=dict)
    """The notices that aren't over, by subject."""
    _recipients: tuple[Recipient, ...] = ()
    _known: OrderedDict[str, None] = attrs.field(factory=OrderedDict)
    """Subjects that were raised, in this life or an earlier one."""
    _turns: dict[str, tuple[str, float]] = attrs.field(factory=dict)
    """The running turn of each thread, and when it began."""
    _interrupted_by: dict[str, str] = attrs.field(factory=dict)
    """The client that interrupted a thread's turn, by thread."""
    _goals: dict[str, str] = attrs.field(factory=dict)
    """The last status of each thread's goal."""
    _limit: str | None = None
    """The subject of the open notice of a usage limit."""
    _down: OpenNotice | None = None
    """The open notice that the app-server is down."""
    _seen: tuple[int, int, int] = (0, 0, 0)
    """The values that ``refresh`` depends on (see ``_changes``), as they were the last time."""

    @escalation.default
    def _made_escalation(self) -> NoticeEscalation:
        return NoticeEscalation(self.state, self.attention, self.timing)

    @property
    def needs_refresh(self) -> bool:
        """Return whether ``refresh`` may find something new.

        Evaluated after each event, so it is cheap.

        Open notices are weighed against who looks at them. That changes with what a person does,
        with who is offered an approval, with who is whose sub-agent, and with time.
        """
        if self._changes() != self._seen or self.escalation.due <= self.state.now:
            return True
        return self._down is not None and self.state.appserver.state is AppServerState.READY

    def _changes(self) -> tuple[int, int, int]:
        state = self.state
        return state.pending_requests.changes, self.attention.changes, state.threads.lineage

    # ── from notifications, answers and clients ───────────────────────────────────────────────

    def observe(self, method: str, thread: str | None, line: bytes) -> None:
        """Take a notification of a method in ``HEARD``. Called before anything else handles it."""
        HEARD[method](self, thread or "", line)

    def joined(self, answer: bytes) -> None:
        """Take name and parent of a thread from the answer to a request that follows it."""
        self._introduced("", answer)

    def acted(self, client: Client, method: str, thread: str | None) -> None:
        """Note that a person did something to a thread by this client."""
        self.attention.acted(client, thread)
        if method == INTERRUPT and thread is not None:
            _remember(self._interrupted_by, thread, _name(client))

    def _introduced(self, _: str, line: bytes) -> None:
        named = notice_sources.named(line)
        if named is not None:
            thread = self.state.threads.get(named.id)
            thread.name = notice_sources.one_line(named.name or "") or thread.name
            thread.cwd = named.cwd or thread.cwd
            thread.ephemeral = named.ephemeral or thread.ephemeral
            if named.parentThreadId:
                self.state.threads.spawned(named.parentThreadId, named.id)

    def _renamed(self, thread: str, line: bytes) -> None:
        self.state.threads.get(thread).name = notice_sources.one_line(
            notice_sources.new_name(line) or ""
        )

    def _turn_began(self, thread: str, line: bytes) -> None:
        turn = notice_sources.turn(line)
        if turn is not None:
            self._turns[thread] = (turn.id, self.state.now)
            self._interrupted_by.pop(thread, None)
            self._all_over(thread, "a new turn has begun", also_waiting=False)

    def _turn_ended(self, thread: str, line: bytes) -> None:
        turn = notice_sources.turn(line)
        began = self._turns.pop(thread, None)
        actor = self._interrupted_by.pop(thread, None)
        record = self.state.threads.known.get(thread)
        if turn is None or record is None or _is_nobodys(record):
            return
        if turn.hit_limit:
            self._hit_limit(f"turn/{turn.id}", thread, turn.error.message if turn.error else "")
            return
        if turn.status == "completed":
            self._below_limit()
        seconds = (turn.durationMs or 0.0) / 1000
        if began is not None and began[0] == turn.id:
            seconds = self.state.now - began[1]
        self._told_end(record, turn, seconds, actor)

    def _told_end(self, thread: Thread, turn: Turn, seconds: float, actor: str | None) -> None:
        kind = _TURN_KINDS.get(turn.status)
        if kind is None or seconds < self.timing.long_turn:
            return
        line = turn.error.message if turn.error else notice_sources.last_line(thread.running)
        reason = (
            f"{actor} interrupted it" if actor is not None and kind == "turn-interrupted" else None
        )
        notice = self._notice(f"turn/{turn.id}", kind, thread.id, line, turn.id)
        self._inform(notice, suppressed=reason)

    def app_server_ends(self) -> None:
        """End all turns: the process is gone."""
        turns, self._turns = self._turns, {}
        for id, (turn, since) in turns.items():
            thread = self.state.threads.known.get(id)
            if thread is not None and not _is_nobodys(thread):
                lost = Turn(turn, "interrupted")
                actor = self._interrupted_by.pop(id, None)
                self._told_end(thread, lost, self.state.now - since, actor)

    def _goal_changed(self, thread: str, line: bytes) -> None:
        update = notice_sources.goal(line)
        if update is None:
            return
        goal, before = update.goal, self._goals.get(thread)
        _remember(self._goals, thread, goal.status)
        kind = _GOAL_KINDS.get(goal.status)
        # Loading a thread repeats its goal; nothing has happened then.
        happened = update.turnId is not None if before is None else before != goal.status
        if kind is None or not happened:
            return
        thing = f"goal/{thread}/{goal.createdAt}/{goal.status}/{goal.updatedAt}"
        if kind == "usage-limit":
            self._hit_limit(thing, thread, goal.objective)
        else:
            self._inform(self._notice(thing, kind, thread, goal.objective))

    def _goal_cleared(self, thread: str, _: bytes) -> None:
        self._goals.pop(thread, None)

    def _limits_told(self, _: str, line: bytes) -> None:
        told = notice_sources.limits(line)
        if told is None:
            return
        if told.reached is not None:
            self._hit_limit(told.reached, None, "")
        elif told.says:
            self._below_limit()

    def _hit_limit(self, what: str, thread: str | None, line: str) -> None:
        """Raise once that the account's limit is reached, which is reported in several ways."""
        if self._limit is None:
            self._limit = f"usage/{what}"
            self._inform(self._notice(self._limit, "usage-limit", thread, line))

    def _below_limit(self) -> None:
        if self._limit is not None:
            self._over(self._limit, "more may be used again")
            self._limit = None

    def _put_away(self, thread: str, _: bytes) -> None:
        self._all_over(thread, "the thread is put away", also_waiting=True)
        self._goals.pop(thread, None)

    def _notice(
        self, thing: str, kind: Kind, thread: str | None, line: str, turn: str | None = None
    ) -> Notice:
        return Notice(thing, kind, thread, turn, self._title(thread), notice_sources.one_line(line))

    def _title(self, thread: str | None) -> str:
        """Return the thread's title; for a sub-agent's thread, the title of what spawned it."""
        for id in self.attention.line(thread or ""):
            record = self.state.threads.known.get(id)
            if record is not None and record.name:
                return notice_sources.one_line(record.name)
        return ""

    # ── open notices ──────────────────────────────────────────────────────────────────────────

    def refresh(self) -> None:
        """Compare what waits with what was raised, and send what is due."""
        self.escalation.due = NEVER
        self._raise_what_waits()
        self._watch_app_server()
        if self._open:
            glance = self.attention.glance()
            for each in list(self._open.values()):
                self._weigh(each, glance)
        self._seen = self._changes()
        self.state.wake_at(self.escalation.due)

    def on_timer(self) -> float:
        """Return when to come again; ``refresh`` runs at the end of the event."""
        return self.escalation.due if self.escalation.due > self.state.now else NEVER

    def _raise_what_waits(self) -> None:
        waiting = {
            f"asked/{request.id}": request
            for request in self.state.pending_requests.pending()
            if request.rule.offer_to is OfferTo.FOLLOWERS
            and request.rule.scope == "approve"  # others don't wait for a person
            and not request.answered
        }
        for each in list(self._open.values()):
            if each.request is not None and each.notice.subject not in waiting:
                self._over(each.notice.subject, self._how_it_ended(each.request))
        for thing, request in waiting.items():
            if self._knows(thing):
                continue
            notice = self._of_request(thing, request)
            self._open[thing] = OpenNotice(notice, request)
            self.escalation.log_decision(self._open[thing], "raised", request.method)

    def _of_request(self, thing: str, request: ServerRequest) -> Notice:
        params, item = params_of(request), item_about(self.state, request)
        fields = jsonrpc.read_fields(params) or {}
        question = request.method in QUESTIONS
        thread = self.state.threads.known.get(request.thread or "")
        workspace = thread.cwd if thread is not None else ""
        return Notice(
            thing,
            "question" if question else "approval",
            request.thread,
            jsonrpc.read_text(fields.get("turnId")),
            self._title(request.thread),
            notice_sources.one_line(jsonrpc.read_text(fields.get("reason")) or ""),
            request.id,
            request.method,
            params,
            item,
            request.method in risk.ACTIONABLE and not request.needs,
            risk.risks(request.method, params, item, workspace),
        )

    def _how_it_ended(self, request: ServerRequest) -> str:
        if not request.answered:
            return "withdrawn by the app-server"
        if request.answered_by == BY_NOTICE:
            return f"answered by a notice ({request.by_notice})"
        client = self.state.clients.get(request.answered_by or 0)
        if client is None:
            return "answered"
        self.attention.acted(client, request.thread)
        return f"answered by {_name(client)}"

    def _watch_app_server(self) -> None:
        state = self.state.appserver
        if state.state is AppServerState.DOWN and self._down is None:
            thing = f"down/{self.life}/{state.generation}"
            self._down = self._inform(self._notice(thing, "app-server-down", None, ""))
        elif state.state is AppServerState.READY and self._down is not None:
            told, self._down = self._down, None
            self._over(told.notice.subject, "the app-server is back")
            if told.sent:
                thing = f"back/{self.life}/{state.generation}"
                notice = self._notice(thing, "app-server-back", None, "")
                self._inform(notice, only=frozenset(told.sent))

    def _weigh(self, each: OpenNotice, glance: Glance) -> None:
        """Close or hold back a notice that somebody looks at; push any other where that is due."""
        if each.request is None:
            look = glance.at_thread(each.notice.thread)
            if look is not None:
                self._over(each.notice.subject, f"{_name(look[0])} looks at it")
                return
        else:
            look = self.attention.at_request(each.request)
            if look is not None:
                each.alone_since = None
                self.escalation.log_decision(each, "suppressed", f"{_name(look[0])} looks at it")
                self.escalation.due = min(self.escalation.due, look[1])
                return
        if each.alone_since is None:
            each.alone_since = self.state.now
        self.escalation.push_due(each)

    # ── raising ───────────────────────────────────────────────────────────────────────────────

    def _inform(
        self, notice: Notice, *, only: frozenset[str] | None = None, suppressed: str | None = None
    ) -> OpenNotice:
        """Send an informing notice at once; or never, if somebody looks."""
        each = OpenNotice(notice, alone_since=self.state.now, only=only)
        if self._knows(notice.subject):
            return each
        self.escalation.log_decision(each, "raised", "")
        look = self.attention.at_thread(notice.thread)
        if look is not None:
            suppressed = suppressed or f"{_name(look[0])} looks at it"
        if suppressed is not None:
            self.escalation.log_decision(each, "suppressed", suppressed)
            return each
        self._open[notice.subject] = each
        self.escalation.push_due(each)
        self.state.wake_at(self.escalation.due)
        if not each.sent and each.settled:
            del self._open[notice.subject]
        self._forget_oldest()
        return each

    # ── the end of one ────────────────────────────────────────────────────────────────────────

    def _all_over(self, thread: str, reason: str, *, also_waiting: bool) -> None:
        for each in list(self._open.values()):
            if each.notice.thread == thread and (also_waiting or each.request is None):
                self._over(each.notice.subject, reason)

    def _over(self, thing: str, reason: str) -> None:
        each = self._open.pop(thing, None)
        if each is None:
            return
        if each.sent:
            self.state.out.append(Withdraw(each.notice, tuple(each.sent), reason))
        else:
            self.escalation.log_decision(each, "over", reason)

    def _forget_oldest(self) -> None:
        informing = [thing for thing, each in self._open.items() if each.request is None]
        for thing in informing[:-MOST_OPEN]:
            del self._open[thing]

    def _knows(self, thing: str) -> bool:
        """Return whether the subject was raised before; from now on it counts as raised."""
        known = thing in self._known
        self._known[thing] = None
        if len(self._known) > REMEMBERED:
            self._known.popitem(last=False)
        return known

    # ── earlier lives ─────────────────────────────────────────────────────────────────────────

    def kept(self, known: Iterable[str], standing: Iterable[RestoredNotice]) -> None:
        """Take in the subjects that an earlier life raised, and its notices that aren't over.

        Requests that waited then are over with the app-server that made them. Where such a notice
        could be read, it is withdrawn. A device to which it is still on its way is sent what is
        true now instead.
        """
        for thing in known:
            self._knows(thing)
        for old in standing:
            self._knows(old.subject)
            notice = Notice(old.subject, old.kind, old.thread, title=old.title)
            if old.kind in WAITING:
                reason = "the app-server that asked has ended with the broker"
                self.state.out.append(Withdraw(notice, old.devices, reason))
                self._push_lost(old)
            else:
                sent = dict.fromkeys(old.devices)
                self._open[old.subject] = OpenNotice(notice, sent=sent, settled=True)
        self._forget_oldest()

    def _push_lost(self, old: RestoredNotice) -> None:
        notice = Notice(f"{old.subject}/lost", "approval-lost", old.thread, title=old.title)
        if not old.unsent or self._knows(notice.subject):
            return
        each = OpenNotice(notice, sent=dict.fromkeys(old.unsent), settled=True)
        self._open[notice.subject] = each
        self.escalation.log_decision(each, "raised", "the broker ended while it was on its way")
        for device in old.unsent:
            self.state.count("notice/sent")
            self.state.out.append(Notify(notice, device, "the approval was on its way to it"))


def _remember(of: dict[str, str], thread: str, what: str) -> None:
    """Remember a value per thread, for the threads it was set for last."""
    of.pop(thread, None)
    of[thread] = what
    if len(of) > REMEMBERED:
        del of[next(iter(of))]


def _is_nobodys(thread: Thread) -> bool:
    """Return whether nobody waits for the thread's turns: a sub-agent's, or a title being made."""
    ephemeral = thread.ephemeral or (thread.unsaved is not None and thread.unsaved.ephemeral)
    return ephemeral or thread.parent is not None or thread.adopted or not thread.claimed


def _name(client: Client) -> str:
    name = (
        client.info.name[: audit_events.NAME_CHARACTERS] if client.info is not None else "unnamed"
    )
    return f"{name} ({client.principal.name}, client {client.id})"


HEARD: Final[dict[str, Callable[[Notices, str, bytes], None]]] = {
    "thread/started": Notices._introduced,
    "thread/name/updated": Notices._renamed,
    "turn/started": Notices._turn_began,
    "turn/completed": Notices._turn_ended,
    "thread/goal/updated": Notices._goal_changed,
    "thread/goal/cleared": Notices._goal_cleared,
    "account/rateLimits/updated": Notices._limits_told,
    "thread/archived": Notices._put_away,
    "thread/deleted": Notices._put_away,
}
"""The notifications that notices depend on."""
