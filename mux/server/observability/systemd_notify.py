"""systemd's watchdog: sends ``WATCHDOG=1`` four times in each ``WatchdogSec=``.

A broker that hangs can't send it, so systemd ends it and starts another. Nor is it sent when the
app-server has been neither up nor given up on for minutes: then the broker waits for something
that doesn't come, and a restart is the remedy. A full disk, or an app-server that is down for good,
is no reason: a new broker would be no better off, and clients would lose their connections.

Used by ``nursery``. The interval comes from the environment.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from typing import Final

import structlog
import trio

from mux.core.state.app_server import AppServerState
from mux.posix import notify_socket

UNSETTLED_FOR: Final = 300.0
"""Seconds in which the app-server must settle. A start takes one or two, the longest back-off a
minute."""

SETTLED: Final = frozenset({AppServerState.READY, AppServerState.DOWN})
MICROSECONDS: Final = 1_000_000

BEATS: Final = 4
"""Messages in systemd's deadline. The supervisor gives up at three quarters of it: on a machine
that is busy two may be late."""

log = structlog.get_logger()


def interval(environ: Mapping[str, str]) -> float | None:
    """Return the seconds between two messages, `BEATS` of which are in systemd's deadline.

    None means that systemd doesn't watch this process.
    """
    if environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    try:
        seconds = int(environ.get("WATCHDOG_USEC", "")) / MICROSECONDS / BEATS
    except ValueError:
        return None
    return seconds if seconds > 0 else None


async def keep(
    environ: Mapping[str, str],
    state: Callable[[], AppServerState],
    tell: Callable[[str], None],
) -> None:
    """Send ``WATCHDOG=1`` until cancelled; return at once if systemd has no watchdog on us."""
    every = interval(environ)
    if every is None:
        return
    settled = trio.current_time()
    silent = False
    while True:
        now, current = trio.current_time(), state()
        if current in SETTLED:
            settled = now
        if now - settled < max(UNSETTLED_FOR, every):
            tell("WATCHDOG=1")
            silent = False
        elif not silent:
            silent = True
            log.error(
                "the app-server doesn't settle: waiting for systemd to start the broker anew",
                state=current.value,
                seconds=math.floor(now - settled),
            )
        await trio.sleep(every)


def send(state: str) -> None:
    """Send a state to systemd, if it started us with ``Type=notify``."""
    try:
        notify_socket.send(os.environ, state)
    except OSError as failure:
        log.warning("systemd not notified", why=str(failure))
