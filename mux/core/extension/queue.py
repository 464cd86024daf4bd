"""``ifBusy`` in ``turn/start``, ``mux/queue/*``: turns that wait until their thread is idle."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from mux.core.extension.parts import Described, method, notification

Held = Literal["interrupted", "failed", "appServerEnded"]
"""How the turn ended behind which the queue stands still."""


class By(msgspec.Struct):
    """A client; it may have left."""

    client: int
    name: str
    principal: str


class QueuedTurn(msgspec.Struct):
    """A turn that waits, and the client that queued it.

    ``text``: the first 1,024 characters of its input. ``place``: 1 is the next one.
    """

    id: int
    place: int
    client: int
    name: str
    principal: str
    text: str
    clientUserMessageId: str | None
    ageSeconds: float


class ThreadQueue(msgspec.Struct):
    """The queue of one thread.

    ``held``: how the turn ended after which the queue stands still; null if it doesn't.
    """

    threadId: str
    held: Held | None
    turns: list[QueuedTurn]


class Queues(msgspec.Struct):
    """The queues of all threads on which something waits."""

    queues: list[ThreadQueue]


class ListParams(msgspec.Struct):
    """Params of ``mux/queue/list``. ``threadId``: this thread's queue alone."""

    threadId: str | None = None


class RemoveParams(msgspec.Struct):
    """Params of ``mux/queue/remove``. ``id``: the id of the queued turn."""

    id: int


class Removed(msgspec.Struct):
    """The turn was removed, and won't be started."""

    id: int
    threadId: str


class StartParams(msgspec.Struct):
    """Params of ``mux/queue/start``. ``threadId``: the thread whose queue is to go on."""

    threadId: str


class Started(msgspec.Struct):
    """The queue goes on.

    ``turns``: the number that wait. ``wasHeld``: what it was held by; null if it wasn't.
    """

    threadId: str
    turns: int
    wasHeld: Held | None


class Change(msgspec.Struct):
    """The change of a queue.

    ``id``: the queued turn's, if the change is about one. ``turn``: the turn as which it started.
    ``steered``: true if it joined a turn that somebody else began in the same moment. ``why``: a
    text for people. ``by``: the client that took it back, or let the queue go on.
    """

    what: Literal["queued", "started", "removed", "failed", "lost", "held", "released"]
    id: int | None
    turn: Any
    steered: bool
    why: str | None
    by: By | None


class QueueChanged(ThreadQueue):
    """The thread's queue as it is now, and its last change."""

    change: Change


class TurnStart(msgspec.Struct):
    """Fields that ``turn/start`` may have besides codex's own."""

    ifBusy: Literal["steer", "queue", "reject"]


class Place(msgspec.Struct):
    """A place in the queue; 1 is the next one."""

    id: int
    threadId: str
    place: int


class Waits(msgspec.Struct):
    """The turn was queued."""

    queued: Place


class Went(msgspec.Struct):
    """The turn wasn't queued. ``steered``: true if it joined a turn that ran."""

    steered: bool


class Busy(msgspec.Struct):
    """``data`` of error -32012, for ``"ifBusy": "reject"``. Fields that aren't known are null."""

    threadId: str
    turnId: str | None
    startedBy: By | None


class Full(msgspec.Struct):
    """``data`` of error -32013. ``most``: the number of turns that may wait for one thread."""

    threadId: str
    queued: int
    most: int


_THREAD = "0199f3a2-51c4-7a10-8f6e-3d2b1c0a9e87"
_TURN = "0199f3a2-6001-7f20-9a11-0c0d0e0f1011"
_WAITS = QueuedTurn(3, 1, 7, "phone", "Ada's phone", "Now run the tests.", "m-17", 4.2)

BUSY = Busy(_THREAD, _TURN, By(7, "desk", "local"))
FULL = Full(_THREAD, 32, 32)

METHODS: dict[str, Described] = {
    "mux/queue/list": method(
        "What waits until a thread is idle; no `initialize` needed.",
        ListParams(),
        Queues([ThreadQueue(_THREAD, "interrupted", [_WAITS])]),
    ),
    "mux/queue/remove": method(
        "Take a queued turn back, yours or another's.",
        RemoveParams(3),
        Removed(3, _THREAD),
    ),
    "mux/queue/start": method(
        "Let a queue go on that is held.",
        StartParams(_THREAD),
        Started(_THREAD, 1, "interrupted"),
    ),
}

NOTIFICATIONS: dict[str, Described] = {
    "mux/queue": notification(
        "What waits on a thread that you follow, or what you queued, has changed.",
        QueueChanged(
            _THREAD,
            None,
            [_WAITS],
            Change("queued", 3, None, steered=False, why=None, by=None),
        ),
    ),
}

SHAPES: dict[str, Described] = {
    "turn.start": Described(
        "`ifBusy` in the params of `turn/start`, and `appmux` in its result: one of the two.",
        {
            "params": TurnStart("queue"),
            "queued": Waits(Place(3, _THREAD, 1)),
            "went": Went(steered=False),
        },
    ),
}
