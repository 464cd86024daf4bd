"""Events that deserve a notice: turns that end, goals, limits; and what ends notices.

``notices`` decides whether somebody is told.

Used by ``notifications``, ``responses`` and ``client_messages``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from mux.core.features.notices import notice_sources
from mux.core.features.notices.notice_sources import Turn
from mux.core.features.notices.notices import Notices, client_name
from mux.core.part import Part
from mux.core.policy.notice import Kind
from mux.core.state.clients.client import Client
from mux.core.state.notice_records import NoticeRecords
from mux.core.state.state import State
from mux.core.state.threads.threads import Thread

INTERRUPT: Final = "turn/interrupt"

_TURN_KINDS: Final[dict[str, Kind]] = {
    "completed": "turn-completed",
    "failed": "turn-failed",
    "interrupted": "turn-interrupted",
}
_GOAL_KINDS: Final[dict[str, Kind]] = {
    "complete": "goal-reached",
    "blocked": "goal-blocked",
    "budgetLimited": "goal-blocked",
    "usageLimited": "usage-limit",
}


class NoticeTriggers(Part):
    """Raises notices of turns, goals and limits, and ends them."""

    state: State
    notices: Notices

    @property
    def records(self) -> NoticeRecords:
        """The records of what notices come from."""
        return self.state.notices

    def observe(self, method: str, thread: str | None, line: bytes) -> None:
        """Apply a notification of a method in ``HEARD``. Called before anything else handles it."""
        HEARD[method](self, thread or "", line)

    def joined(self, answer: bytes) -> None:
        """Record name and parent of a thread from the answer to a request that follows it."""
        self._introduced("", answer)

    def acted(self, client: Client, method: str, thread: str | None) -> None:
        """Note that a person did something to a thread by this client."""
        self.notices.attention.acted(client, thread)
        if method == INTERRUPT and thread is not None:
            self.records.interrupted(thread, client_name(client))

    def _introduced(self, _: str, line: bytes) -> None:
        named = notice_sources.named(line)
        if named is not None:
            thread = self.state.threads.get(named.id)
            thread.name = notice_sources.one_line(named.name or "") or thread.name
            thread.cwd = named.cwd or thread.cwd
            thread.ephemeral = named.ephemeral or thread.ephemeral
            if named.parentThreadId:
                self.state.threads.spawned(named.parentThreadId, named.id)

    def _renamed(self, thread: str, line: bytes) -> None:
        self.state.threads.get(thread).name = notice_sources.one_line(
            notice_sources.new_name(line) or ""
        )

    def _turn_began(self, thread: str, line: bytes) -> None:
        turn = notice_sources.turn(line)
        if turn is not None:
            self.records.turns[thread] = (turn.id, self.state.now)
            self.records.interrupted_by.pop(thread, None)
            self.notices.end_all(thread, "a new turn has begun", also_waiting=False)

    def _turn_ended(self, thread: str, line: bytes) -> None:
        turn = notice_sources.turn(line)
        began = self.records.turns.pop(thread, None)
        actor = self.records.interrupted_by.pop(thread, None)
        record = self.state.threads.known.get(thread)
        if turn is None or record is None or _is_nobodys(record):
            return
        if turn.hit_limit:
            self._hit_limit(f"turn/{turn.id}", thread, turn.error.message if turn.error else "")
            return
        if turn.status == "completed":
            self._below_limit()
        seconds = (turn.durationMs or 0.0) / 1000
        if began is not None and began[0] == turn.id:
            seconds = self.state.now - began[1]
        self._inform_of_end(record, turn, seconds, actor)

    def _inform_of_end(self, thread: Thread, turn: Turn, seconds: float, actor: str | None) -> None:
        kind = _TURN_KINDS.get(turn.status)
        if kind is None or seconds < self.notices.timing.long_turn:
            return
        line = turn.error.message if turn.error else notice_sources.last_line(thread.running)
        reason = (
            f"{actor} interrupted it" if actor is not None and kind == "turn-interrupted" else None
        )
        notice = self.notices.make(f"turn/{turn.id}", kind, thread.id, line, turn.id)
        self.notices.inform(notice, suppressed=reason)

    def app_server_ends(self) -> None:
        """End all turns: the process is gone."""
        turns, self.records.turns = self.records.turns, {}
        for id, (turn, since) in turns.items():
            thread = self.state.threads.known.get(id)
            if thread is not None and not _is_nobodys(thread):
                lost = Turn(turn, "interrupted")
                actor = self.records.interrupted_by.pop(id, None)
                self._inform_of_end(thread, lost, self.state.now - since, actor)

    def _goal_changed(self, thread: str, line: bytes) -> None:
        update = notice_sources.goal(line)
        if update is None:
            return
        goal, before = update.goal, self.records.goals.get(thread)
        self.records.goal(thread, goal.status)
        kind = _GOAL_KINDS.get(goal.status)
        # Loading a thread repeats its goal; nothing has happened then.
        happened = update.turnId is not None if before is None else before != goal.status
        if kind is None or not happened:
            return
        subject = f"goal/{thread}/{goal.createdAt}/{goal.status}/{goal.updatedAt}"
        if kind == "usage-limit":
            self._hit_limit(subject, thread, goal.objective)
        else:
            self.notices.inform(self.notices.make(subject, kind, thread, goal.objective))

    def _goal_cleared(self, thread: str, _: bytes) -> None:
        self.records.goals.pop(thread, None)

    def _limits_changed(self, _: str, line: bytes) -> None:
        limits = notice_sources.limits(line)
        if limits is None:
            return
        if limits.reached is not None:
            self._hit_limit(limits.reached, None, "")
        elif limits.says:
            self._below_limit()

    def _hit_limit(self, what: str, thread: str | None, line: str) -> None:
        """Raise once that the account's limit is reached, which is reported in several ways."""
        if self.records.limit is None:
            self.records.limit = f"usage/{what}"
            notice = self.notices.make(self.records.limit, "usage-limit", thread, line)
            self.notices.inform(notice)

    def _below_limit(self) -> None:
        if self.records.limit is not None:
            self.notices.end(self.records.limit, "more may be used again")
            self.records.limit = None

    def _put_away(self, thread: str, _: bytes) -> None:
        self.notices.end_all(thread, "the thread is put away", also_waiting=True)
        self.records.goals.pop(thread, None)


def _is_nobodys(thread: Thread) -> bool:
    """Return whether nobody waits for the thread's turns: a sub-agent's, or a title being made."""
    ephemeral = thread.ephemeral or (thread.unsaved is not None and thread.unsaved.ephemeral)
    return ephemeral or thread.parent is not None or thread.adopted or not thread.claimed


HEARD: Final[dict[str, Callable[[NoticeTriggers, str, bytes], None]]] = {
    "thread/started": NoticeTriggers._introduced,
    "thread/name/updated": NoticeTriggers._renamed,
    "turn/started": NoticeTriggers._turn_began,
    "turn/completed": NoticeTriggers._turn_ended,
    "thread/goal/updated": NoticeTriggers._goal_changed,
    "thread/goal/cleared": NoticeTriggers._goal_cleared,
    "account/rateLimits/updated": NoticeTriggers._limits_changed,
    "thread/archived": NoticeTriggers._put_away,
    "thread/deleted": NoticeTriggers._put_away,
}
"""The notifications that notices depend on."""
