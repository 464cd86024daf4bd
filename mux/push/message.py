"""What one device is told of one thing, and the forms that all services make of it.

Hands to: ``queue``, which keeps it; the services, its document and its words.
Hears from: whoever decides that something deserves a notice.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from typing import Any, Final, Literal

import attrs

from mux.config.model import ContentLevel
from mux.errors import AppmuxError

Kind = Literal[
    "approval", "question", "completed", "failed", "interrupted", "goal", "limit", "down", "back",
    "test",
]  # fmt: skip

WORDS: Final[dict[Kind, str]] = {
    "approval": "An approval waits",
    "question": "A question waits",
    "completed": "A turn has completed",
    "failed": "A turn has failed",
    "interrupted": "A turn was interrupted",
    "goal": "News of a goal",
    "limit": "The usage limit is reached",
    "down": "Codex is down",
    "back": "Codex is back",
    "test": "A test of appmux",
}
"""All that is said at the level ``opaque``."""

LONGEST_ID: Final = 64
"""Bytes: what APNs takes as a collapse id, and ntfy as a sequence id."""

_FAMILY: Final = uuid.UUID("3b0c4f0e-6d2b-4d1e-9d0a-5b1f6a5f7c11")


class PushError(AppmuxError):
    """A push that can't be one, an endpoint that can't be used; the text says what to do."""


def _short(_push: Push, attribute: attrs.Attribute[str], value: str) -> None:
    plain = value.replace("-", "").replace("_", "")
    if not (plain.isascii() and plain.isalnum()) or len(value) > LONGEST_ID:
        raise PushError(
            f"a push's {attribute.name} has 1 to {LONGEST_ID} letters, digits, - and _: {value!r}"
        )


@attrs.frozen
class Push:
    """What one device is told of one thing.

    ``id``: opaque, of this thing *and* this device. ``collapse``: opaque; on the device a push
    takes the place of an earlier one with the same. ``count``: how many things wait there.
    ``title`` and ``body``: no more than the device's content level allows. ``expires_at``: Unix
    seconds, after which it is worthless. ``withdraw``: nothing is shown; what stands under
    ``collapse`` goes. ``ticket``: the capability for acting from the lock screen by one of
    ``actions``.
    """

    id: str = attrs.field(validator=_short)
    kind: Kind
    collapse: str = attrs.field(validator=_short)
    expires_at: float
    count: int = 1
    title: str | None = None
    body: str | None = None
    urgent: bool = False
    withdraw: bool = False
    ticket: str | None = attrs.field(default=None, repr=False)
    actions: tuple[str, ...] = ()

    def at(self, level: ContentLevel) -> Push:
        """The same, without what this level doesn't tell."""
        if level == "full":
            return self
        return attrs.evolve(self, body=None, title=self.title if level == "title" else None)

    def withdrawal(self, count: int, expires_at: float) -> Push:
        """What takes it away again."""
        return Push(
            id=self.id,
            kind=self.kind,
            collapse=self.collapse,
            expires_at=expires_at,
            count=count,
            withdraw=True,
        )

    @property
    def headline(self) -> str:
        """One line for a person, at any level."""
        return self.title or WORDS[self.kind]

    @property
    def text(self) -> str:
        """What stands below the headline."""
        if self.body:
            return self.body
        if self.title:
            return WORDS[self.kind]
        return f"{self.count} things wait" if self.count > 1 else "Open the app to see it"

    @property
    def delivery(self) -> str:
        """An UUID, the same each time that this is sent: a service may know a double by it."""
        return str(uuid.uuid5(_FAMILY, f"{self.id} {self.withdraw}"))

    def document(self) -> dict[str, Any]:
        """The JSON object that the device's program gets, in any service."""
        told = {
            "v": 1,
            "id": self.id,
            "kind": self.kind,
            "collapse": self.collapse,
            "count": self.count,
            "expiresAt": int(self.expires_at),
        }
        said = {
            "title": self.title,
            "body": self.body,
            "urgent": self.urgent,
            "withdraw": self.withdraw,
            "ticket": self.ticket,
            "actions": list(self.actions),
        }
        return told | {name: value for name, value in said.items() if value}


def encoded(document: object) -> bytes:
    """JSON as short as it gets."""
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()


def fitting(push: Push, most: int, render: Callable[[Push], bytes]) -> bytes:
    """What ``render`` makes of it in at most ``most`` bytes: body, then title, cut as needed.

    Raises ``PushError`` if it is longer even without them.
    """
    while push.body and (excess := len(render(push)) - most) > 0:
        push = attrs.evolve(push, body=_shorter(push.body, excess))
    while push.title and (excess := len(render(push)) - most) > 0:
        push = attrs.evolve(push, title=_shorter(push.title, excess))
    rendered = render(push)
    if len(rendered) > most:
        raise PushError(f"a push of {len(rendered)} bytes, where the service takes {most}")
    return rendered


def _shorter(text: str, excess: int) -> str | None:
    # Escaped, a character takes up to 6 bytes: a sixth of the excess is never too much.
    cut = text.removesuffix("…")[: -max(1, excess // 6)]
    return f"{cut}…" if cut else None
