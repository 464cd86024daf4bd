"""What every test runs under."""

from __future__ import annotations

import signal

from hypothesis import HealthCheck, Phase, settings

# In the background of a script Ctrl-C is ignored, and so it would be by all that the tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# The same examples every time and no stopwatch: on a busy machine a slow example is no bug.
# `pytest --hypothesis-profile=explore` looks for new ones.
settings.register_profile(
    "pinned", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("explore", deadline=None, max_examples=2000)
# For `make mutants`: that a fault was noticed is enough, its smallest example isn't looked for.
settings.register_profile(
    "mutants",
    settings.get_profile("pinned"),
    max_examples=25,
    phases=[Phase.explicit, Phase.generate],
)
settings.load_profile("pinned")
