"""All that the core can say, in the imperative.

Made in ``broker``; carried out by ``dispatcher``, in order, without awaiting.
One command a message, whatever the number of recipients.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from mux.core.policy.notice import Notice
from mux.core.policy.principal import ClientId
from mux.core.protocol.journal_entry import Entry

Level = Literal["debug", "info", "warning", "error"]


class Command(msgspec.Struct, frozen=True):
    """Something to do. Subclasses say what."""


class Publish(Command, frozen=True, gc=False):
    """Put ``message`` (one JSON text) into the outbox of every recipient, framed once.

    ``method`` is for the log: the message's own, or that of the request it answers. ``entry``: to
    be kept in the journal; an entry that nobody gets now is published to nobody.
    """

    message: bytes
    recipients: tuple[ClientId, ...]
    method: str
    entry: Entry | None = None


class Charge(Command, frozen=True):
    """The client has sent what asks for nothing, or was refused: it may do so only so often."""

    client: ClientId


class StopReading(Command, frozen=True):
    """Read nothing more of the client until ``ReadOn``: it is owed too much."""

    client: ClientId


class ReadOn(Command, frozen=True):
    """Read what the client sends, again."""

    client: ClientId


class TellWhenDrained(Command, frozen=True):
    """Tell ``ClientDrained`` once the client's outbox has room again, at once if it has."""

    client: ClientId


class ReadJournal(Command, frozen=True):
    """Read entries after one seq up to another from disk, at most ``max_bytes``:
    ``JournalRead``."""

    client: ClientId
    after: int
    until: int
    threads: frozenset[str]
    max_bytes: int


class Forward(Command, frozen=True):
    """Write ``line`` (one JSON text, no line end in it) to the app-server's stdin."""

    line: bytes
    method: str


class AnswerOutside(Command, frozen=True):
    """Answer a request that the shells answer (``Route.SERVER``), its scope already checked.

    ``origin``: its id; ``params``: as JSON text.
    """

    client: ClientId
    origin: bytes
    method: str
    params: bytes


class Resolve(Command, frozen=True):
    """Find out what these paths are, an empty one standing for the app-server's own: ``Resolved``.

    ``case``: a number of the core's own.
    """

    case: int
    paths: tuple[str, ...]


class Record(Command, frozen=True):
    """Put this into the audit log (see ``audit_events``). ``fields`` are JSON values."""

    kind: str
    fields: dict[str, object]


class Notify(Command, frozen=True):
    """Push a notice to one device, by its key. ``reason`` it, for people. Each thing once."""

    notice: Notice
    device: str
    reason: str


class Withdraw(Command, frozen=True):
    """What a notice told of is over: take it back from all devices to which it went."""

    notice: Notice
    devices: tuple[str, ...]
    reason: str


class LogNoticeDecision(Command, frozen=True):
    """Keep for people why a notice is told or isn't.

    ``outcome``: ``raised``, ``suppressed`` (for ``device``, or for all), ``over`` (and it went
    nowhere).
    """

    notice: Notice
    outcome: str
    reason: str
    device: str = ""


class NoticeAnswerJudged(Command, frozen=True):
    """What became of an ``AnsweredByNotice``: ``decided``, ``counted`` (a vote), ``refused``, and
    why; or ``over``: nothing is left to answer."""

    outcome: Literal["decided", "counted", "refused", "over"]
    reason: str


class Close(Command, frozen=True):
    """Close one client's connection with a WebSocket code and a reason (at most 123 bytes)."""

    client: ClientId
    code: int
    reason: str


class StartUpstream(Command, frozen=True):
    """Start the app-server again, ``after`` so many seconds."""

    after: float


class StopUpstream(Command, frozen=True):
    """Let the app-server end in order: close its stdin."""


class LoadExperimentalSchema(Command, frozen=True):
    """Find out what is experimental in the binary that runs now: ``ExperimentalSchemaLoaded``."""


class KillUpstream(Command, frozen=True):
    """The app-server can't be used any more: end it at once."""

    reason: str


class GiveUp(Command, frozen=True):
    """The app-server never came up: end the broker, with this reason."""

    reason: str


class Log(Command, frozen=True):
    """Tell the operator. ``fields`` never hold params, results or secrets."""

    level: Level
    event: str
    fields: dict[str, object]
