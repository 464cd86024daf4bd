"""The inbox as it is at one moment: what needs a person, and the threads.

Used by ``inbox``, which makes pages of it, and ``inbox_changes``, which tells the differences.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import msgspec

from mux.core.extension.inbox import (
    InboxAppServer,
    InboxThread,
    Need,
    Running,
    ThreadChange,
)
from mux.core.extension.queue import By
from mux.core.features.approvals.approval_view import QUESTIONS, root_of, view
from mux.core.features.approvals.voting import Voting
from mux.core.features.inbox.inbox_cards import InboxCards
from mux.core.part import Part
from mux.core.policy.principal import Owner
from mux.core.protocol.rules import OfferTo
from mux.core.protocol.scope import Scope
from mux.core.state.requests.pending_requests import ServerRequest
from mux.core.state.state import State
from mux.core.state.threads.cards import Card
from mux.core.state.threads.last_line import last_line
from mux.core.state.threads.threads import Thread
from mux.core.state.turns.turn_queues import TurnQueue

Fingerprint = tuple[object, ...]
"""What makes two tellings of one need differ, apart from its age."""


class InboxPicture(Part):
    """Makes the parts of an inbox."""

    state: State
    cards: InboxCards
    voting: Voting

    # ── what needs a person ───────────────────────────────────────────────────────────────────

    def waiting(self) -> Iterator[ServerRequest | TurnQueue]:
        """Yield what waits for a person: server requests, then held queues."""
        for request in self.state.pending_requests.pending():
            if request.rule.offer_to is OfferTo.FOLLOWERS and not request.answered:
                yield request
        for queue in self.state.turn_queues.values():
            if queue.held is not None:
                yield queue

    def needs(self, scopes: frozenset[Scope]) -> list[Need]:
        """Return what waits and a client with these scopes may see."""
        needs = [self.need(each) for each in self.waiting() if is_for(each, scopes)]
        return sorted(needs, key=lambda need: -need.ageSeconds)

    def fingerprint(self, waiting: ServerRequest | TurnQueue) -> Fingerprint:
        """Return what must change so that a need is told again."""
        title, directory = self._named(self._root(waiting.thread))
        if isinstance(waiting, TurnQueue):
            return title, directory, len(waiting.turns), waiting.held
        ballot = waiting.ballot
        votes = tuple((who, vote.at) for who, vote in ballot.votes.items())
        return title, directory, votes, self.state.now >= ballot.opens, str(ballot.policy)

    def need(self, waiting: ServerRequest | TurnQueue) -> Need:
        """Return a need as clients get it."""
        root = self._root(waiting.thread)
        title, directory = self._named(root)
        need = Need(
            key=key(waiting),
            kind="queue",
            threadId=waiting.thread,
            rootThreadId=root or waiting.thread,
            title=title,
            directory=directory,
            ageSeconds=0.0,
        )
        if isinstance(waiting, TurnQueue):
            oldest = min((turn.since for turn in waiting.turns), default=self.state.now)
            need.ageSeconds = round(self.state.now - oldest, 3)
            need.held, need.queued = waiting.held or msgspec.UNSET, len(waiting.turns)
        else:
            self._fill(need, waiting)
        return need

    def _fill(self, need: Need, request: ServerRequest) -> None:
        shown, votes = view(self.state, request), self.voting.to_json(request)
        is_question = request.method in QUESTIONS
        need.kind = "question" if is_question else "approval"
        need.ageSeconds = round(self.state.now - request.since, 3)
        need.id, need.method, need.needs = request.id, request.method, request.needs or None
        need.turnId, need.itemId = shown.turn, shown.item
        need.policy, need.waitsFor = str(votes["policy"]), str(votes["waitsFor"])
        need.votes = votes["votes"]  # type: ignore[assignment]
        if is_question:
            need.text = shown.text
        else:
            need.reason, need.command, need.cwd = shown.reason, shown.command, shown.cwd
            need.files, need.risks = shown.files, shown.risks

    def _root(self, thread: str | None) -> str | None:
        root = root_of(self.state, thread)
        return root.id if root is not None else thread

    def _named(self, thread: str | None) -> tuple[str, str]:
        record = self.state.threads.known.get(thread or "")
        card = self.cards.cards.known(thread or "")
        title = card.title if card is not None else ""
        directory = card.directory if card is not None else ""
        if record is not None:
            title, directory = title or record.name, record.directory or directory
        return title, directory

    def counted(self) -> Counter[str]:
        """Return how many needs are under each thread that a person sees."""
        waiting = (each for each in self.waiting() if is_shown(each))
        return Counter(self._root(each.thread) or "" for each in waiting)

    # ── threads ───────────────────────────────────────────────────────────────────────────────

    def thread(self, id: str, needs: Counter[str]) -> InboxThread | None:
        """Return a thread as clients get it; None if it isn't shown."""
        card, record = self.cards.cards.known(id), self.state.threads.known.get(id)
        if card is None or not card.introduced or card.hidden or _is_hidden(record):
            return None
        queue = self.state.turn_queues.get(id)
        title, directory = self._named(id)
        return InboxThread(
            id=id,
            title=title,
            preview=card.preview,
            directory=directory,
            status=_status(card, record),
            archived=card.archived,
            createdAt=card.created,
            updatedAt=card.updated,
            recencyAt=card.recency,
            unread=card.unread,
            readState=msgspec.Raw(card.read_state),
            lastLine=self._line(card, record),
            turn=self._turn(card, record),
            lastTurn=card.ended,
            queued=0 if queue is None else len(queue.turns),
            held=None if queue is None else queue.held,
            needs=needs[id],
            usage=msgspec.Raw(card.usage),
        )

    def _line(self, card: Card, record: Thread | None) -> Any:
        running = record is not None and record.running.turn is not None
        return (last_line(record.running) if record is not None and running else None) or card.line

    def _turn(self, card: Card, record: Thread | None) -> Running | None:
        if record is None or record.running.turn is None:
            return None
        since = card.since if card.since is not None else self.state.now
        seconds = round(self.state.now - since, 3)
        return Running(record.running.turn, seconds, named(record.running.actor))

    def unlisted(self) -> list[str]:
        """Return the threads that run or are fresh, which the app-server's list may lack."""
        return [
            id
            for id, record in self.state.threads.known.items()
            if record.running.turn is not None
            or record.status == "active"
            or (record.only_here and record.followers)
        ]

    def app_server(self) -> InboxAppServer:
        """Return the state of the app-server."""
        appserver = self.state.appserver
        return InboxAppServer(appserver.state.value, appserver.version)


def key(waiting: ServerRequest | TurnQueue) -> str:
    """Return what tells one need from others."""
    if isinstance(waiting, TurnQueue):
        return f"queue/{waiting.thread}"
    return f"request/{waiting.id}"


def is_for(waiting: ServerRequest | TurnQueue, scopes: frozenset[Scope]) -> bool:
    """Return whether a client with these scopes, ``observe`` among them, may see it."""
    return isinstance(waiting, TurnQueue) or waiting.rule.is_for(scopes)


def is_shown(waiting: ServerRequest | TurnQueue) -> bool:
    """Return whether everybody who may observe sees it."""
    return isinstance(waiting, TurnQueue) or waiting.rule.shown


def named(owner: Owner | None) -> By | None:
    """Return a client as lists name it."""
    return None if owner is None else By(owner.client, owner.program, owner.principal.name)


def difference(before: InboxThread | None, now: InboxThread) -> ThreadChange | None:
    """Return what of a thread differs; all of it, where nothing was told before. None: nothing."""
    changes = {
        field: getattr(now, field)
        for field in now.__struct_fields__
        if before is None or not _same(field, getattr(before, field), getattr(now, field))
    }
    if not changes:
        return None
    return ThreadChange(**(changes | {"id": now.id}))


def _same(field: str, one: Any, other: Any) -> bool:
    if field == "turn" and one is not None and other is not None:
        return bool(one.id == other.id and one.by == other.by)  # seconds pass by themselves
    return bool(one == other)


def _is_hidden(record: Thread | None) -> bool:
    return record is not None and (record.private or record.ephemeral or record.parent is not None)


def _status(card: Card, record: Thread | None) -> str:
    if record is None or record.status == "unknown":
        return card.status
    return record.status
