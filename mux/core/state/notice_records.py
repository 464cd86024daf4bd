"""The notices that aren't over, and what it takes to raise each subject once.

Keyed by subject, thread and device, which outlive the process. ``notices`` acts on it.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

import msgspec

from mux.core.part import Part
from mux.core.policy.notice import Notice
from mux.core.state.requests.pending_requests import ServerRequest

REMEMBERED: Final = 4096
"""Subjects of notices that were raised, so that none is raised again; and threads of which a goal
or an interrupt is remembered."""


class OpenNotice(Part):
    """A notice that isn't over."""

    notice: Notice
    request: ServerRequest | None = None
    """The server request that waits, if the notice is of one."""
    alone_since: float | None = None
    """The time since which nobody looks at it; None while somebody does."""
    sent: dict[str, None] = msgspec.field(default_factory=dict)
    """The devices to which it was sent."""
    only: frozenset[str] | None = None
    """The only devices to which it may be sent; None: any."""
    settled: bool = False
    """True when it is to be sent to no more devices."""
    explained: set[tuple[str, str]] = msgspec.field(default_factory=set)
    """Devices and reasons that were logged, to log each once."""


class NoticeRecords(Part):
    """The records of notices and of what they come from."""

    unended: dict[str, OpenNotice] = msgspec.field(default_factory=dict)
    """The notices that aren't over, by subject."""
    raised: OrderedDict[str, None] = msgspec.field(default_factory=OrderedDict)
    """Subjects that were raised, in this life or an earlier one."""
    turns: dict[str, tuple[str, float]] = msgspec.field(default_factory=dict)
    """The running turn of each thread, and when it began."""
    interrupted_by: dict[str, str] = msgspec.field(default_factory=dict)
    """The client that interrupted a thread's turn, by thread."""
    goals: dict[str, str] = msgspec.field(default_factory=dict)
    """The last status of each thread's goal."""
    limit: str | None = None
    """The subject of the open notice of a usage limit."""
    down: OpenNotice | None = None
    """The open notice that the app-server is down."""

    def was_raised(self, subject: str) -> bool:
        """Return whether the subject was raised before; from now on it counts as raised."""
        known = subject in self.raised
        self.raised[subject] = None
        if len(self.raised) > REMEMBERED:
            self.raised.popitem(last=False)
        return known

    def interrupted(self, thread: str, client: str) -> None:
        """Remember who interrupted a thread's turn."""
        _remember(self.interrupted_by, thread, client)

    def goal(self, thread: str, status: str) -> None:
        """Remember the status of a thread's goal."""
        _remember(self.goals, thread, status)


def _remember(values: dict[str, str], thread: str, value: str) -> None:
    """Remember a value per thread, for the threads it was set for last."""
    values.pop(thread, None)
    values[thread] = value
    if len(values) > REMEMBERED:
        del values[next(iter(values))]
