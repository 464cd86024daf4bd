"""How often something may happen: a bucket that each time takes from, and that fills up again.

Hands to: ``downstream``, how long a client is to be slowed.
"""

from __future__ import annotations

import attrs


@attrs.define(eq=False, repr=False)
class Rate:
    """So many ``per_second``, and a ``burst`` at once. Times are in seconds, on one clock."""

    per_second: float
    burst: float
    _left: float = attrs.field(init=False)
    _at: float = 0.0
    _over_since: float | None = None

    def __attrs_post_init__(self) -> None:
        self._left = self.burst

    def take(self, times: int, now: float) -> float:
        """It has happened; returns the seconds to wait until it may happen again."""
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
        """For how long it has happened as often as it may, or more, with no rest between."""
        return 0.0 if self._over_since is None else now - self._over_since
