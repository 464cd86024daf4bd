"""The broker's additions to codex's own messages: to ``initialize``, to errors, and numbers."""

from __future__ import annotations

import msgspec

from mux.core.extension import queue
from mux.core.extension.parts import Described
from mux.core.protocol.scope import Scope

# ── initialize ────────────────────────────────────────────────────────────────────────────────────


class Declared(msgspec.Struct, omit_defaults=True):
    """``initialize.params.capabilities.extensions.appmux``, by which a client declares to know the
    broker.

    ``relay``: sent by a relay alone, which takes the numbers off again. Its messages are numbered
    and it may replay; everything else is as for a client that doesn't know the broker. ``person``:
    true if a person sits before this client; for a while after each of their actions they count as
    looking. (``mux/focus`` says more.) ``coalesce``: milliseconds for which a delta may wait for
    others of its item, to come as one; at most 1,000. Without it 50 for paired devices, and 0, at
    once, for all others.
    """

    version: int
    relay: bool = False
    person: bool = False
    coalesce: float | msgspec.UnsetType = msgspec.UNSET


class Welcome(msgspec.Struct):
    """``appmux`` in the answer to ``initialize``, for a client that declared to know the broker.

    ``epoch``, ``seq``: the journal's head, as a cursor. ``began``: the seq at which this broker's
    life began, or that of the first broker that had the same app-server. ``generation``: the number
    of the app-server's life.
    """

    version: int
    epoch: str
    seq: int
    began: int
    clientId: int
    generation: int


class Numbered(msgspec.Struct):
    """Top-level fields of a message, for a client that knows the broker; most messages carry one at
    most.

    ``seq``: the number of a journaled message. ``cursor``: the place up to which the client now has
    all of the thread.
    """

    seq: int | msgspec.UnsetType = msgspec.UNSET
    cursor: int | msgspec.UnsetType = msgspec.UNSET


# ── errors ────────────────────────────────────────────────────────────────────────────────────────


class Forbidden(msgspec.Struct):
    """``data`` of error -32003: the scope that the request needs (``needs``), and those that you
    have.
    """

    method: str
    needs: Scope
    has: list[Scope]


class Lost(msgspec.Struct):
    """``data`` of errors -32010 and -32011.

    ``retryable``: true if the method only reads, so that you may ask again. ``generation``: the
    life of the app-server that was asked.
    """

    generation: int
    retryable: bool


# ── examples ──────────────────────────────────────────────────────────────────────────────────────

_EPOCH = "1b0c3d5e7f90a2b4"

SHAPES: dict[str, Described] = {
    "initialize": Described(
        "How a client declares that it knows the broker, and what it is told then.",
        {
            "declared": Declared(version=1, coalesce=50),
            "appmux": Welcome(1, _EPOCH, 4711, 12, 7, 1),
        },
    ),
    "numbered": Described(
        "The top-level fields that messages carry for a client that knows the broker.",
        {"numbered": Numbered(seq=4712), "last of a joining": Numbered(cursor=4712)},
    ),
    "errors": Described(
        "`error.data` of the broker's own errors, by code. Those that aren't here have none.",
        {
            "-32003": Forbidden("turn/start", "drive", ["observe"]),
            "-32010": Lost(1, retryable=True),
            "-32011": Lost(1, retryable=False),
            "-32012": queue.BUSY,
            "-32013": queue.FULL,
        },
    ),
}
