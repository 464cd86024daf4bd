"""The push queue: a row for each push and endpoint, and the rules by which rows change.

Everything is in memory and immediate; ``queue_writer`` writes changes behind. Time is an argument
and randomness is handed in, so that a test can let an hour pass.

    queued → sent          the service has it
           → given up      the service won't take it, or the endpoint is gone, or there is no room
           → expired       it was worthless before it could be sent
           → withdrawn     taken back before it was sent
           → replaced      a newer one with the same collapse key was put

*At least once.* ``attempts`` is on disk before the service is called, ``sent`` after it has
answered. A push goes out twice if the broker can't know that it went: it was killed between the
two, or the connection was lost before the answer. Both have the same ids and collapse key, so that
a device shows one. When a row is withdrawn that was tried, a silent push goes after it: the service
may have the row's push, whatever became of its answer.

*Order.* An endpoint is sent one push at a time, the oldest due one first. So a withdrawal can't
overtake the push that it withdraws.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any, Final, Literal

import attrs
from msgspec.structs import replace

from mux.push.endpoints import Endpoint
from mux.push.message import Push
from mux.push.outcome import Delivered, Failed, Gone, Outcome, Retry, words

State = Literal["queued", "sent", "given up", "expired", "withdrawn", "replaced"]

FIRST_WAIT: Final = 2.0
LONGEST_WAIT: Final = 120.0
"""Seconds until a push is tried again, doubled from the first to the longest: somebody waits, and a
host that is back on line should be noticed soon."""

LONGEST_ASKED: Final = 3600.0
"""Seconds of a ``Retry-After`` that are obeyed: a service that asks for days loses the push."""

MOST_OF_ENDPOINT: Final = 64
"""Rows that wait for one endpoint; more don't help a person."""

MOST_QUEUED: Final = 2048
"""Rows that wait in all: some MB in memory and on disk."""

MOST_SETTLED: Final = 1024
SETTLED_SECONDS: Final = 14 * 86_400.0
"""Settled rows that are older, or past the number ``MOST_SETTLED``, are forgotten. Their pushes
can't be withdrawn any more."""

WITHDRAWAL_SECONDS: Final = 86_400.0
"""How long a withdrawal is tried: a phone that was off for longer is opened, not glanced at."""


@attrs.define
class Row:
    """A push for one endpoint. Times in Unix seconds."""

    n: int
    """Grows with each row."""
    device: str
    """The device's key."""
    endpoint: str
    """The endpoint's id."""
    service: str
    push: Push
    raised: float
    due: float
    """When the push may be tried."""
    state: State = "queued"
    attempts: int = 0
    settled: float | None = None
    """When the row left the state ``queued``."""
    said: str | None = None
    """The last outcome in words."""
    sending: bool = attrs.field(default=False, eq=False)
    """True while the push is being sent. Not stored on disk."""

    def to_json(self) -> dict[str, Any]:
        """Return the fields for a list, without the content of the push."""
        return {
            "id": self.push.id,
            "kind": self.push.kind,
            "withdraw": self.push.withdraw,
            "device": self.device,
            "endpoint": self.endpoint,
            "service": self.service,
            "raised": self.raised,
            "state": self.state,
            "attempts": self.attempts,
            "settled": self.settled,
            "said": self.said,
        }


@attrs.define(eq=False, repr=False)
class Queue:
    """All rows."""

    random: Callable[[], float]
    """Returns numbers from 0 to 1."""
    next_n: int = 1
    rows: dict[int, Row] = attrs.field(factory=dict)
    changed: set[int] = attrs.field(factory=set)
    """Numbers of the rows that aren't on disk as they are here."""
    removed: set[int] = attrs.field(factory=set)
    """Numbers of the rows that were removed here and are still on disk."""
    ended: Counter[State] = attrs.field(factory=Counter)
    """How many rows came to each end, in this life of the broker."""
    _waiting: dict[int, Row] = attrs.field(factory=dict)
    """The rows in the state ``queued``, in order."""
    _sending: dict[int, Row] = attrs.field(factory=dict)
    """The rows that are being sent."""

    def adopt(self, rows: Iterable[Row], now: float) -> None:
        """Add the rows that an earlier life left.

        A push that was being sent is tried again, unless a newer one with its key was put
        meanwhile.
        """
        for row in rows:
            if row.n not in self.rows:
                self.rows[row.n] = row
                if row.state == "queued":
                    self._waiting[row.n] = row
                self.next_n = max(self.next_n, row.n + 1)
        self.rows = dict(sorted(self.rows.items()))
        self._waiting = dict(sorted(self._waiting.items()))
        newest = {(row.endpoint, row.push.collapse): row.n for row in self._waiting.values()}
        for row in self.waiting():
            if row.n != newest[row.endpoint, row.push.collapse] and not row.sending:
                self._end(row, "replaced", now)

    # -- what comes -------------------------------------------------------------------------------

    def put(self, endpoint: Endpoint, push: Push, now: float) -> Row:
        """Add a push for an endpoint, in place of a waiting one with the same collapse key."""
        for row in self._of(endpoint.device, push.collapse):
            if row.endpoint == endpoint.id and row.state == "queued" and not row.sending:
                self._end(row, "replaced", now)
        made = Row(
            n=self.next_n,
            device=endpoint.device,
            endpoint=endpoint.id,
            service=endpoint.service,
            push=push.at(endpoint.level),
            raised=now,
            due=now,
        )
        self.next_n += 1
        self.rows[made.n] = self._waiting[made.n] = made
        self.changed.add(made.n)
        self._make_room(now)
        return made

    def withdraw(
        self,
        endpoints: Collection[Endpoint],
        collapse: str,
        count: int,
        now: float,
        badge: int | None = None,
    ) -> None:
        """Take back what these endpoints were sent, or are to be sent, under a collapse key.

        A push that isn't sent is never sent. If one may have arrived, a silent withdrawal follows
        it, except where every push has to show something.
        """
        for endpoint in endpoints:
            shown: Push | None = None
            for row in list(self._of(endpoint.device, collapse)):  # the oldest first
                if row.endpoint != endpoint.id:
                    continue
                if row.push.withdraw:
                    shown = None if row.state in ("queued", "sent") else shown
                    continue
                if row.state == "queued":
                    self._end(row, "withdrawn", now)
                if row.attempts and row.state != "given up":
                    shown = row.push
            if shown is not None and not endpoint.shows_all:
                end = now + WITHDRAWAL_SECONDS
                self.put(endpoint, shown.withdrawal(count, end, badge), now)

    def drop(self, endpoint: str, reason: str, now: float) -> None:
        """Give up all pushes that wait for an endpoint."""
        for row in list(self._waiting.values()):
            if row.endpoint == endpoint:
                self._end(row, "given up", now, reason)

    def waiting(self) -> list[Row]:
        """Return the queued rows, the oldest first."""
        return list(self._waiting.values())

    # -- what is to be done -----------------------------------------------------------------------

    def ready(self, now: float) -> Iterator[Row]:
        """Yield the rows that may be sent now, in order: one for each endpoint without a push being
        sent."""
        taken = {row.endpoint for row in self._sending.values()}
        for row in list(self._waiting.values()):
            # If due is further off than any wait, the clock was set back meanwhile.
            due = row.due <= now or row.due > now + LONGEST_ASKED
            if due and row.endpoint not in taken:
                taken.add(row.endpoint)
                yield row

    def next_moment(self, now: float) -> float | None:
        """Return when a row next becomes due or worthless; None if none does.

        A row that is due and isn't sent waits for another one to end, not for a moment.
        """
        moments = (
            moment
            for row in self._waiting.values()
            for moment in (row.due, row.push.expires_at)
            if moment > now and not row.sending
        )
        return min(moments, default=None)

    def expire(self, now: float) -> None:
        """End the rows that are worthless by now, and forget the settled ones that are too old."""
        for row in list(self._waiting.values()):
            if row.push.expires_at <= now and not row.sending:
                self._end(row, "expired", now)
        self._forget(now)

    def begin(self, row: Row) -> None:
        """Mark a row as being sent, and count the attempt."""
        row.attempts += 1
        row.sending = True
        self._sending[row.n] = row
        self.changed.add(row.n)

    def let_go(self, row: Row) -> None:
        """Mark a row as no longer being sent."""
        row.sending = False
        self._sending.pop(row.n, None)

    def settle(self, row: Row, outcome: Outcome, now: float) -> None:
        """Apply the outcome of an attempt. A row that was withdrawn meanwhile stays withdrawn."""
        self.let_go(row)
        outcome_text = words(outcome)
        if row.state != "queued":
            row.said = outcome_text
            self.changed.add(row.n)
            return
        match outcome:
            case Delivered():
                self._end(row, "sent", now, outcome_text)
            case Failed():
                self._end(row, "given up", now, outcome_text)
            case Gone():
                self._end(row, "given up", now, outcome_text)
                self.drop(row.endpoint, outcome_text, now)
            case Retry(after):
                self._put_off(row, after, outcome_text, now)

    def _put_off(self, row: Row, after: float | None, outcome: str, now: float) -> None:
        row.said = outcome
        self.changed.add(row.n)
        newer = any(
            other.n > row.n and other.endpoint == row.endpoint and other.state == "queued"
            for other in self._of(row.device, row.push.collapse)
        )
        if newer:
            self._end(row, "replaced", now, outcome)
            return
        wait = min(FIRST_WAIT * 2.0 ** min(row.attempts - 1, 16), LONGEST_WAIT)
        # A random half to whole of it, so that pushes that failed together don't return together.
        wait *= 0.5 + self.random() / 2
        row.due = now + max(wait, min(after or 0.0, LONGEST_ASKED))
        if row.due >= row.push.expires_at:
            self._end(row, "expired", now, outcome)

    # -- bounds -----------------------------------------------------------------------------------

    def _make_room(self, now: float) -> None:
        """If too many rows wait, give up the least important one of the endpoint that has most.

        Rows that aren't urgent go before urgent ones, the older before the newer; withdrawals go
        last.
        """
        counts: dict[str, int] = {}
        for row in self._waiting.values():
            counts[row.endpoint] = counts.get(row.endpoint, 0) + 1
        worst = max(counts, key=counts.__getitem__)
        if counts[worst] <= MOST_OF_ENDPOINT and len(self._waiting) <= MOST_QUEUED:
            return
        candidates = [
            row for row in self._waiting.values() if row.endpoint == worst and not row.sending
        ]
        least = min(candidates, key=lambda row: (row.push.withdraw, row.push.urgent, row.n))
        self._end(least, "given up", now, f"more than {len(self._waiting) - 1} waited to be sent")

    def _forget(self, now: float) -> None:
        settled = [row for row in self.rows.values() if row.settled is not None]
        old = now - SETTLED_SECONDS
        surplus = len(settled) - MOST_SETTLED
        for at, row in enumerate(settled):
            if (at < surplus or (row.settled or 0.0) < old) and not row.sending:
                del self.rows[row.n]
                self.changed.discard(row.n)
                self.removed.add(row.n)

    # -- rows -------------------------------------------------------------------------------------

    def _of(self, device: str, collapse: str) -> list[Row]:
        return [
            row
            for row in self.rows.values()
            if row.device == device and row.push.collapse == collapse
        ]

    def _end(self, row: Row, state: State, now: float, outcome: str | None = None) -> None:
        """Settle a row: forget the content of its push, keep the rest."""
        row.state = state
        row.settled = now
        self.ended[state] += 1
        row.said = outcome or row.said
        row.push = replace(row.push, title=None, body=None, ticket=None, actions=())
        self._waiting.pop(row.n, None)
        self.changed.add(row.n)

    def status(self) -> dict[str, int]:
        """Return how many rows are in which state."""
        counts: dict[str, int] = {}
        for row in self.rows.values():
            counts[row.state] = counts.get(row.state, 0) + 1
        return counts
