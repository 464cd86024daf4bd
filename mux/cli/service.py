"""The commands of a host's operator: ``appmux service``, ``setup``, ``doctor``.

``host.service``, ``host.setup`` and ``doctor`` do the work; the person is asked here before
something of theirs is replaced. Modules are imported inside the command that needs them, as in
``main``.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from mux.errors import AppmuxError

if TYPE_CHECKING:
    from mux.config.load import Settled
    from mux.config.model import Config
    from mux.host.novascale import Vanilla
    from mux.host.service import Supervisor, UnitFile
    from mux.host.setup import Plan
    from mux.host.steps import Step

PATH = click.Path(path_type=Path)

Decorated = TypeVar("Decorated", bound=Callable[..., Any])


class UnansweredError(AppmuxError):
    """A question got no answer because nobody is there, or the answer was no."""


def _shared(*options: Callable[[Decorated], Decorated]) -> Callable[[Decorated], Decorated]:
    def decorate(command: Decorated) -> Decorated:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


config_flag = click.option(
    "--config", "config_file", type=PATH, metavar="FILE", help="TOML, as in serve."
)
sudo_flag = click.option(
    "--allow-sudo", is_flag=True, help="Let approved commands use sudo and other setuid programs."
)
take_over_flag = click.option(
    "--take-over",
    is_flag=True,
    help="Where Codex's own daemon has the control socket: wait until nothing runs in it, have it"
    " stop, and take its place. Never ends a turn.",
)
yes_flag = click.option("--yes", "-y", is_flag=True, help="Ask nothing.")


def _settle(config_file: Path | None, **flags: object) -> Settled:
    from mux.config.load import load

    return load(flags, os.environ, config_file)


# -- service ---------------------------------------------------------------------------------------


@click.group()
def service() -> None:
    """Run the broker as a service of this user: by systemd on Linux, by launchd on macOS."""


@service.command()
@config_flag
@sudo_flag
@yes_flag
@click.option("--no-start", is_flag=True, help="Have it start with the next login only.")
@take_over_flag
def install(
    config_file: Path | None, allow_sudo: bool, yes: bool, no_start: bool, take_over: bool
) -> None:
    """Install the service with the present settings, and start it.

    Run it again after a change of `listen`. A file that appmux didn't write is never replaced;
    one that it did, only after a yes.
    """
    from mux.config.codex_binary import find_codex
    from mux.host import service as ours
    from mux.host import steps

    settled = _settle(config_file)
    find_codex(settled.config.codex_bin, os.environ, settled.origins["codex_bin"])
    where = ours.supervisor(os.environ)
    wanted = ours.wanted(settled, os.environ, allow_sudo=allow_sudo)
    places = ours.look(where.files(wanted))
    where.require()
    if not where.occupies():
        ours.refuse_occupied(settled.config, os.environ, taking_over=take_over and not no_start)
    _ask_to_replace(places, yes=yes)
    with _taking_over(settled.config, wanted=take_over and not no_start):
        steps.perform(ours.installing(where, places, start=not no_start), click.echo)
    click.echo("installed" + ("; it starts with your next login" if no_start else " and running"))
    if not where.lingers():
        click.echo(where.after_logout())


@service.command()
def start() -> None:
    """Start the installed service, if it doesn't run already."""
    from mux.host import service as ours
    from mux.host import steps

    where = ours.supervisor(os.environ)
    doing = ours.waking(where)
    where.require()
    steps.perform(doing, click.echo)


@service.command()
@yes_flag
def uninstall(yes: bool) -> None:
    """Stop the service and remove its files; NovaScale's gets its place back.

    Settings, token and journal stay where they are.
    """
    from mux.host import novascale, steps
    from mux.host import service as ours

    config = _settle(None).config
    where = ours.supervisor(os.environ)
    doing: list[Step] = ours.uninstalling(where)
    back = novascale.giving_back(where, config.state_dir)
    if not doing and not back:
        click.echo("nothing to do: appmux isn't installed as a service")
        return
    where.require()
    _confirm("Stop and remove the service, and interrupt what runs in it?", yes=yes)
    steps.perform([*doing, *back], click.echo)
    click.echo("uninstalled" + ("; NovaScale's service has its place back" if back else ""))


@service.command(name="status")
def service_status() -> None:
    """Show what the service manager says of it; exits 1 if it doesn't run.

    `appmux status` asks the broker itself.
    """
    from mux.host import service as ours

    where = ours.supervisor(os.environ)
    for name, value in where.status():
        click.echo(f"{name:<10} {value}")
    for path in where.paths:
        click.echo(f"{'file':<10} {path}{'' if path.exists() else ' (absent)'}")
    sys.exit(0 if where.running() else 1)


@service.command()
@click.option("--lines", "-n", type=click.IntRange(min=1), default=100, show_default=True)
@click.option("--follow", "-f", is_flag=True, help="Go on as new lines come.")
def logs(lines: int, follow: bool) -> None:
    """Show the broker's log."""
    from mux.host import service as ours

    command = ours.supervisor(os.environ).logs(lines, follow)
    try:
        os.execvp(command[0], command)
    except OSError as failure:
        raise UnansweredError(f"can't run `{command[0]}`: {failure.strerror}") from failure


@service.command(name="print")
@config_flag
@sudo_flag
def print_files(config_file: Path | None, allow_sudo: bool) -> None:
    """Print the files that `install` would write, and change nothing."""
    from mux.host import service as ours

    where = ours.supervisor(os.environ)
    wanted = ours.wanted(_settle(config_file), os.environ, allow_sudo=allow_sudo)
    for path, text in where.files(wanted).items():
        click.echo(f"# {path}", err=True)
        click.echo(text)


@contextmanager
def _taking_over(config: Config, *, wanted: bool) -> Iterator[None]:
    """Let nobody but the service get Codex's control socket inside, if that is ``wanted``."""
    from mux.host import service as ours
    from mux.host import take_over
    from mux.host.socket_owner import socket_owner

    path = ours.control_socket(config, os.environ) if wanted else None
    found = socket_owner(path) if path is not None else None
    if path is None or found is None or not found.codex:
        yield
        return
    with take_over.vacated(path, math.inf, click.echo):
        yield


def _ask_to_replace(places: Iterable[UnitFile], *, yes: bool) -> None:
    changed = [place for place in places if place.state == "ours"]
    for place in changed:
        click.echo(place.difference())
    if changed:
        names = ", ".join(str(place.path) for place in changed)
        _confirm(f"Replace {names}, and restart the service?", yes=yes)


def _confirm(question: str, *, yes: bool) -> None:
    """Return only after a yes. Raises ``UnansweredError``."""
    if yes:
        return
    if not _terminal():
        raise UnansweredError(f"{question} There is no terminal to ask on: say it with --yes")
    if not click.confirm(question):
        raise UnansweredError("nothing was changed")


def _terminal() -> bool:
    """Return whether somebody is there to ask."""
    return sys.stdin.isatty()


# -- setup -----------------------------------------------------------------------------------------


@click.command()
@yes_flag
@click.option("--no-start", is_flag=True, help="Install the service, but don't start it.")
@click.option("--dry-run", is_flag=True, help="Print what would be done, and change nothing.")
@click.option("--host", metavar="IP", help="Where phones connect (default: the Tailnet address).")
@sudo_flag
@take_over_flag
def setup(
    *, yes: bool, no_start: bool, dry_run: bool, host: str | None, allow_sudo: bool, take_over: bool
) -> None:
    """Set this host up: settings, token, service.

    Finds codex and the Tailnet address, makes a token, installs and starts the service, waits until
    it is ready, and offers to pair a phone. Where NovaScale's own service runs, offers to take its
    place, so that paired phones go on as they are. What is there already is kept.
    """
    from mux.config.codex_binary import codex_home, find_codex
    from mux.host import service as ours
    from mux.host import setup as setting_up

    settled = _settle(None)
    codex = find_codex(settled.config.codex_bin, os.environ, settled.origins["codex_bin"])
    where = ours.supervisor(os.environ)
    if not no_start and not dry_run:
        where.require()
    _tell_of_codex(codex, codex_home(os.environ), os.environ)
    vanilla = _offer_to_take(where, ask=not yes and not dry_run, no_start=no_start)
    plan = setting_up.plan(
        os.environ,
        where,
        host=_host(host, vanilla, ask=not yes and not dry_run),
        vanilla=vanilla,
        start=not no_start,
        linger=True,
        allow_sudo=allow_sudo,
        taking_over=take_over and not no_start,
    )
    _tell_plan(plan, whole=dry_run or not yes)
    if dry_run:
        click.echo("\nNothing was changed (--dry-run).")
        return
    _ask_to_replace(plan.places, yes=yes)
    _confirm("Do this?", yes=yes)
    with _taking_over(plan.config, wanted=take_over and not no_start):
        setting_up.perform(plan, os.environ, click.echo, start=not no_start)
    _tell_end(plan, started=not no_start)
    if not no_start and plan.vanilla is None:
        _offer_to_pair(plan, ask=not yes)


def _tell_of_codex(codex: Path, home: Path, environ: Mapping[str, str]) -> None:
    import trio

    from mux.host import codex_login
    from mux.host.service import environment_file
    from mux.upstream.version import codex_version

    click.echo(f"codex {trio.run(codex_version, codex)}: {codex}")
    found = codex_login.look(codex, home, environ, environment_file())
    click.echo(f"  {found.words}" + (f": {found.remedy}" if found.remedy else ""))


def _offer_to_take(where: Supervisor, *, ask: bool, no_start: bool) -> Vanilla | None:
    from mux.host import novascale

    vanilla = novascale.find(where, Path.home())
    if vanilla is None or novascale.taken(_settle(None).config.state_dir):
        return None
    click.echo(
        f"NovaScale's own service listens at {vanilla.url}. appmux can take its place: at the same"
        " address, with the same token, so that paired phones go on as they are.\n  Turns that run"
        " in it are interrupted. `appmux service uninstall` gives the place back."
    )
    if no_start:
        click.echo("  Not with --no-start: until the next login phones would reach nothing.")
        return None
    if ask and not (_terminal() and click.confirm("Take its place?", default=True)):
        raise UnansweredError(
            "nothing was changed: two services at one address can't be. Give appmux its place, or"
            " write a config file of your own with another address"
        )
    return vanilla


def _host(named: str | None, vanilla: Vanilla | None, *, ask: bool) -> str:
    from mux.host import tailnet
    from mux.host.setup import host_to_use

    own = tailnet.own()
    host = host_to_use(named, vanilla, own)
    if host is not None:
        return host
    loopback = "127.0.0.1"
    if own:
        click.echo(f"addresses in the Tailnet's range: {', '.join(own)}")
    else:
        click.echo(
            "no Tailnet address (100.64.0.0/10) on this machine, so loopback is suggested, which"
            " phones reach only through a tunnel; `tailscale up` gives one, --host takes any other"
        )
    suggested = own[0] if own else loopback
    if not ask or not _terminal():
        return suggested
    return str(click.prompt("Address where phones connect", default=suggested))


def _tell_plan(plan: Plan, *, whole: bool) -> None:
    from mux.host import steps
    from mux.host.steps import Write

    click.echo(f"phones connect to {plan.url}\n")
    units = {place.path for place in plan.places}  # `service print` shows them, with their comments
    for step in plan.steps if whole else ():
        click.echo(f"- {steps.told(step)}")
        if isinstance(step, Write) and not step.secret and step.path not in units:
            click.echo("".join(f"    {line}\n" for line in step.text.splitlines()))
    if plan.missing:
        click.echo("Your config file stays as it is. For phones to connect, it needs:")
        click.echo("".join(f"    {line}\n" for line in plan.missing))


def _tell_end(plan: Plan, *, started: bool) -> None:
    if not started:
        click.echo("done; it starts with your next login, or by `appmux service install`")
        return
    click.echo(f"ready at {plan.url}")
    if plan.vanilla is not None:
        click.echo("phones that are paired go on as they are")
    if not plan.where.lingers():
        click.echo(plan.where.after_logout())


def _offer_to_pair(plan: Plan, *, ask: bool) -> None:
    if not (ask and _terminal() and click.confirm("Pair a phone now?", default=True)):
        click.echo("pair a phone by `appmux pair`")
        return
    import trio

    from mux.cli import pair
    from mux.cli.devices import USUAL

    sys.exit(trio.run(pair.run, plan.config, pair.Wish("paired", USUAL)))


# -- doctor ----------------------------------------------------------------------------------------


@click.command()
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@click.option("--state-dir", type=PATH, metavar="DIR", help="The broker's, as in serve.")
@config_flag
def doctor(as_json: bool, state_dir: Path | None, config_file: Path | None) -> None:
    """Look for what is wrong, and say what to do; exits 1 if anything is.

    Codex and its login, the addresses and who has them, who writes which thread, the running
    broker and its app-server, disk, clock, the service. Changes nothing.
    """
    import trio

    from mux.cli.doctor.report import run

    flags = {"state_dir": state_dir}
    sys.exit(trio.run(run, flags, config_file, dict(os.environ), as_json))


COMMANDS = (service, setup, doctor)
"""The commands that ``main`` registers."""
