"""What every test runs under."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

# The same examples every time and no stopwatch: on a busy machine a slow example is no bug.
# `pytest --hypothesis-profile=explore` looks for new ones.
settings.register_profile(
    "pinned", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("explore", deadline=None, max_examples=2000)
settings.load_profile("pinned")
