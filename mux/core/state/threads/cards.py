"""Cards: what a list of threads shows of each, as far as the app-server has told it.

A card outlives the record of its thread (``threads``), which goes when the thread is unloaded. It
is made of what passes anyway: lists, ``thread/started``, answers by which clients join, and a few
notifications. Nothing is asked for it.

Used by ``inbox_cards``, which keeps them up to date.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, Final

import msgspec

from mux.core.extension.inbox import Ended, Line
from mux.core.part import Part
from mux.core.protocol.threads.thread_messages import Status

MOST: Final = 4096
"""Cards: a few kilobytes each at most. The one that was looked at or changed longest ago goes."""

LONGEST_TEXT: Final = 300
"""Characters of a title or a preview: no list shows more."""

NULL: Final = b"null"
TITLES: Final = "thread_title"
"""The source of the threads by which TUIs have titles made."""


class SavedCard(msgspec.Struct):
    """A thread, as the app-server describes it in lists, answers and ``thread/started``."""

    id: str
    name: str | None = None
    preview: str | None = None
    cwd: str | None = None
    ephemeral: bool = False
    parentThreadId: str | None = None
    threadSource: Any = None
    createdAt: float | None = None
    updatedAt: float | None = None
    recencyAt: float | None = None
    status: Status | None = None


class ThreadList(msgspec.Struct):
    """The result of ``thread/list``. ``readStates`` came with codex 0.163."""

    data: list[SavedCard] = []
    nextCursor: str | None = None
    readStates: dict[str, msgspec.Raw] | None = None


class Card(Part):
    """A thread as the inbox knows it. Times are Unix seconds, but for ``since``."""

    id: str
    introduced: bool = False
    """True once the app-server has described the thread: before that nothing is shown of it."""
    hidden: bool = False
    """True for ephemeral threads, sub-agents' and those that titles are made by."""
    title: str = ""
    preview: str = ""
    directory: str = ""
    status: str = "notLoaded"
    archived: bool = False
    created: float | None = None
    updated: float | None = None
    recency: float | None = None
    read_state: bytes = NULL
    line: Line | None = None
    """The last line of its last turn."""
    ended: Ended | None = None
    usage: bytes = NULL
    since: float | None = None
    """When the running turn began, on the broker's clock."""

    @property
    def unread(self) -> bool:
        """Return whether codex has it as unread."""
        try:
            return _read_state_decoder.decode(self.read_state).firstUnread is not None
        except msgspec.DecodeError:
            return False

    def introduce(self, stored: SavedCard) -> None:
        """Update from a description of the thread; one without a directory is none."""
        if stored.cwd is None:
            return
        self.introduced = True
        self.hidden = bool(
            stored.ephemeral or stored.parentThreadId or stored.threadSource == TITLES
        )
        self.title = one_line(stored.name or "") or self.title
        self.preview = one_line(stored.preview or "") or self.preview
        self.directory = stored.cwd
        self.created = stored.createdAt if stored.createdAt is not None else self.created
        self.updated = _later(self.updated, stored.updatedAt)
        self.recency = _later(self.recency, stored.recencyAt)
        if stored.status is not None:
            self.status = stored.status.type

    def worked(self, unix_time: float | None) -> None:
        """Note that a turn began or ended at this time."""
        self.updated = _later(self.updated, unix_time)
        self.recency = _later(self.recency, unix_time)


class Cards(Part):
    """The cards of all threads that were heard of lately."""

    most: int = MOST
    _by_id: OrderedDict[str, Card] = msgspec.field(default_factory=OrderedDict)

    def get(self, id: str) -> Card:
        """Return a thread's card, which is made if there is none."""
        card = self._by_id.get(id)
        if card is None:
            card = self._by_id[id] = Card(id)
            if len(self._by_id) > self.most:
                self._by_id.popitem(last=False)
        else:
            self._by_id.move_to_end(id)
        return card

    def known(self, id: str) -> Card | None:
        """Return a thread's card, if there is one."""
        return self._by_id.get(id)

    def all(self) -> list[Card]:
        """Return every card."""
        return list(self._by_id.values())

    def forget(self, id: str) -> None:
        """Forget a thread, which was deleted."""
        self._by_id.pop(id, None)

    def unload(self) -> None:
        """Note that the app-server has ended, and no thread is loaded."""
        for card in self._by_id.values():
            card.status, card.since = "notLoaded", None


def one_line(text: str) -> str:
    """Return the text on one line, cut to ``LONGEST_TEXT``."""
    line = " ".join(text[: 4 * LONGEST_TEXT].split())
    return line if len(line) <= LONGEST_TEXT else f"{line[: LONGEST_TEXT - 1]}…"


def _later(one: float | None, other: float | None) -> float | None:
    if one is None or other is None:
        return other if one is None else one
    return max(one, other)


class _ReadState(msgspec.Struct):
    firstUnread: Any = None


_read_state_decoder = msgspec.json.Decoder(_ReadState)
