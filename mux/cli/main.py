"""The command line: the table of all commands, and the group that loads one when it is called.

``appmux --version`` and ``--help`` load no command. An ``AppmuxError`` is printed as ``Error: …``
without a traceback. Any other exception is a bug, and is shown as one.
"""

from __future__ import annotations

import gc
import importlib
import sys
from collections.abc import Mapping
from typing import Final

import click

from mux import __version__
from mux.cli import output
from mux.errors import AppmuxError

COMMANDS: Final[Mapping[str, tuple[str, str]]] = {
    "approvals": ("approvals", "List what waits for a person's word."),
    "approve": ("approvals", "Allow what the approval ID asks for, once."),
    "audit": ("audit", "Show who came and went, asked for what, and who approved it."),
    "config": ("config", "Print every setting and where it comes from."),
    "decline": ("approvals", "Refuse what the approval ID asks for."),
    "demo": ("demo", "Two clients, one app-server, no network, one approval."),
    "devices": ("devices", "List the paired devices, and change what they may do."),
    "doctor": ("doctor.report", "Look for what is wrong, and say what to do."),
    "invite": ("pair", "Let a colleague's device in, for a while, to watch."),
    "notices": ("notices", "List what devices were told by push, and why they were or weren't."),
    "pair": ("pair", "Let a device in: it scans a QR code."),
    "restart": ("restart", "Replace the app-server by a new process."),
    "serve": ("serve", "Run the broker until it is told to stop."),
    "service": ("service", "Run the broker as a service of this user."),
    "setup": ("setup", "Set this host up: settings, token, service."),
    "status": ("status", "Show the running broker."),
    "stdio": ("stdio", "Attach a program that speaks JSON lines on stdin and stdout."),
}
"""Each command: the module of ``mux.cli`` that defines it by its name, and a line of help."""


class LoadedByName(click.Group):
    """A group whose commands are imported when they are called."""

    def list_commands(self, _ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, _ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command = getattr(_load(COMMANDS[cmd_name][0]), cmd_name)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, _ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])


def _load(module: str) -> object:
    """Import a module without collecting garbage meanwhile.

    What is loaded stays, so the collector would look in vain: that saves a fifth of a start.
    """
    gc.disable()
    try:
        return importlib.import_module(f"mux.cli.{module}")
    finally:
        gc.freeze()
        gc.enable()


@click.group(
    cls=LoadedByName,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="`appmux COMMAND --help` tells more of each.",
)
@click.version_option(__version__, message="appmux %(version)s")
def appmux() -> None:
    """Share one `codex app-server` between any number of clients."""


def main() -> None:
    """Run the ``appmux`` command and exit; never returns."""
    try:
        try:
            appmux(prog_name="appmux")
        finally:
            output.flush()
    except AppmuxError as error:
        _fail(error)
    except BaseExceptionGroup as group:
        # Nurseries wrap: an expected error that ended a whole task tree is still that error.
        expected, bugs = group.split(AppmuxError)
        if expected is None or bugs is not None:
            raise
        _fail(_first(expected))


def _first(group: BaseExceptionGroup[AppmuxError]) -> AppmuxError:
    inner = group.exceptions[0]
    return _first(inner) if isinstance(inner, BaseExceptionGroup) else inner


def _fail(error: AppmuxError) -> None:
    if not (isinstance(error, output.OutputError) and error.silent):
        try:
            click.echo(f"Error: {error}", err=True)
        except OSError:
            sys.stderr = None  # nobody reads stderr; without it, nothing is tried again at the exit
    sys.exit(error.exit_status)
