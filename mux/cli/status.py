"""``appmux status``: the running broker's report on itself, for a person or a program.

The broker of a state directory is asked by one ``mux/status`` request.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import attrs
import click
import trio
from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from mux import client
from mux.cli.options import broker_flags, json_flag, of_broker
from mux.client import ClientError
from mux.config.model import Config
from mux.storage import state_dir
from mux.text import span, visible

ANSWER_DEADLINE: Final = 10.0
"""Seconds. The broker answers in a millisecond; a slower one has a problem of its own."""

PIPED_WIDTH: Final = 200
"""Columns where stdout is no terminal: a line that wraps is hard on ``grep``."""

LAST_WORDS: Final = 5
"""Lines of the app-server's stderr that are shown while it isn't ready."""

READY: Final = "ready"
DOWN: Final = "down"

KIB: Final = 1024


@click.command()
@json_flag
@broker_flags
def status(as_json: bool, config_file: Path | None, state_dir: Path | None) -> None:
    """Show the running broker: app-server, clients, threads, what waits for an answer."""
    sys.exit(trio.run(run, of_broker(config_file, state_dir), as_json))


async def run(config: Config, as_json: bool) -> int:
    """Print the report, and return the exit status. Raises ``AppmuxError`` if no broker answers."""
    report = await ask(state_dir.listeners(config.state_dir))
    if as_json:
        sys.stdout.write(json.dumps(report, indent=2) + "\n")
        return 0
    console = Console()
    if not console.is_terminal:
        console = Console(width=PIPED_WIDTH)
    console.print(render(report))
    return 0


# -- asking ----------------------------------------------------------------------------------------


async def ask(urls: Iterable[str]) -> dict[str, Any]:
    """Return the report from the first listener that answers. Raises ``ClientError``."""
    with trio.move_on_after(ANSWER_DEADLINE):
        async with client.connect_any(urls) as connection:
            return await connection.request("mux/status")
    raise ClientError(f"the broker gave no answer within {ANSWER_DEADLINE:.0f} s")


# -- showing ---------------------------------------------------------------------------------------


def render(report: dict[str, Any]) -> RenderableType:
    """Render the report as tables, without the connection that requested it."""
    clients = {each["id"]: each for each in report["clients"]}
    clients.pop(report.get("asker"), None)
    names = _Names({id: each["name"] for id, each in clients.items()})
    return Group(
        _broker(report),
        Text(),
        _table(
            "clients",
            [
                "id",
                "name",
                "version",
                "principal",
                "transport",
                "since",
                "drove",
                "threads",
                "bytes owed",
            ],
            [_client(each) for each in clients.values()],
        ),
        _table(
            "threads followed",
            ["thread", "status", "running turn", "followers"],
            [_thread(each, names) for each in report["threads"]],
        ),
        _table(
            "server requests pending",
            ["id", "method", "thread", "age", "offered to", "state"],
            [_server_request(each, names) for each in report["serverRequests"]],
        ),
    )


@attrs.frozen
class _Names:
    """Client ids as a person reads them."""

    by_id: dict[int, str | None]

    def of(self, ids: Iterable[int]) -> str:
        return ", ".join(f"{self.by_id.get(id) or '?'} #{id}" for id in ids) or "nobody"


def _broker(report: dict[str, Any]) -> RenderableType:
    lines = Table.grid(padding=(0, 2))
    lines.add_column(no_wrap=True)
    lines.add_column(overflow="fold")
    broker = report["broker"]
    lines.add_row("appmux", _plain(f"{broker['version']}, pid {broker['pid']}"))
    for name, told in (
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
