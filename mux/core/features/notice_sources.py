"""What the app-server says that deserves a notice, read from its notifications.

What has another shape than this version knows says nothing: the notification passes all the same.

Heard from: ``notices``.
"""

from __future__ import annotations

from typing import Final

import msgspec

from mux.core.protocol import jsonrpc
from mux.core.state.running_turn import RunningTurn

LONGEST_LINE: Final = 300
"""Characters of one line that a notice tells: more no lock screen shows."""

USAGE_LIMIT: Final = "usageLimitExceeded"
"""The kind of error with which a turn fails when the account has used up what it may."""

FULL: Final = 100
"""Percent of a limit's window."""


class _Error(msgspec.Struct):
    message: str = ""
    codexErrorInfo: msgspec.Raw = msgspec.Raw(b"null")


class Turn(msgspec.Struct):
    """A turn that began or is over."""

    id: str
    status: str = ""
    error: _Error | None = None
    durationMs: float | None = None

    @property
    def hit_limit(self) -> bool:
        """Whether it failed because no more may be used."""
        return self.error is not None and (
            jsonrpc.read_text(bytes(self.error.codexErrorInfo)) == USAGE_LIMIT
        )


class Goal(msgspec.Struct):
    """A thread's goal. ``status``: active, paused, blocked, complete, …"""

    status: str
    objective: str = ""
    createdAt: int = 0
    updatedAt: int = 0


class GoalUpdate(msgspec.Struct):
    """``turnId``: the turn in which it changed; None where it is only shown again."""

    threadId: str
    goal: Goal
    turnId: str | None = None


class Window(msgspec.Struct):
    """One window of a limit."""

    usedPercent: float = 0
    resetsAt: int | None = None


class RateLimits(msgspec.Struct):
    """How much of what may be used is. What is null says nothing."""

    limitId: str | None = None
    primary: Window | None = None
    secondary: Window | None = None
    rateLimitReachedType: str | None = None
    spendControlReached: bool | None = None

    @property
    def reached(self) -> str | None:
        """Which limit is reached, and until when, in words that tell it from others; or None."""
        for window in (self.primary, self.secondary):
            if window is not None and window.usedPercent >= FULL:
                return f"{self.limitId or ''}/{window.resetsAt or ''}"
        if self.rateLimitReachedType is not None or self.spendControlReached:
            return f"{self.limitId or ''}/{self.rateLimitReachedType or 'spend'}"
        return None

    @property
    def says(self) -> bool:
        """Whether it tells of any window at all."""
        return self.primary is not None or self.secondary is not None


class Named(msgspec.Struct):
    """A thread as it introduces itself."""

    id: str
    name: str | None = None
    cwd: str | None = None
    ephemeral: bool = False
    parentThreadId: str | None = None


class _TurnParams(msgspec.Struct):
    turn: Turn


class _TurnLine(msgspec.Struct):
    params: _TurnParams


class _GoalLine(msgspec.Struct):
    params: GoalUpdate


class _LimitsParams(msgspec.Struct):
    rateLimits: RateLimits


class _LimitsLine(msgspec.Struct):
    params: _LimitsParams


class _NamedParams(msgspec.Struct):
    thread: Named


class _NamedLine(msgspec.Struct):
    params: _NamedParams | None = None
    result: _NamedParams | None = None


class _NameParams(msgspec.Struct):
    threadName: str | None = None
    name: str | None = None


class _NameLine(msgspec.Struct):
    params: _NameParams


class _Message(msgspec.Struct):
    text: str = ""


def turn(line: bytes) -> Turn | None:
    """Of ``turn/started`` and ``turn/completed``."""
    try:
        return _turn_decoder.decode(line).params.turn
    except msgspec.DecodeError:
        return None


def goal(line: bytes) -> GoalUpdate | None:
    """Of ``thread/goal/updated``."""
    try:
        return _goal_decoder.decode(line).params
    except msgspec.DecodeError:
        return None


def limits(line: bytes) -> RateLimits | None:
    """Of ``account/rateLimits/updated``."""
    try:
        return _limits_decoder.decode(line).params.rateLimits
    except msgspec.DecodeError:
        return None


def named(line: bytes) -> Named | None:
    """The thread in a ``thread/started``, or in the answer to what follows one."""
    try:
        read = _named_decoder.decode(line)
    except msgspec.DecodeError:
        return None
    holder = read.params or read.result
    return holder.thread if holder is not None else None


def new_name(line: bytes) -> str | None:
    """Of ``thread/name/updated``."""
    try:
        params = _name_decoder.decode(line).params
    except msgspec.DecodeError:
        return None
    return params.threadName or params.name


def last_line(running: RunningTurn) -> str:
    """The last line of what the agent has said in the running turn."""
    said = [
        item.completed
        for item in running.items.values()
        if item.type == "agentMessage" and item.completed is not None
    ]
    try:
        text = _message_decoder.decode(said[-1]).text if said else ""
    except msgspec.DecodeError:
        return ""
    return one_line(text.strip().rpartition("\n")[2])


def one_line(text: str) -> str:
    """The text on one line, no longer than is read."""
    line = " ".join(text.split())
    return line if len(line) <= LONGEST_LINE else f"{line[: LONGEST_LINE - 1]}…"


_turn_decoder = msgspec.json.Decoder(_TurnLine)
_goal_decoder = msgspec.json.Decoder(_GoalLine)
_limits_decoder = msgspec.json.Decoder(_LimitsLine)
_named_decoder = msgspec.json.Decoder(_NamedLine)
_name_decoder = msgspec.json.Decoder(_NameLine)
_message_decoder = msgspec.json.Decoder(_Message)
