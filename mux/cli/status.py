"""``appmux status``, and ``appmux`` alone: what waits for a person, and who does what.

The first line is what waits. Then come the threads, the clients, and the app-server. The broker of
a state directory is asked by ``mux/status`` and ``mux/approvals/list``.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any, Final

import click
from rich.console import Console, Group, RenderableType
from rich.live import Live

from mux.cli import broker, runtime, screen, waiting
from mux.cli.broker import Broker, BrokerError, Json
from mux.cli.options import broker_flags, exits, json_flag, state_dir_of
from mux.errors import AppmuxError
from mux.host import terminals

LOOK_SECONDS: Final = 1.0
"""Seconds between two looks of ``--watch``: a person reads along."""

WELCOME: Final = """\
No appmux runs here yet. It lets your terminals, phones and editors share one codex.

  appmux demo     see what it does: no account, no network, half a minute
  appmux setup    set it up as a service of yours, and pair a phone
  appmux serve    run it in this terminal
  appmux --help   all commands"""

INTERRUPTED: Final = 130
"""A shell's exit status for "ended by SIGINT"."""


@click.command(epilog=exits("0 the broker answered", "1 no broker answered"))
@click.option("--watch", is_flag=True, help="Go on, and redraw in place; Ctrl-C ends it.")
@click.option("--all", "everything", is_flag=True, help="All clients, and what is on disk.")
@json_flag
@broker_flags
def status(
    watch: bool, everything: bool, as_json: bool, config_file: Path | None, state_dir: Path | None
) -> None:
    """Show what waits for you, the threads, the clients, and the app-server.

    `appmux` alone does the same.
    """
    directory = state_dir_of(config_file, state_dir)
    if watch:
        sys.exit(follow(directory, everything=everything, as_json=as_json))
    sys.exit(run(directory, everything=everything, as_json=as_json))


def alone() -> int:
    """Do what ``appmux`` without a command does; return the exit status."""
    directory = state_dir_of(None, None)
    try:
        return run(directory)
    except broker.NoBrokerError:
        click.echo(WELCOME, err=True)
        return 1


def run(state_dir: Path, *, everything: bool = False, as_json: bool = False) -> int:
    """Print the report, and return the exit status. Raises ``AppmuxError`` if no broker answers."""
    with broker.connected(broker.urls(state_dir)) as asked:
        report = look(asked)
    if as_json:
        sys.stdout.write(json.dumps(report, indent=2) + "\n")
        return 0
    console = screen.console()
    console.print(render(report, console.width, everything=everything))
    return 0


def look(asked: Broker) -> Json:
    """Return the broker's report, with the place of each client's process, and what waits."""
    report = asked.request("mux/status")
    report["approvals"] = asked.request("mux/approvals/list")["approvals"]
    places = _places(report["clients"])
    for each in report["clients"]:
        place = places.get(each["id"])
        each["terminal"] = None if place is None else place.terminal
        each["directory"] = None if place is None else place.directory
    return report


def _places(clients: list[Json]) -> dict[int, terminals.Place]:
    """Return where the clients' processes run, as far as this machine tells."""
    places = {each["id"]: terminals.of_process(pid) for each in clients if (pid := each.get("pid"))}
    return places | terminals.of_peers(
        {each["id"]: each["peer"] for each in clients if each["transport"] != "unix"}
    )


# -- watching --------------------------------------------------------------------------------------


def follow(state_dir: Path, *, everything: bool, as_json: bool) -> int:
    """Show the report again and again until a person ends it; return the exit status.

    On a terminal it is redrawn in place. Elsewhere it is printed whenever it has changed.
    """
    console = screen.console()
    shows = _Json() if as_json else _Redrawn(console) if console.is_terminal else _Printed(console)
    try:
        with shows:
            while True:
                try:
                    with broker.connected(broker.urls(state_dir)) as asked:
                        while True:
                            shows.show(look(asked), everything)
                            time.sleep(LOOK_SECONDS)
                except (AppmuxError, BrokerError) as failure:
                    shows.lost(str(failure))
                    time.sleep(LOOK_SECONDS)
    except KeyboardInterrupt:
        return INTERRUPTED


class _Json:
    """Prints a report a line, whenever it has changed in more than its ages."""

    def __init__(self) -> None:
        self._before = ""

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...

    def show(self, report: Json, _everything: bool) -> None:
        self._print(report, json.dumps(runtime.without_ages(report)))

    def lost(self, why: str) -> None:
        self._print({"trouble": why}, why)

    def _print(self, report: Json, compared: str) -> None:
        if compared != self._before:
            self._before = compared
            sys.stdout.write(json.dumps(report) + "\n")
            sys.stdout.flush()


class _Printed:
    """Prints the report whenever it has changed in more than its ages."""

    def __init__(self, console: Console) -> None:
        self._console, self._before = console, ""

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...

    def show(self, report: Json, everything: bool) -> None:
        compared = json.dumps(runtime.without_ages(report))
        if compared != self._before:
            self._before = compared
            self._console.print(render(report, self._console.width, everything=everything))
            sys.stdout.flush()

    def lost(self, why: str) -> None:
        if why != self._before:
            self._before = why
            self._console.print(screen.plain(why))
            sys.stdout.flush()


class _Redrawn:
    """Redraws the report in place; the last one stays on the screen."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, auto_refresh=False, screen=True)
        self._last: RenderableType = ""

    def __enter__(self) -> None:
        self._live.__enter__()

    def __exit__(self, *_: object) -> None:
        self._live.__exit__(None, None, None)
        self._console.print(self._last)

    def show(self, report: Json, everything: bool) -> None:
        self._draw(render(report, self._console.width, everything=everything))

    def lost(self, why: str) -> None:
        self._draw(screen.plain(why, "bold red"))

    def _draw(self, shown: RenderableType) -> None:
        self._last = shown
        self._live.update(shown, refresh=True)


# -- showing ---------------------------------------------------------------------------------------


def render(report: dict[str, Any], width: int, *, everything: bool = False) -> RenderableType:
    """Render the report for a screen of this width, without the connection that requested it."""
    return Group(
        *waiting.lines(report, width),
        *runtime.headlines(report),
        "",
        runtime.threads(report, width),
        "",
        runtime.clients(report, width, everything=everything),
        "",
        runtime.processes(report, everything=everything),
    )
<<<<<<< HEAD


@attrs.frozen
class _Names:
    """Client ids as a person reads them."""

    by_id: dict[int, str | None]

    def of(self, ids: Iterable[int]) -> str:
        return ", ".join(f"{self.by_id.get(id) or '?'} #{id}" for id in ids) or "nobody"


def _handover(broker: dict[str, Any]) -> list[tuple[str, str]]:
    trouble = broker.get("handoverTrouble")
    return [("handover", trouble)] if trouble else []


def _broker(report: dict[str, Any]) -> RenderableType:
    lines = Table.grid(padding=(0, 2))
    lines.add_column(no_wrap=True)
    lines.add_column(overflow="fold")
    broker = report["broker"]
    lines.add_row("appmux", _plain(f"{broker['version']}, pid {broker['pid']}"))
    for name, told in (
        *_handover(broker),
        *_app_server(report["appServer"]),
        *_journal(report.get("store")),
        *_audit(report.get("audit")),
        *_devices(report.get("devices")),
        *_notices(report.get("notices")),
        *_log(report.get("log")),
    ):
        lines.add_row(name, _plain(told))
    for number, each in enumerate(report["listeners"]):
        lines.add_row("" if number else "listening on", _plain(each["url"]))
    return lines


def _app_server(server: dict[str, Any]) -> Iterator[tuple[str, str]]:
    pid = f"pid {server['pid']}" if server.get("pid") else "no process"
    yield (
        "app-server",
        f"codex {server['version'] or '?'}, {server['state']}, {pid}, generation"
        f" {server['generation']}"
        + (f", up {span(server['uptimeSeconds'])}" if server.get("pid") else ""),
    )
    if server["state"] == DOWN:
        wait = span(server.get("nextStartSeconds") or 0.0)
        yield (
            "",
            f"it died too often; it is started again in {wait}, by `appmux restart` at once",
        )
    if server.get("outdated"):
        yield "", "the binary on disk is another one than the one that runs: `appmux restart`"
    if server.get("restartWaitsFor"):
        yield "", f"a restart waits for {', '.join(server['restartWaitsFor'])}"
    if server["state"] != READY:
        for line in server.get("lastWords", ())[-LAST_WORDS:]:
            yield "", f"it said: {line}"
    yield (
        "requests",
        f"{server['requestsInFlight']} in flight, {server['requestsWaiting']} waiting for"
        f" something outside, {server['requestsQueued']} queued",
    )


def _journal(store: dict[str, Any] | None) -> Iterator[tuple[str, str]]:
    if store is None:
        return
    yield "journal", f"{store['nextSeq']} entries so far, {_bytes(store['bytes'])} on disk"
    if store["trouble"]:
        yield "", f"TROUBLE: {store['trouble']} ({store['unwrittenEntries']} entries in memory)"


def _audit(audit: dict[str, Any] | None) -> Iterator[tuple[str, str]]:
    if audit is None:
        return
    yield "audit log", f"{audit['records']} records so far, {_bytes(audit['bytes'])} on disk"
    if audit["trouble"]:
        yield "", f"TROUBLE: {audit['trouble']} ({audit['unwrittenRecords']} records in memory)"


def _devices(devices: dict[str, Any] | None) -> Iterator[tuple[str, str]]:
    if devices is not None and devices["trouble"]:
        yield "devices", f"TROUBLE: {devices['trouble']}"


def _notices(notices: dict[str, Any] | None) -> Iterator[tuple[str, str]]:
    if notices is None:
        return
    reached = ", ".join(f"{count} by {name}" for name, count in notices["endpoints"].items())
    queued = notices["pushes"].get("queued", 0)
    waits = f", {queued} pushes wait" if queued else ""
    yield "notices", f"endpoints: {reached or 'none'}; {notices['standing']} stand{waits}"
    if notices["trouble"]:
        yield "", f"TROUBLE: {notices['trouble']}"


def _log(log: dict[str, Any] | None) -> Iterator[tuple[str, str]]:
    if log is not None and log["droppedLines"]:
        yield "log", f"{log['droppedLines']} lines could not be written and are lost"
        if log["trouble"]:
            yield "", f"TROUBLE: {log['trouble']}"


def _client(each: dict[str, Any]) -> list[str]:
    name, kind, behind = each["principal"], each["principalKind"], each.get("behind")
    return [
        f"#{each['id']}",
        each["name"] or f"({each['state']})",
        each["version"] or "",
        name if name == kind else f"{name} ({kind})",
        _peer(each["transport"], each["peer"]),
        span(each["sinceSeconds"]),
        "" if each.get("droveSeconds") is None else f"{span(each['droveSeconds'])} ago",
        str(len(each["threads"])),
        _bytes(each["bytesOwed"]) + (f", {behind} entries behind" if behind is not None else ""),
    ]


def _peer(transport: str, peer: str) -> str:
    return transport if peer == transport else f"{transport} {peer}"


def _thread(each: dict[str, Any], names: _Names) -> list[str]:
    turn = each["turn"] or ""
    if each.get("queued"):
        held = f", held: {each['held']}" if each["held"] else ""
        turn = f"{turn} ({each['queued']} queued{held})".strip()
    return [each["id"], each["status"], turn, names.of(each["followers"])]


def _server_request(each: dict[str, Any], names: _Names) -> list[str]:
    state = "waits"
    if each["answeredBy"] is not None:
        state = f"answered by {names.of([each['answeredBy']])}"
    else:
        if each.get("policy", "first") != "first":
            state += f" ({each['policy']}) for {each['waitsFor']}"
        if each.get("votes"):
            voters = ", ".join(f"{vote['name']} ({vote['principal']})" for vote in each["votes"])
            state += f"; yes: {voters}"
        if each["abstained"]:
            state += f"; abstained: {names.of(each['abstained'])}"
    return [
        str(each["id"]),
        each["method"],
        each["thread"] or "",
        span(each["ageSeconds"]),
        names.of(each["offeredTo"]),
        state,
    ]


def _table(title: str, columns: list[str], rows: list[list[str]]) -> RenderableType:
    if not rows:
        return Text(f"{title}: none\n")
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    for column in columns:
        # An id that is cut can't be copied.
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(_plain(cell) for cell in row))
    return table


def _plain(text: str) -> Text:
    """Return text as it is: no markup, no control characters."""
    return Text(visible(text))


def _bytes(count: int) -> str:
    if count < KIB:
        return f"{count} B"
    if count < KIB * KIB:
        return f"{count / KIB:.1f} KiB"
    return f"{count / KIB / KIB:.1f} MiB"
=======
>>>>>>> main
