"""Threads that nobody follows yet, and what the app-server notified of them meanwhile.

``features/subscriptions/subscriptions`` decides whose they become.
"""

from __future__ import annotations

import msgspec

from mux.core.part import Part


class UnclaimedThreads(Part):
    """Notifications and deadlines of threads that nobody has followed yet."""

    most: int
    """Notifications held, over all threads."""
    notifications: dict[str, list[tuple[str, bytes]]] = msgspec.field(default_factory=dict)
    """Method and line of each notification, by thread."""
    adopted_at: dict[str, float] = msgspec.field(default_factory=dict)
    """Such threads that run a turn, and when each is taken for everybody's."""
    _count: int = 0
    """How many notifications are held."""

    def __contains__(self, thread: str) -> bool:
        return thread in self.notifications or thread in self.adopted_at

    def add(self, thread: str, method: str, line: bytes) -> None:
        """Store a notification; past ``most``, the thread that was first is dropped."""
        self.notifications.setdefault(thread, []).append((method, line))
        self._count += 1
        while self._count > self.most:
            self.take_notifications(next(iter(self.notifications)))  # none of our clients made it

    def take_notifications(self, thread: str) -> list[tuple[str, bytes]]:
        """Remove and return what was notified of a thread, in order."""
        taken = self.notifications.pop(thread, [])
        self._count -= len(taken)
        return taken

    def forget(self, thread: str) -> None:
        """Forget a thread that has been closed."""
        self.take_notifications(thread)
        self.adopted_at.pop(thread, None)
