"""``mux/replay`` and ``mux/presence``: what was missed, and who is here."""

from __future__ import annotations

from typing import Annotated

import msgspec

from mux.core.extension.parts import Described, Nothing, method, notification
from mux.core.protocol.scope import Scope

# ── mux/replay ────────────────────────────────────────────────────────────────────────────────────


class Cursor(msgspec.Struct):
    """A client's place in the journal: the last seq that it has, and the epoch in which that
    counts.
    """

    epoch: str
    seq: int


MOST_THREADS = 1000
"""Named in one replay: each may have to be loaded. More than any client shows."""


class ReplayParams(msgspec.Struct):
    """Params of ``mux/replay``.

    ``merged``: consecutive deltas of an item may come as one. ``threadIds``: the threads, or
    ``threadId`` for one. Without either: the threads that you follow, and those that your
    predecessor followed.
    """

    after: Cursor
    threadId: str | None = None
    merged: bool = False
    threadIds: Annotated[list[str], msgspec.Meta(max_length=MOST_THREADS)] | None = None


class Replayed(msgspec.Struct):
    """The answer, before what was missed.

    ``seq``: the journal's head. ``earliest``: the earliest cursor that can be replayed. ``complete:
    false``: nothing is sent or followed; take a snapshot. Else ``threads`` are followed from now
    on, and what was missed comes next. ``missing``: threads that aren't followed: they couldn't be
    loaded, or the answer by which they were joined had not come by this cursor. Take a snapshot of
    each.
    """

    complete: bool
    epoch: str
    seq: int
    earliest: int
    began: int
    threads: list[str] | msgspec.UnsetType = msgspec.UNSET
    missing: list[str] | msgspec.UnsetType = msgspec.UNSET


# ── mux/presence ──────────────────────────────────────────────────────────────────────────────────


class Present(msgspec.Struct):
    """A client past ``initialize``. ``device``: its name, if it was paired.

    ``since``, ``lastDrove``: seconds ago; ``lastDrove`` is null for a client that hasn't driven.
    """

    id: int
    name: str | None
    version: str | None
    principal: str
    scopes: list[Scope]
    transport: str
    threads: list[str]
    since: float
    lastDrove: float | None
    device: str | msgspec.UnsetType = msgspec.UNSET


class Presence(msgspec.Struct):
    """All clients that are here; always the whole list."""

    clients: list[Present]


# ── examples ──────────────────────────────────────────────────────────────────────────────────────

_EPOCH = "1b0c3d5e7f90a2b4"
_THREAD = "0199f3a2-51c4-7a10-8f6e-3d2b1c0a9e87"
_PHONE = Present(
    id=8,
    name="phone",
    version="2.0",
    principal="Ada's phone",
    scopes=["approve", "observe"],
    transport="ws",
    threads=[_THREAD],
    since=40.25,
    lastDrove=None,
    device="Ada's phone",
)

METHODS: dict[str, Described] = {
    "mux/replay": method(
        "Follow threads again and get what came after the cursor, in order, then live.",
        ReplayParams(Cursor(_EPOCH, 4711), _THREAD, merged=True),
        Replayed(
            complete=True,
            epoch=_EPOCH,
            seq=4999,
            earliest=12,
            began=12,
            threads=[_THREAD],
            missing=[],
        ),
    ),
    "mux/presence/read": method("Who is here.", Nothing(), Presence([_PHONE])),
}

NOTIFICATIONS: dict[str, Described] = {
    "mux/presence": notification("Who is here now.", Presence([_PHONE])),
}
