"""``appmux stdio`` with ``--help``, or with arguments that ``entry`` leaves to click."""

from __future__ import annotations

import sys

import click

from mux.cli.common.options import exits
from mux.config import locate
from mux.stdio import bridge, command_line


@click.command(epilog=exits("0 the program or the broker ended it", "1 no broker is there"))
@click.option("--socket", metavar="PATH", help="The broker's unix socket, if it isn't found.")
@click.option(
    "--wait",
    type=click.FloatRange(min=0),
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait for a broker that is gone; with 0, end then.",
)
@click.option(
    "-c",
    "--config",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="What this program's threads may do: approval_policy, sandbox_mode and the like.",
)
def stdio(socket: str | None, wait: float, overrides: tuple[str, ...]) -> None:
    """Attach a program that speaks JSON lines on stdin and stdout, as to `codex app-server`.

    The socket is that of APPMUX_SOCKET, else the running broker's, else Codex's control socket. If
    nothing listens there the service is started, if there is one.
    """
    read = command_line.read_overrides(overrides, (), "appmux stdio")
    sys.exit(bridge.run(locate.socket_path(socket) if socket else None, wait, read))
