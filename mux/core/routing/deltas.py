"""The deltas of items that run: the hot path, as nearly all lines of a turn are such.

Nothing else that the table of notifications and the features look for can be true of one more
delta: it is published, and kept for clients that join later. What that takes is looked up once for
each *stretch*: consecutive deltas of one stream of an item.

Lines that were read at once and go on with a stretch are a *run*, and published as one. Such a line
isn't decoded: it begins as the stretch's first line does, up to its text, and what comes behind the
text is the same but for the time. Codex writes its fields in one order; where another one doesn't,
each line is handled alone. So is a line that may be no JSON, and one with an escape that codex has
no need to write.

Used by ``notifications``; by ``broker`` for runs.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

import attrs
import msgspec

from mux.core.protocol.envelope import jsonrpc
from mux.core.protocol.envelope.jsonrpc import ItemParams, UpstreamMessage
from mux.core.protocol.envelope.long_line import LongLine
from mux.core.protocol.journal_entry import LARGE_DELTA, MERGEABLE
from mux.core.state.state import State
from mux.core.state.threads.threads import Recipients
from mux.core.state.turns.delta_stream import DeltaStream

RUN_LINES: Final = 128
"""Most lines of a run: a tenth of a millisecond, between two looks at the clock."""

_SIMPLE: Final = rb'"\w+":(?:"[^"\\]*"|[0-9]+|null)'
"""Matches a field whose value is a number, null, or a text without escapes."""

_BEFORE: Final = re.compile(rb'\{"method":"[^"\\]*","params":\{(?:%b,)*"delta":"' % _SIMPLE)
"""Matches a delta's line up to its text."""

_PLAIN: Final = rb"[ !#-\[\]-\xff]*"
"""Matches what a text may hold without an escape."""

_TEXT: Final = rb'%b(?:\\(?:["\\/bfnrt]|u00[0-9a-fA-F]{2})%b)*' % (_PLAIN, _PLAIN)

_BEHIND: Final = re.compile(
    rb'(%b)"((?:,%b)*)\}(?:,"emittedAtMs":[1-9][0-9]*)?\}' % (_TEXT, _SIMPLE)
)
"""Matches its text, and what is behind it: the params' other fields, and the time."""


class _Stretch(msgspec.Struct, frozen=True, eq=False):
    """Consecutive deltas of one stream of an item, and what is known of all of them."""

    thread: str
    method: str
    item: str | None
    summary_index: int | None
    content_index: int | None
    stream: DeltaStream
    recipients: Recipients
    before: bytes | None
    """What each of its lines has before the text; None if its lines are handled one by one."""
    behind: bytes
    """The params' fields that each has behind the text."""


@attrs.define(eq=False, repr=False)
class DeltaRouter:
    """Publishes deltas."""

    state: State
    _stretch: _Stretch | None = None
    """The stretch that the latest delta belongs to; None once anything else happened."""

    def interrupted(self) -> None:
        """End the stretch: something else may have changed who follows a thread."""
        self._stretch = None

    def handle(self, line: bytes, message: UpstreamMessage) -> bool:
        """Publish the line if it is one more delta of an item that runs and is followed.

        Return whether it was.
        """
        params = message.params
        if params is None or params.delta is jsonrpc.ABSENT:
            return False
        stretch = self._stretch
        if stretch is None or (
            params.itemId != stretch.item
            or message.method != stretch.method
            or params.threadId != stretch.thread
            or params.summaryIndex != stretch.summary_index
            or params.contentIndex != stretch.content_index
        ):
            stretch = self._stretch = self._begin(line, message, params)
            if stretch is None:
                return False
        self.state.publish_to_followers(stretch.thread, stretch.method, line, stretch.recipients)
        stretch.stream.add(bytes(params.delta))
        return True

    def handle_run(self, lines: Sequence[bytes | LongLine], at: int) -> int:
        """Publish the lines from ``at`` on as a run, as far as they go on with the stretch.

        Return how many these are, `RUN_LINES` at most.
        """
        stretch = self._stretch
        if stretch is None or stretch.before is None:
            return 0
        before, behind = stretch.before, stretch.behind
        messages: list[bytes] = []
        texts: list[bytes] = []
        for line in lines[at : at + RUN_LINES]:
            if not (isinstance(line, bytes) and line.startswith(before)):
                break
            rest = None if len(line) > LARGE_DELTA else _BEHIND.fullmatch(line, len(before))
            if rest is None or rest[2] != behind:
                break
            messages.append(line)
            texts.append(rest[1])
        if messages:
            thread, method = stretch.thread, stretch.method
            self.state.publish_run(thread, method, messages, stretch.recipients)
            stretch.stream.add_text(b"".join(texts))
        return len(messages)

    def _begin(self, line: bytes, message: UpstreamMessage, params: ItemParams) -> _Stretch | None:
        method, thread, state = message.method, params.threadId, self.state
        if method not in MERGEABLE or thread is None or message.id is not jsonrpc.ABSENT:
            return None
        known = state.threads.known.get(thread)
        if known is None or not known.claimed or thread in state.title_turns.running:
            return None
        item = known.running.items.get(params.itemId or "")
        if item is None or item.completed is not None:
            return None
        before = _BEFORE.match(line)
        behind = None if before is None else _BEHIND.fullmatch(line, before.end())
        if behind is not None and behind[1] != bytes(params.delta)[1:-1]:
            behind = None  # a second `delta` stands behind it, and is the one that counts
        return _Stretch(
            thread,
            method,
            params.itemId,
            params.summaryIndex,
            params.contentIndex,
            item.stream(method, params, line),
            state.threads.recipients(thread, method),
            None if before is None or behind is None else before[0],
            b"" if behind is None else behind[2],
        )
