"""What became of trying to send one push.

Made by the services; ``sender`` acts on it, ``queue`` keeps its words.
"""

from __future__ import annotations

from typing import TypeAlias

import attrs


@attrs.frozen
class Delivered:
    """The service has it. ``detail``: what it said, for people."""

    detail: str


@attrs.frozen
class Retry:
    """Not now. ``after``: seconds that the service asked to wait at least; None: it said nothing.

    ``ours``: the host's set-up is at fault, so that other pushes fare no better meanwhile.
    """

    after: float | None
    reason: str
    ours: bool = False


@attrs.frozen
class Gone:
    """Never again at this endpoint: it is dropped."""

    reason: str


@attrs.frozen
class Failed:
    """This push won't be taken, however often it is sent. ``ours``: as in ``Retry``."""

    reason: str
    ours: bool = False


Outcome: TypeAlias = Delivered | Retry | Gone | Failed


def words(outcome: Outcome) -> str:
    """For people: what the service said."""
    match outcome:
        case Delivered(detail):
            return f"delivered: {detail}"
        case Retry(after, why):
            return f"not now: {why}" + ("" if after is None else f" (again in {after:.0f} s)")
        case Gone(why):
            return f"gone, and dropped: {why}"
        case Failed(why):
            return f"failed: {why}"
