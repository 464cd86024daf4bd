"""One thing that the doctor looked at: how it is, and what to do about it.

Hands to: ``doctor``, which shows them. Hears from: ``host``, ``broker``.
"""

from __future__ import annotations

from typing import Any, Literal

import attrs

Verdict = Literal["well", "note", "wrong"]
"""``note``: works, but somebody may want to know. Only ``wrong`` makes the doctor exit with 1."""


@attrs.frozen
class Finding:
    """``about`` names the thing, ``says`` how it is; ``facts`` are for programs."""

    about: str
    verdict: Verdict
    says: str
    remedy: str = ""
    facts: dict[str, Any] = attrs.field(factory=dict)
