"""``mux/inbox``: what needs a person, and the threads; and what changes in it, as differences.

A page is one ``thread/list`` of the app-server, which goes up as a request of its asker does, with
what the broker knows added to each thread. Followers of the inbox are then told what changed, at
most four times a second. What changed is known without a look at every thread: threads are marked
by notifications (``touch``), approvals and queues are compared. The last line of a running thread
is read from its streams when a change may be told, never on a delta.

Every follower has its own place: what it was told of needs, and which threads it has had whole.
Nothing is journaled or replayed. One that is behind is told what is true then, when it is live.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import attrs
import msgspec

from mux.core.commands import Publish
from mux.core.extension import inbox as extension
from mux.core.extension.inbox import InboxAppServer, InboxChanged, InboxParams, InboxThread, Need
from mux.core.features import inbox_picture
from mux.core.features.client_requests import ClientRequests
from mux.core.features.inbox_cards import InboxCards
from mux.core.features.inbox_picture import InboxPicture, Sign, difference
from mux.core.features.presence import BYTES_PER_SECOND
from mux.core.policy.principal import ClientId
from mux.core.protocol import jsonrpc
from mux.core.protocol.journal_entry import Entry
from mux.core.protocol.jsonrpc import ClientMessage
from mux.core.state.app_server import AppServerState
from mux.core.state.cards import Card, ThreadList
from mux.core.state.client import Client, ClientState
from mux.core.state.request import Request
from mux.core.state.state import NEVER, State

CHANGED = "mux/inbox/changed"
LIST = "thread/list"

INTERVAL = 0.25
"""Seconds between two tellings: a person doesn't see more, and a burst is one of them."""

PEOPLES = ("cli", "vscode", "exec", "appServer", "unknown")
"""The sources of threads that a person sees; sub-agents' have others."""


@attrs.define(eq=False, repr=False)
class _Follower:
    """What a client that follows the inbox has been told."""

    needs: dict[str, Sign] = attrs.field(factory=dict)
    had: set[str] = attrs.field(factory=set)
    """Threads that it has had whole, and every change since."""
    owed: set[str] = attrs.field(factory=set)
    """Threads that changed while it was behind."""
    limits: int = 0
    app_server: InboxAppServer | None = None


@attrs.frozen
class _Telling:
    """What one client is to be told."""

    needs: tuple[str, ...]
    needs_gone: tuple[str, ...]
    whole: frozenset[str]
    """Threads that are told whole; of others that changed, the difference is."""
    gone: frozenset[str]
    limits: bool
    app_server: bool


@attrs.define(eq=False, repr=False)
class InboxRequests:
    """The inbox: pages for whoever asks, changes for those that follow it."""

    state: State
    client_requests: ClientRequests
    cards: InboxCards
    picture: InboxPicture
    host: str = ""
    """The machine's name, as people know it."""
    followers: dict[ClientId, _Follower] = attrs.field(factory=dict)
    revision: int = 0
    _touched: set[str] = attrs.field(factory=set)
    """Threads of which something may have changed since the last telling."""
    _told: dict[str, InboxThread] = attrs.field(factory=dict)
    """Each thread as followers were told of it last."""
    _shown: set[str] = attrs.field(factory=set)
    """Threads that any follower may have been shown."""
    _needs: Counter[str] = attrs.field(factory=Counter)
    _queues: dict[str, tuple[int, object]] = attrs.field(factory=dict)
    _seen: tuple[object, ...] = ()
    """What ``refresh`` compares (see ``_changes``), as it was the last time."""
    _head: int = 0
    """The journal's head at the last look at what streams."""
    _not_before: float = 0.0
    _due: float = NEVER

    # ── requests ──────────────────────────────────────────────────────────────────────────────

    def asked(self, client: Client, message: ClientMessage) -> None:
        """Answer ``mux/inbox`` or ``mux/usage``, or send the request for it upstream."""
        try:
            if message.method == "mux/usage":
                self._tell_usage(client, message)
                return
            params = _params_decoder.decode(message.params)
        except msgspec.DecodeError as wrong:
            text = f"`{message.method}`: {wrong}"
            self.state.error(client.id, message.id, jsonrpc.INVALID_REQUEST, text)
            return
        if self.state.appserver.state is AppServerState.DOWN:
            page = self._page(client, params, self._known(params), None)
            self.state.answer(client.id, jsonrpc.result(message.id, page), message.method)
            return
        request = self.client_requests.ask_instead(client, message, LIST, _listing(params))
        request.inbox = params
        self.client_requests.submit(request)

    def answered(self, client: Client | None, request: Request, line: bytes) -> bytes:
        """Return the answer to a ``mux/inbox``, made of the app-server's to its ``thread/list``."""
        params = request.inbox
        if client is None or params is None:
            return line
        try:
            listed = _list_decoder.decode(line).result
        except msgspec.DecodeError:
            listed = ThreadList()  # of a shape that this version doesn't know
        for stored in listed.data:
            card = self.cards.cards.get(stored.id)
            card.introduce(stored)
            card.archived = params.archived
            state = (listed.readStates or {}).get(stored.id)
            card.read_state = bytes(state) if state is not None else card.read_state
        ids = self._with_unlisted(params, [each.id for each in listed.data])
        page = self._page(client, params, ids, listed.nextCursor)
        fields = jsonrpc.read_fields(line) or {}
        return jsonrpc.write(fields | {"result": msgspec.json.encode(page)})

    def _with_unlisted(self, params: InboxParams, listed: list[str]) -> list[str]:
        if params.cursor is not None or params.archived:
            return listed
        more = (self.cards.cards.known(id) for id in self.picture.unlisted() if id not in listed)
        return [card.id for card in more if card is not None and _fits(card, params)] + listed

    def _known(self, params: InboxParams) -> list[str]:
        """Return the threads of a page while no app-server can list them."""
        cards = [
            card
            for card in self.cards.cards.all()
            if card.archived == params.archived and _fits(card, params)
        ]
        cards.sort(key=lambda card: card.recency or card.updated or 0.0, reverse=True)
        return [card.id for card in cards[: params.limit]]

    def _page(
        self, client: Client, params: InboxParams, ids: list[str], cursor: str | None
    ) -> extension.Inbox:
        counted = self.picture.counted()
        threads = [each for id in ids if (each := self.picture.thread(id, counted)) is not None]
        scopes, app_server = client.principal.scopes, self.picture.app_server()
        page = extension.Inbox(
            revision=self.revision,
            host=self.host,
            appServer=app_server,
            needs=self.picture.needs(scopes),
            threads=threads,
            nextCursor=cursor,
            limits=self.cards.limits,
        )
        if params.follow is False:
            self.left(client)
        elif params.follow and client.state is ClientState.READY:
            follower = self.followers.setdefault(client.id, _Follower())
            # Threads come whole once more with their first change: what is told as a difference
            # is one to what all followers had, and this page may be newer than that.
            follower.had.difference_update(each.id for each in threads)
            self._shown.update(each.id for each in threads)
            follower.needs = {
                inbox_picture.key(each): self.picture.sign(each)
                for each in self.picture.waiting()
                if inbox_picture.is_for(each, scopes)
            }
            follower.limits, follower.app_server = self.cards.limits_told, app_server
            self._due = min(self._due, max(self._not_before, self.state.now + INTERVAL))
            self.state.wake_at(self._due)
        return page

    def _tell_usage(self, client: Client, message: ClientMessage) -> None:
        params = _usage_decoder.decode(message.params)
        ids = params.threadIds
        named = self.cards.cards.all() if ids is None else map(self.cards.cards.known, ids)
        used = {
            card.id: msgspec.Raw(card.usage)
            for card in named
            if card is not None and card.usage != b"null" and not card.hidden
        }
        usage = extension.Usage(used, dict(self.cards.limits))
        self.state.answer(client.id, jsonrpc.result(message.id, usage), message.method)

    def left(self, client: Client) -> None:
        """Tell a client nothing more."""
        self.followers.pop(client.id, None)
        if not self.followers:
            self._told.clear()
            self._shown.clear()
            self._touched.clear()
            self._needs.clear()
            self._queues.clear()
            self._due = NEVER

    # ── what changes ──────────────────────────────────────────────────────────────────────────

    def observe(self, method: str, thread: str | None, line: bytes) -> None:
        """Take a notification that cards are made of."""
        self.touch(self.cards.observe(method, thread, line))

    def remember(self, entries: Iterable[Entry]) -> None:
        """Take the last events of an earlier life."""
        for thread in self.cards.remember(entries):
            self.touch(thread)

    def joined(self, line: bytes) -> None:
        """Take the thread that the answer to a following request describes."""
        self.touch(self.cards.joined(line))

    def touch(self, thread: str | None) -> None:
        """Note that something of a thread may have changed."""
        if thread is not None and self.followers:
            self._touched.add(thread)

    def app_server_gone(self) -> None:
        """Note that no thread is loaded any more. Called before the core forgets what ran."""
        self.cards.app_server_gone()
        self._touched.update(self._told)

    def refresh(self) -> None:
        """Tell followers what the event changed, or see to it that they are told soon.

        Called at the end of each event but deltas, if there are followers.
        """
        if self._touched or self._changes() != self._seen:
            self._look()

    def on_timer(self) -> float:
        """Tell what had to wait, and what streams; return when to come back."""
        if self._due <= self.state.now:
            self._look()
        return self._due

    def _changes(self) -> tuple[object, ...]:
        state = self.state
        queues = tuple(
            (id, len(queue.turns), queue.held) for id, queue in state.turn_queues.items()
        )
        return (
            state.pending_requests.changes,
            state.appserver.state,
            self.cards.limits_told,
            queues,
            self._votes(),
        )

    def _votes(self) -> int:
        """Return how many votes wait: casting one isn't counted as a change of the request."""
        return sum(len(each.ballot.votes) for each in self.state.pending_requests.pending())

    def _look(self) -> None:
        state = self.state
        if not self.followers:
            self._due = NEVER
        elif state.now < self._not_before:
            self._due = self._not_before
            state.wake_at(self._due)
        else:
            self._tell()
            streams = self.cards.running or any(each.owed for each in self.followers.values())
            self._due = max(state.now + INTERVAL, self._not_before) if streams else NEVER
            state.wake_at(self._due)

    def _tell(self) -> None:
        """Tell each follower what it hasn't been told."""
        self._seen = self._changes()
        counted = self._recount()
        changes, gone = self._compare(self._stirred(), counted)
        waiting = {inbox_picture.key(each): each for each in self.picture.waiting()}
        signs = {key: self.picture.sign(each) for key, each in waiting.items()}
        told: dict[_Telling, list[ClientId]] = {}
        app_server = self.picture.app_server()
        for id, follower in self.followers.items():
            client = self.state.clients[id]
            if client.backlog is not None:
                self._owe(follower, changes.keys() | gone)
                continue
            may = {
                key: sign
                for key, sign in signs.items()
                if inbox_picture.is_for(waiting[key], client.principal.scopes)
            }
            telling = self._telling(follower, may, changes, gone, app_server)
            if telling is not None and client.hears(CHANGED):
                told.setdefault(telling, []).append(id)
        needs: dict[str, Need] = {}
        for telling in told:
            needs |= {
                key: self.picture.need(waiting[key]) for key in telling.needs if key not in needs
            }
        self._send(told, changes, needs, app_server)

    def _recount(self) -> Counter[str]:
        """Count the needs anew, and mark the threads whose number or queue has changed."""
        counted, queues = self.picture.counted(), self.state.turn_queues
        lengths: dict[str, tuple[int, object]] = {
            id: (len(queue.turns), queue.held) for id, queue in queues.items()
        }
        self._touched.update(id for id in counted | self._needs if counted[id] != self._needs[id])
        self._touched.update(
            id for id in lengths | self._queues if lengths.get(id) != self._queues.get(id)
        )
        self._needs, self._queues = counted, lengths
        return counted

    def _stirred(self) -> set[str]:
        """Return the threads to compare: those that were marked, and those that stream."""
        stirred, self._touched = self._touched, set()
        if self.state.journal.head != self._head:
            self._head = self.state.journal.head
            stirred.update(self.cards.running)
        return stirred

    def _compare(
        self, stirred: Iterable[str], counted: Counter[str]
    ) -> tuple[dict[str, extension.ThreadChange | None], set[str]]:
        """Return what is different of each of these threads, and those that aren't shown now."""
        changes: dict[str, extension.ThreadChange | None] = {}
        gone: set[str] = set()
        for id in stirred:
            now = self.picture.thread(id, counted)
            if now is not None and not now.archived:
                changes[id] = difference(self._told.get(id), now)
                self._told[id] = now
                self._shown.add(id)
            elif id in self._shown:  # of others it isn't even told that they are
                gone.add(id)
                self._told.pop(id, None)
                self._shown.discard(id)
        return changes, gone

    def _owe(self, follower: _Follower, ids: Iterable[str]) -> None:
        follower.owed.update(ids)
        follower.had.difference_update(ids)

    def _telling(
        self,
        follower: _Follower,
        may: dict[str, Sign],
        changes: dict[str, extension.ThreadChange | None],
        gone: set[str],
        app_server: InboxAppServer,
    ) -> _Telling | None:
        """Return what a follower is to be told, and note that it has been; None if nothing is."""
        stirred = changes.keys() | follower.owed
        whole = frozenset(id for id in stirred if id in self._told and id not in follower.had)
        lost = frozenset(id for id in gone | follower.owed if id not in self._told)
        patched = any(changes.get(id) is not None for id in stirred if id in follower.had)
        news = tuple(key for key, sign in may.items() if follower.needs.get(key) != sign)
        over = tuple(key for key in follower.needs if key not in may)
        limits = follower.limits != self.cards.limits_told
        moved = follower.app_server != app_server
        follower.needs, follower.owed = may, set()
        follower.had = (follower.had | whole) - lost
        follower.limits, follower.app_server = self.cards.limits_told, app_server
        if not (whole or lost or patched or news or over or limits or moved):
            return None
        return _Telling(news, over, whole, lost, limits, moved)

    def _send(
        self,
        told: dict[_Telling, list[ClientId]],
        changes: dict[str, extension.ThreadChange | None],
        needs: dict[str, Need],
        app_server: InboxAppServer,
    ) -> None:
        self.revision += bool(told)
        cost = 0
        for telling, recipients in told.items():
            threads = [
                whole
                for id in sorted(telling.whole)
                if (whole := difference(None, self._told[id])) is not None
            ]
            threads += [
                change
                for id, change in changes.items()
                if change is not None and id not in telling.whole and id not in telling.gone
            ]
            changed = InboxChanged(
                revision=self.revision,
                needs=[needs[key] for key in telling.needs],
                needsGone=list(telling.needs_gone),
                threads=threads,
                threadsGone=sorted(telling.gone),
            )
            if telling.limits:
                changed.limits = dict(self.cards.limits)
            if telling.app_server:
                changed.appServer = app_server
            message = jsonrpc.notification(CHANGED, changed)
            self.state.out.append(Publish(message, tuple(recipients), CHANGED))
            cost += len(message) * len(recipients)
        if told:
            self._not_before = self.state.now + max(INTERVAL, cost / BYTES_PER_SECOND)


def _listing(params: InboxParams) -> dict[str, object]:
    """Return the params of the ``thread/list`` that makes a page."""
    listing: dict[str, object] = {
        "limit": params.limit,
        "sortKey": "recency_at",
        # Else every list reads through the rollouts first: 130 ms where there are 5,000, not 4.
        "useStateDbOnly": True,
        "sourceKinds": PEOPLES,
        "modelProviders": [],
        "archived": params.archived,
    }
    if params.cursor is not None:
        listing["cursor"] = params.cursor
    if params.search:
        listing["searchTerm"] = params.search
    return listing


def _fits(card: Card, params: InboxParams) -> bool:
    words = (params.search or "").casefold()
    return words in card.title.casefold()


class _Listed(msgspec.Struct):
    result: ThreadList


_params_decoder = msgspec.json.Decoder(InboxParams)
_usage_decoder = msgspec.json.Decoder(extension.UsageParams)
_list_decoder = msgspec.json.Decoder(_Listed)
