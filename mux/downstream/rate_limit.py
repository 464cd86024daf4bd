"""A token bucket: each event takes one token, and the bucket fills up again at a fixed rate.

Used by ``connection``, to slow a client down.
"""

from __future__ import annotations

import attrs


@attrs.define(eq=False, repr=False)
class Rate:
    """A limit of ``per_second`` events, with bursts. All times are seconds of one clock."""

    per_second: float
    burst: float
    """Most events at once."""
    _left: float = attrs.field(init=False)
    _at: float = 0.0
    _over_since: float | None = None

    def __attrs_post_init__(self) -> None:
        self._left = self.burst

    def count(self, times: int, now: float) -> float:
        """Count so many events. Return the seconds to wait until the next one is allowed."""
        self._left = min(self.burst, self._left + (now - self._at) * self.per_second)
        self._at = now
        if self._left >= self.burst / 2:
            self._over_since = None
        self._left -= times
        if self._left >= 0:
            return 0.0
        if self._over_since is None:
            self._over_since = now
        return -self._left / self.per_second

    def over_for(self, now: float) -> float:
        """Return for how many seconds the limit has been exceeded without a rest between.

        A rest is a pause in which half of the burst becomes available again.
        """
        return 0.0 if self._over_since is None else now - self._over_since
