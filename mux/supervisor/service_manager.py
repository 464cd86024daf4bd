"""Gifts of a service manager to the process that it has started: sockets, a watchdog, an address.

They are meant for one process, and that is the supervisor, which passes them on.

Used by ``supervisor``.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Final

from mux.posix import notify_socket
from mux.posix.standard_streams import say
from mux.supervisor.lives import NEVER
from mux.supervisor.processes import INHERITED

MICROSECONDS: Final = 1e6


def keep_sockets(environ: Mapping[str, str]) -> int:
    """Keep a service manager's sockets from the app-server; return how many there are."""
    if environ.get("LISTEN_PID") != str(os.getpid()):
        return 0
    count = environ.get("LISTEN_FDS", "")
    sockets = int(count) if count.isdigit() else 0
    for descriptor in range(INHERITED, INHERITED + sockets):
        try:
            os.set_inheritable(descriptor, False)
        except OSError:
            return 0  # the broker says what is wrong with them
    return sockets


def watchdog(environ: Mapping[str, str]) -> float:
    """Return systemd's deadline for a sign of life, in seconds; infinite without one."""
    microseconds = environ.get("WATCHDOG_USEC", "")
    for_us = environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
    return int(microseconds) / MICROSECONDS if microseconds.isdigit() and for_us else NEVER


def notify(environ: Mapping[str, str], state: str) -> None:
    """Send a state to systemd (sd_notify(3)): it believes its main process alone."""
    try:
        notify_socket.send(environ, state)
    except OSError as failure:
        say(f"appmux: systemd not notified: {failure.strerror}\n")
