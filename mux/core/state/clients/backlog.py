"""The backlog of a client that is behind: one that lags, or came back and asks for what it missed.

Such a client isn't fed live. It reads the journal: its place is its cursor, so what is stored for
it doesn't grow with what it has yet to read. When its outbox has drained it is given the next part,
until it has caught up; then it is live again.

Messages for this client alone (answers, server requests offered to it, their resolutions) aren't in
the journal. They are *pinned*: stored, and given out at their place between the entries. The latest
notice about each thread that the client doesn't follow is stored, too.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Iterable, Sequence
from operator import attrgetter

import attrs
import msgspec

from mux.core.policy.scopes import ALL
from mux.core.protocol.envelope import jsonrpc
from mux.core.protocol.journal_entry import MERGEABLE, Entry, Message, is_delta, merge, with_cursor
from mux.core.protocol.methods import server_request_rule
from mux.core.protocol.rules import OfferTo
from mux.core.protocol.scope import Scope
from mux.core.state.requests.pending_requests import RESOLVED

NOT_NUMBERED = 0
"""The seq of a message that isn't in the journal."""

_seq = attrgetter("seq")


class Pinned(msgspec.Struct, frozen=True):
    """A message for this client alone."""

    after: int
    """The last seq before it."""
    message: Message
    answer: bool = False
    """True if it answers a request of the client."""


@attrs.define(eq=False, repr=False)
class Backlog:
    """A client's way through the journal."""

    cursor: int
    """The last seq that the client was given."""
    follows: dict[str, int]
    """The threads that it follows; by thread, the seq after which entries are this client's."""
    merged: bool = True
    """True if consecutive deltas are merged."""
    wants_seq: bool = False
    """True if the client takes its cursor from its messages, so that their numbers must go up."""
    targeted_until: int = 0
    """Up to this seq server requests and their resolutions are read from the journal too (a
    replay), if they are for clients with these ``scopes``. After it, those meant for this client
    are pinned."""
    scopes: frozenset[Scope] = ALL
    fetching: bool = False
    """True if entries are being read from disk for it."""
    pinned_bytes: int = 0
    """Bytes of all pinned messages."""
    answer_bytes: int = 0
    """Bytes of the answers among these."""
    _followed: dict[str, list[tuple[int, int]]] = attrs.field(factory=dict)
    """Threads that it followed and left; for each, after which seq and up to which."""
    _pinned: deque[Pinned] = attrs.field(factory=deque)
    _notices: dict[tuple[str | None, str], Message] = attrs.field(factory=dict)

    @property
    def threads(self) -> frozenset[str]:
        """Return the threads whose entries it reads."""
        return frozenset(self.follows.keys() | self._followed.keys())

    def follow(self, thread: str, head: int) -> None:
        """Add a thread that the client has joined.

        A thread that it followed before is just read on.
        """
        self.follows.setdefault(thread, head)

    def unfollow(self, thread: str, head: int) -> None:
        """End a thread's entries here: the client follows it no more."""
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
        """Store a message that is for this client alone, at this place."""
        self._pinned.append(Pinned(head, Message(seq, method, message), answer))
        self._count(self._pinned[-1], 1)

    def _count(self, pinned: Pinned, change: int) -> None:
        size = len(pinned.message.message) * change
        self.pinned_bytes += size
        self.answer_bytes += size * pinned.answer

    def mark_last(self, head: int) -> None:
        """Put ``head``, up to which the client now is, as a cursor into the message pinned last."""
        pinned = self._pinned.pop()
        self._count(pinned, -1)
        last, text = pinned.message, with_cursor(pinned.message.message, head)
        self.pin(pinned.after, last.method, text, last.seq, answer=pinned.answer)

    def notice(self, head: int, thread: str | None, method: str, message: bytes) -> None:
        """Store a notice to all clients; if the latest of its kind is enough, only that."""
        if method == "thread/started":
            self.pin(head, method, message)
        else:
            self._notices[thread, method] = Message(NOT_NUMBERED, method, message)

    def read(
        self, entries: Sequence[Entry], opted_out: frozenset[str], head: int, until: int = 0
    ) -> list[Entry | Message]:
        """Return the messages for the next entries; the cursor moves behind them, and to ``until``.

        At ``head`` the client has caught up, and all that is left is returned as well.
        """
        messages: list[Entry | Message] = []
        start = 0
        while self._pinned and entries and self._pinned[0].after < entries[-1].seq:
            end = bisect_right(entries, self._pinned[0].after, start, key=_seq)
            messages += self._selected(entries[start:end], opted_out)
            messages.append(self._unpin())
            start = end
        messages += self._selected(entries[start:], opted_out)
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

    def _selected(
        self, entries: Sequence[Entry], opted_out: frozenset[str]
    ) -> Iterable[Entry | Message]:
        """Return this client's messages in the entries, which lie between two pinned messages."""
        if not entries:
            return ()
        # Nearly all are deltas of threads that the client followed all along: no need to read them.
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
        # A client that replays wasn't there to be offered the request. A request that was offered
        # to one client alone isn't for it.
        rule = server_request_rule(entry.method)
        to_all = rule.offer_to is OfferTo.FOLLOWERS and rule.is_for(self.scopes)
        return (to_all or entry.method == RESOLVED) and seq <= self.targeted_until


def _is_targeted(entry: Entry) -> bool:
    """Return whether it is a server request or its resolution, so not meant for every follower."""
    if is_delta(entry.method):
        return False
    if entry.method == RESOLVED:
        return True
    message = jsonrpc.read_upstream(entry.message)
    return message is not None and message.id is not jsonrpc.ABSENT
