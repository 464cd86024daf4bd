"""Tells in words how an app-server's process has ended.

Used by ``process``.
"""

from __future__ import annotations

import signal

from mux.supervisor.channel import UNKNOWN


def in_words(status: int | None) -> str:
    """Return how a process ended, by its return code; None means that it runs."""
    if status is None:
        return "it is running"
    if status == UNKNOWN:
        return "it ended while appmux was restarted"
    if status >= 0:
        return f"exit status {status}"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = f"signal {-status}"
    return f"killed by {name}"
