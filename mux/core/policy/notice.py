"""A notice and its recipients: the values that the core and the shells exchange.

A *subject* is something that happened once. Its id is the same however often it is reported, also
over restarts. A notice tells people of a subject. A *recipient* is a device that registered where
it can be pushed to.

Used by ``notices``; carried by ``events`` and ``commands``.
"""

from __future__ import annotations

from typing import Final, Literal, get_args

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
"""Kinds that wait for a person's answer. They are held back while somebody who may answer looks,
and pushed once nobody does."""

URGENT: Final[frozenset[Kind]] = WAITING | {"goal-blocked", "usage-limit", "app-server-down"}
"""Kinds after which nothing goes on without a person."""

ESCALATES: Final[frozenset[Kind]] = URGENT | {"turn-failed"}
"""Kinds that are pushed to further devices if nobody has looked. A completed turn, say, isn't."""


PEOPLES_PROGRAMS: Final = (
    "codex-tui",
    "codex_vscode",
    "Codex Desktop",
    "codex_chatgpt_android_remote",
    "codex_chatgpt_ios_remote",
)
"""Codex's own programs that have a person before them, by the names that they give."""


class Timing(msgspec.Struct, frozen=True):
    """Settings of when a notice is due, and of who counts as a person. Times are in seconds."""

    long_turn: float = 30.0
    """The end of a shorter turn gets no notice."""
    looking: float = 60.0
    """A person's program without ``mux/focus`` counts as looking at a thread for this long after
    acting on it."""
    people: tuple[str, ...] = PEOPLES_PROGRAMS
    """Names of programs that have a person before them, though they don't say so."""
    focus: float = 120.0
    """For this long after its last message, a client's focus holds."""
    escalate_after: float = 120.0
    """After this long without anybody looking, all of the owner's devices are pushed to."""
    escalate_further_after: float = 600.0
    """After this long without anybody looking, further devices are pushed to."""


class Notice(msgspec.Struct, frozen=True):
    """All that can be pushed about one subject. The shell decides how much of it a device gets."""

    subject: str
    kind: Kind
    thread: str | None = None
    turn: str | None = None
    title: str = ""
    """The thread's name, if it has one."""
    line: str = ""
    """The one line that says most: a reason, an error, the last line of the answer."""
    request: int | None = None
    """For a server request: the id under which it is offered."""
    method: str = ""
    params: bytes = b"null"
    """The server request's params, as JSON text."""
    item: bytes = b"null"
    """The item that the server request is about, as JSON text."""
    actionable: bool = False
    """True if a plain yes or no answers the server request."""
    risks: tuple[Risk, ...] = ()
    """The risks of a yes (see ``risk``)."""

    @property
    def urgent(self) -> bool:
        """True if nothing goes on without a person."""
        return self.kind in URGENT


class Rule(msgspec.Struct, frozen=True):
    """A device's preference at this moment: for one thread, one kind, one of both, or all.

    The most specific rule counts (a thread's before a kind's), and of several the last one. The
    shell knows the time of day: it sends all recipients anew whenever a rule begins or ends.
    """

    on: bool
    why: str = "off"
    """For people: ``off``, ``quiet hours``, ``snoozed``."""
    thread: str | None = None
    kind: str | None = None

    @property
    def weight(self) -> int:
        """The rule's specificity: 3 for a thread and a kind, 0 for all notices."""
        return 2 * (self.thread is not None) + (self.kind is not None)


class Recipient(msgspec.Struct, frozen=True):
    """A device that can be pushed to."""

    device: str
    """The key of the device's principal (see ``Principal.key``)."""
    name: str
    scopes: frozenset[Scope]
    used: float = float("-inf")
    """The moment of the device's last use, on the broker's clock, as far as the shell knows."""
    rules: tuple[Rule, ...] = ()
    further: bool = False
    """True for another person's device: it is pushed to last."""
    always: bool = False
    """True for a device of the host's own settings: pushed to at once, beside the one used last."""

    def refuses(self, kind: Kind, thread: str | None) -> str | None:
        """Return why this device isn't pushed a notice of this kind; None if it is."""
        if "observe" not in self.scopes:
            return "it may not observe"
        last: Rule | None = None
        for rule in self.rules:
            fits = rule.thread in (None, thread) and rule.kind in (None, kind)
            if fits and (last is None or rule.weight >= last.weight):
                last = rule
        return None if last is None or last.on else last.why


class RestoredNotice(msgspec.Struct, frozen=True):
    """A notice that an earlier life of the broker left."""

    subject: str
    kind: Kind
    thread: str | None
    devices: tuple[str, ...]
    """The devices to which it was pushed."""
    unsent: tuple[str, ...] = ()
    """The part of ``devices`` that hasn't got it: the notice is still in their queue."""
    title: str = ""
