"""A push to one device, and the forms that all services make of it."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from typing import Any, Final, Literal

import msgspec
from msgspec.structs import replace

from mux.config.model import ContentLevel
from mux.errors import AppmuxError

Kind = Literal[
    "approval", "question", "completed", "failed", "interrupted", "goal", "limit", "down", "back",
    "moved", "test",
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
    "moved": "The host has another name: pair again",
    "test": "A test of appmux",
}
"""The whole text at the level ``opaque``."""

LAST: Final[Kind] = "moved"
"""Tells a page that its origin has ended. Nothing is pushed there any more."""

LONGEST_ID: Final = 64
"""Bytes: what APNs takes as a collapse id, and ntfy as a sequence id."""

_FAMILY: Final = uuid.UUID("3b0c4f0e-6d2b-4d1e-9d0a-5b1f6a5f7c11")
"""The namespace of the ids made by ``Push.delivery``."""


class PushError(AppmuxError):
    """A push that can't be made, or an endpoint that can't be used. The text says what to do."""


class Push(msgspec.Struct, frozen=True):
    """A push: what one device is told about one subject."""

    id: str
    """Opaque; of this subject *and* this device."""
    kind: Kind
    collapse: str
    """Opaque; on the device a push takes the place of an earlier one with the same key."""
    expires_at: float
    """Unix seconds, after which the push is worthless."""
    count: int = 1
    """How many subjects wait under this key on the device."""
    title: str | None = None
    """Limited to what the device's content level allows; so is ``body``."""
    body: str | None = None
    urgent: bool = False
    withdraw: bool = False
    """True if nothing is shown, and the device removes what stands under ``collapse``."""
    ticket: str | None = None
    """The capability for acting from the lock screen by one of ``actions``."""
    actions: tuple[str, ...] = ()
    host: str | None = None
    """The machine that it comes from; from the level ``title`` on."""
    badge: int | None = None
    """How many things in all wait for a person at this device; None if that isn't known."""

    def __post_init__(self) -> None:
        """Check the ids. Raises ``PushError``."""
        for name, value in (("id", self.id), ("collapse", self.collapse)):
            plain = value.replace("-", "").replace("_", "")
            if not (plain.isascii() and plain.isalnum()) or len(value) > LONGEST_ID:
                raise PushError(
                    f"a push's {name} has 1 to {LONGEST_ID} letters, digits, - and _: {value!r}"
                )

    def __repr__(self) -> str:
        """Name the push without its ticket, which is a capability."""
        return f"Push({self.id!r}, {self.kind!r}, {self.collapse!r})"

    def at(self, level: ContentLevel) -> Push:
        """Return the push without the fields that this content level excludes."""
        if level == "full":
            return self
        if level == "title":
            return replace(self, body=None)
        return replace(self, body=None, title=None, host=None)

    def withdrawal(self, count: int, expires_at: float, badge: int | None = None) -> Push:
        """Return the push that removes this one from the device."""
        return Push(
            id=self.id,
            kind=self.kind,
            collapse=self.collapse,
            expires_at=expires_at,
            count=count,
            withdraw=True,
            badge=badge,
        )

    @property
    def headline(self) -> str:
        """A line for a person, at any level."""
        line = self.title or WORDS[self.kind]
        return f"{line} · {self.host}" if self.host else line

    @property
    def text(self) -> str:
        """The line below the headline."""
        if self.body:
            return self.body
        if self.title:
            return WORDS[self.kind]
        return f"{self.count} things wait" if self.count > 1 else "Open the app to see it"

    def link(self, page: str) -> str:
        """Return the address that a tap opens: by the id the page finds what it is about."""
        return f"{page}{'&' if '?' in page else '?'}notice={self.id}"

    @property
    def delivery(self) -> str:
        """A UUID, the same each time that this push is sent: a service may recognize a repeat by
        it."""
        return str(uuid.uuid5(_FAMILY, f"{self.id} {self.withdraw}"))

    def document(self) -> dict[str, Any]:
        """Return the JSON object that the device's program gets, from any service."""
        fields = {
            "v": 1,
            "id": self.id,
            "kind": self.kind,
            "collapse": self.collapse,
            "count": self.count,
            "expiresAt": int(self.expires_at),
        }
        optional = {
            "title": self.title,
            "body": self.body,
            "urgent": self.urgent,
            "withdraw": self.withdraw,
            "ticket": self.ticket,
            "actions": list(self.actions),
            "host": self.host,
        }
        if self.badge is not None:
            fields["badge"] = self.badge
        return fields | {name: value for name, value in optional.items() if value}


def encoded(document: object) -> bytes:
    """Return the document as JSON text, as short as possible."""
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()


def fitting(push: Push, most: int, render: Callable[[Push], bytes]) -> bytes:
    """Return ``render(push)`` in at most ``most`` bytes; first the body, then the title is cut.

    Raises ``PushError`` if it is longer even without them.
    """
    while push.body and (excess := len(render(push)) - most) > 0:
        push = replace(push, body=_shorter(push.body, excess))
    while push.title and (excess := len(render(push)) - most) > 0:
        push = replace(push, title=_shorter(push.title, excess))
    rendered = render(push)
    if len(rendered) > most:
        raise PushError(f"a push of {len(rendered)} bytes, where the service takes {most}")
    return rendered


def _shorter(text: str, excess: int) -> str | None:
    # Escaped, a character takes up to 6 bytes: a sixth of the excess is never too much.
    cut = text.removesuffix("…")[: -max(1, excess // 6)]
    return f"{cut}…" if cut else None
