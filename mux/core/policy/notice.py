"""What a notice is, and whom it can reach: the values that the core and the shells exchange.

A *thing* is what happened, once: its id is the same however often it passes by, also over restarts.
A notice tells of it. A *recipient* is a device that registered where it can be pushed to.

Read by ``notices``; carried by ``events`` and ``commands``.
"""

from __future__ import annotations

from typing import Final, Literal, get_args

import attrs
import msgspec

from mux.core.protocol.scope import Scope

Kind = Literal[
    "approval",
    "question",
    "approval-lost",
    "turn-completed",
    "turn-failed",
    "turn-interrupted",
    "goal-reached",
    "goal-blocked",
    "usage-limit",
    "app-server-down",
    "app-server-back",
]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)

Risk = Literal["outside-workspace", "network", "escalated", "unknown"]
RISKS: Final[tuple[Risk, ...]] = get_args(Risk)

WAITING: Final[frozenset[Kind]] = frozenset({"approval", "question"})
"""Somebody's word is waited for: held back while one looks who may give it, told once none does."""

URGENT: Final[frozenset[Kind]] = WAITING | {"goal-blocked", "usage-limit", "app-server-down"}
"""Nothing goes on without a person."""

ESCALATES: Final[frozenset[Kind]] = URGENT | {"turn-failed"}
"""What goes to further devices when nobody has looked. That a turn is completed, say, doesn't."""


@attrs.frozen
class Timing:
    """When a notice is due. All in seconds."""

    long_turn: float = 30.0
    looking: float = 60.0
    focus: float = 120.0
    escalate_after: float = 120.0
    escalate_further_after: float = 600.0


class Notice(msgspec.Struct, frozen=True):
    """What is told of one thing. How much of it a device gets, the shell decides.

    ``title``: the thread's name, if it has one; ``line``: the one line that says most (a reason, an
    error, the last line of the answer). Of a server request: the id under which it is offered, its
    method, its params and the item that it is about, as JSON text; whether a plain yes or no
    answers it, and what is risky about the yes (see ``risk``).
    """

    subject: str
    kind: Kind
    thread: str | None = None
    turn: str | None = None
    title: str = ""
    line: str = ""
    request: int | None = None
    method: str = ""
    params: bytes = b"null"
    item: bytes = b"null"
    actionable: bool = False
    risks: tuple[Risk, ...] = ()

    @property
    def urgent(self) -> bool:
        """Whether nothing goes on without a person."""
        return self.kind in URGENT


class Rule(msgspec.Struct, frozen=True):
    """What a device wants right now, of one thread or kind or both; else of all.

    The most specific one counts (a thread's before a kind's), of several the last. ``why`` is for
    people: ``off``, ``quiet hours``, ``snoozed``. The shell knows the time of day; the core is told
    anew whenever one comes into force or goes.
    """

    on: bool
    why: str = "off"
    thread: str | None = None
    kind: str | None = None

    @property
    def weight(self) -> int:
        return 2 * (self.thread is not None) + (self.kind is not None)


class Recipient(msgspec.Struct, frozen=True):
    """A device that can be pushed to.

    ``device`` is its principal's key (see ``Principal.key``); ``used``: when it was used last, on
    the broker's clock, as far as the shell knows. ``further``: another person's, told last.
    ``always``: told at once, beside the device used last: what the host's own settings name.
    """

    device: str
    name: str
    scopes: frozenset[Scope]
    used: float = float("-inf")
    rules: tuple[Rule, ...] = ()
    further: bool = False
    always: bool = False

    def refuses(self, kind: Kind, thread: str | None) -> str | None:
        """Why it isn't to be told of this; None if it is."""
        if "observe" not in self.scopes:
            return "it may not observe"
        found: Rule | None = None
        for rule in self.rules:
            fits = rule.thread in (None, thread) and rule.kind in (None, kind)
            if fits and (found is None or rule.weight >= found.weight):
                found = rule
        return None if found is None or found.on else found.why


class RestoredNotice(msgspec.Struct, frozen=True):
    """A notice that an earlier life of the broker left: to whom it went, and who hasn't got it yet.

    ``unsent`` is part of ``devices``: what is still in the queue for them.
    """

    subject: str
    kind: Kind
    thread: str | None
    devices: tuple[str, ...]
    unsent: tuple[str, ...] = ()
    title: str = ""
