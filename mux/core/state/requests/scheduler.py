"""Fair scheduling: how many requests are upstream at once, and whose turn is next.

The app-server answers overload past about 128 queued requests and then loses some of its answers,
so at most ``in_flight`` are upstream and the rest wait here, in one queue a client. Clients take
turns, and no client holds more than its share of the slots: a client that pipelines a thousand
requests delays another's by one answer, not by a thousand. Of the requests that a client has
upstream only a ``burst`` may be fresh: the app-server answers cheap requests one after the other,
and with 32 before it another client's request takes thirty times as long as alone. A client that
has more than another burst queued sends them one by one while others ask, too. Requests that take
long don't hold up others, so each ``burst_seconds`` there may be as many more, up to the client's
share.

A client that takes its answers more slowly than it asks is slowed down. Answers that may be of any
size are asked for one at a time, each when the one before has been written to its client
(``laden``). For a client with too many bytes of answers waiting nothing at all is sent (``held``).

Requests that wait for something outside (``RequestRule.waits``) take no slot, only a place among
their client's ``waiting``. Those that load a thread (``RequestRule.loads``) may take minutes, and
the thread is there even if nobody waits any more: they have no deadline. After ``loading_slot``
their client may send something else in their place; but they still count among the ``in_flight`` of
all, of which they may be no more than ``loading``. A client's own order is preserved: requests
behind another in its queue aren't sent before it.

Pure state: ``submit`` and ``answered`` change it, ``due`` returns the requests to send now.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterator

import attrs

from mux.core.limits import Limits
from mux.core.policy.principal import ClientId
from mux.core.state.requests.client_queue import ClientQueue
from mux.core.state.requests.company import Company
from mux.core.state.requests.request import Request

BROKER: ClientId = 0
"""Stands for the broker itself among the clients (whose numbers start at 1)."""

QUEUE: ClientId = -2
"""Stands for queued turns, which waited until their thread was idle, whoever queued them."""

DEPARTED: ClientId = -1
"""Stands for all clients that left while a request of theirs had a slot upstream."""


@attrs.define(eq=False, repr=False)
class RequestScheduler:
    """All requests from a client's asking to its answer. Times are on the broker's clock."""

    limits: Limits
    upstream: dict[int, Request] = attrs.field(factory=dict)
    """Requests sent and not answered, by wire id."""
    in_flight: int = 0
    loading: int = 0
    held_until: float = float("inf")
    """When a client that has sent a burst may send more, as `due` found."""
    laden: set[ClientId] = attrs.field(factory=set)
    """Clients that are owed a large answer."""
    held: set[ClientId] = attrs.field(factory=set)
    """Clients that are owed too many bytes of answers."""
    _company: Company = attrs.field(factory=Company)
    _lines: dict[ClientId, ClientQueue] = attrs.field(factory=dict)
    _ring: deque[ClientId] = attrs.field(factory=deque)
    _deadlines: deque[Request] = attrs.field(factory=deque)
    _retries: list[tuple[float, int, Request]] = attrs.field(factory=list)
    _loads: list[tuple[float, int]] = attrs.field(factory=list)
    """Wire ids of the requests that load a thread, by the moment at which `give_back` checks
    them."""

    @property
    def anybody_waits(self) -> bool:
        """Return whether a request is queued, so that `due` is worth calling."""
        return bool(self._ring)

    @property
    def waiting(self) -> int:
        """Return how many requests upstream wait for something outside."""
        return sum(each.rule.waits for each in self.upstream.values())

    @property
    def queued(self) -> int:
        """Return how many requests wait for their turn."""
        return sum(len(line.queue) for line in self._lines.values())

    def has(self, request: Request) -> bool:
        """Return whether the request is upstream or queued: not answered, dropped or lost."""
        line = self._lines.get(request.account)
        queued = line is not None and request in line.queue
        return queued or self.upstream.get(request.wire) is request

    def of(self, client: ClientId) -> list[Request]:
        """Return all of a client's requests, upstream or queued."""
        line = self._lines.get(client)
        queued = list(line.queue) if line is not None else []
        return [each for each in self.upstream.values() if each.client == client] + queued

    def submit(self, request: Request) -> bool:
        """Queue a request; False if its client has too much queued already."""
        line = self._line(request)
        full = (
            len(line.queue) >= self.limits.queued_per_client
            or (line.queue and line.queued_bytes >= self.limits.queued_bytes_per_client)
            or (request.rule.waits and line.waiting >= self.limits.waiting_per_client)
        )
        if full and request.account != BROKER:  # the broker's own requests end what clients began
            return False
        line.queue.append(request)
        line.queued_bytes += len(request.line)
        self._company.note(request.account, request.since)
        self._take_turns(request.account, line)
        return True

    def send_at_once(self, request: Request, now: float) -> bool:
        """Count a client's request as upstream, past the queue, if nothing can stand before it.

        Most go this way: nobody waits, and it takes no more than a slot, of those that are free.
        Return False for any other, which goes by ``submit`` and ``due``.
        """
        limits, rule, line = self.limits, request.rule, self._line(request)
        if (
            (self._ring or self.held or request.large or rule.waits or rule.loads)
            or self.in_flight >= limits.in_flight
            or line.in_flight >= limits.in_flight_per_client
            or len(line.fresh) >= limits.burst
        ):
            return False
        self._company.note(request.account, request.since)
        self._send(request, line, now)
        return True

    def due(self, now: float, only: ClientId | None = None) -> Iterator[Request]:
        """Yield the requests to send now, in turn; each counts as upstream once it is yielded.

        ``only``: none but this client's (the broker's own, during the handshake).
        """
        self.held_until = float("inf")
        passed = 0  # clients in a row that couldn't use their turn
        while self._ring and passed < len(self._ring):
            client = self._ring.popleft()
            line = self._lines[client]
            if (only is not None and client != only) or not self._may_send(client, line, now):
                self._ring.append(client)
                passed += 1
                continue
            passed = 0
            request = line.queue.popleft()
            line.queued_bytes -= len(request.line)
            if line.queue:
                self._ring.append(client)
            else:
                line.turns = False
            self._send(request, line, now)
            yield request

    def _may_send(self, client: ClientId, line: ClientQueue, now: float) -> bool:
        first = line.queue[0]
        if (first.large or self.held) and self._is_owed_too_much(client, line):
            return False
        if first.rule.waits:
            return line.waiting < self.limits.waiting_per_client
        if _is_load(line.queue[0]) and self.loading >= self.limits.loading:
            return False
        has_a_slot = (
            self.in_flight < self.limits.in_flight
            and line.in_flight < self.limits.in_flight_per_client
        )
        return has_a_slot and (
            client in (BROKER, DEPARTED) or not self._has_sent_burst(client, line, now)
        )

    def _is_owed_too_much(self, client: ClientId, line: ClientQueue) -> bool:
        if line.queue[0].large and (line.large or client in self.laden):
            return True
        return client in self.held

    def is_to_be_slowed(self, client: ClientId) -> bool:
        """Return whether a client that is slow to take its answers has its queue half full.

        Such a client isn't read, where others are answered that they ask for too much.
        """
        line = self._lines.get(client)
        return (
            line is not None
            and (
                len(line.queue) >= self.limits.queued_per_client / 2
                or line.queued_bytes >= self.limits.queued_bytes_per_client / 2
            )
            and self._is_owed_too_much(client, line)
        )

    def _has_sent_burst(self, client: ClientId, line: ClientQueue, now: float) -> bool:
        most, span = self.limits.burst, self.limits.burst_seconds
        if len(line.queue) > most and self._company.has(client, now):
            most, span = 1, span / most  # as many in the same time, but one by one
        line.fresh = [
            each
            for each in line.fresh
            if each.upstream_since + span > now and each.wire in self.upstream
        ]
        if len(line.fresh) < most:
            return False
        self.held_until = min(self.held_until, line.fresh[0].upstream_since + span)
        return True

    def _send(self, request: Request, line: ClientQueue, now: float) -> None:
        self.upstream[request.wire] = request
        self._count(request, line, 1)
        if request.rule.waits:
            return
        line.fresh.append(request)
        request.upstream_since = now
        if _is_load(request):
            for span in (self.limits.loading_slot, self.limits.request_deadline):
                heapq.heappush(self._loads, (now + span, request.wire))
            return
        request.deadline = now + self.limits.request_deadline
        self._deadlines.append(request)  # one deadline for all, so the oldest stands first

    def restore(self, request: Request, now: float) -> None:
        """Count a request as upstream that an earlier broker has sent."""
        self._send(request, self._line(request), now)

    def give_back(self, now: float) -> None:
        """Free the client's slot of requests that have been loading a thread for long.

        After the request deadline a restart no longer waits for them either.
        """
        while self._loads and self._loads[0][0] <= now:
            request = self.upstream.get(heapq.heappop(self._loads)[1])
            if request is None:
                continue
            if request.has_slot:
                line = self._line(request)
                line.in_flight -= 1
                line.large -= request.large  # the client's other requests don't wait for minutes
                request.has_slot = request.large = False
                self._forget_if_empty(request.account, line)
            if request.upstream_since + self.limits.request_deadline <= now:
                request.overdue = True

    def answered(self, request: Request) -> None:
        """Remove an answered request from those upstream."""
        del self.upstream[request.wire]
        if not request.expired:
            self._free(request)

    def retry(self, request: Request, now: float) -> float | None:
        """Send an overloaded request again later, returning when; None after the last attempt.

        The request keeps its slot meanwhile: an overloaded app-server is better served by fewer
        requests.
        """
        if request.attempts >= self.limits.overload_retries:
            return None
        at = now + self.limits.overload_first_wait * 2.0**request.attempts
        request.attempts += 1
        heapq.heappush(self._retries, (at, request.wire, request))
        return at

    def retries(self, now: float) -> Iterator[Request]:
        """Yield the requests whose wait after an overload is over."""
        while self._retries and self._retries[0][0] <= now:
            request = heapq.heappop(self._retries)[2]
            if request.wire in self.upstream and not request.expired:
                yield request

    def expire(self, now: float) -> Iterator[Request]:
        """Give up the requests whose deadline has passed, and yield them."""
        while self._deadlines and self._deadlines[0].deadline <= now:
            request = self._deadlines.popleft()
            if self.upstream.get(request.wire) is request and not request.expired:
                self.give_up(request)
                yield request

    def give_up(self, request: Request) -> None:
        """Wait for the answer no longer: the slot is free, a late answer is still recognised."""
        self._free(request)
        request.expired = True

    def next_moment(self) -> float:
        """Return when ``due``, ``retries`` or ``expire`` will have something, at the earliest."""
        while self._deadlines and self._deadlines[0].wire not in self.upstream:
            self._deadlines.popleft()
        deadline = self._deadlines[0].deadline if self._deadlines else float("inf")
        retry = self._retries[0][0] if self._retries else float("inf")
        while self._loads and self._loads[0][1] not in self.upstream:
            heapq.heappop(self._loads)
        loads = self._loads[0][0] if self._loads else float("inf")
        held = self.held_until if self._ring else float("inf")  # its client may have left meanwhile
        return min(deadline, retry, loads, held)

    def leave(self, client: ClientId) -> list[Request]:
        """Drop and return what the client has queued; its requests upstream lose their asker."""
        for request in self.upstream.values():
            if request.client == client and not request.expired:
                self._free(request)
                request.client, request.account = None, DEPARTED
                self._count(request, self._line(request), 1)
            elif request.client == client:
                request.client = None
        self.laden.discard(client)
        self.held.discard(client)
        line = self._lines.pop(client, None)
        if line is None:
            return []
        if line.turns:
            self._ring.remove(client)
        return list(line.queue)

    def lose(self) -> list[Request]:
        """Forget and return the requests upstream: the app-server is gone. The rest stays queued.

        The broker's own queued requests were meant for that app-server, and go with it.
        """
        lost = list(self.upstream.values())
        self.upstream.clear()
        self._deadlines.clear()
        self._retries.clear()
        self._loads.clear()
        self.in_flight = self.loading = 0
        self.held_until = float("inf")  # nothing is upstream any more
        for account in list(self._lines):
            line = self._lines[account]
            line.in_flight = line.waiting = line.large = 0
            line.fresh.clear()
            if account == BROKER:
                line.queue.clear()
                if line.turns:
                    self._ring.remove(account)
            if not line.queue:
                del self._lines[account]
        return lost

    def drop_queued(self, asked_before: float = float("inf")) -> list[Request]:
        """Remove from the queues, and return, requests that clients made until this moment."""
        dropped: list[Request] = []
        for account in [id for id in self._lines if id != BROKER]:
            line = self._lines[account]
            gone = [each for each in line.queue if each.since <= asked_before]
            for request in gone:
                line.queue.remove(request)
                line.queued_bytes -= len(request.line)
            dropped += gone
            if not line.queue and line.turns:
                line.turns = False
                self._ring.remove(account)
            self._forget_if_empty(account, line)
        return dropped

    def oldest_queued(self) -> float:
        """Return when a client's oldest queued request was made; infinite if none is queued."""
        moments = (line.queue[0].since for id, line in self._lines.items() if id > 0 and line.queue)
        return min(moments, default=float("inf"))

    @property
    def busy(self) -> bool:
        """Return whether clients wait for answers from the app-server, not yet too long."""
        of_clients = (each for each in self.upstream.values() if each.account != BROKER)
        return any(not (each.expired or each.overdue) for each in of_clients)

    def _free(self, request: Request) -> None:
        line = self._line(request)
        self._count(request, line, -1)
        self._forget_if_empty(request.account, line)

    def _forget_if_empty(self, account: ClientId, line: ClientQueue) -> None:
        if not line.queue and not line.in_flight and not line.waiting:
            del self._lines[account]

    def _count(self, request: Request, line: ClientQueue, change: int) -> None:
        line.large += change * request.large
        if request.rule.waits:
            line.waiting += change
            return
        self.in_flight += change
        self.loading += change * _is_load(request)
        line.in_flight += change * request.has_slot

    def _line(self, request: Request) -> ClientQueue:
        line = self._lines.get(request.account)
        if line is None:
            line = self._lines[request.account] = ClientQueue()
        return line

    def _take_turns(self, client: ClientId, line: ClientQueue) -> None:
        if not line.turns:
            line.turns = True
            self._ring.append(client)


def _is_load(request: Request) -> bool:
    """Return whether the request loads a thread for a client; the broker's own have a deadline."""
    return request.rule.loads and request.account != BROKER
