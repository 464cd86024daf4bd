"""The outcomes of one attempt to send a push.

The services return them; ``sender`` acts on them, ``queue`` stores their words.
"""

from __future__ import annotations

from typing import TypeAlias

import attrs


@attrs.frozen
class Delivered:
    """The service has accepted the push."""

    detail: str
    """The service's answer, for people."""


@attrs.frozen
class Retry:
    """The push wasn't accepted now; try again later."""

    after: float | None
    """Seconds that the service asked to wait at least; None if it named no time."""
    reason: str
    ours: bool = False
    """True if the host's set-up is at fault, so that other pushes fare no better meanwhile."""


@attrs.frozen
class Gone:
    """The endpoint will never accept a push again: it is dropped."""

    reason: str


@attrs.frozen
class Failed:
    """The service won't accept this push, however often it is sent."""

    reason: str
    ours: bool = False
    """As in ``Retry``."""


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
