"""The garbage collector, while the broker serves.

Used by ``nursery``, once all that stays is made. (``cli`` has switched it off till then.)
"""

from __future__ import annotations

import gc
import sys
from typing import Final

COLLECTED: Final = (2_000, 2, 100)
"""Thresholds of the garbage collector (``gc.set_threshold``). Objects of clients and threads are
freed by counting references: of thousands that came and left, the collector has never found any.
So it scans young objects often (up to 2 ms, in which no message moves), and all objects rarely. By
Python's own thresholds it scans all of them 4 times until 4,000 clients have come, for 0.2 s the
last time.
"""


def begin() -> None:
    """Switch the collector on, for the objects that are made from now on.

    All objects made so far stay: scanning them at each full collection would take 50 ms, in which
    no message moves.
    """
    gc.freeze()
    if sys.version_info < (3, 14):  # 3.14's collector works in small steps
        gc.set_threshold(*COLLECTED)
    gc.enable()
