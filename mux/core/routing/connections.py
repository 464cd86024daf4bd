"""The connections of clients: they come, fall behind, lose their access and leave.

Used by ``broker``, which hands over the events that say so.
"""

from __future__ import annotations

import msgspec

from mux.core.audit import audit_events
from mux.core.events import (
    ClientAccessEnded,
    ClientAttached,
    ClientDrained,
    DeviceRenamed,
    Event,
    JournalRead,
)
from mux.core.state.clients.backlog import Backlog
from mux.core.state.clients.client import Client
from mux.core.state.requests.scheduler import DEPARTED
from mux.core.wiring import Features


class Connections(msgspec.Struct, frozen=True, eq=False):
    """The life of each client, as the features hear of it."""

    parts: Features

    def attached(self, event: ClientAttached) -> None:
        """Attach a client whose principal is known."""
        now = self.parts.state.now
        self.parts.state.durable.uses_client(event.client)
        self.parts.state.wake_at(now + event.expires_in)
        who = (event.client, event.principal, event.transport, event.peer)
        client = Client(*who, since=now, expires=now + event.expires_in, local=event.local)
        client.overrides = event.overrides
        self.parts.state.clients[event.client] = client

    def handle(self, client: Client, event: Event) -> None:
        """Handle an event of a client that is attached."""
        state = self.parts.state
        match event:
            case ClientAccessEnded(_, reason):
                self.end(client, reason)
            case DeviceRenamed(_, principal):
                client.principal = principal
            case JournalRead(_, entries, until, case) if case:
                self.parts.sweeps.read(case, entries, until)
            case JournalRead(_, entries, until):
                state.fetched(client, entries, until)
            case ClientDrained(_):
                state.drained(client)
                self.parts.client_requests.pump()
            case _ if client.backlog is None:
                follows = dict.fromkeys(client.follows, 0)
                state.log("info", "client lags, reads on from the journal", client=client.id)
                backlog = Backlog(state.journal.head, follows, wants_seq=client.wants_seq)
                state.fall_behind(client, backlog)

    def end(self, client: Client, reason: str) -> None:
        """End the connection of a client whose credential no longer holds."""
        self.parts.state.record("client/cut", by=audit_events.actor_of(client), why=reason)
        self.parts.state.end(client, reason)

    def left(self, client: Client) -> None:
        """Forget a client whose connection is gone, and end what was its own."""
        parts, state = self.parts, self.parts.state
        audit_events.left(state, client)
        unanswered = [
            each for each in state.scheduler.upstream.values() if each.client == client.id
        ]
        for request in state.scheduler.leave(client.id):
            parts.client_requests.joins(request, -1)
            if request.runs_alone:
                request.client, request.account = None, DEPARTED
                parts.client_requests.submit(request)
            else:
                parts.client_requests.drop(request)
        parts.shared_titles.client_left(client)
        parts.recovery.client_left(client)
        parts.handshakes.client_left(client)
        state.unread.discard(client.id)
        state.coalescing.leave(client.id)
        for claim in state.scoped_ids.leave(client.id):
            if state.appserver.runs:  # else what the id stands for ended with its app-server
                parts.client_requests.ask_for_broker(claim.ended_by, {claim.field: claim.wire})
        for request in unanswered:
            if request.rule.cancelled_by:
                parts.client_requests.ask_for_broker(
                    request.rule.cancelled_by, {"requestId": request.wire}
                )
        # `replay` stores what the client follows, so it comes before `subscriptions` forgets that.
        # After `del` the client is unknown: nothing more is sent to it, and the server requests
        # that it was offered go on to the clients that remain.
        parts.replays.client_left(client)
        parts.presence.left(client)
        parts.inbox_changes.left(client)
        parts.sweeps.client_left(client)
        del state.clients[client.id]
        parts.clearance.client_left(client.id)
        parts.subscriptions.client_left(client)
        state.threads.audience_changed()
        parts.server_requests.client_left(client)
        parts.client_requests.pump()
        state.log("info", "client left", client=client.id, name=client.info and client.info.name)
