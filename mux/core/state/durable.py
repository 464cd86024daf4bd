"""Facts that the next broker needs of this one: which are saved, and in which shape.

Whoever changes such a fact touches its key. At the end of the event ``durability`` reads the facts
of the touched keys and has them saved, before anything that follows from the event goes out. The
next broker reads them back (``handover``). Clients have other numbers then: a client is saved by
its principal and program. The next broker's clock is another, too: what has waited begins to wait
anew.

Values are MessagePack of the classes below. A field that is added has a default; what can't be read
any more makes the version in ``storage.broker_state`` go up.
"""

from __future__ import annotations

from typing import Literal, TypeVar

import msgspec

from mux.core.extension.queue import Held as QueueHeld
from mux.core.part import Part
from mux.core.policy.approval_policy import Policy
from mux.core.policy.principal import Owner, Principal
from mux.core.protocol.threads.thread_overrides import NOTHING_KNOWN, Held

Kind = Literal[
    "app-server", "claim", "clients", "follows", "left", "queue", "request", "sent", "thread",
    "tools", "wire", "wires",
]  # fmt: skip
"""The kinds of keys; behind it stands a name, which only tells keys of a kind from each other."""

Key = tuple[Kind, str]

WIRES_RESERVED = 4096
CLIENTS_RESERVED = 256
"""Numbers are reserved in such portions, so that not each one is saved."""

T = TypeVar("T")


class Durable(Part):
    """The keys whose facts have changed. Unless ``is_enabled`` nothing is noted."""

    is_enabled: bool = False
    touched: dict[Key, None] = msgspec.field(default_factory=dict)
    wires: int = 0
    """The mark above which no wire id was used; reserved ahead."""
    clients: int = 0
    """The mark above which no client number was used."""

    def touch(self, kind: Kind, name: str) -> None:
        """Note that what this key stands for has changed."""
        if self.is_enabled:
            self.touched[kind, name] = None

    def uses_wire(self, number: int) -> None:
        """Note that a wire id is used."""
        if self.is_enabled and number > self.wires:
            self.wires = number + WIRES_RESERVED
            self.touched["wires", ""] = None

    def uses_client(self, number: int) -> None:
        """Note that a client number is used."""
        if self.is_enabled and number > self.clients:
            self.clients = number + CLIENTS_RESERVED
            self.touched["clients", ""] = None


class SavedAppServer(msgspec.Struct, omit_defaults=True):
    """The app-server's life, and the handshake that was done."""

    generation: int
    result: dict[str, bytes]
    greetings: dict[str, list[bytes]]
    began: int
    """The cursor before which everything is over that ran."""


class SavedUnsaved(msgspec.Struct, omit_defaults=True):
    """An ``UnsavedThread``."""

    result: dict[str, bytes]
    thread: dict[str, bytes]
    ephemeral: bool
    turns: dict[str, bytes]
    fresh: bool = True
    young: bool = True
    source: tuple[str, str, str | None, str | None] | None = None
    preview: bytes = b'""'


class SavedThread(msgspec.Struct, omit_defaults=True):
    """A thread to which the broker is subscribed, or of which it must tell."""

    id: str
    subscribed: bool
    private: bool = False
    status: str = "unknown"
    turn: str | None = None
    also: str | None = None
    over: tuple[str, ...] = ()
    since: int = 0
    started: bytes = b""
    announced: bool = False
    by: Owner | None = None
    runs: bool = False
    """True if items run, which are in the journal behind ``since``."""
    loaded_with: bytes = b""
    settings: bytes = b""
    name: str = ""
    cwd: str = ""
    parent: str | None = None
    ephemeral: bool = False
    adopted: bool = False
    held: Held = NOTHING_KNOWN
    spawned_by: Owner | None = None
    unsaved: SavedUnsaved | None = None


class SavedVote(msgspec.Struct):
    """A vote on an approval."""

    voter: tuple[str, str]
    result: bytes
    early: bool
    by: dict[str, object]


class SavedServerRequest(msgspec.Struct, omit_defaults=True):
    """A server request that awaits an answer."""

    id: int
    upstream: bytes
    method: str
    thread: str | None
    offer: bytes
    policy: Policy
    needs: str = ""
    turn: str | None = None
    owner: Owner | None = None
    votes: list[SavedVote] = []


class SavedTurn(msgspec.Struct):
    """A queued turn."""

    id: int
    params: bytes
    owner: Owner
    by: dict[str, object]


class SavedQueue(msgspec.Struct, omit_defaults=True):
    """The turns that wait on a thread; the first of them is under way if it has a wire id."""

    thread: str
    turns: list[SavedTurn]
    held: QueueHeld | None = None
    starting: SavedTurn | None = None
    wire: int = 0


class SavedMessage(msgspec.Struct, omit_defaults=True):
    """A message that was sent with an id."""

    who: tuple[str, str]
    thread: str
    id: str
    result: bytes | None = None
    turn: str | None = None


class SavedRequest(msgspec.Struct, omit_defaults=True):
    """A client's request that is upstream and whose answer matters whoever asked."""

    wire: int
    method: str
    thread: str | None = None
    params: bytes = b""
    by: Owner | None = None
    sent: tuple[tuple[str, str], str, str] | None = None


class SavedClaim(msgspec.Struct):
    """A thing that a client has running."""

    field: str
    wire: str
    ended_by: str


class SavedFollows(msgspec.Struct):
    """The threads that an attached client follows."""

    who: tuple[str, str]
    program: str
    threads: dict[str, int]


class SavedTools(msgspec.Struct):
    """The tools that were registered with a thread."""

    thread: str
    tools: list[tuple[str, str, Owner]]


def owner(of: Owner | None) -> Owner | None:
    """Return an owner as it is saved: without its number, which will be another's."""
    return None if of is None else Owner(NO_CLIENT, of.program, _timeless(of.principal))


def _timeless(principal: Principal) -> Principal:
    return msgspec.structs.replace(principal, expires_at=None)


NO_CLIENT = 0
"""Stands for a client that was attached to an earlier broker."""


def running_since(saved: dict[str, bytes]) -> dict[str, int]:
    """Return the threads of which items may run, and the seq behind which these began.

    Raises ``msgspec.DecodeError``.
    """
    threads = (decode(value, SavedThread) for key, value in saved.items() if key[:7] == "thread/")
    return {each.id: each.since for each in threads if each.runs}


def encode(value: object) -> bytes:
    """Return a value as it is saved."""
    return _encoder.encode(value)


def decode(value: bytes, kind: type[T]) -> T:
    """Return a value that was saved. Raises ``msgspec.DecodeError``."""
    return msgspec.msgpack.decode(value, type=kind)


_encoder = msgspec.msgpack.Encoder()
