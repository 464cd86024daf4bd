"""The state that all features of the core share. The ways to send messages stand in ``delivery``.

``Broker`` makes one ``State``; ``wiring`` gives it to every feature. Features change it only while
an event is handled, and send only through it.
"""

from __future__ import annotations

import attrs

from mux.core.commands import (
    Command,
    Record,
)
from mux.core.limits import Limits
from mux.core.policy.approval_policy import Policies
from mux.core.policy.principal import ClientId
from mux.core.protocol.experimental import Gate
from mux.core.state.app_server import AppServer, Introduction
from mux.core.state.clients.client import Client
from mux.core.state.clients.coalescing import Coalescing
from mux.core.state.clients.departed_clients import DepartedClients
from mux.core.state.delivery import Delivery
from mux.core.state.durable import Durable
from mux.core.state.journal import Journal
from mux.core.state.notice_records import NoticeRecords
from mux.core.state.planned_restart import PlannedRestart
from mux.core.state.requests.pending_requests import PendingRequests
from mux.core.state.requests.request import Request
from mux.core.state.requests.scheduler import RequestScheduler
from mux.core.state.requests.scoped_ids import ScopedIds
from mux.core.state.requests.sent_messages import SentMessages
from mux.core.state.requests.tool_owners import ToolOwners
from mux.core.state.threads.threads import Thread, Threads
from mux.core.state.threads.unclaimed_threads import UnclaimedThreads
from mux.core.state.turns.title_turns import TitleTurns
from mux.core.state.turns.turn_queues import TurnQueue

NEVER = float("inf")


@attrs.define(eq=False, repr=False)
class State(Delivery):
    """Everything that the broker knows, and the commands of the event being handled."""

    limits: Limits
    introduction: Introduction
    journal: Journal
    pending_requests: PendingRequests
    durable: Durable = attrs.field(factory=Durable)
    """What the next broker needs, as far as it has changed."""
    policies: Policies = attrs.field(factory=Policies)
    appserver: AppServer = attrs.field(factory=AppServer)
    clients: dict[ClientId, Client] = attrs.field(factory=dict)
    coalescing: Coalescing = attrs.field(factory=Coalescing)
    scheduler: RequestScheduler = attrs.field(init=False)
    last_wire: int = 0
    """The last id given to a request that goes upstream."""
    threads: Threads = attrs.field(init=False)
    unclaimed: UnclaimedThreads = attrs.field(init=False)
    title_turns: TitleTurns = attrs.field(factory=TitleTurns)
    turn_queues: dict[str, TurnQueue] = attrs.field(factory=dict)
    """Turns that wait, by thread. A thread with no queued turn has no entry."""
    last_queued_turn: int = 0
    """The last id given to a queued turn."""
    undecided_turns: dict[str, list[Request]] = attrs.field(factory=dict)
    """Requests for a turn with ``ifBusy`` ``reject``, by thread, that wait for another's answer."""
    notices: NoticeRecords = attrs.field(factory=NoticeRecords)
    restart: PlannedRestart = attrs.field(factory=PlannedRestart)
    departed_clients: DepartedClients = attrs.field(init=False)
    sent_messages: SentMessages = attrs.field(init=False)
    devices_used: dict[str, float] = attrs.field(factory=dict)
    """When each device last did something, by its principal's key."""
    scoped_ids: ScopedIds = attrs.field(init=False)
    tool_owners: ToolOwners = attrs.field(init=False)
    now: float = 0.0
    """The time of the event being handled, in seconds of the broker's clock."""
    next_wakeup: float = NEVER
    """When ``TimePassed`` is wanted, on the same clock."""
    out: list[Command] = attrs.field(factory=list)
    """The commands of the event being handled, in the order in which they are carried out."""
    release_candidates: set[str] = attrs.field(factory=set)
    """Threads that lost something that held them. At the end of the event ``subscriptions`` checks
    whether to give their upstream subscription back."""
    unread: set[ClientId] = attrs.field(factory=set)
    """Clients that aren't read from, since too much is owed to them."""
    counts: dict[str, int] = attrs.field(factory=dict)
    """Counters for the metrics, by kind."""
    audit_text: bool = False
    """True if the audit log may hold the texts of messages, not only their digests."""
    gate: Gate | None = None
    """The methods and fields that are experimental. None while they aren't known: nothing is
    refused then."""

    def __attrs_post_init__(self) -> None:
        self.scheduler = RequestScheduler(self.limits)
        durable = self.durable
        self.departed_clients = DepartedClients(self.limits.remembered_clients, durable)
        self.sent_messages = SentMessages(self.limits.remembered_messages, durable)
        self.threads = Threads(
            self.clients, most_unclaimed=self.limits.mentioned_threads, durable=durable
        )
        self.unclaimed = UnclaimedThreads(self.limits.held_early)
        self.scoped_ids = ScopedIds(durable)
        self.tool_owners = ToolOwners(durable)
        self.pending_requests.durable = durable

    def record(self, kind: str, **fields: object) -> None:
        """Add a record to the audit log. ``audit_events`` decides what may stand in ``fields``."""
        times = fields.get("times")
        self.count(kind, times if isinstance(times, int) else 1)
        self.out.append(Record(kind, fields))

    def count(self, what: str, times: int = 1) -> None:
        """Count for the metrics: every kind of audit record, and a few things more."""
        self.counts[what] = self.counts.get(what, 0) + times

    def wake_at(self, moment: float) -> None:
        """Ask for ``TimePassed`` at this moment, at the latest."""
        if moment < self.next_wakeup:  # noqa: PLR1730 (`min` costs more)
            self.next_wakeup = moment

    def is_held(self, thread: Thread) -> bool:
        """Return whether somebody follows or joins the thread, or something of it runs or waits."""
        return bool(
            thread.followers
            or self.threads.joining[thread.id]
            or self.threads.beginning[thread.id]
            or thread.kept_until
            or thread.running.turn is not None
            or thread.id in self.turn_queues
            or self.pending_requests.has_pending(thread.id)
        )

    def unfollow(self, client: Client, thread: str) -> None:
        """Remove the client from the thread's followers, from here on."""
        self.threads.unfollow(client, thread)
        if client.backlog is not None:
            client.backlog.unfollow(thread, self.journal.head)

    def close(self, thread: str) -> None:
        """Forget a thread that the app-server has unloaded; it has no followers any more."""
        for id in self.threads.audience(thread):
            self.unfollow(self.clients[id], thread)
        self.threads.close(thread)
