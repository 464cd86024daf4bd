"""A thread's queue of turns, as it is stored and shown. ``features/turns/turn_queue`` acts on it.

``state`` holds the queues, since a thread that has one stays loaded.
"""

from __future__ import annotations

from collections import deque

import msgspec

from mux.core.extension.queue import Held
from mux.core.part import Part
from mux.core.policy.principal import Owner
from mux.core.state.requests.request import Request

TEXT_CHARACTERS = 1024
"""Characters of a turn's text in lists: enough to recognise it."""


class QueuedTurn(msgspec.Struct, frozen=True, eq=False):
    """A turn that waits."""

    id: int
    params: bytes
    """The params of its ``turn/start``."""
    owner: Owner
    actor: dict[str, object]
    """The client that queued it, as ``audit_events.actor_of`` describes it."""
    since: float
    """When it was queued, on the broker's clock."""

    def to_json(self, place: int, now: float) -> dict[str, object]:
        """Return the turn as clients get it; ``place`` counts from 1."""
        params = _read_params(self.params)
        return {
            "id": self.id,
            "place": place,
            "client": self.owner.client,
            "name": self.owner.program,
            "principal": self.owner.principal.name,
            "text": params.text[:TEXT_CHARACTERS],
            "clientUserMessageId": params.clientUserMessageId,
            "ageSeconds": round(now - self.since, 3),
        }


class TurnQueue(Part):
    """The turns queued on one thread, the next one first."""

    thread: str
    turns: deque[QueuedTurn] = msgspec.field(default_factory=deque)
    held: Held | None = None
    """Why the queue stands still; None while it goes on."""
    starting: QueuedTurn | None = None
    """The turn that ``request`` is to start."""
    request: Request | None = None

    def to_json(self, now: float) -> dict[str, object]:
        """Return the queue as clients get it."""
        turns = [turn.to_json(place, now) for place, turn in enumerate(self.turns, 1)]
        return {"threadId": self.thread, "held": self.held, "turns": turns}


class _Input(msgspec.Struct):
    text: str = ""


class _Params(msgspec.Struct):
    said: list[_Input] = msgspec.field(default_factory=list, name="input")
    clientUserMessageId: str | None = None

    @property
    def text(self) -> str:
        return "\n".join(each.text for each in self.said if each.text)


def _read_params(params: bytes) -> _Params:
    try:
        return _decoder.decode(params)
    except msgspec.DecodeError:
        return _Params()  # of another shape: the app-server's error tells what is wrong


_decoder = msgspec.json.Decoder(_Params)
