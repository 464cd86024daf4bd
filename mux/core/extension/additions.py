"""The broker's additions to codex's own messages: to ``initialize``, to errors, and numbers."""

from __future__ import annotations

import msgspec

from mux.core.extension import queue
from mux.core.extension.parts import Described
from mux.core.protocol.scope import Scope

# ── initialize ────────────────────────────────────────────────────────────────────────────────────


class Declared(msgspec.Struct, omit_defaults=True):
    """``initialize.params.capabilities.extensions.appmux``: this client knows the broker.

    ``relay``: only a relay does, which takes the numbers off again. It is numbered and may replay;
    everything else is as for a client that doesn't know the broker. ``person``: a person sits
    before this client; what they do shows for a while that they look. (``mux/focus`` says more.)
    ``coalesce``: milliseconds for which a delta may wait for others of its item, to come as one; at
    most 1,000. Without it 50 for paired devices, and 0, at once, for all others.
    """

    version: int
    relay: bool = False
    person: bool = False
    coalesce: float | msgspec.UnsetType = msgspec.UNSET


class Welcome(msgspec.Struct):
    """``appmux`` in the answer to ``initialize``, for a client that declared to know the broker.

    ``epoch``, ``seq``: a cursor, the journal's head; ``began``: where this broker's life began.
    ``generation``: which life of the app-server this is.
    """

    version: int
    epoch: str
    seq: int
    began: int
    clientId: int
    generation: int


class Numbered(msgspec.Struct):
    """Top-level fields of a message, for a client that knows the broker; most carry one at most.

    ``seq``: the number of a journaled message. ``cursor``: up to there it has all of the thread.
    """

    seq: int | msgspec.UnsetType = msgspec.UNSET
    cursor: int | msgspec.UnsetType = msgspec.UNSET


# ── errors ────────────────────────────────────────────────────────────────────────────────────────


class Forbidden(msgspec.Struct):
    """``data`` of error -32003: the scope that the request ``needs``, and those that you have."""

    method: str
    needs: Scope
    has: list[Scope]


class Lost(msgspec.Struct):
    """``data`` of errors -32010 and -32011. ``retryable``: the method only reads: ask again.

    ``generation``: the life of the app-server that was asked.
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
