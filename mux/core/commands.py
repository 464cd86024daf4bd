"""All that the core can order, in the imperative.

Made in ``core``; carried out by ``dispatcher``, in order, without awaiting. One command a message,
whatever the number of recipients.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec

from mux.core.policy.notice import Notice
from mux.core.policy.principal import ClientId
from mux.core.protocol.envelope.rope import Rope
from mux.core.protocol.journal_entry import Entry

Level = Literal["debug", "info", "warning", "error"]


class Command(msgspec.Struct, frozen=True):
    """Something to do. Each subclass is one kind of command."""


class SaveState(Command, frozen=True):
    """Keep a value (see ``state.durable``) for the next broker, or nothing any more.

    It comes before the commands that follow from the same event, and is on the disk before them.
    """

    key: str
    value: bytes | None


class Publish(Command, frozen=True, gc=False):
    """Put ``message`` (one JSON text) into the outbox of every recipient, framed once."""

    message: bytes | Rope
    """A rope is for one client, and isn't kept."""
    recipients: tuple[ClientId, ...]
    """Empty if the message is for the journal alone."""
    method: str
    """For the log: the message's own method, or that of the request it answers."""
    entry: Entry | None = None
    """The entry to keep in the journal, if any."""


class PublishRun(Command, frozen=True, gc=False):
    """Put consecutive messages into the outbox of every recipient, each framed once."""

    messages: list[bytes]
    recipients: tuple[ClientId, ...]
    """Empty if the messages are for the journal alone."""
    method: str
    entries: Sequence[Entry] = ()
    """The entries to keep in the journal, if any."""


class ConnectionCommand(Command, frozen=True):
    """Something to do with one client's connection."""

    client: ClientId


class Charge(ConnectionCommand, frozen=True):
    """Count a message that asks for nothing, or was refused: a client may send only so many."""


class StopReading(ConnectionCommand, frozen=True):
    """Stop reading from the client until ``ReadOn``: it is owed too much."""


class ReadOn(ConnectionCommand, frozen=True):
    """Read from the client again."""


class ReportWhenDrained(ConnectionCommand, frozen=True):
    """Send ``ClientDrained`` once the client's outbox has room again, or at once if it has."""


class ReadJournal(Command, frozen=True):
    """Read entries from disk: a seq above ``after`` and up to ``until``. See ``JournalRead``."""

    client: ClientId
    after: int
    until: int
    threads: frozenset[str]
    max_bytes: int
    """At most this many bytes of entries."""
    case: int = 0
    """A number of the core's own, if it isn't the client that is behind."""
    deltas: bool = True
    """False if what only streams isn't wanted."""


class Forward(Command, frozen=True):
    """Write ``line`` (one JSON text, no line end in it) to the app-server's stdin."""

    line: bytes
    method: str


class AnswerOutside(Command, frozen=True):
    """Answer a request that the shells answer (``Route.SERVER``). Its scope is checked already."""

    client: ClientId
    origin: bytes
    """The request's id, as JSON text."""
    method: str
    params: bytes
    """JSON text."""


class Resolve(Command, frozen=True):
    """Find out what these paths are. ``Resolved`` answers it."""

    case: int
    """A number of the core's own, by which it finds the answer's request."""
    paths: tuple[str, ...]
    """An empty path stands for the app-server's own directory."""


class Record(Command, frozen=True):
    """Put a record into the audit log (see ``audit_events``)."""

    kind: str
    fields: dict[str, object]
    """JSON values."""


class Notify(Command, frozen=True):
    """Push a notice to one device. Each subject is pushed to a device once."""

    notice: Notice
    device: str
    """The device's key (``Principal.key``)."""
    reason: str
    """Why this device gets it, for people."""


class Withdraw(Command, frozen=True):
    """Take a notice back from all devices to which it went: its subject is over."""

    notice: Notice
    devices: tuple[str, ...]
    reason: str


class LogNoticeDecision(Command, frozen=True):
    """Record for people why a notice is pushed or isn't."""

    notice: Notice
    outcome: str
    """``raised``, ``suppressed`` (for ``device``, or for all) or ``over`` (it was never pushed)."""
    reason: str
    device: str = ""


class NoticeAnswerJudged(Command, frozen=True):
    """Report what became of an ``AnsweredByNotice``."""

    outcome: Literal["decided", "counted", "refused", "over"]
    """``decided``, ``counted`` (as a vote), ``refused``, or ``over`` (nothing is left to
    answer)."""
    reason: str
    """Why it was refused."""


class Close(ConnectionCommand, frozen=True):
    """Close one client's connection with a WebSocket code and a reason (at most 123 bytes)."""

    code: int
    reason: str


class StartUpstream(Command, frozen=True):
    """Start the app-server again."""

    after: float
    """Seconds to wait before that."""


class StopUpstream(Command, frozen=True):
    """Let the app-server end in order: close its stdin."""


class RenewBroker(Command, frozen=True):
    """End this broker, and have the next one go on with the app-server."""


class LoadExperimentalSchema(Command, frozen=True):
    """Find out what is experimental in the installed binary. See ``ExperimentalSchemaLoaded``."""


class KillUpstream(Command, frozen=True):
    """End the app-server at once: it can't be used any more."""

    reason: str


class GiveUp(Command, frozen=True):
    """End the broker with this reason: the app-server never came up."""

    reason: str


class Log(Command, frozen=True):
    """Write a log line for the operator."""

    level: Level
    event: str
    fields: dict[str, object]
    """Never params, results or secrets."""
