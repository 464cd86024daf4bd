"""The terminal and the directory of a process, by which a person tells two clients apart.

On Linux from ``/proc``, on macOS from ``lsof`` and ``ps``. A process of another user or container
has neither.
"""

from __future__ import annotations

import ipaddress
import os
import sys
from typing import Final

import msgspec

from mux.host.processes import PROC, Address, of_connections
from mux.host.steps import Runner, run

PTY_MAJORS: Final = range(136, 144)
"""Device numbers of pseudo-terminals on Linux, each of 256 (devices.txt)."""

CONSOLE_MAJOR: Final = 4

_TTY_FIELD: Final = 4
"""The place of ``tty_nr`` in ``/proc/PID/stat``, behind the name (proc(5))."""


class ClientLocation(msgspec.Struct, frozen=True):
    """The place where a process runs; fields that aren't known are None."""

    pid: int
    terminal: str | None = None
    """``pts/3``, ``ttys003``."""
    directory: str | None = None


def of_process(pid: int, runner: Runner = run) -> ClientLocation:
    """Return where a process runs."""
    if sys.platform == "darwin":
        terminal = runner(("ps", "-o", "tty=", "-p", str(pid))).stdout.strip()
        files = runner(("lsof", "-a", "-w", "-d", "cwd", "-Fn", "-p", str(pid))).stdout
        names = [line[1:] for line in files.splitlines() if line.startswith("n")]
        return ClientLocation(
            pid, terminal if terminal.startswith("tty") else None, names[0] if names else None
        )
    try:
        directory: str | None = str((PROC / str(pid) / "cwd").readlink())
    except OSError:
        directory = None
    return ClientLocation(pid, _terminal(pid), directory)


def of_peers(peers: dict[int, str], runner: Runner = run) -> dict[int, ClientLocation]:
    """Return where the processes run that are connected from addresses on this machine.

    ``peers``: by any number, ``127.0.0.1:5123``. Those that aren't found are left out.
    """
    numbers: dict[Address, int] = {}
    for number, peer in peers.items():
        host, _, port = peer.rpartition(":")
        try:
            ip = ipaddress.ip_address(host.strip("[]"))
        except ValueError:
            continue
        if ip.is_loopback and port.isdigit():
            numbers[ip, int(port)] = number
    pids = of_connections(numbers, runner) if numbers else {}
    return {numbers[address]: of_process(pid, runner) for address, pid in pids.items()}


def _terminal(pid: int) -> str | None:
    try:
        fields = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
        number = int(fields[_TTY_FIELD])
    except (OSError, ValueError, IndexError):
        return None
    major, minor = os.major(number), os.minor(number)
    if major in PTY_MAJORS:
        return f"pts/{minor + 256 * (major - PTY_MAJORS.start)}"
    return f"tty{minor}" if major == CONSOLE_MAJOR else None
