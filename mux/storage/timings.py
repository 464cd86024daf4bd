"""How long something took, each time, in buckets: for the metrics.

Hands to: ``metrics``. Hears from: whoever measures.
"""

from __future__ import annotations

from bisect import bisect_left
from itertools import accumulate

import attrs

BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
"""Seconds: from a write into the page cache to a disk that is about to fail."""


@attrs.define
class Histogram:
    """Times in seconds: how many fell into each bucket, the last of which has no end; their sum."""

    counts: list[int] = attrs.field(factory=lambda: [0] * (len(BOUNDS) + 1))
    total: float = 0.0

    def observe(self, seconds: float) -> None:
        self.counts[bisect_left(BOUNDS, seconds)] += 1
        self.total += seconds

    def buckets(self) -> list[tuple[str, int]]:
        """As Prometheus counts: the upper bound as text, and how many took that long or less."""
        names = [*(str(bound) for bound in BOUNDS), "+Inf"]
        return list(zip(names, accumulate(self.counts), strict=True))
