"""``appmux service``: the broker as a service of this user.

``host.service`` does the work; the person is asked here before something of theirs is replaced.
``setup`` installs by the same functions.
"""

from __future__ import annotations

import json
import math
import os
import shlex
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from mux.cli.common import broker
from mux.cli.common.options import (
    Json,
    WholeLines,
    config_flag,
    exits,
    json_flag,
    outcome,
    state_dir_of,
    sudo_flag,
    take_over_flag,
    yes_flag,
)
from mux.cli.terminal.confirmation import UnansweredError, confirm
from mux.config.load import load
from mux.config.model import Config
from mux.errors import AppmuxError
from mux.host import novascale, steps, take_over
from mux.host import service as ours
from mux.host.service import UnitFile
from mux.host.socket_owner import socket_owner
from mux.host.steps import Step

_CHANGES = exits("0 done", "1 it failed, or you said no")


@click.group(cls=WholeLines)
def service() -> None:
    """Run the broker as a service of this user: by systemd on Linux, by launchd on macOS."""


@service.command(epilog=_CHANGES)
@config_flag
@sudo_flag
@yes_flag
@click.option("--no-start", is_flag=True, help="Have it start with the next login only.")
@take_over_flag
@json_flag
def install(
    *,
    config_file: Path | None,
    allow_sudo: bool,
    yes: bool,
    no_start: bool,
    take_over: bool,
    as_json: bool,
) -> None:
    """Install the service with the present settings, and start it.

    Run it again after a change of `listen`. A file that appmux didn't write is never replaced;
    one that it did, only after a yes.
    """
    settled = load({}, os.environ, config_file)
    ours.codex_of_service(settled, os.environ)  # says so, if the service won't find any
    where = ours.supervisor(os.environ)
    spec = ours.service_spec(settled, os.environ, allow_sudo=allow_sudo)
    places = ours.read_files(where.files(spec))
    where.require()
    if not where.occupies():
        ours.refuse_occupied(settled.config, os.environ, taking_over=take_over and not no_start)
    with outcome(as_json) as done:
        ask_to_replace(places, yes=yes)
        with taking_over(settled.config, enabled=take_over and not no_start):
            _perform(ours.installing(where, places, start=not no_start), done)
        then = "; it starts with your next login" if no_start else " and running"
        click.echo("installed" + then)
        if not where.lingers():
            click.echo(where.after_logout())
        done["running"] = where.running()


@service.command(epilog=_CHANGES)
@json_flag
def start(as_json: bool) -> None:
    """Start the installed service, if it doesn't run already."""
    where = ours.supervisor(os.environ)
    doing = ours.waking(where)
    where.require()
    with outcome(as_json) as done:
        _perform(doing, done)
        done["running"] = where.running()


@service.command(epilog=_CHANGES)
@yes_flag
@json_flag
def stop(yes: bool, as_json: bool) -> None:
    """Stop the service until it is started again, or until the next login.

    Clients are told, and turns that run are interrupted: asks first where one does.
    """
    where = _installed()
    with outcome(as_json) as done:
        _confirm_interrupting("Stop the service", yes=yes)
        _perform(where.halt(), done)
        click.echo("stopped; `appmux service start` starts it, and so does your next login")
        done["running"] = where.running()


@service.command(epilog=_CHANGES)
@yes_flag
@json_flag
def restart(yes: bool, as_json: bool) -> None:
    """Replace appmux, after a change of settings or an upgrade of it.

    With systemd codex and its turns run on; clients come back by themselves. With launchd turns are
    interrupted: asks first where one runs, and `appmux restart --broker` interrupts none.
    `appmux restart` replaces codex.
    """
    where = _installed()
    with outcome(as_json) as done:
        if not where.keeps_turns():
            _confirm_interrupting("Restart the service", yes=yes)
        _perform(where.again(), done)
        click.echo("restarted")
        done["running"] = where.running()


@service.command(epilog=_CHANGES)
@json_flag
def reload(as_json: bool) -> None:
    """Have the broker read tokens, secrets and the certificate again; nobody is disconnected.

    Other settings hold from the next `appmux service restart` on.
    """
    where = _installed()
    if not where.running():
        raise UnansweredError("the service doesn't run: `appmux service start` starts it")
    with outcome(as_json) as done:
        _perform(where.reread(), done)
        click.echo("asked to read them again; `appmux service logs` says what came of it")
        done["running"] = True


def _installed() -> ours.Supervisor:
    """Return the service manager of an installed service. Raises ``AppmuxError``."""
    where = ours.supervisor(os.environ)
    ours.require_installed(where)
    where.require()
    return where


def _confirm_interrupting(question: str, *, yes: bool) -> None:
    """Ask if turns run. Raises ``UnansweredError`` unless the answer is yes."""
    try:
        report = broker.ask(broker.urls(state_dir_of(None, None)), "mux/status")
    except AppmuxError:
        return  # it doesn't run, or gives no answer: there is nothing to interrupt that we know of
    running = [each for each in report["threads"] if each["turn"] is not None]
    if running:
        turns = "1 turn runs" if len(running) == 1 else f"{len(running)} turns run"
        confirm(f"{turns}, which that interrupts. {question}?", yes=yes)


def _perform(doing: list[Step], done: Json) -> None:
    done["steps"] = [steps.describe(step) for step in doing]
    steps.perform(doing, click.echo)


@service.command(epilog=_CHANGES)
@yes_flag
@json_flag
def uninstall(yes: bool, as_json: bool) -> None:
    """Stop the service and remove its files; NovaScale's gets its place back.

    Settings, token and journal stay where they are; it says where, and how to remove them.
    """
    config = load({}, os.environ, None).config
    where = ours.supervisor(os.environ)
    doing: list[Step] = ours.uninstalling(where)
    back = novascale.giving_back(where, config.state_dir)
    with outcome(as_json) as done:
        if not doing and not back:
            click.echo("nothing to do: appmux isn't installed as a service")
            done["steps"] = []
            return
        where.require()
        confirm("Stop and remove the service, and interrupt what runs in it?", yes=yes)
        _perform([*doing, *back], done)
        click.echo("uninstalled" + ("; NovaScale's service has its place back" if back else ""))
        stays = [path for path in ours.left_behind(config) if path.exists()]
        done["stays"] = [str(path) for path in stays]
        if stays:
            click.echo("What stays, in case you come back (settings, tokens, journal):")
            for path in stays:
                click.echo(f"  {path}")
            click.echo(f"To remove it: rm -r {shlex.join(map(str, stays))}")
            click.echo("appmux itself goes as it came, for example `pipx uninstall appserver-mux`.")


@service.command(name="status", epilog=exits("0 it runs", "1 it doesn't"))
@json_flag
def service_status(as_json: bool) -> None:
    """Show what the service manager says of it.

    `appmux status` asks the broker itself.
    """
    where = ours.supervisor(os.environ)
    facts, running = where.status(), where.running()
    if as_json:
        files = {str(path): path.exists() for path in where.paths}
        report = {"running": running, "facts": dict(facts), "files": files}
        click.echo(json.dumps(report, indent=2))
        sys.exit(0 if running else 1)
    for name, value in facts:
        click.echo(f"{name:<10} {value}")
    for path in where.paths:
        click.echo(f"{'file':<10} {path}{'' if path.exists() else ' (absent)'}")
    sys.exit(0 if running else 1)


@service.command(epilog=exits("that of journalctl, or of tail on macOS"))
@click.option("--lines", "-n", type=click.IntRange(min=1), default=100, show_default=True)
@click.option("--follow", "-f", is_flag=True, help="Go on as new lines come.")
def logs(lines: int, follow: bool) -> None:
    """Show the broker's log."""
    command = ours.supervisor(os.environ).logs(lines, follow)
    try:
        os.execvp(command[0], command)
    except OSError as failure:
        raise UnansweredError(f"can't run `{command[0]}`: {failure.strerror}") from failure


@service.command(name="print", epilog=exits("0 printed", "1 there is no service manager"))
@config_flag
@sudo_flag
@json_flag
def print_files(config_file: Path | None, allow_sudo: bool, as_json: bool) -> None:
    """Print the files that `install` would write, and change nothing."""
    where = ours.supervisor(os.environ)
    spec = ours.service_spec(load({}, os.environ, config_file), os.environ, allow_sudo=allow_sudo)
    files = where.files(spec)
    if as_json:
        click.echo(json.dumps({str(path): text for path, text in files.items()}, indent=2))
        return
    for path, text in files.items():
        click.echo(f"# {path}", err=True)
        click.echo(text)


@contextmanager
def taking_over(config: Config, *, enabled: bool) -> Iterator[None]:
    """Let nobody but the service get Codex's control socket inside, if that is ``enabled``."""
    path = ours.control_socket(config, os.environ) if enabled else None
    owner = socket_owner(path) if path is not None else None
    if path is None or owner is None or not owner.codex:
        yield
        return
    with take_over.vacated(path, math.inf, click.echo):
        yield


def ask_to_replace(places: Iterable[UnitFile], *, yes: bool) -> None:
    """Show how our own files would change, and ask whether to; ``yes`` stands for the answer."""
    changed = [place for place in places if place.state == "ours"]
    for place in changed:
        click.echo(place.difference())
    if changed:
        names = ", ".join(str(place.path) for place in changed)
        confirm(f"Replace {names}, and restart the service?", yes=yes)
