"""``appmux service``: the broker as a service of this user.

``host.service`` does the work; the person is asked here before something of theirs is replaced.
``setup`` installs by the same functions.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from mux.cli.confirmation import UnansweredError, confirm
from mux.cli.options import config_flag, sudo_flag, take_over_flag, yes_flag
from mux.config.codex_binary import find_codex
from mux.config.load import load
from mux.config.model import Config
from mux.host import novascale, steps, take_over
from mux.host import service as ours
from mux.host.service import UnitFile
from mux.host.socket_owner import socket_owner
from mux.host.steps import Step


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
    settled = load({}, os.environ, config_file)
    find_codex(settled.config.codex_bin, os.environ, settled.origins["codex_bin"])
    where = ours.supervisor(os.environ)
    wanted = ours.wanted(settled, os.environ, allow_sudo=allow_sudo)
    places = ours.look(where.files(wanted))
    where.require()
    if not where.occupies():
        ours.refuse_occupied(settled.config, os.environ, taking_over=take_over and not no_start)
    ask_to_replace(places, yes=yes)
    with taking_over(settled.config, wanted=take_over and not no_start):
        steps.perform(ours.installing(where, places, start=not no_start), click.echo)
    click.echo("installed" + ("; it starts with your next login" if no_start else " and running"))
    if not where.lingers():
        click.echo(where.after_logout())


@service.command()
def start() -> None:
    """Start the installed service, if it doesn't run already."""
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
    config = load({}, os.environ, None).config
    where = ours.supervisor(os.environ)
    doing: list[Step] = ours.uninstalling(where)
    back = novascale.giving_back(where, config.state_dir)
    if not doing and not back:
        click.echo("nothing to do: appmux isn't installed as a service")
        return
    where.require()
    confirm("Stop and remove the service, and interrupt what runs in it?", yes=yes)
    steps.perform([*doing, *back], click.echo)
    click.echo("uninstalled" + ("; NovaScale's service has its place back" if back else ""))


@service.command(name="status")
def service_status() -> None:
    """Show what the service manager says of it; exits 1 if it doesn't run.

    `appmux status` asks the broker itself.
    """
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
    where = ours.supervisor(os.environ)
    wanted = ours.wanted(load({}, os.environ, config_file), os.environ, allow_sudo=allow_sudo)
    for path, text in where.files(wanted).items():
        click.echo(f"# {path}", err=True)
        click.echo(text)


@contextmanager
def taking_over(config: Config, *, wanted: bool) -> Iterator[None]:
    """Let nobody but the service get Codex's control socket inside, if that is ``wanted``."""
    path = ours.control_socket(config, os.environ) if wanted else None
    found = socket_owner(path) if path is not None else None
    if path is None or found is None or not found.codex:
        yield
        return
    with take_over.vacated(path, math.inf, click.echo):
        yield


def ask_to_replace(places: Iterable[UnitFile], *, yes: bool) -> None:
    changed = [place for place in places if place.state == "ours"]
    for place in changed:
        click.echo(place.difference())
    if changed:
        names = ", ".join(str(place.path) for place in changed)
        confirm(f"Replace {names}, and restart the service?", yes=yes)
