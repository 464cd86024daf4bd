"""The messages that clients sent under ids of their own, so that none runs twice.

Keyed by principal, thread and message id, which outlive a connection. ``deduplication`` acts on it.
"""

from __future__ import annotations

from collections import OrderedDict

import msgspec

from mux.core.part import Part
from mux.core.policy.principal import ClientId, Principal
from mux.core.state.durable import Durable, SavedMessage

MessageKey = tuple[tuple[str, str], str, str]
"""A principal's identity, the thread and the message id."""


def message_key(principal: Principal, thread: str | None, id: str | None) -> MessageKey | None:
    """Return the key of a principal's message; None if it has no thread or no id."""
    return (principal.identity, thread, id) if thread is not None and id else None


class FirstAttempt(Part):
    """The first message under an id."""

    result: bytes | None = None
    """The result of its answer, as JSON text, once it has one."""
    turn: str | None = None
    """The turn that the message belongs to, once that is known."""
    waiting: list[tuple[ClientId, bytes]] = msgspec.field(default_factory=list)
    """Later attempts, by client and request id, that get the same answer."""


class SentMessages(Part):
    """The first attempt under each id, the one used last at the end."""

    most: int
    """Messages remembered; past that, the one used longest ago is forgotten."""
    durable: Durable = msgspec.field(default_factory=Durable)
    firsts: OrderedDict[MessageKey, FirstAttempt] = msgspec.field(default_factory=OrderedDict)

    def get(self, key: MessageKey | None) -> FirstAttempt | None:
        """Return the first attempt under an id, if there was one."""
        return self.firsts.get(key) if key is not None else None

    def add(self, key: MessageKey) -> None:
        """Remember a first attempt."""
        self.firsts[key] = FirstAttempt()
        self.changed(key)
        while len(self.firsts) > self.most:
            self.changed(self.firsts.popitem(last=False)[0])

    def used(self, key: MessageKey) -> None:
        """Note that an id was sent again."""
        self.firsts.move_to_end(key)

    def forget(self, key: MessageKey) -> None:
        """Forget an id: a message under it runs again."""
        del self.firsts[key]
        self.changed(key)

    # ── for the next broker ───────────────────────────────────────────────────────────────────

    def changed(self, key: MessageKey) -> None:
        """Note that what is known of a message has changed."""
        if self.durable.is_enabled:
            self.durable.touch("sent", msgspec.json.encode(key).decode())

    def saved(self, name: str) -> SavedMessage | None:
        """Return what is saved of the message whose key has this name; None if it is forgotten."""
        who, thread, id = key = msgspec.json.decode(name, type=MessageKey)
        first = self.firsts.get(key)
        return None if first is None else SavedMessage(who, thread, id, first.result, first.turn)

    def restore(self, saved: SavedMessage) -> None:
        """Restore a message that an earlier broker knew."""
        self.firsts[saved.who, saved.thread, saved.id] = FirstAttempt(saved.result, saved.turn)
