"""``appmux tailnet``: https by this machine's own name in its Tailnet, on, off, and how it is.

The running broker is asked by ``mux/tailnet/*``. Where none runs, the choice is kept for the next
one, and tailscaled is asked from here.

Used by ``setup`` too, which asks the same question.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

import click

from mux.cli.common import broker
from mux.cli.common.broker import Json
from mux.cli.common.invitation import PhoneAddress
from mux.cli.common.options import WholeLines, broker_flags, exits, json_flag, outcome
from mux.cli.common.settings import of_broker
from mux.cli.terminal import confirmation
from mux.config.model import Config
from mux.errors import AppmuxError
from mux.posix import private_file
from mux.tailnet import choice, tailscaled
from mux.tailnet.node import Node, TailscaledError
from mux.text import day

DEADLINE: Final = 200.0
"""Seconds: a first certificate may take half a minute, and who orders it waits for two minutes."""


class NotEnabledError(AppmuxError):
    """https isn't served; the text says why, and what to do."""


@click.group(cls=WholeLines)
def tailnet() -> None:
    """Serve the page over https by this machine's name in its Tailnet.

    Tailscale gets the certificate and renews it; `tailscale serve` and its mappings are left alone.
    """


@tailnet.command(epilog=exits("0 it is as it should be, or off", "1 something is wrong"))
@json_flag
@broker_flags
def status(as_json: bool, config_file: Path | None, state_dir: Path | None) -> None:
    """Show whether https is on, by which name, until when, and what is in the way."""
    config = of_broker(config_file, state_dir)
    with outcome(as_json) as done:
        shown = fetch_status(config)
        done.update(shown)
        show(shown)
    sys.exit(1 if shown["enabled"] and shown["trouble"] else 0)


@tailnet.command(epilog=exits("0 https is on", "1 it isn't, and what to do is said"))
@click.option("--yes", "-y", is_flag=True, help="The name may become public.")
@json_flag
@broker_flags
def enable(yes: bool, as_json: bool, config_file: Path | None, state_dir: Path | None) -> None:
    """Switch https on: get a certificate for this machine's name, which becomes public by that."""
    config = of_broker(config_file, state_dir)
    with outcome(as_json) as done:
        node = require_node(config)
        explain(node, config)
        confirmation.confirm("Have it made public?", yes=yes)
        shown = switch_on(config, node.name)
        done.update(shown or {"enabled": True, "name": node.name})
        if shown is None:
            click.echo("on: the broker gets the certificate when it starts (`appmux serve`)")
        else:
            show(shown)
    sys.exit(0 if shown is None or shown["url"] else 1)


@tailnet.command(epilog=exits("0 https is off", "1 that failed"))
@json_flag
@broker_flags
def disable(as_json: bool, config_file: Path | None, state_dir: Path | None) -> None:
    """Switch https off. What stands in public lists stays there."""
    config = of_broker(config_file, state_dir)
    with outcome(as_json) as done:
        shown = _ask(config, "mux/tailnet/disable")
        if shown is None:
            choice.remove(config.state_dir)
        done.update(shown or {"enabled": False})
        click.echo("off")


# -- asking ----------------------------------------------------------------------------------------


def fetch_status(config: Config) -> Json:
    """Return the status of https: the broker's, or the one that a broker would have."""
    shown = _ask(config, "mux/tailnet/read")
    if shown is not None:
        return shown
    chosen = choice.read(config.state_dir)
    shown = {
        "enabled": chosen is not None, "name": chosen, "url": None, "addresses": [],
        "certificateUntil": None, "trouble": None, "remedy": None,
    }  # fmt: skip
    try:
        node = tailscaled.find(config.tailnet.socket).node()
        shown["name"] = chosen or node.name or None
        node.require_https()
    except TailscaledError as failure:
        shown |= {"trouble": str(failure), "remedy": failure.remedy}
    else:
        if chosen is not None:
            shown |= {"trouble": "no broker runs", "remedy": "`appmux service start`"}
    return shown


def require_node(config: Config) -> Node:
    """Return this machine in its Tailnet, which can have a certificate. Raises ``AppmuxError``."""
    try:
        node = tailscaled.find(config.tailnet.socket).node()
        node.require_https()
    except TailscaledError as failure:
        raise NotEnabledError(f"{failure}: {failure.remedy}") from failure
    return node


def switch_on(config: Config, name: str) -> Json | None:
    """Have https served by this name; return how it is then, or None if no broker runs yet."""
    shown = _ask(config, "mux/tailnet/enable", {"name": name})
    if shown is None:
        private_file.make_directory(config.state_dir)
        choice.write(config.state_dir, name)
    return shown


def _ask(config: Config, method: str, params: Json | None = None) -> Json | None:
    """Return the broker's answer; None if none runs. Raises ``AppmuxError``."""
    try:
        urls = broker.urls(config.state_dir)
    except broker.NoBrokerError:
        return None
    with broker.connected(urls) as connection:
        return connection.request(method, params, DEADLINE)


# -- telling ---------------------------------------------------------------------------------------


def page(name: str, config: Config) -> str:
    """Return the page's address by this name."""
    return f"{PhoneAddress('wss', name, config.tailnet.port).origin}/"


def explain(node: Node, config: Config) -> None:
    """Print what it means to switch https on."""
    click.echo(
        f"A phone's browser needs https. Tailscale can get a certificate for {node.name}, and the"
        f" page is at {page(node.name, config)} then.\n"
        f"  The name becomes public by that, for ever: every certificate stands in public lists"
        " (Certificate Transparency). Whoever reads it there still can't connect: only your tailnet"
        " can."
    )


def show(shown: Json) -> None:
    """Print the status of https."""
    if shown["url"]:
        addresses = ", ".join(shown["addresses"])
        until = day(shown["certificateUntil"])
        click.echo(f"on: {shown['url']} (at {addresses}; certificate until {until})")
    elif shown["enabled"]:
        click.echo(f"on, but not served: {shown['name']}")
    else:
        name = f"; this machine is {shown['name']}" if shown["name"] else ""
        click.echo(f"off{name}" + ("" if shown["trouble"] else ": `appmux tailnet enable`"))
    if shown["trouble"]:
        click.echo(f"{shown['trouble']}\n→ {shown['remedy']}")


def offered(config: Config, *, https: bool | None, ask: bool) -> tuple[Node | None, Json]:
    """Find out whether `setup` is to switch https on; return our node if so, and what to record.

    ``https``: what was said on the command line. Where nothing is said, and nobody can be asked, it
    stays off.
    """
    if https is False:
        return None, {"wanted": False}
    way = tailscaled.find(config.tailnet.socket)
    try:
        node = way.node()
        node.require_https()
    except TailscaledError as failure:
        if https or way.socket is not None or way.command:
            click.echo(f"no https on the Tailnet: {failure}\n  → {failure.remedy}")
        return None, {"wanted": https, "trouble": str(failure), "remedy": failure.remedy}
    if choice.read(config.state_dir) == node.name:  # as an earlier setup was told
        return node, {"wanted": True, "name": node.name}
    explain(node, config)
    if https is None and ask and confirmation.is_terminal():
        https = click.confirm("Have the name made public, for https?")
    if not https:
        click.echo("  Without that: no https. `--https` says yes, `appmux tailnet enable` later.")
        return None, {"wanted": https, "name": node.name}
    return node, {"wanted": True, "name": node.name}
