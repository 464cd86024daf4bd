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

from mux.cli.common import broker
from mux.cli.common.broker import Broker, BrokerError, Json
from mux.cli.common.options import broker_flags, exits, json_flag, state_dir_of
from mux.cli.terminal import runtime, screen, waiting
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
    """Run ``appmux`` without a command; return the exit status."""
    directory = state_dir_of(None, None)
    try:
        return run(directory)
    except broker.NoBrokerError:
        click.echo(WELCOME, err=True)
        return 1


def run(state_dir: Path, *, everything: bool = False, as_json: bool = False) -> int:
    """Print the report, and return the exit status. Raises ``AppmuxError`` if no broker answers."""
    with broker.connected(broker.urls(state_dir)) as connection:
        report = fetch_report(connection)
    if as_json:
        sys.stdout.write(json.dumps(report, indent=2) + "\n")
        return 0
    console = screen.console()
    console.print(render(report, console.width, everything=everything))
    return 0


def fetch_report(connection: Broker) -> Json:
    """Return the broker's report, with the place of each client's process, and what waits."""
    report = connection.request("mux/status")
    report["approvals"] = connection.request("mux/approvals/list")["approvals"]
    places = _places(report["clients"])
    for client in report["clients"]:
        place = places.get(client["id"])
        client["terminal"] = None if place is None else place.terminal
        client["directory"] = None if place is None else place.directory
    return report


def _places(clients: list[Json]) -> dict[int, terminals.ClientLocation]:
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
                    with broker.connected(broker.urls(state_dir)) as connection:
                        while True:
                            shows.show(fetch_report(connection), everything)
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

    def lost(self, reason: str) -> None:
        self._print({"trouble": reason}, reason)

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

    def lost(self, reason: str) -> None:
        if reason != self._before:
            self._before = reason
            self._console.print(screen.plain(reason))
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

    def lost(self, reason: str) -> None:
        self._draw(screen.plain(reason, "bold red"))

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
        *runtime.overrides(report),
        "",
        runtime.processes(report, everything=everything),
    )
