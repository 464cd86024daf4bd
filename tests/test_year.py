"""Nothing grows with use: some weeks of the simulated year, with limits that are soon reached."""

from __future__ import annotations

from pathlib import Path

import attrs
import structlog

from bench.year import Span, growing, live, quarters
from tests.fuzz.registries import BOUNDED, LIMITS

SPAN = Span(turns=480, days=24, samples=8)


async def test_nothing_that_the_core_has_grows_in_the_second_half(tmp_path: Path) -> None:
    place = tmp_path / "state"
    place.mkdir(mode=0o700)
    limits = attrs.evolve(LIMITS, probe_interval=1800.0, journal_bytes=2**20)
    with structlog.testing.capture_logs():
        seen = await live(place, SPAN, lambda _: None, limits)
    unbounded = [each for each in growing(seen) if each.partition(":")[0] not in BOUNDED]
    assert not unbounded
    for path, most in BOUNDED.items():
        assert seen[-1].elements[path] <= 2 * most, path
    third, last = quarters(seen, "disk")
    assert last <= third * 1.1
