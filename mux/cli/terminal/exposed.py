"""Words and questions of ``appmux setup`` about listeners that show or let in more than meant."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from mux import documents
from mux.cli.terminal import confirmation
from mux.config.addresses import TcpAddress, parse_listen_url
from mux.config.load import Settled, default_file
from mux.config.model import Config
from mux.config.values import toml_value
from mux.host.setup import Plan, SetupError
from mux.host.tailnet import TAILNET, TAILNET_6


def refuse_open(settled: Settled) -> None:
    """Raise ``SetupError`` where nobody chose the listener that would ask for no token.

    That is ``listen``'s default under a file of the user's that says nothing of tokens. What the
    user wrote is asked about by ``ask``.
    """
    config = settled.config
    if config.auth.mode is None and settled.origins["listen"] == "default" and settled.file:
        token = default_file().with_name("token")
        raise SetupError(
            f"{settled.file} is yours, so it isn't changed; with it {', '.join(_open(config))}"
            " would ask nobody for a token, and setup makes no such listener. Add one of these,"
            " then run this again:\n"
            f"  listen = {toml_value(('unix://',))}\n"
            f'or\n  [auth]\n  mode = "capability-token"\n  token_file = {toml_value(str(token))}'
        )


def ask(plan: Plan, *, yes: bool, dry_run: bool) -> None:
    """Say what can be read along or reached without a token, and go on only after a yes.

    Raises ``UnansweredError``.
    """
    warned = False
    if clear := list(_in_clear((*plan.config.listen, plan.url))):
        click.echo(
            f"\n{', '.join(clear)}: tokens, and all that is said, go over that network in clear."
            " Whoever can read along there can then do what you can. Better are the Tailnet's"
            " address, `wss://` with a certificate, or a proxy with one before loopback"
            f" ({documents.page('proxy')})."
        )
        warned = True
    if plan.config.auth.mode is None and (doors := list(_open(plan.config))):
        click.echo(
            f"\n{', '.join(doors)}: your file lets every process of this machine in there, without"
            " a token; a proxy or tunnel before it would let in whoever reaches that."
        )
        warned = True
    if warned and not dry_run:
        confirmation.confirm("Listen there all the same?", yes=yes)


def _tcp(urls: tuple[str, ...]) -> Iterator[TcpAddress]:
    for url in dict.fromkeys(urls):
        address = parse_listen_url(url, Path())
        if isinstance(address, TcpAddress):
            yield address


def _in_clear(urls: tuple[str, ...]) -> Iterator[str]:
    for each in _tcp(urls):
        private = each.loopback or each.ip in TAILNET or each.ip in TAILNET_6
        if not each.tls and not private:
            yield each.url


def _open(config: Config) -> Iterator[str]:
    return (each.url for each in _tcp(config.listen))
