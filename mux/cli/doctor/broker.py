"""The doctor's checks around the broker: whether it runs, its app-server, addresses, threads.

From the broker's own report, and from ``processes``.
"""

from __future__ import annotations

import errno
import shlex
import socket
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, TypeAlias

import attrs
import trio

from mux.cli.broker import BrokerError, ask
from mux.cli.doctor.finding import Finding
from mux.config.addresses import (
    Address,
    TcpAddress,
    UnixAddress,
    parse_listen_url,
    refuse_open_door,
)
from mux.config.codex_binary import codex_home
from mux.config.locate import CONTROL_SOCKET
from mux.config.model import Config
from mux.errors import AppmuxError
from mux.host import processes, readiness
from mux.host.processes import UNSEEN, Process
from mux.host.socket_owner import SocketOwner, socket_owner
from mux.storage import state_dir
from mux.storage.state_dir import StateDirError

THREAD_LOCKS: Final = "thread-writer-locks"
"""Directory below CODEX_HOME: codex locks ``ID.lock`` while a process has the thread loaded."""

LETS_GO: Final = 60
"""Seconds after which codex unloads an idle thread that nobody follows."""

LAST_WORDS: Final = 3

Report: TypeAlias = dict[str, Any]


# -- the broker ------------------------------------------------------------------------------------


async def broker(config: Config, environ: Mapping[str, str]) -> tuple[list[Finding], Report | None]:
    """Check whether a broker runs and is well; return its report too, if it gave one."""
    try:
        report = await trio.to_thread.run_sync(ask, _places(config, environ), "mux/status")
    except StateDirError:
        return [_no_address(config)], None
    except BrokerError as failure:
        return [_no_answer(config, str(failure))], None
    found = [_said(report), *_app_server(report["appServer"]), *_store(report.get("store"))]
    found += _devices(report.get("devices"))
    found += _notices(report.get("notices"))
    said = readiness.probe(config, environ)
    if said != readiness.OK and all(each.verdict != "wrong" for each in found):
        remedy = "wait a moment; if it stays so, `appmux service logs`"
        found.append(Finding("readiness", "wrong", f"/readyz says {said}", remedy))
    return found, report


def _places(config: Config, environ: Mapping[str, str]) -> list[str]:
    """Return the broker's URLs. Raises ``StateDirError`` if there is none."""
    try:
        return state_dir.listeners(config.state_dir)
    except StateDirError:
        if _lock_holder(config) is None:
            raise
        # On a full disk the broker couldn't write where it listens.
        home = codex_home(environ)
        sockets = [parse_listen_url(url, home) for url in config.listen if url[:5] == "unix:"]
        there = [each for each in sockets if Path(str(each)).is_socket()]
        if not there:
            raise
        return [f"unix://{each}" for each in there]


def _lock_holder(config: Config) -> Process | None:
    lock = config.state_dir / state_dir.LOCK
    return next(iter(processes.of_locks([lock]).get(lock, [])), None)


def _no_address(config: Config) -> Finding:
    holder = _lock_holder(config)
    if holder is None:
        says = f"none runs on {config.state_dir}"
        return Finding("broker", "wrong", says, "`appmux setup`, or `appmux serve` by hand")
    says = f"{holder} has {config.state_dir}, but doesn't say where it listens"
    remedy = f"it may be starting; if it stays so, end it: `kill {holder.pid}`"
    return Finding("broker", "wrong", says, remedy, {"pid": holder.pid})


def _no_answer(config: Config, why: str) -> Finding:
    holder = _lock_holder(config)
    if holder is None:
        says = f"none runs; the last one on {config.state_dir} was killed"
        return Finding("broker", "wrong", says, "`appmux serve`, or `appmux service install`")
    remedy = f"it hangs: `kill {holder.pid}`, and `kill -9 {holder.pid}` if it stays"
    return Finding("broker", "wrong", f"{holder} gives no answer: {why}", remedy)


def _said(report: Report) -> Finding:
    here = report["broker"]
    clients = len(report["clients"]) - 1  # this one
    pending = len(report["serverRequests"])
    says = f"appmux {here['version']}, process {here['pid']}, {clients} clients"
    if pending:
        says += f", {pending} approvals pending"
    return Finding("broker", "well", says, facts={"pid": here["pid"], "clients": clients})


def _app_server(server: Report) -> Iterator[Finding]:
    version, state = server["version"] or "?", server["state"]
    facts = {name: server.get(name) for name in ("pid", "state", "version", "generation")}
    if state != "ready":
        words = " / ".join(server.get("lastWords", ())[-LAST_WORDS:])
        says = f"codex {version} is {state}" + (f"; it said: {words}" if words else "")
        remedy = "`appmux restart` tries again" if state == "down" else "wait a moment"
        yield Finding("app-server", "wrong", says, remedy, facts)
    elif server.get("restartWaitsFor"):
        waits = ", ".join(server["restartWaitsFor"])
        says = f"codex {version}; a restart waits for {waits}"
        yield Finding("app-server", "note", says, "`appmux restart --now` doesn't wait", facts)
    elif server.get("outdated"):
        says = f"codex {version}; the binary on disk is another one by now"
        yield Finding("app-server", "note", says, "`appmux restart`", facts)
    else:
        says = f"codex {version}, generation {server['generation']}"
        yield Finding("app-server", "well", says, facts=facts)


def _store(store: Report | None) -> Iterator[Finding]:
    if store is None:
        return
    if store["trouble"]:
        says = f"not written: {store['trouble']}"
        remedy = "see the disk below; what isn't written is kept in memory, and tried again"
        yield Finding("journal", "wrong", says, remedy, store)
    else:
        yield Finding("journal", "well", f"{store['bytes'] // 1024} KiB on disk", facts=store)


def _devices(devices: Report | None) -> Iterator[Finding]:
    if devices is not None and devices["trouble"]:
        remedy = "make room on the disk; then it is written by itself"
        yield Finding("devices", "wrong", devices["trouble"], remedy, devices)


def _notices(notices: Report | None) -> Iterator[Finding]:
    if notices is None or not (notices["endpoints"] or notices["trouble"]):
        return
    if notices["trouble"]:
        remedy = "`appmux notices test` says what each service answers; see docs/push.md"
        yield Finding("push", "wrong", notices["trouble"], remedy, notices)
    else:
        count = sum(notices["endpoints"].values())
        queued = notices["pushes"].get("queued", 0)
        yield Finding("push", "well", f"{count} endpoints, {queued} pushes wait", facts=notices)
    for device in notices.get("unheard", ()):
        yield Finding(
            f"push to {device}",
            "note",
            "its push service took the last pushes, and the device has said of none that it came",
            "open the page on it: its settings say whether push is on; `appmux notices test"
            f" --device {shlex.quote(device)}` sends one",
        )


# -- addresses -------------------------------------------------------------------------------------


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
    own = _own(report)
    for address in parsed:
        yield _address(address, own)
    known = {
        address.url if isinstance(address, TcpAddress) else f"unix://{address}"
        for address in parsed
    }
    for each in () if report is None else report["listeners"]:
        if each["url"] not in known and not _any_port(each["url"], parsed):
            says = "the broker listens there, by a flag or by settings that it was started with"
            yield Finding(each["url"], "well", says)


def _any_port(url: str, parsed: list[Address]) -> bool:
    """Return whether a listener has the port that the kernel chose for one of these addresses."""
    host = url.rpartition(":")[0]
    return any(
        isinstance(each, TcpAddress) and each.port == 0 and each.url.rpartition(":")[0] == host
        for each in parsed
    )


def in_force(config: Config, report: Report | None) -> Config:
    """Return the settings with what the running broker was started with, if it tells."""
    settings = {} if report is None else report["broker"].get("settings") or {}
    if "authMode" not in settings:
        return config
    return attrs.evolve(config, auth=attrs.evolve(config.auth, mode=settings["authMode"]))


def _own(report: Report | None) -> set[int]:
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
            "`--ws-auth`, or only the unix socket; see `The agent itself` in docs/security.md",
        )
    networked = _networked(codex_home(environ))
    if networked is not None:
        yield Finding(
            "agent",
            "note",
            f"{networked} gives commands in codex's sandbox network: they reach the broker's unix"
            " socket as you do, and can answer their own approvals",
            "take it out, or have a paired device's word asked for (`quorum`): see `The agent"
            " itself` in docs/security.md",
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
        there = processes.of_port(address.ip, address.port) if address.port else []
    else:
        about = "control socket" if address.control else f"unix://{address}"
        there = processes.of_unix_path(address.path)
    facts = {"address": str(address), "pids": [holder.pid for holder in there]}
    if any(holder.pid in own for holder in there):
        return Finding(about, "well", "the broker listens there", facts=facts)
    if there:
        return _taken(about, address, there, facts)
    if isinstance(address, TcpAddress) and not _ours(address):
        remedy = "`tailscale up`, if it is a Tailnet's; else change `listen`"
        return Finding(about, "wrong", "this machine has no such address now", remedy, facts)
    if own and not (isinstance(address, TcpAddress) and address.port == 0):
        says = "the broker doesn't listen there: it was started with other settings"
        remedy = "`appmux service install` starts it with these; a flag of `serve` goes over them"
        return Finding(about, "note", says, remedy, facts)
    return Finding(about, "well", "free", facts=facts)


def _taken(about: str, address: Address, there: list[Process], facts: Report) -> Finding:
    names = "; ".join(str(holder) for holder in there)
    if any("systemd" in holder.command.partition(" ")[0] for holder in there):
        says = f"systemd has it for the service ({names})"
        return Finding(about, "note", says, "it starts the broker at the first connection", facts)
    pid = there[0].pid
    if (found_broker := _other_broker(there)) is not None:
        pid, other = found_broker
        says = f"another appmux of yours listens there: state directory {other}, process {pid}"
        remedy = (
            f"use that one (`appmux status --state-dir {shlex.quote(str(other))}`), or give one of"
            " them another address in `listen`"
        )
        return Finding(about, "wrong", says, remedy, facts | {"stateDir": str(other)})
    remedy = f"stop it: `kill {pid}`" if there[0] != UNSEEN else "stop it as that user"
    if isinstance(address, UnixAddress) and (found := socket_owner(address.path)):
        names = str(found)
        if found.codex:
            remedy = (
                "`appmux service install --take-over` (or `appmux serve --take-over`): waits until"
                " nothing runs in it, has it stop, and takes its place"
            )
    return Finding(about, "wrong", f"{names} listens there", remedy, facts)


def _other_broker(there: list[Process]) -> tuple[int, Path] | None:
    """Return the broker among these processes, and its state directory; None if none is ours.

    (Its supervisor has the listeners, too.)
    """
    for holder in there:
        for file in processes.locked_files(holder.pid):
            if file.name == state_dir.LOCK:
                return holder.pid, file.parent
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


# -- threads ---------------------------------------------------------------------------------------


def threads(environ: Mapping[str, str], report: Report | None) -> Iterator[Finding]:
    """Report threads that another process writes: others are told they "have an active writer"."""
    directory = codex_home(environ) / THREAD_LOCKS
    held = processes.of_locks(sorted(directory.glob("*.lock")))
    own = _own(report)
    makes_way = socket_owner(codex_home(environ) / CONTROL_SOCKET) if held else None
    here = 0
    for path, there in held.items():
        if any(own.intersection(processes.ancestors(holder.pid)) for holder in there):
            here += 1
        else:
            yield _foreign(path, there, makes_way)
    if here or not held:
        says = f"{here} loaded in the broker's app-server" if here else "none is loaded anywhere"
        yield Finding("threads", "well", says, facts={"loaded": here})


def _foreign(path: Path, there: list[Process], makes_way: SocketOwner | None) -> Finding:
    thread = path.stem
    names = "; ".join(str(holder) for holder in there)
    pid = there[0].pid
    if makes_way is not None and makes_way.codex and there[0] == makes_way.holder:
        end = "take that one's place by `appmux serve --take-over`"
    else:
        end = f"end that program, or `kill {pid}`" if there[0] != UNSEEN else "end that program"
    return Finding(
        f"thread {thread}",
        "wrong",
        f"{names} writes it, so that all others are told it `already has an active writer`",
        f"leave the thread there (codex lets go of it after {LETS_GO} s without followers), or"
        f" {end}",
        {"thread": thread, "pids": [holder.pid for holder in there], "since": there[0].since},
    )
