"""A short soak of handovers; `python -m tests.soak.handovers` runs longer ones."""

from __future__ import annotations

from tests.soak.handovers import soak


async def test_brokers_are_killed_at_random_and_nobody_notices() -> None:
    faults, done = await soak(kills=5, seed=3)
    assert faults == []
    assert done["handovers"] > 0
    assert done["turns"] > 0
