"""Gifts of a service manager to the process that it has started: sockets, a watchdog, an address.

They are meant for one process, and that is the supervisor, which passes them on. What systemd keeps
for the next one is ``descriptor_store``'s.

Used by ``supervisor`` and ``descriptor_store``.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from mux.posix import notify_socket
from mux.supervisor.lives import NEVER
from mux.supervisor.log import log
from mux.supervisor.processes import INHERITED

MICROSECONDS: Final = 1e6

FIRST_START_WAIT: Final = 0.2
LONGEST_START_WAIT: Final = 60.0
"""Seconds before the broker is started if processes of the service before this one came to nothing:
the first time, and at most. They double."""

ASK_DEADLINE: Final = 5.0
"""Seconds for systemd to say what it is about to do with us; it takes hundredths of one."""

CGROUPS: Final = ("/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/systemd")
"""Where systemd's hierarchy of control groups may be."""

SWEEPS: Final = 20
SWEEP_SECONDS: Final = 0.05
"""A process that is about to end may start another: it is looked again so often, after so long."""


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


def start_wait(environ: Mapping[str, str], vain: int) -> float:
    """Return the seconds to wait with the broker, after so many starts in vain.

    systemd slows its restarts down itself from version 254 on, which says ``FDSTORE``.
    """
    if vain == 0 or "FDSTORE" in environ:
        return 0.0
    doublings = min(vain - 1, 16)  # more would overflow after a day, and are the longest anyway
    return float(min(FIRST_START_WAIT * 2.0**doublings, LONGEST_START_WAIT))


def notify(environ: Mapping[str, str], state: str, descriptors: Sequence[int] = ()) -> None:
    """Send a state to systemd (sd_notify(3)): it believes its main process alone."""
    try:
        notify_socket.send(environ, state, descriptors)
    except OSError as failure:
        log(f"systemd not notified: {failure.strerror}")


def stops_for_good(environ: Mapping[str, str]) -> bool:
    """Return whether the service is to end without another one; asks systemd for its job.

    False also if that can't be told: letting the app-server go is right for both, as systemd
    closes what it has kept at a stop.
    """
    unit = _control_group().rpartition("/")[2]
    manager = ["--user"] if "MANAGERPID" in environ else []
    command = ["systemctl", *manager, "list-jobs", "--plain", "--no-legend"]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=ASK_DEADLINE, check=True, env=environ
        ).stdout
    except (OSError, subprocess.SubprocessError) as failure:
        log(f"systemd doesn't say whether this is a restart: {failure}")
        return False
    jobs = [words[2] for line in done.splitlines() if (words := line.split())[1:2] == [unit]]
    return jobs in ([], ["stop"])  # none: the signal is a person's


def end_what_is_left() -> None:
    """Kill what agents have left running in the service's control group, as systemd would."""
    group = _control_group()
    if not group.endswith(".service"):
        return
    own = os.getpid()
    for _ in range(SWEEPS):
        left = {pid for root in CGROUPS for pid in _processes(Path(root + group))} - {own}
        if not left:
            return
        for pid in left:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(SWEEP_SECONDS)


def _control_group() -> str:
    """Return the path of our own control group in systemd's hierarchy; empty if there is none."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return ""
    groups = dict(line.split(":", 2)[1:] for line in lines)
    return groups.get("name=systemd") or groups.get("", "")


def _processes(group: Path) -> list[int]:
    try:
        return [int(pid) for pid in (group / "cgroup.procs").read_text().split()]
    except OSError:
        return []
