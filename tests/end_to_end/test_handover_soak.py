"""A short soak of handovers; `python -m tests.soak.handovers` runs longer ones."""

from __future__ import annotations

from tests.soak.handovers import soak


async def test_broker_and_app_server_end_at_random_and_nothing_is_lost() -> None:
    faults, done = await soak(times=5, seed=3)
    assert faults == []
    assert done["handovers"] > 0
    assert done["turns"] > 0
