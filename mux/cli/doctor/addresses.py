"""The doctor's checks of the addresses: who listens there, and whom a listener trusts.

An address is bound for the check itself alone.
"""

from __future__ import annotations

import errno
import shlex
import socket
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, TypeAlias
from urllib.parse import urlsplit

from mux import documents
from mux.cli.doctor.finding import Finding
from mux.config.addresses import (
    Address,
    TcpAddress,
    UnixAddress,
    parse_listen_url,
    refuse_open_door,
)
from mux.config.codex_binary import codex_home
from mux.config.model import Config
from mux.errors import AppmuxError
from mux.host import processes
from mux.host.processes import UNSEEN, Process
from mux.host.socket_owner import socket_owner
from mux.storage import state_dir

Report: TypeAlias = dict[str, Any]

SECURITY: Final = f"`The agent itself` in {documents.page('security')}"


def addresses(
    config: Config, environ: Mapping[str, str], report: Report | None
) -> Iterator[Finding]:
    """Check each address of the settings: ours, free, or taken by whom."""
    home = codex_home(environ)
    try:
        parsed = [parse_listen_url(url, home) for url in config.listen]
        refuse_open_door(parsed, config.auth.mode)
    except AppmuxError as failure:
        yield Finding("listen", "wrong", str(failure))
        return
    own = own_processes(report)
    for address in parsed:
        if not (own and isinstance(address, TcpAddress) and address.port == 0):
            yield _address(address, own)  # (of any port the broker tells which one it has)
    known = {
        address.url if isinstance(address, TcpAddress) else f"unix://{address}"
        for address in parsed
    }
    for each in () if report is None else report["listeners"]:
        by_name = report is not None and each["url"] == _tailnets(report)
        if each["url"] not in known and not by_name:
            says = "the broker listens there, by a flag or by settings that it was started with"
            if _any_port(each["url"], parsed):
                says = "the broker listens there, on a port that the system chose"
            yield Finding(each["url"], "well", says)


def _tailnets(report: Report) -> str | None:
    """Return the listener's URL by the Tailnet's name, which ``tailnet`` reports on."""
    origin = urlsplit((report.get("tailnet") or {}).get("url") or "")
    return f"wss://{origin.hostname}:{origin.port or 443}" if origin.hostname else None


def _any_port(url: str, parsed: list[Address]) -> bool:
    """Return whether a listener has the port that the kernel chose for one of these addresses."""
    host = url.rpartition(":")[0]
    return any(
        isinstance(each, TcpAddress) and each.port == 0 and each.url.rpartition(":")[0] == host
        for each in parsed
    )


def own_processes(report: Report | None) -> set[int]:
    """Return the processes of the broker: itself, and its supervisor."""
    if report is None:
        return set()
    broker = report["broker"]
    return {pid for pid in (broker["pid"], broker.get("supervisor")) if pid is not None}


def trust(config: Config, environ: Mapping[str, str]) -> Iterator[Finding]:
    """Report whom the listeners trust without proof: local clients, and the agent itself."""
    try:
        parsed = [parse_listen_url(url, codex_home(environ)) for url in config.listen]
    except AppmuxError:
        return  # reported by ``addresses``
    here = [each for each in parsed if isinstance(each, TcpAddress) and each.loopback]
    yield from _local(config, parsed, [each.url for each in here if not each.local])
    if here and config.auth.mode is None:
        urls = ", ".join(each.url for each in here)
        yield Finding(
            "open door",
            "note",
            f"every local process gets in at {urls} with all scopes, and can answer approvals: so"
            " can what the agent runs, where its sandbox has network",
            f"`--ws-auth`, or only the unix socket; see {SECURITY}",
        )
    networked = _networked(codex_home(environ))
    if networked is not None:
        yield Finding(
            "agent",
            "note",
            f"{networked} gives commands in codex's sandbox network: they reach the broker's unix"
            " socket as you do, and can answer their own approvals",
            f"take it out, or have a paired device's word asked for (`quorum`): see {SECURITY}",
        )


def _local(config: Config, parsed: list[Address], others: list[str]) -> Iterator[Finding]:
    rules = [rule.policy for rule in config.approvals.rules]
    if "local" not in (config.approvals.policy, *rules):
        return
    if not any(isinstance(each, UnixAddress) or each.local for each in parsed):
        yield Finding(
            "local",
            "wrong",
            "[approvals] says `local`, and no listener does: nobody's yes counts",
            "add `unix://` to `listen`, or write one `ws+local://IP:PORT` where no proxy or tunnel"
            " passes anything on",
        )
    elif others:
        yield Finding(
            "local",
            "note",
            f"who comes at {', '.join(others)} isn't `local`: a proxy could be in between",
            "write it `ws+local://IP:PORT` in `listen` if none passes anything on",
        )


def _networked(home: Path) -> str | None:
    """Return the setting of codex's that gives its sandbox network, if any."""
    file = home / "config.toml"
    try:
        whole = tomllib.loads(file.read_bytes().decode())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError):
        return None  # no file, or codex itself says what is wrong
    profiles = whole.get("profiles")
    tables = [whole, *(profiles.values() if isinstance(profiles, dict) else ())]
    for table in tables:
        if not isinstance(table, dict):
            continue
        if table.get("sandbox_mode") == "danger-full-access":
            return f"`sandbox_mode` in {file}"
        workspace = table.get("sandbox_workspace_write")
        if isinstance(workspace, dict) and workspace.get("network_access") is True:
            return f"`network_access` in {file}"
    return None


def _address(address: Address, own: set[int]) -> Finding:
    if isinstance(address, TcpAddress):
        about = address.url
        processes_there = processes.of_port(address.ip, address.port) if address.port else []
    else:
        about = "control socket" if address.control else f"unix://{address}"
        processes_there = processes.of_unix_path(address.path)
    facts = {"address": str(address), "pids": [holder.pid for holder in processes_there]}
    if any(holder.pid in own for holder in processes_there):
        return Finding(about, "well", "the broker listens there", facts=facts)
    if processes_there:
        return _taken(about, address, processes_there, facts)
    if isinstance(address, TcpAddress) and not _ours(address):
        remedy = "`tailscale up`, if it is a Tailnet's; else change `listen`"
        return Finding(about, "wrong", "this machine has no such address now", remedy, facts)
    if own:
        says = "the broker doesn't listen there: it was started with other settings"
        remedy = "`appmux service install` starts it with these; a flag of `serve` goes over them"
        return Finding(about, "note", says, remedy, facts)
    return Finding(about, "well", "free", facts=facts)


def _taken(about: str, address: Address, holders: list[Process], facts: Report) -> Finding:
    names = "; ".join(str(holder) for holder in holders)
    if any("systemd" in holder.command.partition(" ")[0] for holder in holders):
        says = f"systemd has it for the service ({names})"
        return Finding(about, "note", says, "it starts the broker at the first connection", facts)
    pid = holders[0].pid
    if (found_broker := _other_broker(holders)) is not None:
        pid, other = found_broker
        says = f"another appmux of yours listens there: state directory {other}, process {pid}"
        remedy = (
            f"use that one (`appmux status --state-dir {shlex.quote(str(other))}`), or give one of"
            " them another address in `listen`"
        )
        return Finding(about, "wrong", says, remedy, facts | {"stateDir": str(other)})
    remedy = f"stop it: `kill {pid}`" if holders[0] != UNSEEN else "stop it as that user"
    if isinstance(address, UnixAddress) and (owner := socket_owner(address.path)):
        names = str(owner)
        if owner.codex:
            remedy = (
                "`appmux service install --take-over` (or `appmux serve --take-over`): waits until"
                " nothing runs in it, has it stop, and takes its place"
            )
    return Finding(about, "wrong", f"{names} listens there", remedy, facts)


def _other_broker(holders: list[Process]) -> tuple[int, Path] | None:
    """Return the broker among these processes, and its state directory; None if none is ours.

    (Its supervisor has the listeners and the lock, too.)
    """
    for holder in holders:
        for file in processes.locked_files(holder.pid):
            if file.name == state_dir.LOCK:
                return state_dir.named_holder(file.parent) or holder.pid, file.parent
    return None


def _ours(address: TcpAddress) -> bool:
    """Return whether this machine has the address. Nothing is left bound."""
    family = socket.AF_INET if address.ip.version == 4 else socket.AF_INET6  # noqa: PLR2004
    with socket.socket(family, socket.SOCK_STREAM) as trial:
        try:
            trial.bind((str(address.ip), 0))
        except OSError as failure:
            return failure.errno != errno.EADDRNOTAVAIL
    return True
