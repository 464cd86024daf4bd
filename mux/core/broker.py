"""The broker: a pure function of state. ``Broker.handle(event, now) -> commands``.

Start reading at ``handle``: one short method per event, in the order in which a message meets them.
``client_messages`` routes what clients say, ``connections`` has them come and leave;
``notifications`` routes what the app-server notifies, ``responses`` what it answers. THE TABLE
(``protocol.methods``) says what a method means; the features carry it out:

    client_requests       requests going up         subscriptions   joining and leaving threads
    server_requests       requests coming down      recovery        the app-server's lives
    deduplication         messages sent twice       replay          clients that come back
    turn_queue            turns that wait           voting          which answer decides
    directory_clearance   where threads may work    presence        who is attached
    local_resume          resumes answered here     attention       who looks at what
    shared_titles         one title for all         notices         what a person is pushed
    handshake             ``initialize``            inbox           what a first screen shows
    digest                what happened since       resolutions     how server requests end

All of them share one ``State``, change it only while an event is handled, and write their commands
to ``State.out``.

Used by ``dispatcher``, the only caller, which carries out the commands in order. Nothing here
awaits, reads a clock, or fails half-way: an event is handled whole.
"""

from __future__ import annotations

from collections.abc import Sequence

from mux.core.audit import audit_events
from mux.core.commands import Command
from mux.core.events import (
    AnsweredByNotice,
    AnsweredOutside,
    ClientAccessEnded,
    ClientAttached,
    ClientDrained,
    ClientLags,
    ClientLeft,
    ClientSent,
    ClientSentBinary,
    ClockMoved,
    DeviceAccessEnded,
    DeviceRenamed,
    Event,
    ExperimentalSchemaLoaded,
    FilePlaced,
    JournalExtent,
    JournalRead,
    NoticesRestored,
    PastRemembered,
    RecipientsChanged,
    Resolved,
    TimePassed,
    UpstreamExited,
    UpstreamHandedOver,
    UpstreamSent,
    UpstreamSentLong,
    UpstreamStarted,
)
from mux.core.features.approvals.approval_items import WaitingRequest, waiting_request
from mux.core.features.approvals.voting import Voting
from mux.core.limits import Limits
from mux.core.policy.approval_policy import Policies
from mux.core.policy.notice import Timing
from mux.core.policy.principal import ClientId, Principal
from mux.core.protocol.envelope import jsonrpc
from mux.core.protocol.envelope.jsonrpc import BadMessageError
from mux.core.protocol.envelope.long_line import LongLine
from mux.core.routing.client_messages import ClientRouter
from mux.core.routing.connections import Connections
from mux.core.routing.notifications import NotificationRouter
from mux.core.routing.responses import ResponseRouter
from mux.core.state.app_server import AppServerState, Introduction
from mux.core.state.durable import Durable
from mux.core.state.journal import Journal
from mux.core.state.requests.pending_requests import PendingRequests
from mux.core.state.state import NEVER, State
from mux.core.wiring import Features

_NO_NEWS = frozenset(
    {
        ClientSentBinary, TimePassed, ClientAttached, ClientLags, ClientDrained, JournalRead,
        AnsweredOutside,
        ExperimentalSchemaLoaded, JournalExtent, PastRemembered,
    }
)  # fmt: skip
"""Events that change neither who looks at what nor who may be notified, so notices stay as they
are."""


class Broker:
    """All shared state of the runtime, and every decision about it."""

    def __init__(
        self,
        limits: Limits,
        introduction: Introduction,
        *,
        first_id: int = 0,
        epoch: str = "",
        head: int = 0,
        audit_text: bool = False,
        policies: Policies | None = None,
        timing: Timing | None = None,
        host: str = "",
        durable: bool = False,
    ) -> None:
        """Make a broker without clients or app-server.

        ``first_id`` seeds the ids under which server requests are offered. The server takes it from
        the clock, so that an answer that a client held back over a restart of the broker fits no
        request. ``epoch`` and ``head`` describe the journal as the store left it. ``audit_text``:
        see `State`. ``policies`` say whose answer decides an approval; None means the first answer.
        ``timing`` says when a notice is due. ``host`` is the machine's name. ``durable``: what the
        next broker needs is saved.
        """
        journal = Journal(epoch, head, limits.journal_memory_bytes)
        approvals = PendingRequests(first_id)
        self.state = State(
            limits,
            introduction,
            journal,
            approvals,
            durable=Durable(durable),
            policies=policies or Policies(),
            audit_text=audit_text,
        )
        parts = Features.wired(self.state, timing or Timing(), str(first_id), host)
        self._responses = ResponseRouter(parts)
        parts.handover.settle = self._responses.settle_lost
        self._notifications = NotificationRouter(parts, self._responses)
        self._client_messages = ClientRouter(parts, self._notifications)
        self._connections = Connections(parts)
        self.recovery = parts.recovery
        self._handshakes = parts.handshakes
        self._handover = parts.handover
        self._durability = parts.durability
        self._local_resumes = parts.local_resumes
        self._client_requests = parts.client_requests
        self._server_requests = parts.server_requests
        self._approval_answers = parts.approval_answers
        self._subscriptions = parts.subscriptions
        self._replays = parts.replays
        self._presence = parts.presence
        self.attention = parts.attention
        self._notices = parts.notices
        self._notice_triggers = parts.notice_triggers
        self._shared_titles = parts.shared_titles
        self._turn_queueing = parts.turn_queueing
        self._inbox_changes = parts.inbox_changes
        self._files = parts.files
        self._clearance = parts.clearance

    # ── what shells ask ───────────────────────────────────────────────────────────────────────

    @property
    def app_server_state(self) -> AppServerState:
        """The stage of the app-server's life."""
        return self.state.appserver.state

    def principal_of(self, client: ClientId) -> Principal:
        """Return who an attached client is."""
        return self.state.clients[client].principal

    def waiting_request(self, id: str) -> WaitingRequest | None:
        """Return the server request that waits for an answer under this id; None if none does."""
        return waiting_request(self.state, id)

    def directory_of(self, thread: str) -> str:
        """Return the directory that a thread works in; empty if that isn't known."""
        known = self.state.threads.known.get(thread)
        return known.directory if known is not None else ""

    @property
    def voting(self) -> Voting:
        """The part that says what an approval waits for, in words."""
        return self._server_requests.voting

    @property
    def running_floor(self) -> int:
        """The first seq whose deltas may belong to items that still run."""
        return self.state.threads.running_floor(self.state.journal.head)

    @property
    def next_wakeup(self) -> float:
        """The moment when ``TimePassed`` is due, on the clock of ``now``; infinite for never."""
        return min(self.state.next_wakeup, self.state.coalescing.next_due)

    def handle(self, event: Event, now: float) -> list[Command]:  # noqa: PLR0912 (one look each)
        """Handle one event and return the commands to carry out, in order.

        ``now`` is in seconds and never goes back.
        """
        state = self.state
        state.now = now
        out: list[Command] = []
        state.out = out
        if type(event) is UpstreamSent:
            if self._notifications.handle(event.line):
                return out  # one more delta: nothing that is compared below has changed
            if self._notices.needs_refresh:
                self._notices.refresh()
        elif type(event) is ClientSent:
            self._notifications.interrupted()
            self._client_messages.handle(state.clients[event.client], event.text)
            if self._notices.needs_refresh:
                self._notices.refresh()
        else:
            self._notifications.interrupted()
            self._handle_rarer(event)
            if type(event) not in _NO_NEWS or self._notices.needs_refresh:
                self._notices.refresh()
        # What the event made possible, or left to be done, in this order: all that may take up a
        # thread again comes before what releases threads and before a restart. Presence comes
        # last, so clients get one picture for each event.
        if self._turn_queueing.waits:
            self._turn_queueing.refresh()
        if self._clearance.waits:
            self._clearance.refresh()
        if self._client_requests.here:
            self._replays.begin_waiting()
        if self._server_requests.voting.waits:
            self._server_requests.count_machines()
        if state.unread:
            state.read_on()
        if state.release_candidates or state.threads.crowded:
            self._subscriptions.release_unused()
        if state.restart.requests:
            self.recovery.stop_if_quiet()
        if state.threads.changes != self._presence.seen:
            self._presence.audience_changed()
        if self._inbox_changes.followers:
            self._inbox_changes.refresh()
        if state.durable.touched:
            self._durability.save()
        return out

    def handle_run(
        self, lines: Sequence[bytes | LongLine], at: int, now: float
    ) -> tuple[int, list[Command]]:
        """Handle the app-server's lines from ``at`` on as one, as far as they are a run of deltas.

        Return how many these are, and the commands to carry out.
        """
        state = self.state
        state.now = now
        out: list[Command] = []
        state.out = out
        return self._notifications.handle_run(lines, at), out

    def _handle_rarer(self, event: Event) -> None:
        state = self.state
        match event:
            case UpstreamSentLong(line):
                self._notifications.handle_long(line)
            case ClientSentBinary(client):
                bad = BadMessageError(jsonrpc.INVALID_REQUEST, "binary frame; send text")
                self._client_messages.refuse(client, bad)
            case TimePassed():
                self._woken()
            case ClockMoved(seconds):
                self._clock_moved(seconds)
            case ClientAttached(client):
                self._connections.attached(event)
            case ClientLeft(client):
                self._connections.left(state.clients[client])
            case (
                ClientAccessEnded(client)
                | DeviceRenamed(client)
                | ClientLags(client)
                | ClientDrained(client)
                | JournalRead(client)
            ):
                if client in state.clients:  # else it left before the event came
                    self._connections.handle(state.clients[client], event)
            case AnsweredOutside(client, message, method):
                state.answer(client, message, method)
            case UpstreamStarted(generation):
                self._handshakes.upstream_started(generation)
            case UpstreamExited(reason, unix_time):
                generation = state.appserver.generation
                state.record("appserver/exited", generation=generation, why=reason)
                # Before `recovery.exited`, which ends turns and requests: features that must know
                # what ran. After it: those that must know whether another app-server comes.
                self._notice_triggers.app_server_ends()
                self._inbox_changes.app_server_gone()
                self._shared_titles.upstream_gone()
                self._turn_queueing.app_server_gone()
                self._local_resumes.upstream_gone()
                self._subscriptions.upstream_gone()
                self.recovery.exited(reason, unix_time)
                self._clearance.app_server_gone()
                self._replays.upstream_gone()
                self._handover.upstream_gone()
            case _:
                self._learned(event)

    def _learned(self, event: Event) -> None:
        match event:
            case UpstreamHandedOver(generation, saved, entries):
                self._handover.begin(generation, saved, entries)
            case DeviceAccessEnded(device):
                self._server_requests.device_ended(device)
                self._turn_queueing.device_ended(device)
            case PastRemembered(entries):
                self._inbox_changes.remember(entries)
            case ExperimentalSchemaLoaded(gate):
                self.state.gate = gate
            case JournalExtent(epoch, earliest):
                self.state.journal.kept(epoch, earliest)
            case Resolved(case, places):
                self._clearance.resolved(case, places)
            case FilePlaced():
                self._files.placed(event)
            case RecipientsChanged(recipients):
                self._notices.escalation.set_recipients(recipients)
            case AnsweredByNotice(request, principal, peer, yes):
                self._approval_answers.from_notice(request, principal, peer, yes=yes)
            case NoticesRestored(known, standing):
                self._notices.kept(known, standing)
            case _:
                raise TypeError(f"no such event: {event!r}")

    # ── time ──────────────────────────────────────────────────────────────────────────────────

    def _woken(self) -> None:
        # Coalesced deltas are due often. Nothing else is looked at for that before it is due.
        if not self.state.flush_due() or self.state.next_wakeup <= self.state.now:
            self._time_passed()

    def _clock_moved(self, seconds: float) -> None:
        """Bring expiry times in line with the wall clock, by which credentials expire."""
        for client in self.state.clients.values():
            client.expires -= seconds
        self._time_passed()

    def _time_passed(self) -> None:
        state = self.state
        for client in state.clients.values():
            if client.expires <= state.now:
                self._connections.end(client, "what it authenticated with has expired")
        self._responses.settle_overdue()
        state.next_wakeup = min(
            self._server_requests.on_timer(),
            self._client_requests.on_timer(),
            min((client.expires for client in state.clients.values()), default=NEVER),
            self._subscriptions.on_timer(),
            self.recovery.on_timer(),
            self._handover.on_timer(),
            self._clearance.on_timer(),
            self._shared_titles.on_timer(),
            self._presence.on_timer(),
            self._inbox_changes.on_timer(),
            self._notices.on_timer(),
            audit_events.on_timer(state),
        )
