"""Attention: who has which thread before them, as far as that can be known.

A client that knows the broker reports the thread in its foreground (``mux/focus``). The report
holds as long as the connection, and at most for ``Timing.focus`` seconds after the client last sent
anything: the socket of a phone that fell asleep stays open for minutes, and silence tells nothing
of a person. The focus of other clients is unknown: what a person's program does to a thread (start,
steer or interrupt a turn, answer an approval) counts for ``Timing.looking`` seconds. A program is a
person's if it declares so, or is one of those that are known to be (``Timing.people``): a TUI, say.
What a script does tells of nobody.

Whoever looks at a thread looks at those of its sub-agents too. Unknown means nobody looks.
``has_person`` is the one function that decides it.

Used by ``notices``, ``voting`` and ``status_report``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from mux.core.extension.notices import FocusHeld, FocusParams
from mux.core.part import Part
from mux.core.policy.notice import Timing
from mux.core.policy.principal import ClientId
from mux.core.protocol.envelope import jsonrpc
from mux.core.protocol.envelope.jsonrpc import ClientMessage
from mux.core.protocol.scope import Scope
from mux.core.state.clients.client import Client, ClientState, Focus
from mux.core.state.requests.pending_requests import ServerRequest
from mux.core.state.state import State

FOCUS = "mux/focus"

REMEMBERED_THREADS = 64
"""Threads remembered of one client's actions, and levels up which a sub-agent's parents are looked
for: no person does more within a minute."""

Look = tuple[Client, float]
"""The client that looks, and until when, if it sends nothing more."""


class Attention(Part):
    """Tracks which client looks at which thread."""

    state: State
    timing: Timing
    changes: int = 0
    """Counts the changes by which somebody may have begun or ceased to look."""

    # ── from clients ──────────────────────────────────────────────────────────────────────────

    def focused(self, client: Client, message: ClientMessage) -> None:
        """Handle ``mux/focus``, as a request or a notification."""
        try:
            params = msgspec.json.decode(message.params, type=FocusParams)
        except msgspec.DecodeError as wrong:
            if message.kind == "request":
                text = f'`{FOCUS}` wants {{"threadId": "…" or null, "active"?: bool}}: {wrong}'
                self.state.error(client.id, message.id, jsonrpc.INVALID_REQUEST, text)
            return
        client.focus = Focus(params.threadId, params.active)
        client.last_heard = self.state.now
        self.changes += 1
        if params.active:
            self.state.devices_used[client.principal.key] = self.state.now
        if message.kind == "request":
            held = jsonrpc.result(message.id, FocusHeld(self.timing.focus))
            self.state.send(client.id, held, FOCUS)

    def sent(self, client: Client) -> None:
        """Note that the client has sent something. A focus that had lapsed holds again."""
        focus, now = client.focus, self.state.now
        if focus is not None and focus.active and client.last_heard + self.timing.focus <= now:
            self.changes += 1
        client.last_heard = now

    def acted(self, client: Client, thread: str | None) -> None:
        """Note that something was done to a thread by this client."""
        now = self.state.now
        self.changes += 1
        self.state.devices_used[client.principal.key] = now
        if thread is not None and self.is_a_persons(client):
            acted = client.acted = client.acted or {}
            acted.pop(thread, None)
            acted[thread] = now
            if len(acted) > REMEMBERED_THREADS:
                del acted[next(iter(acted))]

    # ── who looks ─────────────────────────────────────────────────────────────────────────────

    def is_a_persons(self, client: Client) -> bool:
        """Return whether a person sits before the client's program."""
        if client.focus is not None or client.person:
            return True
        return client.info is not None and client.info.name in self.timing.people

    def has_person(
        self, thread: str | None, needs: Scope = "drive", among: Iterable[Client] | None = None
    ) -> Look | None:
        """Return the person who looks at the thread and may act on it, of several the one who looks
        longest; for None, who is here at all.

        ``among``: only these clients; else all past their handshake.
        """
        if among is None:
            clients = self.state.clients.values()
            among = (each for each in clients if each.state is ClientState.READY)
        return self._longest(among, needs, thread)

    def at_request(self, request: ServerRequest, besides: ClientId | None = None) -> Look | None:
        """Return the person who has the request before them and may answer it.

        ``besides``: a client that doesn't count.
        """
        clients = self.state.clients
        offered = (
            clients[id] for id in request.offered if id not in request.abstained and id != besides
        )
        return self.has_person(request.thread, "approve", offered)

    def glance(self) -> Glance:
        """Return what all clients that may act look at now, to look up many threads at once."""
        glance = Glance(self)
        for client in self.state.clients.values():
            if client.state is ClientState.READY and "drive" in client.principal.scopes:
                glance.add(client)
        return glance

    def _longest(self, clients: Iterable[Client], needs: Scope, thread: str | None) -> Look | None:
        looks = [
            (client, until)
            for client in clients
            if needs in client.principal.scopes
            and (until := self._until(client, thread)) > self.state.now
        ]
        return max(looks, key=lambda look: look[1], default=None)

    def _until(self, client: Client, thread: str | None) -> float:
        focus = client.focus
        if focus is not None:
            seen = focus.active and (thread is None or focus.thread in set(self.line(thread)))
            return client.last_heard + self.timing.focus if seen else 0.0
        if client.acted is None:
            return 0.0
        if thread is None:
            last = max(client.acted.values(), default=float("-inf"))
        else:
            last = max(client.acted.get(id, float("-inf")) for id in self.line(thread))
        return last + self.timing.looking

    def line(self, thread: str) -> Iterator[str]:
        """Yield the thread, the one that spawned it, and so on."""
        known, at = self.state.threads.known, thread
        for _ in range(REMEMBERED_THREADS):
            yield at
            record = known.get(at)
            if record is None or record.parent is None:
                return
            at = record.parent


class Glance(Part):
    """At one moment, who looks at each thread and until when: of several, who looks longest.

    Gives the results of ``Attention.has_person``, without going through every client for every
    thread.
    """

    attention: Attention
    anywhere: Look | None = None
    """The client that looks longest, at any thread or none."""
    _at: dict[str | None, Look] = msgspec.field(default_factory=dict)

    def add(self, client: Client) -> None:
        """Add what a client looks at."""
        now, timing, focus = self.attention.state.now, self.attention.timing, client.focus
        if focus is not None:
            if focus.active and client.last_heard + timing.focus > now:
                self._record_look(client, focus.thread, client.last_heard + timing.focus)
            return
        for thread, at in reversed((client.acted or {}).items()):
            if at + timing.looking <= now:
                break  # as have all before it
            self._record_look(client, thread, at + timing.looking)

    def _record_look(self, client: Client, thread: str | None, until: float) -> None:
        if self.anywhere is None or until > self.anywhere[1]:
            self.anywhere = (client, until)
        other = self._at.get(thread)
        if other is None or until > other[1]:
            self._at[thread] = (client, until)

    def has_person(self, thread: str | None) -> Look | None:
        """Return who looks at the thread or at one above it; for None, who is here at all."""
        if thread is None:
            return self.anywhere
        looks = (self._at[id] for id in self.attention.line(thread) if id in self._at)
        return max(looks, key=lambda look: look[1], default=None)
