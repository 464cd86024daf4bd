"""The messages that clients sent under ids of their own, so that none runs twice.

Keyed by principal, thread and message id, which outlive a connection. ``deduplication`` acts on it.
"""

from __future__ import annotations

from collections import OrderedDict

import attrs

from mux.core.policy.principal import ClientId, Principal

MessageKey = tuple[tuple[str, str], str, str]
"""A principal's identity, the thread and the message id."""


def message_key(principal: Principal, thread: str | None, id: str | None) -> MessageKey | None:
    """Return the key of a principal's message; None if it has no thread or no id."""
    return (principal.identity, thread, id) if thread is not None and id else None


@attrs.define(eq=False, repr=False)
class FirstAttempt:
    """The first message under an id."""

    result: bytes | None = None
    """The result of its answer, as JSON text, once it has one."""
    turn: str | None = None
    """The turn that the message belongs to, once that is known."""
    waiting: list[tuple[ClientId, bytes]] = attrs.field(factory=list)
    """Later attempts, by client and request id, that get the same answer."""


@attrs.define(eq=False, repr=False)
class SentMessages:
    """The first attempt under each id, the one used last at the end."""

    most: int
    """Messages remembered; past that, the one used longest ago is forgotten."""
    firsts: OrderedDict[MessageKey, FirstAttempt] = attrs.field(factory=OrderedDict)

    def get(self, key: MessageKey | None) -> FirstAttempt | None:
        """Return the first attempt under an id, if there was one."""
        return self.firsts.get(key) if key is not None else None

    def add(self, key: MessageKey) -> None:
        """Remember a first attempt."""
        self.firsts[key] = FirstAttempt()
        while len(self.firsts) > self.most:
            self.firsts.popitem(last=False)

    def used(self, key: MessageKey) -> None:
        """Note that an id was sent again."""
        self.firsts.move_to_end(key)

    def forget(self, key: MessageKey) -> None:
        """Forget an id: a message under it runs again."""
        del self.firsts[key]
