"""The outcomes of one attempt to send a push.

The services return them; ``sender`` acts on them, ``queue`` stores their words.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, TypeAlias

import msgspec
from msgspec.structs import replace

SHORTEST_SECRET: Final = 8
"""Characters. Shorter texts are in any answer by chance."""


class Delivered(msgspec.Struct, frozen=True):
    """The service has accepted the push."""

    detail: str
    """The service's answer, for people."""


class Retry(msgspec.Struct, frozen=True):
    """The push wasn't accepted now; try again later."""

    after: float | None
    """Seconds that the service asked to wait at least; None if it named no time."""
    reason: str
    ours: bool = False
    """True if the host's set-up is at fault, so that other pushes fare no better meanwhile."""


class Gone(msgspec.Struct, frozen=True):
    """The endpoint will never accept a push again: it is dropped."""

    reason: str


class Failed(msgspec.Struct, frozen=True):
    """The service won't accept this push, however often it is sent."""

    reason: str
    ours: bool = False
    """True as in ``Retry``."""


Outcome: TypeAlias = Delivered | Retry | Gone | Failed


def words(outcome: Outcome) -> str:
    """Describe the outcome for people, with the service's answer."""
    match outcome:
        case Delivered(detail):
            return f"delivered: {detail}"
        case Retry(after, reason):
            return f"not now: {reason}" + ("" if after is None else f" (again in {after:.0f} s)")
        case Gone(reason):
            return f"gone, and dropped: {reason}"
        case Failed(reason):
            return f"failed: {reason}"


def without(outcome: Outcome, secrets: Iterable[str | None]) -> Outcome:
    """Return the outcome with secrets blanked out in its text."""
    text = outcome.detail if isinstance(outcome, Delivered) else outcome.reason
    for secret in secrets:
        if secret and len(secret) >= SHORTEST_SECRET:
            text = text.replace(secret, "…")
    if isinstance(outcome, Delivered):
        return replace(outcome, detail=text)
    return replace(outcome, reason=text)
