"""The command line: the table of all commands, and the group that loads one when it is called.

``appmux --version`` and ``--help`` load no command. An ``AppmuxError`` is printed as ``Error: …``
without a traceback. Any other exception is a bug, and is shown as one.
"""

from __future__ import annotations

import gc
import importlib
import sys
from collections.abc import Mapping
from typing import Any, Final

import click
from click.shell_completion import CompletionItem

from mux import __version__
from mux.cli.terminal import output
from mux.errors import AppmuxError

SECTIONS: Final[Mapping[str, Mapping[str, tuple[str, str]]]] = {
    "See what goes on": {
        "status": ("oversight.status", "What waits for you, threads, clients, the app-server."),
        "approvals": ("oversight.approvals", "What waits for a person's word."),
        "threads": ("threads.threads", "All threads, and what each does."),
        "watch": ("threads.watch", "Follow a thread as it happens."),
        "audit": ("oversight.audit", "Who came and went, asked for what, and who approved it."),
    },
    "Answer and speak": {
        "approve": ("oversight.approvals", "Allow what waits, once."),
        "decline": ("oversight.approvals", "Refuse what waits."),
        "say": ("threads.say", "Give a thread a message, or begin a thread."),
        "put": ("threads.put", "Bring files to a thread."),
        "get": ("threads.get", "Fetch a file of a thread, or list them."),
    },
    "Set this host up, and keep it well": {
        "setup": ("host.setup", "Settings, token, service, first phone: all in one."),
        "doctor": ("doctor.report", "Look for what is wrong, and say what to do."),
        "service": ("host.service", "Run the broker as a service of this user."),
        "restart": ("host.restart", "Replace the app-server by a new process."),
        "config": ("host.config", "Every setting, and where it comes from."),
    },
    "Phones and other devices": {
        "tailnet": ("devices.tailnet", "https by this machine's name in its Tailnet."),
        "open": ("devices.open", "Open the page in this machine's browser."),
        "pair": ("devices.pair", "Let a device in: it scans a QR code."),
        "invite": ("devices.pair", "Let a colleague's device in, for a while, to watch."),
        "join": ("devices.join", "Have this machine's terminals use a broker on another."),
        "devices": ("devices.devices", "List the paired devices, and change what they may do."),
        "notices": ("devices.notices", "What devices were told by push, and why."),
    },
    "Run it by hand": {
        "serve": ("host.serve", "Run the broker until it is told to stop."),
        "stdio": ("stdio", "Attach a program that speaks JSON lines."),
        "demo": ("demo", "Two clients, one app-server, no network, one approval."),
        "completion": ("completion", "A shell's completion of commands, ids and names."),
    },
}
"""What one wants to do, and the commands for it. Each command: the module of ``mux.cli`` that
defines it by its name, and a line of help."""

COMMANDS: Final[Mapping[str, tuple[str, str]]] = {
    name: row for commands in SECTIONS.values() for name, row in commands.items()
}

ELSEWHERE: Final[Mapping[str, str]] = {
    "stop": "to stop the service: `appmux service stop`; a broker in a terminal: Ctrl-C there",
    "start": "to start the service: `appmux service start`; in this terminal: `appmux serve`",
    "reload": "to read secrets and certificate again: `appmux service reload`",
    "logs": "the service's log: `appmux service logs`",
    "install": "to install the service: `appmux setup`, or `appmux service install`",
    "uninstall": "to remove the service: `appmux service uninstall`",
    "list": "`appmux status` shows clients and threads",
    "version": "`appmux --version`",
    "help": "`appmux --help`",
}
"""Words that people try, and what does it."""


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

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] in ELSEWHERE and not ctx.resilient_parsing:
            ctx.fail(f"No such command '{args[0]}'. {_sentence(ELSEWHERE[args[0]])}")
        return super().resolve_command(ctx, args)

    def format_commands(self, _ctx: click.Context, formatter: click.HelpFormatter) -> None:
        longest = max(map(len, COMMANDS))
        for title, commands in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl(
                    [(f"{name:<{longest}}", row[1]) for name, row in commands.items()]
                )

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete a command without importing them all for their help."""
        return [
            *(
                CompletionItem(name, help=line)
                for name, (_, line) in COMMANDS.items()
                if name.startswith(incomplete)
            ),
            *click.Command.shell_complete(self, ctx, incomplete),
        ]


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def _load(module: str) -> Any:
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
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="`appmux` alone is `appmux status`. `appmux COMMAND --help` tells more of each.",
)
@click.version_option(__version__, message="appmux %(version)s")
@click.pass_context
def appmux(ctx: click.Context) -> None:
    """Share one `codex app-server` between any number of clients."""
    if ctx.invoked_subcommand is None:
        sys.exit(_load("oversight.status").alone())


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
