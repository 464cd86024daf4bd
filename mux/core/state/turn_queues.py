"""A thread's queue of turns, as it is kept and shown. What becomes of it is ``turn_queue``'s.

Heard from: ``turn_queue``; ``state`` holds the queues, since a thread that has one is kept loaded.
"""

from __future__ import annotations

from collections import deque

import attrs
import msgspec

from mux.core.extension.queue import Held
from mux.core.policy.principal import Owner
from mux.core.state.request import Request

TEXT_CHARACTERS = 1024
"""Of what was said, as it is listed: enough to recognise it."""


class QueuedTurn(msgspec.Struct, frozen=True, eq=False):
    """One turn that waits. ``params``: of its ``turn/start``. ``by``: see ``recording.by``.

    ``since``: the broker's clock.
    """

    id: int
    params: bytes
    owner: Owner
    by: dict[str, object]
    since: float

    def to_json(self, place: int, now: float) -> dict[str, object]:
        said = _said(self.params)
        return {
            "id": self.id,
            "place": place,
            "client": self.owner.client,
            "name": self.owner.program,
            "principal": self.owner.principal.name,
            "text": said.text[:TEXT_CHARACTERS],
            "clientUserMessageId": said.clientUserMessageId,
            "ageSeconds": round(now - self.since, 3),
        }


@attrs.define(eq=False, repr=False)
class TurnQueue:
    """What is queued on one thread, the next one first.

    ``held``: why it stands still. ``starting``: the one that has been asked for by ``request``.
    """

    thread: str
    turns: deque[QueuedTurn] = attrs.field(factory=deque)
    held: Held | None = None
    starting: QueuedTurn | None = None
    request: Request | None = None

    def to_json(self, now: float) -> dict[str, object]:
        """As clients get it."""
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


def _said(params: bytes) -> _Params:
    try:
        return _decoder.decode(params)
    except msgspec.DecodeError:
        return _Params()  # of another shape: the app-server will say what is wrong with it


_decoder = msgspec.json.Decoder(_Params)
