"""Reads the app-server's notifications that notices come from.

A notification of a shape that this version doesn't know yields nothing; it passes all the same.

Used by ``notices``.
"""

from __future__ import annotations

from typing import Final

import msgspec

from mux.core.protocol.envelope import jsonrpc
from mux.core.state.turns.running_turn import RunningTurn

LONGEST_LINE: Final = 300
"""Characters of a notice's line: no lock screen shows more."""

USAGE_LIMIT: Final = "usageLimitExceeded"
"""The kind of error with which a turn fails when the account has used up its allowance."""

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
        """Return whether the turn failed because the account's limit is reached."""
        return self.error is not None and (
            jsonrpc.read_text(bytes(self.error.codexErrorInfo)) == USAGE_LIMIT
        )


class Goal(msgspec.Struct):
    """A thread's goal."""

    status: str
    """active, paused, blocked, complete, …"""
    objective: str = ""
    createdAt: int = 0
    updatedAt: int = 0


class GoalUpdate(msgspec.Struct):
    """A change of a goal, or a repetition."""

    threadId: str
    goal: Goal
    turnId: str | None = None
    """The turn in which the goal changed; None where it is only shown again."""


class Window(msgspec.Struct):
    """A window of a limit."""

    usedPercent: float = 0
    resetsAt: int | None = None


class RateLimits(msgspec.Struct):
    """The part of the allowance that is used. A null field says nothing."""

    limitId: str | None = None
    primary: Window | None = None
    secondary: Window | None = None
    rateLimitReachedType: str | None = None
    spendControlReached: bool | None = None

    @property
    def reached(self) -> str | None:
        """Return which limit is reached, and until when, as a text that tells it from others.

        None if no limit is reached.
        """
        for window in (self.primary, self.secondary):
            if window is not None and window.usedPercent >= FULL:
                return f"{self.limitId or ''}/{window.resetsAt or ''}"
        if self.rateLimitReachedType is not None or self.spendControlReached:
            return f"{self.limitId or ''}/{self.rateLimitReachedType or 'spend'}"
        return None

    @property
    def says(self) -> bool:
        """Return whether any window is given at all."""
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
    """Return the turn in a ``turn/started`` or ``turn/completed``."""
    try:
        return _turn_decoder.decode(line).params.turn
    except msgspec.DecodeError:
        return None


def goal(line: bytes) -> GoalUpdate | None:
    """Return the update in a ``thread/goal/updated``."""
    try:
        return _goal_decoder.decode(line).params
    except msgspec.DecodeError:
        return None


def limits(line: bytes) -> RateLimits | None:
    """Return the limits in an ``account/rateLimits/updated``."""
    try:
        return _limits_decoder.decode(line).params.rateLimits
    except msgspec.DecodeError:
        return None


def named(line: bytes) -> Named | None:
    """Return the thread in a ``thread/started``, or in the answer to a following request."""
    try:
        read = _named_decoder.decode(line)
    except msgspec.DecodeError:
        return None
    holder = read.params or read.result
    return holder.thread if holder is not None else None


def new_name(line: bytes) -> str | None:
    """Return the name in a ``thread/name/updated``."""
    try:
        params = _name_decoder.decode(line).params
    except msgspec.DecodeError:
        return None
    return params.threadName or params.name


def last_line(running: RunningTurn) -> str:
    """Return the last line of the agent's latest message in the running turn."""
    messages = [
        item.completed
        for item in running.items.values()
        if item.type == "agentMessage" and item.completed is not None
    ]
    try:
        text = _message_decoder.decode(messages[-1]).text if messages else ""
    except msgspec.DecodeError:
        return ""
    return one_line(text.strip().rpartition("\n")[2])


def one_line(text: str) -> str:
    """Return the text on one line, cut to ``LONGEST_LINE``."""
    line = " ".join(text.split())
    return line if len(line) <= LONGEST_LINE else f"{line[: LONGEST_LINE - 1]}…"


_turn_decoder = msgspec.json.Decoder(_TurnLine)
_goal_decoder = msgspec.json.Decoder(_GoalLine)
_limits_decoder = msgspec.json.Decoder(_LimitsLine)
_named_decoder = msgspec.json.Decoder(_NamedLine)
_name_decoder = msgspec.json.Decoder(_NameLine)
_message_decoder = msgspec.json.Decoder(_Message)
