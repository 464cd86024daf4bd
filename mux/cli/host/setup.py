"""``appmux setup``: everything that a host needs, in one command.

``host.setup`` plans and does the work; the person is asked here.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import click
import trio

from mux import documents
from mux.cli.common import invitation
from mux.cli.common.broker import BrokerError
from mux.cli.common.options import (
    Json,
    exits,
    json_flag,
    outcome,
    sudo_flag,
    take_over_flag,
    yes_flag,
)
from mux.cli.devices import notices, pair
from mux.cli.devices import tailnet as tailnet_command
from mux.cli.host import service
from mux.cli.terminal import confirmation, exposed, output
from mux.config.codex_binary import codex_home, find_codex
from mux.config.load import load
from mux.config.model import Config
from mux.errors import AppmuxError
from mux.host import codex_login, novascale, steps, tailnet
from mux.host import service as ours
from mux.host import setup as setting_up
from mux.host.novascale import Vanilla
from mux.host.service import Supervisor, environment_file
from mux.host.setup import Plan, host_to_use
from mux.host.steps import Write
from mux.tailnet.node import Node
from mux.text import visible
from mux.upstream.version import codex_version


@click.command(epilog=exits("0 this host is set up", "1 something failed, or you said no"))
@yes_flag
@click.option("--no-start", is_flag=True, help="Install the service, but don't start it.")
@click.option(
    "--no-service", is_flag=True, help="Settings and token alone, as in a container; then `serve`."
)
@click.option("--dry-run", is_flag=True, help="Print what would be done, and change nothing.")
@click.option("--host", metavar="IP", help="Where phones connect (default: the Tailnet address).")
@click.option(
    "--https/--no-https",
    default=None,
    help="Serve the page over https by this machine's name in the Tailnet, which becomes public by"
    " that; --yes alone doesn't say yes to it.",
)
@sudo_flag
@take_over_flag
@json_flag
def setup(*, as_json: bool, **asked: Any) -> None:
    """Set this host up: settings, token, service, https on the Tailnet.

    Finds codex and the Tailnet address, makes a token, installs and starts the service, waits until
    it is ready, and offers to pair a phone and to send it a test push. Where NovaScale's own
    service runs, offers to take its place, so that paired phones go on as they are. What is there
    already is kept.
    """
    with outcome(as_json) as done:
        _set_up(done, offer_to_pair=not as_json, **asked)


def _set_up(
    done: Json,
    *,
    yes: bool,
    no_start: bool,
    no_service: bool,
    dry_run: bool,
    host: str | None,
    https: bool | None,
    allow_sudo: bool,
    take_over: bool,
    offer_to_pair: bool,
) -> None:
    settled = load({}, os.environ, None)
    exposed.refuse_open(settled)
    where = None if no_service else _supervisor()
    if where is None:
        codex = find_codex(settled.config.codex_bin, os.environ, settled.origins["codex_bin"])
    else:
        codex = ours.codex_of_service(settled, os.environ)
        if not no_start and not dry_run:
            _require(where)
    _print_codex(codex, codex_home(os.environ), os.environ)
    ask = not yes and not dry_run
    vanilla = None if where is None else _offer_to_take(where, ask=ask, no_start=no_start)
    plan = setting_up.plan(
        os.environ,
        where,
        host=_host(host, vanilla, ask=ask),
        vanilla=vanilla,
        start=not no_start,
        linger=True,
        allow_sudo=allow_sudo,
        taking_over=take_over and not no_start,
    )
    _print_plan(plan, whole=dry_run or not yes)
    exposed.ask(plan, yes=yes, dry_run=dry_run)
    done |= {"url": plan.url, "steps": [steps.describe(step) for step in plan.steps], "done": False}
    node, done["https"] = tailnet_command.offered(plan.config, https=https, ask=ask)
    if node is not None:
        page = tailnet_command.page(node.name, plan.config)
        done["steps"].append(step := f"get a certificate for {node.name}, and serve {page}")
        click.echo(f"- {step}")
    if dry_run:
        click.echo("\nNothing was changed (--dry-run).")
        return
    service.ask_to_replace(plan.places, yes=yes)
    confirmation.confirm("Do this?", yes=yes)
    taking_over = take_over and where is not None and not no_start
    with service.taking_over(plan.config, enabled=taking_over):
        setting_up.perform(plan, os.environ, click.echo, start=not no_start)
    done["done"] = True
    secure = node is not None and _serve_https(node, plan, done)
    if where is None:
        click.echo("done. Run it: appmux serve\nand pair a phone meanwhile: appmux pair")
        return
    _print_end(plan, where, started=not no_start)
    if offer_to_pair and not no_start and (plan.vanilla is None or secure):
        _offer_first_phone(plan.config, plan.url, ask=not yes, secure=secure)


def _serve_https(node: Node, plan: Plan, done: Json) -> bool:
    """Switch https on; return whether it is served. A failure is printed, and isn't fatal."""
    click.echo("have a certificate made (the first one may take half a minute)")
    try:
        shown = tailnet_command.switch_on(plan.config, node.name)
    except AppmuxError as failure:
        click.echo(f"no https on the Tailnet: {failure}\n  → `appmux tailnet enable` tries again")
        return False
    if shown is None:
        click.echo("https: the broker gets the certificate when it starts")
        return False
    done["https"] = shown
    tailnet_command.show(shown)
    return bool(shown["url"])


WITHOUT: Final = "`appmux setup --no-service` does the rest"
"""What is said where there is no service manager, or none that answers."""


def _supervisor() -> Supervisor:
    """Return the service manager. Raises ``AppmuxError`` with the way without one."""
    try:
        return ours.supervisor(os.environ)
    except ours.ServiceError as failure:
        raise ours.ServiceError(f"{failure}; {WITHOUT}") from None


def _require(where: Supervisor) -> None:
    """Raise ``AppmuxError`` with the way without it if the service manager can't be used."""
    try:
        where.require()
    except AppmuxError as failure:
        raise ours.ServiceError(f"{failure}; {WITHOUT}") from None


def _print_codex(codex: Path, home: Path, environ: Mapping[str, str]) -> None:
    click.echo(f"codex {trio.run(codex_version, codex)}: {codex}")
    login = codex_login.check(codex, home, environ, environment_file())
    click.echo(f"  {login.words}" + (f": {login.remedy}" if login.remedy else ""))


def _offer_to_take(where: Supervisor, *, ask: bool, no_start: bool) -> Vanilla | None:
    vanilla = novascale.find(where, Path.home())
    if vanilla is None or novascale.taken(load({}, os.environ, None).config.state_dir):
        return None
    click.echo(
        f"NovaScale's own service listens at {vanilla.url}. appmux can take its place: at the same"
        " address, with the same token, so that paired phones go on as they are.\n  Turns that run"
        " in it are interrupted. `appmux service uninstall` gives the place back."
    )
    if no_start:
        click.echo("  Not with --no-start: until the next login phones would reach nothing.")
        return None
    if ask and not (confirmation.is_terminal() and click.confirm("Take its place?", default=True)):
        raise confirmation.UnansweredError(
            "nothing was changed: two services at one address can't be. Give appmux its place, or"
            " write a config file of your own with another address"
        )
    return vanilla


def _host(named: str | None, vanilla: Vanilla | None, *, ask: bool) -> str:
    own = tailnet.own()
    host = host_to_use(named, vanilla, own)
    if host is not None:
        return host
    loopback = "127.0.0.1"
    if own:
        click.echo(f"addresses in the Tailnet's range: {', '.join(own)}")
    else:
        output.echo(
            "no Tailnet address (100.64.0.0/10) on this machine, so loopback is suggested, which"
            " phones reach only through a tunnel; `tailscale up` gives one, --host takes any other"
        )
    suggested = own[0] if own else loopback
    if not ask or not confirmation.is_terminal():
        return suggested
    return str(click.prompt("Address where phones connect", default=suggested))


def _print_plan(plan: Plan, *, whole: bool) -> None:
    click.echo(f"phones connect to {plan.url}\n")
    units = {place.path for place in plan.places}  # `service print` shows them, with their comments
    for step in plan.steps if whole else ():
        click.echo(f"- {steps.describe(step)}")
        if isinstance(step, Write) and not step.secret and step.path not in units:
            click.echo("".join(f"    {line}\n" for line in step.text.splitlines()))
    if plan.missing:
        click.echo("Your config file stays as it is. For phones to connect, it needs:")
        click.echo("".join(f"    {line}\n" for line in plan.missing))


def _print_end(plan: Plan, where: Supervisor, *, started: bool) -> None:
    if not started:
        click.echo("done; it starts with your next login, or by `appmux service install`")
        return
    click.echo(f"ready at {plan.url}")
    if plan.vanilla is not None:
        click.echo("phones that are paired go on as they are")
    if not where.lingers():
        click.echo(where.after_logout())


_BY_APP = "a phone's app by `appmux pair --app`"

NOT_FROM_A_PHONE = (
    "No phone reaches this address by itself. `appmux open` shows the page in this machine's"
    f" browser; {documents.page('remote')} has the ways for a phone."
)

HOW_TO_TURN_ON = (
    "Now have it buzz. On the phone, in the page, open Settings and turn push on. (On an iPhone put"
    " the page on the Home Screen first, and pair it there once more.)"
)


def _offer_first_phone(config: Config, url: str, *, ask: bool, secure: bool) -> None:
    """Offer to pair a phone: its browser if there is https, else an app that reaches ``url``.

    Then send it test pushes, if it has a browser.
    """
    if not secure and invitation.is_loopback(url):
        output.echo(NOT_FROM_A_PHONE)
        return
    if not (
        ask and confirmation.is_terminal() and click.confirm("Pair a phone now?", default=True)
    ):
        click.echo(f"pair {'a phone by `appmux pair`' if secure else _BY_APP}")
        return
    spec = pair.PairingSpec("paired", pair.USUAL, app=not secure)
    if trio.run(pair.run, config, spec) == 0 and secure:
        _offer_test_push(config)


def _offer_test_push(config: Config) -> None:
    """Send test pushes for as long as the person wants to see one."""
    output.echo(HOW_TO_TURN_ON)
    while click.confirm("Is push on? Then send a test", default=True):
        try:
            answers = notices.send_test(config.state_dir)
        except BrokerError as refused:
            if refused.code is None:
                raise
            click.echo("No device has push on yet.")
            continue
        for answer in answers:
            click.echo(visible(f"{answer['device']}, by {answer['service']}: {answer['said']}"))
        if all(map(notices.is_delivered, answers)):
            return
