"""The result of one check of the doctor: how a thing is, and what to do about it.

Made by ``host``, ``broker`` and ``push``; ``report`` shows it.
"""

from __future__ import annotations

from typing import Any, Literal

import attrs

Verdict = Literal["well", "note", "wrong"]
"""``note``: works, but somebody may want to know. Only ``wrong`` makes the doctor exit with 1."""


@attrs.frozen
class Finding:
    """The result of one check."""

    about: str
    """The thing that was checked."""
    verdict: Verdict
    says: str
    """The state of the thing."""
    remedy: str = ""
    """The remedy; empty if nothing is to be done."""
    facts: dict[str, Any] = attrs.field(factory=dict)
    """Details for programs."""
