"""The parts of ``appmux status``: what is wrong, the threads, the clients, the app-server.

Each part is made of the report of ``mux/status``. Texts that others chose are made harmless.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any, Final

import attrs
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

import mux
from mux.cli.common.broker import Json
from mux.cli.terminal import screen
from mux.text import span

MOST_CLIENTS: Final = 10
"""Clients that are listed without ``--all``: those that did something last."""

LAST_WORDS: Final = 5
"""Lines of the app-server's stderr that are shown while it isn't ready."""

READY: Final = "ready"
DOWN: Final = "down"

NO_TOKEN: Final = " (asks for no token: a proxy or tunnel before it lets in whoever reaches that)"
"""What is said of an open listener. What says that it is a proxy is refused there."""

KIB: Final = 1024

AGES: Final = ("Seconds", "SecondsAgo", "Milliseconds", "seq", "nextSeq", "asker")
"""Ends of the names of fields that change by themselves."""


def without_ages(value: Any) -> Any:
    """Return a report without the fields that change while nothing happens."""
    if isinstance(value, dict):
        return {key: without_ages(each) for key, each in value.items() if not key.endswith(AGES)}
    return [without_ages(each) for each in value] if isinstance(value, list) else value


# -- what is wrong ---------------------------------------------------------------------------------


def headlines(report: Json) -> Iterator[Text]:
    """Yield a line for each thing that is wrong, or waits for a restart."""
    server, own = report["appServer"], report["broker"]
    if server["state"] == DOWN:
        wait = span(server.get("nextStartSeconds") or 0.0)
        text = f"the app-server is down: it died too often, and is started again in {wait};"
        yield screen.line((text, "bold red"), " at once: appmux restart")
    if server.get("outdated"):
        text = "restart needed: codex on disk is another than the one that runs:"
        yield screen.line((text, "yellow"), " appmux restart")
    if server.get("restartWaitsFor"):
        yield screen.line(f"a restart waits for {', '.join(server['restartWaitsFor'])}")
    if own["version"] != mux.__version__:
        text = f"restart needed: appmux {mux.__version__} is installed, {own['version']} runs:"
        yield screen.line((text, "yellow"), " appmux restart --broker")
    settings = own.get("settings") or {}
    if settings.get("changed"):
        text = f"restart needed: {', '.join(settings['changed'])} changed in the settings:"
        yield screen.line((text, "yellow"), " appmux restart --broker")
    if settings.get("trouble"):
        yield screen.line(("the settings can't be used any more: ", "red"), settings["trouble"])
    if own.get("handoverTrouble"):
        yield screen.line(("TROUBLE with a handover: ", "bold red"), own["handoverTrouble"])
    for part in ("store", "audit", "devices", "notices", "log"):
        trouble = (report.get(part) or {}).get("trouble")
        if trouble:
            yield screen.line((f"TROUBLE with the {PARTS[part]}: ", "bold red"), trouble)
    https = report.get("tailnet") or {}
    if https.get("enabled") and https["trouble"]:
        words = f"{https['trouble']}; {https['remedy']}"
        yield screen.line(("TROUBLE with https on the Tailnet: ", "bold red"), words)


PARTS: Final = {
    "store": "journal",
    "audit": "audit log",
    "devices": "paired devices",
    "notices": "notices",
    "log": "log",
}


# -- clients and threads ---------------------------------------------------------------------------


@attrs.frozen
class Names:
    """Client ids as a person reads them."""

    by_id: dict[int, str | None]

    @classmethod
    def of_report(cls, report: Json) -> Names:
        """Return the names of a report's clients, but for the one that asked."""
        return cls(
            {
                each["id"]: each["name"]
                for each in report["clients"]
                if each["id"] != report["asker"]
            }
        )

    def of(self, ids: Iterable[int]) -> str:
        """Return these clients; "nobody" for none."""
        return ", ".join(f"{self.by_id.get(id) or '?'} #{id}" for id in ids) or "nobody"


def threads(report: Json, width: int) -> RenderableType:
    """Return the table of the threads that are open: what each is, and who drives it."""
    names = Names.of_report(report)
    rows = sorted(report["threads"], key=lambda each: each["turn"] is None)
    if not rows:
        return screen.line(("Threads: none is open", "bold"))
    short = screen.short_ids(each["id"] for each in rows)
    columns = ["thread", "title", "directory", "state", "driven by"]
    cells = [
        [
            short[each["id"]],
            each.get("title") or "(no title)",
            screen.path(each.get("directory")),
            _state(each),
            _driver(each, names),
        ]
        for each in rows
    ]
    if width >= screen.WIDE:
        columns.append("followed by")
        for row, card in zip(cells, rows, strict=True):
            row.append(names.of(card["followers"]))
    cuts: dict[str, screen.Cut] = {"title": "right", "directory": "left", "followed by": "right"}
    return screen.table("Threads", columns, cells, width, cuts=cuts)


def _state(thread: Json) -> str:
    state = "running" if thread["turn"] else str(thread["status"])
    if thread.get("queued"):
        state += f", {thread['queued']} queued"
    if thread.get("held"):
        state += f", held ({thread['held']})"
    return state


def _driver(thread: Json, names: Names) -> str:
    by = thread.get("turnBy")
    if by is not None:
        here = by["client"] in names.by_id
        return f"{by['name'] or '?'} #{by['client']}" if here else f"{by['name']}, which has left"
    if thread["turn"]:
        return "?"
    return "" if thread["followers"] else "nobody follows"


def clients(report: Json, width: int, *, everything: bool) -> RenderableType:
    """Return the table of the clients, those that did something last first."""
    clients = [each for each in report["clients"] if each["id"] != report["asker"]]
    if not clients:
        return screen.line(("Clients: none is attached", "bold"))
    clients.sort(key=_quiet)
    shown = clients if everything else clients[:MOST_CLIENTS]
    wide = width >= screen.WIDE
    columns = ["id", "client", "runs in", "who", "since", "drove"]
    if wide:
        columns += ["threads", "owed"]
    table = screen.table(
        "Clients",
        columns,
        [_client(each, wide=wide) for each in shown],
        width,
        cuts={"client": "right", "runs in": "left", "who": "right"},
    )
    folded = len(clients) - len(shown)
    if folded:
        table.caption = f"and {folded} more: appmux status --all"
        table.caption_justify = "left"
        table.caption_style = "dim"
    return table


def overrides(report: Json) -> list[Text]:
    """Return a line for each client whose command line says what its threads may do, or more."""
    lines = []
    for client in report["clients"]:
        overrides = client.get("overrides") or {"values": {}, "ignored": []}
        held = [f"{key}={_value(value)}" for key, value in overrides["values"].items()]
        parts = [f"its threads have {', '.join(held)}"] if held else []
        parts += [f"ignored: {', '.join(overrides['ignored'])}"] if overrides["ignored"] else []
        if parts:
            lines.append(screen.plain(f"#{client['id']} {'; '.join(parts)}", "dim"))
    return lines


def _value(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _quiet(client: Json) -> float:
    """Return how long a client has been quiet."""
    since = float(client["sinceSeconds"])
    drove = client.get("droveSeconds")
    return since if drove is None else min(since, float(drove))


def _client(each: Json, *, wide: bool) -> list[str]:
    name, kind, behind = each["principal"], each["principalKind"], each.get("behind")
    version = f" {each['version']}" if each["version"] else ""
    drove = each.get("droveSeconds")
    cells = [
        f"#{each['id']}",
        f"{each['name']}{version}" if each["name"] else f"({each['state']})",
        _runs_in(each),
        name if not wide or name == kind else f"{name} ({kind})",
        span(each["sinceSeconds"]),
        "" if drove is None else f"{span(drove)} ago",
    ]
    owed = screen_bytes(each["bytesOwed"])
    late = "" if behind is None else f", {behind} entries behind"
    if wide:
        cells += [str(len(each["threads"])), owed + late]
    elif behind is not None:
        cells[1] += f" ({behind} entries behind)"
    return cells


def _runs_in(each: Json) -> str:
    """Return the terminal and the directory of a client; else how it is connected."""
    place = [each.get("terminal") or "", screen.path(each.get("directory"))]
    known = ", ".join(part for part in place if part)
    if known:
        return known
    transport, peer = str(each["transport"]), str(each["peer"])
    return transport if peer == transport else f"{transport} {peer}"


# -- the processes ---------------------------------------------------------------------------------


def processes(report: Json, *, everything: bool) -> RenderableType:
    """Return the lines about the app-server, the broker, and its listeners."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True, style="bold")
    grid.add_column(overflow="fold")
    for name, text in (
        *_app_server(report["appServer"]),
        *_broker(report["broker"]),
        *(_kept(report) if everything else ()),
    ):
        grid.add_row(name, screen.plain(text))
    for number, each in enumerate(report["listeners"]):
        url = each["url"] + (NO_TOKEN if each.get("openDoor") else "")
        grid.add_row("" if number else "listening on", screen.plain(url))
    return grid


def _app_server(server: Json) -> Iterator[tuple[str, str]]:
    pid = f"pid {server['pid']}" if server.get("pid") else "no process"
    up = f", up {span(server['uptimeSeconds'])}" if server.get("pid") else ""
    yield "app-server", f"codex {server['version'] or '?'}, {server['state']}{up}, {pid}"
    end = server.get("lastEnd")
    if end is not None:
        ago = f"{span(end['secondsAgo'])} ago"
        reason = f"it died {ago}: {end['reason']}" if end["reason"] else f"as asked, {ago}"
        yield "", f"started again ({server['generation'] - 1} times so far): {reason}"
    if server["state"] != READY:
        for words in server.get("lastWords", ())[-LAST_WORDS:]:
            yield "", f"it said: {words}"
    busy = [server["requestsInFlight"], server["requestsWaiting"], server["requestsQueued"]]
    if any(busy):
        yield "requests", "{} in flight, {} waiting for something outside, {} queued".format(*busy)


def _broker(own: Json) -> Iterator[tuple[str, str]]:
    up = f", up {span(own['uptimeSeconds'])}" if "uptimeSeconds" in own else ""
    yield "broker", f"appmux {own['version']}{up}, pid {own['pid']}"
    file = (own.get("settings") or {}).get("file")
    if file:
        yield "settings", file


def _kept(report: Json) -> Iterator[tuple[str, str]]:
    store, audit, notices = report["store"], report["audit"], report["notices"]
    yield "journal", f"{store['nextSeq']} entries so far, {screen_bytes(store['bytes'])} on disk"
    if store["unwrittenEntries"]:
        yield "", f"{store['unwrittenEntries']} entries in memory"
    yield "audit log", f"{audit['records']} records so far, {screen_bytes(audit['bytes'])} on disk"
    reached = ", ".join(f"{count} by {name}" for name, count in notices["endpoints"].items())
    queued = notices["pushes"].get("queued", 0)
    waits = f", {queued} pushes wait" if queued else ""
    yield "notices", f"endpoints: {reached or 'none'}; {notices['standing']} stand{waits}"
    if report["log"]["droppedLines"]:
        yield "log", f"{report['log']['droppedLines']} lines could not be written and are lost"


def screen_bytes(count: int) -> str:
    """Return a number of bytes in its greatest unit."""
    if count < KIB:
        return f"{count} B"
    if count < KIB * KIB:
        return f"{count / KIB:.1f} KiB"
    return f"{count / KIB / KIB:.1f} MiB"
