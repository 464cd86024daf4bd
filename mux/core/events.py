"""All that the core can hear, in the past tense.

Made by ``dispatcher`` from what the shells tell it; matched in ``broker``.
msgspec structs, because one is made per line and per message: they cost a tenth of an attrs class.
"""

from __future__ import annotations

import msgspec

from mux.core.policy.notice import Recipient, RestoredNotice
from mux.core.policy.principal import ClientId, Principal
from mux.core.protocol.directories import Place
from mux.core.protocol.experimental import Gate
from mux.core.protocol.journal_entry import Entry


class Event(msgspec.Struct, frozen=True):
    """Something happened. Subclasses say what."""


class UpstreamStarted(Event, frozen=True):
    """A new app-server process runs; ``generation`` counts its lives from 1."""

    generation: int


class UpstreamSent(Event, frozen=True, gc=False):
    """One line from the app-server's stdout, without its line end."""

    line: bytes


class UpstreamExited(Event, frozen=True):
    """The app-server is gone. ``reason`` is for people; ``unix_time`` in seconds."""

    reason: str
    unix_time: float = 0.0


class ClientAttached(Event, frozen=True):
    """A client passed the door. ``transport`` and ``peer`` are for people ("ws", "127.0.0.1:5").

    ``expires_in``: seconds for which what it authenticated with still holds. ``local``: whether it
    is known to be on this host.
    """

    client: ClientId
    principal: Principal
    transport: str
    peer: str
    expires_in: float = float("inf")
    local: bool = False


class ClockMoved(Event, frozen=True):
    """The wall's clock has gone on by so many seconds more than the broker's: it was set (back, if
    they are negative), or the machine slept, which the broker's clock doesn't notice.
    """

    seconds: float


class ClientAccessEnded(Event, frozen=True):
    """What the client authenticated with no longer holds: it is revoked, say."""

    client: ClientId
    reason: str


class DeviceAccessEnded(Event, frozen=True):
    """A paired device is revoked, or has other scopes now, whether it is attached or not."""

    device: str


class DeviceRenamed(Event, frozen=True):
    """The client's device has another name from now on; nothing else about it changes."""

    client: ClientId
    principal: Principal


class ClientSent(Event, frozen=True):
    """One text message from a client, UTF-8 already checked by the WebSocket layer."""

    client: ClientId
    text: bytes


class ClientSentBinary(Event, frozen=True):
    """A client sent a binary frame, which this protocol has no use for."""

    client: ClientId


class ClientLeft(Event, frozen=True):
    """The client's connection is gone, whatever the cause."""

    client: ClientId


class AnsweredOutside(Event, frozen=True):
    """The answer to a request that the shells answer (see ``AnswerOutside``), ready to be sent."""

    client: ClientId
    message: bytes
    method: str


class Resolved(Event, frozen=True):
    """What the paths of a ``Resolve`` are, in its order; None for one that can't be found out."""

    case: int
    places: tuple[Place | None, ...]


class ClientLags(Event, frozen=True):
    """More is owed to the client than its outbox may hold."""

    client: ClientId


class ClientDrained(Event, frozen=True):
    """The outbox of a client that lags has room again (asked for by ``TellWhenDrained``)."""

    client: ClientId


class JournalRead(Event, frozen=True):
    """Entries from disk, as ``ReadJournal`` asked; ``until``: nothing more stands up to this
    seq."""

    client: ClientId
    entries: tuple[Entry, ...]
    until: int


class JournalExtent(Event, frozen=True):
    """What is on disk: its epoch, and the earliest cursor that can be brought up to date."""

    epoch: str
    earliest: int


class ExperimentalSchemaLoaded(Event, frozen=True):
    """What is experimental in the binary that runs, as ``LoadExperimentalSchema`` asked; None: not
    known."""

    gate: Gate | None


class AnsweredByNotice(Event, frozen=True):
    """A device answers an approval by a ticket of its own, in one word. ``peer``: from where."""

    request: int
    principal: Principal
    peer: str
    yes: bool


class RecipientsChanged(Event, frozen=True):
    """Who can be pushed to, and what each wants: told anew whenever something of it changes."""

    recipients: tuple[Recipient, ...]


class NoticesRestored(Event, frozen=True):
    """At the start, before any client: the things that earlier lives told of, and what stands."""

    known: tuple[str, ...]
    standing: tuple[RestoredNotice, ...]


class TimePassed(Event, frozen=True):
    """The moment named by ``Broker.wakeup`` has come."""
