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

from collections.abc import Iterable
from typing import Final

from mux.core.audit import audit_events
from mux.core.commands import Notify, Withdraw
from mux.core.features.approvals.approval_items import item_about, params_of
from mux.core.features.approvals.outcomes import BY_NOTICE
from mux.core.features.clients.attention import Attention, Glance
from mux.core.features.notices import notice_sources
from mux.core.features.notices.notice_escalation import NoticeEscalation
from mux.core.part import Part, later
from mux.core.policy import risk
from mux.core.policy.notice import WAITING, Kind, Notice, RestoredNotice, Timing
from mux.core.protocol.envelope import jsonrpc
from mux.core.protocol.rules import OfferTo
from mux.core.state.app_server import AppServerState
from mux.core.state.clients.client import Client
from mux.core.state.notice_records import OpenNotice
from mux.core.state.requests.pending_requests import ServerRequest
from mux.core.state.state import NEVER, State

MOST_OPEN: Final = 256
"""Informing notices that nobody has seen; past that, the oldest is left where it is."""

QUESTIONS: Final = frozenset({"item/tool/requestUserInput", "mcpServer/elicitation/request"})
"""Server requests that ask for words, not for leave."""


class Notices(Part):
    """All notices of one broker."""

    state: State
    attention: Attention
    timing: Timing
    life: str = ""
    """Text that no other life of the broker has."""
    escalation: NoticeEscalation = later()
    _seen: tuple[int, int, int] = (0, 0, 0)
    """The values that ``refresh`` depends on (see ``_changes``), as they were the last time."""

    def __post_init__(self) -> None:
        self.escalation = NoticeEscalation(self.state, self.attention, self.timing)

    @property
    def needs_refresh(self) -> bool:
        """Return whether ``refresh`` may find something new.

        Evaluated after each event, so it is cheap.

        Open notices are weighed against who looks at them. That changes with what a person does,
        with who is offered an approval, with who is whose sub-agent, and with time.
        """
        if self._changes() != self._seen or self.escalation.due <= self.state.now:
            return True
        down = self.state.notices.down
        return down is not None and self.state.appserver.state is AppServerState.READY

    def _changes(self) -> tuple[int, int, int]:
        state = self.state
        return state.pending_requests.changes, self.attention.changes, state.threads.lineage

    def make(
        self, subject: str, kind: Kind, thread: str | None, line: str, turn: str | None = None
    ) -> Notice:
        """Return a notice under its thread's title."""
        line = notice_sources.one_line(line)
        return Notice(subject, kind, thread, turn, self._title(thread), line)

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
        if self.state.notices.unended:
            glance = self.attention.glance()
            for unended in list(self.state.notices.unended.values()):
                self._weigh(unended, glance)
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
        for unended in list(self.state.notices.unended.values()):
            if unended.request is not None and unended.notice.subject not in waiting:
                self.end(unended.notice.subject, self._how_it_ended(unended.request))
        for subject, request in waiting.items():
            if self.state.notices.was_raised(subject):
                continue
            notice = self._of_request(subject, request)
            self.state.notices.unended[subject] = OpenNotice(notice, request)
            self.escalation.log_decision(
                self.state.notices.unended[subject], "raised", request.method
            )

    def _of_request(self, subject: str, request: ServerRequest) -> Notice:
        params, item = params_of(request), item_about(self.state, request)
        fields = jsonrpc.read_fields(params) or {}
        question = request.method in QUESTIONS
        thread = self.state.threads.known.get(request.thread or "")
        workspace = thread.cwd if thread is not None else ""
        return Notice(
            subject,
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
        return f"answered by {client_name(client)}"

    def _watch_app_server(self) -> None:
        state = self.state.appserver
        if state.state is AppServerState.DOWN and self.state.notices.down is None:
            subject = f"down/{self.life}/{state.generation}"
            self.state.notices.down = self.inform(self.make(subject, "app-server-down", None, ""))
        elif state.state is AppServerState.READY and self.state.notices.down is not None:
            was_down, self.state.notices.down = self.state.notices.down, None
            self.end(was_down.notice.subject, "the app-server is back")
            if was_down.sent:
                subject = f"back/{self.life}/{state.generation}"
                notice = self.make(subject, "app-server-back", None, "")
                self.inform(notice, only=frozenset(was_down.sent))

    def _weigh(self, each: OpenNotice, glance: Glance) -> None:
        """Close or hold back a notice that somebody looks at; push any other where that is due."""
        if each.request is None:
            look = glance.has_person(each.notice.thread)
            if look is not None:
                self.end(each.notice.subject, f"{client_name(look[0])} looks at it")
                return
        else:
            look = self.attention.at_request(each.request)
            if look is not None:
                each.alone_since = None
                self.escalation.log_decision(
                    each, "suppressed", f"{client_name(look[0])} looks at it"
                )
                self.escalation.due = min(self.escalation.due, look[1])
                return
        if each.alone_since is None:
            each.alone_since = self.state.now
        self.escalation.push_due(each)

    # ── raising ───────────────────────────────────────────────────────────────────────────────

    def inform(
        self, notice: Notice, *, only: frozenset[str] | None = None, suppressed: str | None = None
    ) -> OpenNotice:
        """Send an informing notice at once; or never, if somebody looks."""
        each = OpenNotice(notice, alone_since=self.state.now, only=only)
        if self.state.notices.was_raised(notice.subject):
            return each
        self.escalation.log_decision(each, "raised", "")
        look = self.attention.has_person(notice.thread)
        if look is not None:
            suppressed = suppressed or f"{client_name(look[0])} looks at it"
        if suppressed is not None:
            self.escalation.log_decision(each, "suppressed", suppressed)
            return each
        self.state.notices.unended[notice.subject] = each
        self.escalation.push_due(each)
        self.state.wake_at(self.escalation.due)
        if not each.sent and each.settled:
            del self.state.notices.unended[notice.subject]
        self._forget_oldest()
        return each

    # ── the end of one ────────────────────────────────────────────────────────────────────────

    def end_all(self, thread: str, reason: str, *, also_waiting: bool) -> None:
        """End a thread's notices; those of requests only if ``also_waiting``."""
        for unended in list(self.state.notices.unended.values()):
            if unended.notice.thread == thread and (also_waiting or unended.request is None):
                self.end(unended.notice.subject, reason)

    def end(self, subject: str, reason: str) -> None:
        """End a notice, if it is open: it is withdrawn wherever it was sent."""
        each = self.state.notices.unended.pop(subject, None)
        if each is None:
            return
        if each.sent:
            self.state.out.append(Withdraw(each.notice, tuple(each.sent), reason))
        else:
            self.escalation.log_decision(each, "over", reason)

    def _forget_oldest(self) -> None:
        informing = [
            subject for subject, each in self.state.notices.unended.items() if each.request is None
        ]
        for subject in informing[:-MOST_OPEN]:
            del self.state.notices.unended[subject]

    # ── earlier lives ─────────────────────────────────────────────────────────────────────────

    def kept(self, known: Iterable[str], standing: Iterable[RestoredNotice]) -> None:
        """Restore the subjects that an earlier life raised, and its notices that aren't over.

        Requests that waited then are over with the app-server that made them. Where such a notice
        could be read, it is withdrawn. A device to which it is still on its way is sent what is
        true now instead.
        """
        for subject in known:
            self.state.notices.was_raised(subject)
        for old in standing:
            self.state.notices.was_raised(old.subject)
            notice = Notice(old.subject, old.kind, old.thread, title=old.title)
            if old.kind in WAITING:
                reason = "the app-server that asked has ended with the broker"
                self.state.out.append(Withdraw(notice, old.devices, reason))
                self._push_lost(old)
            else:
                sent = dict.fromkeys(old.devices)
                self.state.notices.unended[old.subject] = OpenNotice(
                    notice, sent=sent, settled=True
                )
        self._forget_oldest()

    def _push_lost(self, old: RestoredNotice) -> None:
        notice = Notice(f"{old.subject}/lost", "approval-lost", old.thread, title=old.title)
        if not old.unsent or self.state.notices.was_raised(notice.subject):
            return
        each = OpenNotice(notice, sent=dict.fromkeys(old.unsent), settled=True)
        self.state.notices.unended[notice.subject] = each
        self.escalation.log_decision(each, "raised", "the broker ended while it was on its way")
        for device in old.unsent:
            self.state.count("notice/sent")
            self.state.out.append(Notify(notice, device, "the approval was on its way to it"))


def client_name(client: Client) -> str:
    """Return a client as reasons name it."""
    name = (
        client.info.name[: audit_events.NAME_CHARACTERS] if client.info is not None else "unnamed"
    )
    return f"{name} ({client.principal.name}, client {client.id})"
