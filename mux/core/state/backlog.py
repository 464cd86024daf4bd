"""A client that is behind: one that lags, or one that came back and asks for what it missed.

Such a client isn't fed live. It reads the journal: its place is its cursor, so what is held for it
doesn't grow with what it has to come. When its outbox has drained it is given the next part, until
it has caught up; then it is live again.

What isn't in the journal, because it is for this client alone (answers, what is offered to it and
resolved), is *pinned*: kept, and given out where it belongs between the entries. So is the latest
notice about each thread that it doesn't follow.

Heard from: ``broker``.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Iterable, Sequence
from operator import attrgetter

import attrs
import msgspec

from mux.core.policy.scopes import ALL
from mux.core.protocol import jsonrpc
from mux.core.protocol.journal_entry import MERGEABLE, Entry, Message, is_delta, merge, with_cursor
from mux.core.protocol.methods import OfferTo, server_request_rule
from mux.core.protocol.scope import Scope
from mux.core.state.pending_requests import RESOLVED

NOT_NUMBERED = 0
"""The seq of a message that isn't in the journal."""

_seq = attrgetter("seq")


class Pinned(msgspec.Struct, frozen=True):
    """A message for this client alone. ``after``: the last seq before it.

    ``answer``: it was asked for.
    """

    after: int
    message: Message
    answer: bool = False


@attrs.define(eq=False, repr=False)
class Backlog:
    """One client's way through the journal.

    ``follows``: by thread, the seq after which its entries are this client's. ``merged``: whether
    deltas are. ``wants_seq``: whether the client takes its cursor from its messages, so that their
    numbers must go up. ``targeted_until``: up to here server requests and their resolutions are
    read from the journal too (a replay), if they are for one with these ``scopes``; after it, those
    meant for this client are pinned. ``pinned_bytes``: of all that is pinned; ``answer_bytes``: of
    its answers among that.
    """

    cursor: int
    follows: dict[str, int]
    merged: bool = True
    wants_seq: bool = False
    targeted_until: int = 0
    scopes: frozenset[Scope] = ALL
    fetching: bool = False
    pinned_bytes: int = 0
    answer_bytes: int = 0
    _followed: dict[str, list[tuple[int, int]]] = attrs.field(factory=dict)
    _pinned: deque[Pinned] = attrs.field(factory=deque)
    _notices: dict[tuple[str | None, str], Message] = attrs.field(factory=dict)

    @property
    def threads(self) -> frozenset[str]:
        """Those whose entries it reads."""
        return frozenset(self.follows.keys() | self._followed.keys())

    def follow(self, thread: str, head: int) -> None:
        """The client has joined the thread; one that it has followed before it just reads on."""
        self.follows.setdefault(thread, head)

    def unfollow(self, thread: str, head: int) -> None:
        """The client follows the thread no more: what comes after this isn't its."""
        since = self.follows.pop(thread, None)
        if since is not None:
            self._followed.setdefault(thread, []).append((since, head))

    def pin(
        self,
        head: int,
        method: str,
        message: bytes,
        seq: int = NOT_NUMBERED,
        *,
        answer: bool = False,
    ) -> None:
        """Keep a message that is for this client alone, at this place."""
        self._pinned.append(Pinned(head, Message(seq, method, message), answer))
        self._count(self._pinned[-1], 1)

    def _count(self, pinned: Pinned, change: int) -> None:
        size = len(pinned.message.message) * change
        self.pinned_bytes += size
        self.answer_bytes += size * pinned.answer

    def mark_last(self, head: int) -> None:
        """The message pinned last brings the client up to here."""
        pinned = self._pinned.pop()
        self._count(pinned, -1)
        last, text = pinned.message, with_cursor(pinned.message.message, head)
        self.pin(pinned.after, last.method, text, last.seq, answer=pinned.answer)

    def notice(self, head: int, thread: str | None, method: str, message: bytes) -> None:
        """Keep a notice to everybody: the latest of its kind, where that says all."""
        if method == "thread/started":
            self.pin(head, method, message)
        else:
            self._notices[thread, method] = Message(NOT_NUMBERED, method, message)

    def read(
        self, entries: Sequence[Entry], opted_out: frozenset[str], head: int, until: int = 0
    ) -> list[Entry | Message]:
        """The messages for the next entries; the cursor moves behind them, and to ``until``.

        At ``head`` it has caught up, and all that is left comes out with it.
        """
        messages: list[Entry | Message] = []
        start = 0
        while self._pinned and entries and self._pinned[0].after < entries[-1].seq:
            end = bisect_right(entries, self._pinned[0].after, start, key=_seq)
            messages += self._told(entries[start:end], opted_out)
            messages.append(self._unpin())
            start = end
        messages += self._told(entries[start:], opted_out)
        if entries:
            self.cursor = entries[-1].seq
        self.cursor = max(self.cursor, until)
        if self.cursor >= head:
            messages += [self._unpin() for _ in range(len(self._pinned))]
            messages += self._notices.values()
            self._notices.clear()
        return messages

    def _unpin(self) -> Message:
        pinned = self._pinned.popleft()
        self._count(pinned, -1)
        return pinned.message

    def _told(
        self, entries: Sequence[Entry], opted_out: frozenset[str]
    ) -> Iterable[Entry | Message]:
        """What these entries, between two pinned messages, are for this client."""
        if not entries:
            return ()
        # Nearly all are deltas of threads that it has followed all along: no need to look closer.
        first = entries[0].seq
        plain = {thread for thread, since in self.follows.items() if since < first}
        streamed = MERGEABLE - opted_out
        mine = [
            entry
            for entry in entries
            if (entry.method in streamed and entry.thread in plain)
            or (entry.method not in opted_out and self._is_mine(entry))
        ]
        return merge(mine, in_order=self.wants_seq) if self.merged else mine

    def _is_mine(self, entry: Entry) -> bool:
        thread, seq = entry.thread, entry.seq
        if thread is not None and seq <= self.follows.get(thread, seq):
            followed = self._followed.get(thread, ())
            if not any(since < seq <= until for since, until in followed):
                return False
        if not _is_targeted(entry):
            return True
        # Whoever replays wasn't there to be asked. What was put to one client alone isn't its.
        rule = server_request_rule(entry.method)
        to_all = rule.offer_to is OfferTo.FOLLOWERS and rule.is_for(self.scopes)
        return (to_all or entry.method == RESOLVED) and seq <= self.targeted_until


def _is_targeted(entry: Entry) -> bool:
    """Whether it is a server request or its resolution: not meant for every follower."""
    if is_delta(entry.method):
        return False
    if entry.method == RESOLVED:
        return True
    message = jsonrpc.read_upstream(entry.message)
    return message is not None and message.id is not jsonrpc.ABSENT
