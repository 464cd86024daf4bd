"""A histogram of durations, for the metrics."""

from __future__ import annotations

from bisect import bisect_left
from itertools import accumulate

import msgspec

BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
"""Upper bounds of the buckets in seconds: from a write into the page cache to a disk that is about
to fail."""


class Histogram(msgspec.Struct):
    """Durations in seconds, counted in buckets."""

    counts: list[int] = msgspec.field(default_factory=lambda: [0] * (len(BOUNDS) + 1))
    """Durations for each bucket of ``BOUNDS``; the last bucket has no upper bound."""
    total: float = 0.0
    """The sum of all durations, in seconds."""

    def observe(self, seconds: float) -> None:
        """Count one duration."""
        self.counts[bisect_left(BOUNDS, seconds)] += 1
        self.total += seconds

    def buckets(self) -> list[tuple[str, int]]:
        """Return cumulative counts as Prometheus wants them.

        Each pair is an upper bound as text, and the number of durations that took so long or less.
        """
        names = [*(str(bound) for bound in BOUNDS), "+Inf"]
        return list(zip(names, accumulate(self.counts), strict=True))
