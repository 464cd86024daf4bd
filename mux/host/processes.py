"""Find the process that holds a lock or listens at an address.

On Linux from ``/proc``, on macOS from ``lsof`` and ``ps``. Nothing is locked or connected to, so a
check disturbs nobody. The system says little about other users' processes; ``UNSEEN`` stands for
one.
"""

from __future__ import annotations

import ipaddress
import os
import re
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final, TypeAlias

import msgspec

from mux.host.steps import Runner, run

PROC: Final = Path("/proc")

LISTENING: Final = {"tcp": "0A", "unix": "00010000"}
"""As the kernel writes it: the state LISTEN, and the flag SO_ACCEPTCON."""

ESTABLISHED: Final = "01"

Address: TypeAlias = tuple[ipaddress.IPv4Address | ipaddress.IPv6Address, int]
"""An IP address and a port."""

ABSENT: Final = (-1, -1)
"""Stands for the device and inode of a file that doesn't exist."""

LONGEST_COMMAND: Final = 120
"""Characters of a command line that are shown."""


class Process(msgspec.Struct, frozen=True):
    """A process, as far as it is known."""

    pid: int
    command: str = "?"
    since: float | None = None
    """When the process started, in Unix seconds; None if unknown."""

    def __str__(self) -> str:
        if self == UNSEEN:
            return "a process of another user or container"
        started = "" if self.since is None else f", since {_clock(self.since)}"
        return f"process {self.pid} ({self.command}{started})"


UNSEEN: Final = Process(0)
"""A process that exists but can't be examined."""


def _clock(moment: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(moment))


# -- locks -----------------------------------------------------------------------------------------


def of_locks(paths: Iterable[Path], runner: Runner = run) -> dict[Path, list[Process]]:
    """Return the holders of a lock on each file; files without a lock are left out."""
    by_identity = {_identity(path): path for path in paths}
    by_identity.pop(ABSENT, None)
    if not by_identity:
        return {}
    if sys.platform == "darwin":
        return _lsof_locks(list(by_identity.values()), runner)
    holders_of: dict[Path, list[Process]] = {}
    for pid, descriptor in _descriptors():
        locked = by_identity.get(_identity(descriptor))
        if locked is not None and _locks(pid, descriptor.name):
            holders_of.setdefault(locked, []).append(describe(pid))
    unseen = _locked_inodes() if len(holders_of) < len(by_identity) else set()
    for (_device, inode), path in by_identity.items():
        if path not in holders_of and inode in unseen:
            holders_of[path] = [UNSEEN]
    return {path: _once(holders) for path, holders in holders_of.items()}


def locked_files(pid: int) -> list[Path]:
    """Return the files on which a process has a lock; none where the system doesn't tell."""
    try:
        links = list((PROC / str(pid) / "fd").iterdir())
    except OSError:  # another user's, gone, or no Linux
        return []
    files = []
    for link in links:
        if _locks(pid, link.name):
            with suppress(OSError):
                files.append(link.readlink())
    return files


def _descriptors() -> Iterator[tuple[int, Path]]:
    """Yield every open descriptor of every process that we may examine, as (pid, its link)."""
    for process in PROC.iterdir():
        if process.name.isdigit():
            try:
                links = list((process / "fd").iterdir())
            except OSError:  # another user's, or gone
                continue
            for link in links:
                yield int(process.name), link


def _identity(link: Path) -> tuple[int, int]:
    try:
        status = link.stat()
    except OSError:  # the file doesn't exist, or not any more
        return ABSENT
    return status.st_dev, status.st_ino


def _locks(pid: int, descriptor: str) -> bool:
    """Return whether the open file behind a descriptor is the one that has the lock."""
    try:
        return "\nlock:" in (PROC / str(pid) / "fdinfo" / descriptor).read_text()
    except OSError:
        return False


def _locked_inodes() -> set[int]:
    """Return all locked inodes, also where the holder can't be examined."""
    inodes = set()
    for line in (PROC / "locks").read_text().splitlines():
        words = line.split()
        if "->" not in words:  # with an arrow, the process only waits for the lock
            inodes.add(int(words[5].rpartition(":")[2]))
    return inodes


def _lsof_locks(paths: list[Path], runner: Runner) -> dict[Path, list[Process]]:
    # -F: a letter and a value per line; p and c once per process, then l and n per file.
    output = runner(("lsof", "-w", "-Fpcln", "--", *(str(path) for path in paths))).stdout
    by_name = {os.path.realpath(path): path for path in paths}
    holders_of: dict[Path, list[Process]] = {}
    for fields in _lsof_files(output):
        path = by_name.get(os.path.realpath(fields.get("n", "")))
        if path is not None and fields.get("l", " ").strip():
            holders_of.setdefault(path, []).append(_from_ps(fields, runner))
    return holders_of


# -- addresses -------------------------------------------------------------------------------------


def of_unix_path(path: Path, runner: Runner = run) -> list[Process]:
    """Return the processes that listen on the unix socket to which ``path`` leads."""
    real = os.path.realpath(path)
    if sys.platform == "darwin":
        files = _lsof_files(runner(("lsof", "-w", "-U", "-Fpcn")).stdout)
        return [_from_ps(each, runner) for each in files if os.path.realpath(each["n"]) == real]
    inodes = set()
    for line in (PROC / "net" / "unix").read_text().splitlines()[1:]:
        words = line.split(maxsplit=7)
        here = len(words) == 8 and words[3] == LISTENING["unix"]  # noqa: PLR2004 (with its path)
        if here and words[7].startswith("/") and os.path.realpath(words[7]) == real:
            inodes.add(words[6])
    return _of_sockets(inodes)


def of_port(
    ip: ipaddress.IPv4Address | ipaddress.IPv6Address, port: int, runner: Runner = run
) -> list[Process]:
    """Return the processes that listen on a TCP port, at this address or one that includes it."""
    if sys.platform == "darwin":
        output = runner(("lsof", "-w", "-nP", f"-iTCP:{port}", "-sTCP:LISTEN", "-Fpcn")).stdout
        hosts = {f"{host}:{port}" for host in (ip, f"[{ip}]", "*")}
        return [_from_ps(each, runner) for each in _lsof_files(output) if each["n"] in hosts]
    inodes = set()
    for words in _tcp_table():
        host, _, number = words[1].rpartition(":")
        if words[3] == LISTENING["tcp"] and int(number, 16) == port:
            bound = _kernels_address(host)
            if bound == ip or bound.is_unspecified or ip.is_unspecified:
                inodes.add(words[9])
    return _of_sockets(inodes)


def of_connections(ours: Iterable[Address], runner: Runner = run) -> dict[Address, int]:
    """Return which process has the end of a TCP connection with each of these addresses.

    Addresses whose process isn't found, or can't be examined, are left out.
    """
    addresses = set(ours)
    if sys.platform == "darwin":
        output = runner(("lsof", "-w", "-nP", "-iTCP", "-sTCP:ESTABLISHED", "-Fpcn")).stdout
        here = {}
        for fields in _lsof_files(output):
            host, _, port = fields["n"].partition("->")[0].rpartition(":")
            address = (ipaddress.ip_address(host.strip("[]")), int(port))
            if address in addresses:
                here[address] = int(fields["p"])
        return here
    by_socket: dict[str, Address] = {}
    for words in _tcp_table():
        host, _, number = words[1].rpartition(":")
        if words[3] == ESTABLISHED:
            address = (_kernels_address(host), int(number, 16))
            if address in addresses:
                by_socket[f"socket:[{words[9]}]"] = address
    pids: dict[Address, int] = {}
    for pid, descriptor in _descriptors() if by_socket else ():
        try:
            holds = by_socket.get(str(descriptor.readlink()))
        except OSError:  # closed meanwhile
            continue
        if holds is not None:
            pids.setdefault(holds, pid)
    return pids


def _tcp_table() -> Iterator[list[str]]:
    """Yield the words of each line of the kernel's tables of TCP sockets."""
    for table in ("tcp", "tcp6"):
        try:
            lines = (PROC / "net" / table).read_text().splitlines()[1:]
        except OSError:  # no IPv6 here
            continue
        yield from map(str.split, lines)


def _kernels_address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """Parse an address of ``/proc/net/tcp``: words of 32 bits, each in the machine's order."""
    raw = b"".join(
        int(text[at : at + 8], 16).to_bytes(4, sys.byteorder) for at in range(0, len(text), 8)
    )
    address = ipaddress.ip_address(raw)
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def _of_sockets(inodes: set[str]) -> list[Process]:
    if not inodes:
        return []
    names = {f"socket:[{inode}]" for inode in inodes}
    processes = []
    for pid, descriptor in _descriptors():
        try:
            if str(descriptor.readlink()) in names:
                processes.append(describe(pid))
        except OSError:  # closed meanwhile
            continue
    return _once(processes) or [UNSEEN]


def _once(holders: list[Process]) -> list[Process]:
    return list({holder.pid: holder for holder in holders}.values())


# -- a process -------------------------------------------------------------------------------------


def describe(pid: int, runner: Runner = run) -> Process:
    """Describe a process by its number; unknown fields keep their defaults."""
    if sys.platform == "darwin":
        return _from_ps({"p": str(pid)}, runner)
    try:
        command = " ".join(arguments(pid))
        # The name may hold blanks and brackets; the fields after the last bracket don't.
        fields = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
        started = _booted() + int(fields[19]) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        return Process(pid)
    return Process(pid, _shown(command or "?"), started)


def arguments(pid: int, runner: Runner = run) -> list[str]:
    """Return a process's whole command line; on macOS split at every blank. Empty if unknown."""
    if sys.platform == "darwin":
        return runner(("ps", "-ww", "-o", "command=", "-p", str(pid))).stdout.split()
    try:
        words = (PROC / str(pid) / "cmdline").read_bytes().rstrip(b"\0").split(b"\0")
    except OSError:
        return []
    return [word.decode(errors="replace") for word in words]


def ancestors(pid: int, runner: Runner = run) -> Iterator[int]:
    """Yield the process itself, its parent, and so on up to the first."""
    while pid > 0:
        yield pid
        pid = _parent(pid, runner)


def _parent(pid: int, runner: Runner) -> int:
    try:
        if sys.platform == "darwin":
            return int(runner(("ps", "-o", "ppid=", "-p", str(pid))).stdout)
        return int((PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()[1])
    except (OSError, ValueError):  # the process has gone
        return 0


def _booted() -> float:
    match = re.search(r"^btime (\d+)$", (PROC / "stat").read_text(), re.MULTILINE)
    return float(match[1]) if match else 0.0


def _from_ps(fields: dict[str, str], runner: Runner) -> Process:
    pid = int(fields["p"])
    output = runner(("ps", "-ww", "-o", "lstart=,command=", "-p", str(pid))).stdout.strip()
    # 24 characters, as `Mon Nov 23 02:35:00 2026`, then the command.
    try:
        since = time.mktime(time.strptime(output[:24]))
    except ValueError:
        return Process(pid, _shown(fields.get("c", "?")))
    return Process(pid, _shown(output[24:].strip() or "?"), since)


def _lsof_files(output: str) -> Iterator[dict[str, str]]:
    """Yield the open files that ``lsof -F`` lists, each with its process's fields."""
    process: dict[str, str] = {}
    file: dict[str, str] = {}
    for line in output.splitlines():
        field, value = line[:1], line[1:]
        if field == "p":
            process, file = {"p": value}, {}
        elif field == "c":
            process["c"] = value
        elif field == "f":
            file = {}
        elif field == "n":
            yield process | file | {"n": value}
        else:
            file[field] = value


def _shown(command: str) -> str:
    plain = "".join(char if char.isprintable() else "?" for char in command)
    return plain if len(plain) <= LONGEST_COMMAND else plain[:LONGEST_COMMAND] + "…"
