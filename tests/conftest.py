"""What every test runs under."""

from __future__ import annotations

import signal

from hypothesis import HealthCheck, settings

# In the background of a script Ctrl-C is ignored, and so it would be by all that the tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# The same examples every time and no stopwatch: on a busy machine a slow example is no bug.
# `pytest --hypothesis-profile=explore` looks for new ones.
settings.register_profile(
    "pinned", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("explore", deadline=None, max_examples=2000)
settings.load_profile("pinned")
