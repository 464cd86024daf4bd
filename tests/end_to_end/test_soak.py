"""A short soak: enough of everything to notice what breaks. `make soak` runs longer ones."""

from __future__ import annotations

from tests.soak.soak import shown, soak

SECONDS = 12.0
CLIENTS = 4
SEED = 2
WANTED = ("turns", "kill", "replay", "abort", "stall", "fell behind")


async def test_nothing_is_lost_doubled_or_out_of_order() -> None:
    report = await soak(SECONDS, CLIENTS, SEED, WANTED)
    assert report.faults == [], shown(report)
    for figure in (*WANTED, "events checked"):
        assert report.figures.get(figure), f"the soak never came to it: {figure}\n{shown(report)}"
