"""All events that the core handles, in the past tense.

Made by ``dispatcher`` and the shells, handled by ``broker``. Events are msgspec structs, because
one is made per line and per message: they cost a tenth of an attrs class.
"""

from __future__ import annotations

import msgspec

from mux.core.policy.notice import Recipient, RestoredNotice
from mux.core.policy.principal import ClientId, Principal
from mux.core.protocol.envelope.long_line import LongLine
from mux.core.protocol.experimental import Gate
from mux.core.protocol.journal_entry import Entry
from mux.core.protocol.threads.directories import ResolvedPath
from mux.core.protocol.threads.overrides import Overrides


class Event(msgspec.Struct, frozen=True):
    """Something happened. Each subclass is one kind of event."""


class UpstreamStarted(Event, frozen=True):
    """A new app-server process runs."""

    generation: int
    """The number of this process, counted from 1."""


class UpstreamHandedOver(Event, frozen=True):
    """An app-server runs that an earlier broker left running, and this one goes on with it."""

    generation: int
    saved: dict[str, bytes]
    """What the earlier broker saved, by key (see ``SaveState``)."""
    entries: tuple[Entry, ...]
    """The journal's entries of the items that may still run."""


class UpstreamSent(Event, frozen=True, gc=False):
    """A line from the app-server's stdout, without its line end."""

    line: bytes


class UpstreamSentLong(Event, frozen=True, gc=False):
    """A long line from the app-server's stdout, in pieces."""

    line: LongLine


class UpstreamExited(Event, frozen=True):
    """The app-server is gone."""

    reason: str
    """The reason, for people."""
    unix_time: float = 0.0
    """The moment of the end, in Unix seconds."""


class ClientAttached(Event, frozen=True):
    """A client was authenticated and is attached from now on."""

    client: ClientId
    principal: Principal
    transport: str
    """For people: ``ws``, say."""
    peer: str
    """For people: ``127.0.0.1:5``, say."""
    expires_in: float = float("inf")
    """Seconds for which the client's credential still holds."""
    local: bool = False
    """True if the client is known to be on this host."""
    overrides: Overrides | None = None
    """The overrides of its command line that hold for it; None if it has none."""


class ClockMoved(Event, frozen=True):
    """The wall clock moved against the broker's clock.

    Either the wall clock was set, or the machine slept, which the broker's clock doesn't notice.
    """

    seconds: float
    """The seconds by which the wall clock went on further; negative if it was set back."""


class ClientAccessEnded(Event, frozen=True):
    """The client's credential no longer holds: it was revoked, say."""

    client: ClientId
    reason: str


class DeviceAccessEnded(Event, frozen=True):
    """A paired device was revoked or got other scopes, whether it is attached or not."""

    device: str


class DeviceRenamed(Event, frozen=True):
    """The client's device has another name from now on; nothing else about it changes."""

    client: ClientId
    principal: Principal


class ClientSent(Event, frozen=True):
    """A text message from a client. The WebSocket layer has checked that it is UTF-8."""

    client: ClientId
    text: bytes


class ClientSentBinary(Event, frozen=True):
    """A client sent a binary frame, which this protocol has no use for."""

    client: ClientId


class ClientLeft(Event, frozen=True):
    """The client's connection is gone, whatever the cause."""

    client: ClientId


class AnsweredOutside(Event, frozen=True):
    """The shells answered a request (see ``AnswerOutside``); the message is ready to be sent."""

    client: ClientId
    message: bytes
    method: str


class Resolved(Event, frozen=True):
    """The paths of a ``Resolve`` are resolved."""

    case: int
    places: tuple[ResolvedPath | None, ...]
    """In the order of the command's paths; None for a path that can't be resolved."""


class ClientLags(Event, frozen=True):
    """The client is owed more than its outbox may hold."""

    client: ClientId


class ClientDrained(Event, frozen=True):
    """The outbox of a client that lags has room again, as ``ReportWhenDrained`` asked."""

    client: ClientId


class JournalRead(Event, frozen=True):
    """Entries were read from disk, as ``ReadJournal`` asked."""

    client: ClientId
    entries: tuple[Entry, ...]
    until: int
    """The disk holds no further entry for the client up to this seq."""
    case: int = 0
    """The case, as in the command."""


class PastRemembered(Event, frozen=True):
    """The last events of threads in an earlier life of the broker, given once after the start."""

    entries: tuple[Entry, ...]
    """The entries, in order."""


class JournalExtent(Event, frozen=True):
    """The extent of the journal on disk."""

    epoch: str
    earliest: int
    """The earliest cursor from which a client can be brought up to date."""


class ExperimentalSchemaLoaded(Event, frozen=True):
    """The schema of the installed binary was read, as ``LoadExperimentalSchema`` asked."""

    gate: Gate | None
    """The experimental part of the protocol; None if that isn't known."""


class AnsweredByNotice(Event, frozen=True):
    """A device answered an approval with yes or no, by the answer ticket of its notice."""

    request: int
    principal: Principal
    peer: str
    """The address that the answer came from."""
    yes: bool


class FilePlaced(Event, frozen=True):
    """A person's file lies on the host, whole, where an agent finds it."""

    path: str
    name: str
    bytes: int
    sha256: str
    """Hex digest."""
    thread: str | None
    """The thread that it is for; None for none."""
    owner: str
    """Key of the principal that brought it."""
    by: str
    """That principal's name."""
    type: str = ""
    """Media type, as its sender says."""


class RecipientsChanged(Event, frozen=True):
    """Push recipients or their preferences changed. The event carries all recipients anew."""

    recipients: tuple[Recipient, ...]


class NoticesRestored(Event, frozen=True):
    """The notices of earlier lives of the broker, given once at the start, before any client."""

    known: tuple[str, ...]
    """Ids of the subjects of which a notice was sent before."""
    standing: tuple[RestoredNotice, ...]
    """Notices that still stand."""


class TimePassed(Event, frozen=True):
    """The moment named by ``Broker.next_wakeup`` has come."""
