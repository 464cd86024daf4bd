"""NovaScale's vanilla app-server service: find it, take its place, and give the place back.

Its host script leaves three things: shell variables in ``~/.codex/novascale-codex-host.env``, a
token, and a user service. appmux takes over the address, the port and the token, so that paired
phones go on working. The token becomes a device, which can be renamed, limited and revoked like any
other.

None of NovaScale's files is changed. Its service is disabled and stopped; a record of ours says how
it was, so that its place can be given back.

Used by ``setup`` and ``service``.
"""

from __future__ import annotations

import ipaddress
import json
import plistlib
import re
import shlex
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Final
from xml.parsers.expat import ExpatError

import attrs

from mux.access.device import digest_of
from mux.access.devices import open_registry
from mux.core.policy.scopes import ALL
from mux.errors import AppmuxError
from mux.host.launchd import Launchd
from mux.host.steps import PRIVATE, Do, Remove, Step, Write
from mux.host.systemd import Systemd
from mux.posix import private_file

UNITS: Final = {"systemd": "novascale-codex.service", "launchd": "dev.galaxnet.novascale.codex"}
VARIABLES: Final = Path(".codex", "novascale-codex-host.env")
TOKEN: Final = Path(".codex", "novascale-app-server-token")
"""Paths below HOME, wherever CODEX_HOME is: NovaScale's script knows no other place."""

PORT: Final = 14500
DEVICE: Final = "NovaScale"
"""The name of the device that stands for all phones with NovaScale's token."""

RECORD: Final = "novascale.json"
"""File in appmux's state directory, from the take-over until the place is given back."""

_ASSIGNMENT: Final = re.compile(r"^\s*(?:export\s+)?(NOVASCALE_CODEX_[A-Z_]+)=(.*)$")


class NovascaleError(AppmuxError):
    """NovaScale's service exists, but its files can't be understood."""


@attrs.frozen
class Vanilla:
    """NovaScale's service on this host."""

    unit: str
    url: str
    """The URL at which the service listens."""
    host: str
    """The host that phones connect to."""
    port: int
    name: str
    token_file: Path
    enabled: bool
    running: bool


def find(where: Systemd | Launchd, home: Path) -> Vanilla | None:
    """Return the service if it is installed.

    Raises ``NovascaleError`` if its files can't be understood.
    """
    unit = UNITS[where.name]
    path = where.place(unit)
    if not path.exists():
        return None
    variables = _variables(home / VARIABLES)
    flags = _flags(path)
    url = flags.get("--listen") or _url(variables)
    if url is None:
        raise NovascaleError(
            f"NovaScale's service {path} is installed, but neither it nor {home / VARIABLES} says"
            " where it listens: run NovaScale's host script again, or uninstall it"
        )
    host, port = _host_and_port(url, path)
    token = flags.get("--ws-token-file") or variables.get("TOKEN_FILE")
    token_file = Path(token).expanduser() if token else home / TOKEN
    if not token_file.is_file():
        raise NovascaleError(
            f"NovaScale's service {path} is installed, but its token {token_file} isn't there:"
            " without it phones would have to be paired again; run NovaScale's host script again"
        )
    return Vanilla(
        unit=unit,
        url=url,
        host=variables.get("HOST") or host,
        port=port,
        name=variables.get("NAME", ""),
        token_file=token_file,
        enabled=where.knows_enabled(unit),
        running=where.knows_running(unit),
    )


def _variables(path: Path) -> dict[str, str]:
    """Return NovaScale's shell variables without their prefix. Nothing is executed."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return {}
    variables = {}
    for line in lines:
        if assignment := _ASSIGNMENT.match(line):
            try:
                words = shlex.split(assignment[2], comments=True)
            except ValueError:
                continue
            name = assignment[1].removeprefix("NOVASCALE_CODEX_")
            variables[name] = words[0] if words else ""
    return variables


def _flags(path: Path) -> dict[str, str]:
    """Return the flags with values that the service gives to its app-server."""
    try:
        raw = path.read_bytes()
        if path.suffix == ".plist":
            words = [str(word) for word in plistlib.loads(raw).get("ProgramArguments", [])]
        else:
            text = raw.decode(errors="replace").replace("\\\n", " ")
            started = re.search(r"^ExecStart=[-@:+!]*(.*)$", text, re.MULTILINE)
            words = shlex.split(started[1]) if started else []
    except (OSError, ValueError, AttributeError, ExpatError):
        return {}
    flags = {}
    for at, word in enumerate(words):
        name, equals, value = word.partition("=")
        if name.startswith("--"):
            flags[name] = value if equals else next(iter(words[at + 1 :]), "")
    # A value from a shell or a variable of systemd's can't be read here.
    return {name: value for name, value in flags.items() if value and "$" not in value}


def _url(variables: Mapping[str, str]) -> str | None:
    listen, port = variables.get("LISTEN", ""), variables.get("PORT") or str(PORT)
    if listen.startswith("ws://"):
        return listen
    for host in (listen.partition(":")[0], variables.get("HOST", "")):
        try:
            ipaddress.IPv4Address(host)
        except ValueError:
            continue
        return f"ws://{host}:{port}"
    return None


def _host_and_port(url: str, path: Path) -> tuple[str, int]:
    parts = re.fullmatch(r"ws://(\[[0-9a-fA-F:.]+\]|[0-9.]+):([0-9]{1,5})/?", url)
    if parts is None:
        raise NovascaleError(
            f"NovaScale's service {path} listens on {url!r}, which isn't `ws://IP:PORT`: appmux"
            " can't take its place"
        )
    return parts[1].strip("[]"), int(parts[2])


# -- its place, taken and given back ---------------------------------------------------------------


def taking(where: Systemd | Launchd, vanilla: Vanilla, state_dir: Path) -> list[Step]:
    """Return steps that stop NovaScale's service and keep it from starting.

    The record is written first, so that a take-over that fails can be undone.
    """
    digest = digest_of(_token(vanilla.token_file))
    record = {
        "unit": vanilla.unit,
        "enabled": vanilla.enabled,
        "running": vanilla.running,
        "url": vanilla.url,
        "tokenDigest": digest,
    }
    text = json.dumps(record, indent=2) + "\n"
    enter = partial(_enter, state_dir, digest)
    return [
        Write(state_dir / RECORD, text, PRIVATE),
        Do(f"let in its phones: the token of {vanilla.token_file} becomes a device", enter),
        *where.stop_other(vanilla.unit),
    ]


def _token(path: Path) -> str:
    try:
        token = private_file.read_secret(path).decode().strip()
    except (OSError, UnicodeDecodeError) as failure:
        raise NovascaleError(f"NovaScale's token {path} can't be read: {failure}") from failure
    if not token:
        raise NovascaleError(f"NovaScale's token {path} is empty: run its host script again")
    return token


def _enter(state_dir: Path, digest: str) -> None:
    """Make the token a device of all scopes, as it had natively, unless it is a device already."""
    book = open_registry(state_dir, time.time)
    if all(device.digest != digest for device in book):
        book.add(book.name_like(DEVICE), "novascale", ALL, digest)


def _revoke_by_digest(state_dir: Path, digest: str) -> None:
    book = open_registry(state_dir, time.time)
    for device in list(book):
        if device.digest == digest:
            book.revoke(device)


def taken(state_dir: Path) -> bool:
    """Return whether appmux has the service's place now."""
    return (state_dir / RECORD).exists()


def giving_back(where: Systemd | Launchd, state_dir: Path) -> list[Step]:
    """Return steps that restore the service as it was; none if appmux doesn't have its place."""
    path = state_dir / RECORD
    try:
        record = json.loads(private_file.read(path))
        unit, enabled, running = str(record["unit"]), record["enabled"], record["running"]
        strike_out = partial(_revoke_by_digest, state_dir, str(record["tokenDigest"]))
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError) as failure:
        raise NovascaleError(
            f"{path} can't be read ({failure}), so NovaScale's service isn't started again: start"
            f" it by its helper `novascale-codex`, and remove {path}"
        ) from failure
    end: list[Step] = [Do("shut its token out of appmux", strike_out), Remove(path)]
    if unit not in UNITS.values() or not where.place(unit).exists():
        return end  # it was uninstalled meanwhile
    return [*where.start_other(unit, enabled=bool(enabled), running=bool(running)), *end]
