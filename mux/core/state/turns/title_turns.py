"""Turns that make a title for a thread, and their outcomes.

``features/turns/shared_titles`` acts on them.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from mux.core.part import Part
from mux.core.state.requests.request import Request

LONGEST_OUTCOME = 256 * 1024
"""Bytes of a title turn's answer and notifications, which are some 4 KiB; a longer outcome isn't
stored."""

REUSED_FOR = 60.0
"""Seconds for which an outcome is reused: all ask within a second of the turn's beginning."""

MOST_TURNS = 64
"""Title turns remembered. With more of them at once, some titles are made twice."""


class TitleTurn(Part):
    """A title's turn that runs, or ran."""

    params: bytes
    """The params of its ``turn/start`` without the thread, in a canonical form."""
    thread: str
    wire: int
    """The wire id of its ``turn/start``."""
    named_threads: frozenset[str]
    """The threads that its asker followed: one of them is to have the title."""
    since: float
    """When it was asked for, on the broker's clock."""
    messages: list[tuple[bool, bytes]] = msgspec.field(default_factory=list)
    """Its answer (marked True) and its notifications."""
    finished: float | None = None
    """When it succeeded."""
    waiting: list[Request] = msgspec.field(default_factory=list)
    """Requests that wait for its outcome."""

    @property
    def has_answer(self) -> bool:
        """True if the answer to its ``turn/start`` has come."""
        return any(is_answer for is_answer, _ in self.messages)

    @property
    def is_too_long(self) -> bool:
        """True if the outcome is past ``LONGEST_OUTCOME``."""
        return sum(len(line) for _, line in self.messages) > LONGEST_OUTCOME


class TitleTurns(Part):
    """The title turns that run, and those whose outcome may be used again."""

    running: dict[str, TitleTurn] = msgspec.field(default_factory=dict)
    """Title turns whose notifications are collected, by thread."""
    finished: list[TitleTurn] = msgspec.field(default_factory=list)
    """Title turns that succeeded, the latest last."""

    def find(self, params: bytes, threads: frozenset[str], now: float) -> TitleTurn | None:
        """Find a turn with these params for one of the threads that runs, or ended lately."""
        for turn in (*self.running.values(), *reversed(self.finished)):
            fresh = turn.finished is None or turn.finished + REUSED_FOR > now
            if fresh and turn.params == params and turn.named_threads & threads:
                return turn
        return None

    def begin(self, turn: TitleTurn) -> None:
        """Collect the outcome of a turn that has been asked for."""
        self.running[turn.thread] = turn

    def finish(self, turn: TitleTurn, now: float) -> list[Request]:
        """Keep the outcome of a turn that succeeded; returns the requests that waited for it."""
        del self.running[turn.thread]
        turn.finished = now
        self.finished.append(turn)
        waiting, turn.waiting = turn.waiting, []
        return waiting

    def forget_oldest(self) -> TitleTurn | None:
        """Forget outcomes past ``MOST_TURNS``, and one running turn if there are more of these.

        Returns that turn, whose waiting requests have to run; None if there are no more.
        """
        del self.finished[: max(0, len(self.finished) - MOST_TURNS)]
        if len(self.running) <= MOST_TURNS:
            return None
        return self.running.pop(next(iter(self.running)))

    def remove_waiting(self, is_taken: Callable[[Request], bool]) -> list[Request]:
        """Remove and return the waiting requests for which ``is_taken`` is true."""
        taken: list[Request] = []
        for turn in self.running.values():
            taken += filter(is_taken, turn.waiting)
            turn.waiting = [request for request in turn.waiting if not is_taken(request)]
        return taken

    def first_wait(self) -> float | None:
        """Return when the request that has waited longest was made; None if none waits."""
        waiting = (request.since for turn in self.running.values() for request in turn.waiting)
        return min(waiting, default=None)
