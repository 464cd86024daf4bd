"""The doctor's checks of the machine: codex, its login, disk, clock, the service.

Nothing on the machine is changed.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import msgspec

from mux import documents
from mux.cli.doctor.finding import Finding
from mux.config.codex_binary import CodexError, codex_home, find_codex
from mux.config.load import Settled
from mux.core.policy.scopes import SCOPES
from mux.core.protocol.methods import REQUESTS
from mux.errors import AppmuxError
from mux.host import codex_login, novascale, service
from mux.host.service import Supervisor
from mux.host.steps import Runner, run
from mux.upstream.version import NEWEST_TRIED, OLDEST_TRIED, codex_version, compared

LITTLE: Final = 1024**3
TOO_LITTLE: Final = 100 * 1024**2
"""Bytes free. Below the first a day of work may fill the disk; below the second an hour's."""

CLOCK_OFF: Final = 120.0
"""Seconds by which a file may seem to come from the future: no file server is further off."""

SHOWN: Final = 5
"""Methods that are named; the others are counted, and listed in ``--json``."""

MIB: Final = 1024**2


# -- codex -----------------------------------------------------------------------------------------


async def codex(
    settled: Settled, environ: Mapping[str, str], runner: Runner = run
) -> tuple[list[Finding], Path | None]:
    """Check the binary, its login and its methods; return the binary's path too, if any."""
    try:
        path = find_codex(settled.config.codex_bin, environ, settled.origins["codex_bin"])
        version = await codex_version(path)
    except CodexError as failure:
        text, _, remedy = str(failure).partition(": ")
        return [Finding("codex", "wrong", text, remedy)], None
    facts = {"path": str(path), "version": version}
    findings = [_version(version, path, facts), *_sandbox(environ)]
    in_there = codex_login.check(
        path, codex_home(environ), environ, service.environment_file(), runner
    )
    verdict = "well" if in_there.well else "wrong"
    findings.append(Finding("login", verdict, in_there.words, in_there.remedy))  # type: ignore[arg-type]
    findings.append(_methods(path, version, runner))
    return findings, path


def _version(version: str, path: Path, facts: dict[str, Any]) -> Finding:
    says = f"{version}, {path}"
    oldest, newest = (".".join(map(str, each)) for each in (OLDEST_TRIED, NEWEST_TRIED))
    match compared(version):
        case "older":
            says += f": older than what appmux was tried with ({oldest} to {newest})"
            return Finding("codex", "wrong", says, "install a newer codex", facts)
        case "newer":
            says += f": newer than what appmux was tried with ({oldest} to {newest})"
            remedy = f"none needed, unless something is odd: {documents.page('compatibility')}"
            return Finding("codex", "note", says, remedy, facts)
        case _:
            return Finding("codex", "well", says, facts=facts)


def _sandbox(environ: Mapping[str, str]) -> Iterator[Finding]:
    """Report that codex lacks the program with which it confines commands on Linux."""
    if sys.platform == "linux" and shutil.which("bwrap", path=environ.get("PATH")) is None:
        says = "bubblewrap isn't installed; codex uses the one that it brings"
        yield Finding("sandbox", "note", says, "install the package `bubblewrap`")


class _Named(msgspec.Struct):
    enum: list[str]


class _Properties(msgspec.Struct):
    method: _Named


class _Variant(msgspec.Struct):
    properties: _Properties


class _Requests(msgspec.Struct, rename={"variants": "oneOf"}):
    variants: list[_Variant]


def _methods(path: Path, version: str, runner: Runner) -> Finding:
    """Report the requests of this codex that the broker's route table lacks."""
    with tempfile.TemporaryDirectory(prefix="appmux-") as out:
        schema = ("app-server", "generate-json-schema", "--experimental", "--out", out)
        # In a CODEX_HOME of its own: codex leaves files in the one it is started with.
        runner(("env", f"CODEX_HOME={out}", str(path), *schema))
        try:
            raw = (Path(out) / "ClientRequest.json").read_bytes()
            variants = msgspec.json.decode(raw, type=_Requests).variants
        except (OSError, msgspec.DecodeError):
            return Finding("methods", "note", f"codex {version} didn't tell its schema")
    known = REQUESTS.keys() | SCOPES.keys()
    names = {name for variant in variants for name in variant.properties.method.enum}
    unknown = sorted(names - known)
    facts: dict[str, Any] = {"of": len(names), "unknown": unknown}
    if not unknown:
        return Finding("methods", "well", f"all {len(names)} are in the route table", facts=facts)
    some = ", ".join(unknown[:SHOWN]) + (", …" if len(unknown) > SHOWN else "")
    says = f"{len(unknown)} of {len(names)} aren't in the route table: {some}"
    remedy = "none needed: they pass as they are, and only for clients with the scope `admin`"
    return Finding("methods", "note", says, remedy, facts)


# -- disk and clock --------------------------------------------------------------------------------


def disk(settled: Settled, environ: Mapping[str, str]) -> Iterator[Finding]:
    """Check free space and the permission to write, where the broker and codex write."""
    for name, place in (
        ("state directory", settled.config.state_dir),
        ("CODEX_HOME", codex_home(environ)),
    ):
        yield _disk(name, place)


def _disk(name: str, place: Path) -> Finding:
    about = f"disk ({name})"
    existing = next(each for each in (place, *place.parents) if each.exists())
    status = os.statvfs(existing)
    free = shutil.disk_usage(existing).free
    facts = {"path": str(place), "freeBytes": free, "freeFiles": status.f_favail}
    if status.f_flag & os.ST_RDONLY or not os.access(existing, os.W_OK):
        remedy = f"make {existing} writable, or name another place"
        return Finding(about, "wrong", f"{place} can't be written", remedy, facts)
    room = f"{free // MIB} MiB free at {place}"
    if free < TOO_LITTLE:
        return Finding(about, "wrong", room, "make room: the journal and threads are lost", facts)
    # File systems without inodes say that they have none at all.
    if status.f_files and not status.f_favail:
        return Finding(about, "wrong", f"no inodes left at {place}", "remove some files", facts)
    if free < LITTLE:
        return Finding(about, "note", room, "make room soon", facts)
    return Finding(about, "well", room, facts=facts)


def clock(settled: Settled, environ: Mapping[str, str], runner: Runner = run) -> Finding:
    """Check whether the clock is plausible: expiry dates and the journal's age depend on it."""
    now = time.time()
    newest, path = max(_changed(settled, environ), default=(0.0, None))
    ahead = newest - now
    if ahead > CLOCK_OFF:
        says = f"{ahead:.0f} s behind {path}, which was written before"
        return Finding("clock", "wrong", says, "set it: `timedatectl set-ntp true`, or by hand")
    done = runner(("timedatectl", "show", "--property=NTPSynchronized", "--value"))
    if done.returncode == 0 and done.stdout.strip() == "no":
        return Finding("clock", "note", "not synchronized", "`timedatectl set-ntp true`")
    return Finding("clock", "well", "no file is newer than now")


def _changed(settled: Settled, environ: Mapping[str, str]) -> Iterator[tuple[float, Path]]:
    """Yield the times of files that were certainly written in the past."""
    for directory in (settled.config.state_dir, codex_home(environ)):
        if directory.is_dir():
            with os.scandir(directory) as entries:
                for entry in entries:
                    with suppress(FileNotFoundError):  # removed by a broker that works there
                        yield entry.stat(follow_symlinks=False).st_mtime, Path(entry.path)
    yield Path(__file__).stat().st_mtime, Path(__file__)


# -- the service -----------------------------------------------------------------------------------


def supervised(settled: Settled, environ: Mapping[str, str], runner: Runner = run) -> list[Finding]:
    """Check the service, if it is installed; and NovaScale's beside it."""
    try:
        where = service.supervisor(environ, runner)
        places = service.read_files(where.files(service.service_spec(settled, environ)))
    except AppmuxError as failure:
        return [Finding("service", "note", str(failure))]
    return [_service(where, places), *_novascale(where, settled, Path(environ["HOME"]))]


def _service(where: Supervisor, places: list[service.UnitFile]) -> Finding:
    states = {place.state for place in places}
    if states == {"absent"}:
        return Finding("service", "note", "not installed", "`appmux setup`, to have it run always")
    if not where.running():
        if where.failed():
            says = f"installed, and {where.name} couldn't run it{service.last_words(where)}"
            remedy = "`appmux service logs` shows more; then `appmux service start`"
            return Finding("service", "wrong", says, remedy)
        says = "installed, but stopped"
        return Finding("service", "wrong", says, "`appmux service start`")
    if "ours" in states or "absent" in states:
        says = "runs, but was installed with other settings than the present ones"
        return Finding("service", "note", says, "`appmux service install`")
    return Finding("service", "well", f"runs, by {where.name}")


def _novascale(where: Supervisor, settled: Settled, home: Path) -> Iterator[Finding]:
    try:
        vanilla = novascale.find(where, home)
    except AppmuxError as failure:
        yield Finding("NovaScale", "note", str(failure))
        return
    if vanilla is not None and vanilla.running:
        yield Finding(
            "NovaScale",
            "wrong",
            f"its own app-server runs at {vanilla.url}: what it has loaded can't be used by the"
            " broker's, and the other way round",
            "`appmux setup` takes its place; phones go on as they are",
        )
    elif novascale.taken(settled.config.state_dir):
        says = "appmux has its service's place"
        yield Finding("NovaScale", "well", says, "`appmux service uninstall` gives it back")
