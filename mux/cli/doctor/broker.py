"""The doctor's checks around the broker: whether it runs, its app-server, addresses, threads.

From the broker's own report, and from ``processes``.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, TypeAlias

import trio

from mux import documents
from mux.cli.common.broker import BrokerError, ask
from mux.cli.doctor.addresses import own_processes
from mux.cli.doctor.finding import Finding
from mux.config.addresses import (
    parse_listen_url,
)
from mux.config.codex_binary import codex_home
from mux.config.locate import CONTROL_SOCKET
from mux.config.model import Config
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
    findings = [_summary(report), *_app_server(report["appServer"]), *_store(report.get("store"))]
    findings += _devices(report.get("devices"))
    findings += _notices(report.get("notices"))
    answer = readiness.probe(config, environ)
    if answer != readiness.OK and all(each.verdict != "wrong" for each in findings):
        remedy = "wait a moment; if it stays so, `appmux service logs`"
        findings.append(Finding("readiness", "wrong", f"/readyz says {answer}", remedy))
    return findings, report


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
        present = [each for each in sockets if Path(str(each)).is_socket()]
        if not present:
            raise
        return [f"unix://{each}" for each in present]


def _lock_holder(config: Config) -> Process | None:
    """Return the broker that has the state directory, or else its supervisor."""
    lock = config.state_dir / state_dir.LOCK
    holders = processes.of_locks([lock]).get(lock, [])
    named = state_dir.named_holder(config.state_dir)
    return min(holders, key=lambda holder: holder.pid != named, default=None)


def _no_address(config: Config) -> Finding:
    holder = _lock_holder(config)
    if holder is None:
        says = f"none runs on {config.state_dir}"
        return Finding("broker", "wrong", says, "`appmux setup`, or `appmux serve` by hand")
    says = f"{holder} has {config.state_dir}, but doesn't say where it listens"
    remedy = f"it may be starting; if it stays so, end it: `kill {holder.pid}`"
    return Finding("broker", "wrong", says, remedy, {"pid": holder.pid})


def _no_answer(config: Config, reason: str) -> Finding:
    holder = _lock_holder(config)
    if holder is None:
        says = f"none runs; the last one on {config.state_dir} was killed"
        return Finding("broker", "wrong", says, "`appmux serve`, or `appmux service install`")
    remedy = f"it hangs: `kill {holder.pid}`, and `kill -9 {holder.pid}` if it stays"
    return Finding("broker", "wrong", f"{holder} gives no answer: {reason}", remedy)


def _summary(report: Report) -> Finding:
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
        remedy = (
            f"`appmux notices test` says what each service answers; see {documents.page('push')}"
        )
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


# -- threads ---------------------------------------------------------------------------------------


def threads(environ: Mapping[str, str], report: Report | None) -> Iterator[Finding]:
    """Report threads that another process writes: others are told they "have an active writer"."""
    directory = codex_home(environ) / THREAD_LOCKS
    held = processes.of_locks(sorted(directory.glob("*.lock")))
    own = own_processes(report)
    makes_way = socket_owner(codex_home(environ) / CONTROL_SOCKET) if held else None
    here = 0
    for path, holders in held.items():
        if any(own.intersection(processes.ancestors(holder.pid)) for holder in holders):
            here += 1
        else:
            yield _foreign(path, holders, makes_way)
    if here or not held:
        says = f"{here} loaded in the broker's app-server" if here else "none is loaded anywhere"
        yield Finding("threads", "well", says, facts={"loaded": here})


def _foreign(path: Path, holders: list[Process], makes_way: SocketOwner | None) -> Finding:
    thread = path.stem
    names = "; ".join(str(holder) for holder in holders)
    pid = holders[0].pid
    if makes_way is not None and makes_way.codex and holders[0] == makes_way.holder:
        end = "take that one's place by `appmux serve --take-over`"
    else:
        end = f"end that program, or `kill {pid}`" if holders[0] != UNSEEN else "end that program"
    return Finding(
        f"thread {thread}",
        "wrong",
        f"{names} writes it, so that all others are told it `already has an active writer`",
        f"leave the thread there (codex lets go of it after {LETS_GO} s without followers), or"
        f" {end}",
        {"thread": thread, "pids": [holder.pid for holder in holders], "since": holders[0].since},
    )
