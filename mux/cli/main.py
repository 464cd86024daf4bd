"""The command line: ``appmux serve``, ``stdio``, ``demo``, ``status``, ``restart``, ``config``.

Each module is imported inside the command that needs it: ``appmux --version`` shouldn't load trio.
An ``AppmuxError`` is printed as ``Error: …`` without a traceback. Any other exception is a bug, and
is shown as one.
"""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeVar, get_args

import click

from mux import __version__
from mux.cli import devices, output, oversight, service
from mux.config.model import FLAGS, AuthMode, LogFormat, LogLevel
from mux.errors import AppmuxError

if TYPE_CHECKING:
    from mux.config.load import Settled

Decorated = TypeVar("Decorated", bound=Callable[..., Any])

CODEX_ARGS = "mux.cli.main.codex_args"
"""The key under which click keeps the arguments after ``--`` until the command runs."""


PATH = click.Path(path_type=Path)
"""A path as it was typed; ``config.load`` makes it absolute."""


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


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="`appmux COMMAND --help` tells more of each.",
)
@click.version_option(__version__, message="appmux %(version)s")
def appmux() -> None:
    """Share one `codex app-server` between any number of clients."""


for _command in (*service.COMMANDS, *devices.COMMANDS, *oversight.COMMANDS):
    appmux.add_command(_command)


# --- Flags that several commands take -------------------------------------------------------------


class TakesCodexArgs(click.Command):
    """A command that keeps the arguments after ``--`` for ``codex app-server``.

    A click argument would not notice a forgotten ``--``: ``appmux serve status`` should be an
    error, not an app-server that is started with ``status``.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if "--" in args:
            cut = args.index("--")
            ctx.meta[CODEX_ARGS] = tuple(args[cut + 1 :])
            args = args[:cut]
        return super().parse_args(ctx, args)


def serve_flags(command: Decorated) -> Decorated:
    """Add every setting's flag: to ``serve``, and to ``config``, which shows their effect."""
    flags = (
        click.option(
            "--listen",
            multiple=True,
            metavar="URL",
            help="ws://IP:PORT, wss://IP:PORT (with --tls-cert and --tls-key), unix://PATH, or unix://"
            " for Codex's own control socket; ws+local://IP:PORT on loopback, where no proxy or"
            " tunnel ends. May be given several times.",
        ),
        click.option("--codex-bin", type=PATH, metavar="PATH", help="The codex binary to run."),
        click.option("--state-dir", type=PATH, metavar="DIR", help="What is kept over restarts."),
        config_flag,
        click.option(
            "--ws-auth",
            type=click.Choice(get_args(AuthMode)),
            help="How WebSocket clients prove who they are. Paired devices are let in by all;"
            " device-token lets in nobody else.",
        ),
        click.option("--ws-token-file", type=PATH, metavar="PATH", help="Holds the token."),
        click.option("--ws-token-sha256", metavar="HEX", help="The token's SHA-256, instead."),
        click.option(
            "--ws-shared-secret-file", type=PATH, metavar="PATH", help="Holds the JWTs' HS256 key."
        ),
        click.option("--ws-issuer", metavar="TEXT", help="The `iss` that a JWT must have."),
        click.option("--ws-audience", metavar="TEXT", help="The `aud` that a JWT must have."),
        click.option(
            "--ws-max-clock-skew-seconds",
            type=click.IntRange(min=0),
            metavar="SECONDS",
            help="How far a JWT's clock may be off (default 30).",
        ),
        click.option(
            "--tls-cert",
            type=PATH,
            metavar="PATH",
            help="Of wss:// listeners: PEM, with its chain.",
        ),
        click.option("--tls-key", type=PATH, metavar="PATH", help="The certificate's key, PEM."),
        click.option("--log-level", type=click.Choice(get_args(LogLevel)), help="(default info)"),
        click.option(
            "--log-format",
            type=click.Choice(get_args(LogFormat)),
            help="auto: console on a terminal, json elsewhere (default auto).",
        ),
    )
    for flag in reversed(flags):
        command = flag(command)
    return command


config_flag = click.option(
    "--config",
    "config_file",
    type=PATH,
    metavar="FILE",
    help="TOML; else $APPMUX_CONFIG, else config.toml in the platform's config directory.",
)


def _settle(config_file: Path | None, flags: dict[str, object]) -> Settled:
    """Load the configuration from click's parameters and the arguments after ``--``."""
    from mux.config.load import load

    by_parameter = {
        flag.removeprefix("--").replace("-", "_"): key
        for key, flag in FLAGS.items()
        if flag.startswith("--")
    }
    given = {by_parameter[name]: value for name, value in flags.items()}
    given["codex_args"] = click.get_current_context().meta.get(CODEX_ARGS)
    return load(given, os.environ, config_file)


# --- Commands -------------------------------------------------------------------------------------


@appmux.command(cls=TakesCodexArgs, options_metavar="[OPTIONS] [-- ARG…]")
@serve_flags
@click.option(
    "--take-over",
    is_flag=True,
    help="Where Codex's own daemon has the control socket: wait until nothing runs in it, have it"
    " stop, and listen in its place. Never ends a turn.",
)
@click.option(
    "--take-over-wait",
    type=click.FloatRange(min=0),
    default=math.inf,
    metavar="SECONDS",
    help="Wait that long at most (default: until interrupted).",
)
def serve(
    config_file: Path | None, take_over: bool, take_over_wait: float, **flags: object
) -> None:
    """Run the broker until it is told to stop.

    What follows `--` is handed to `codex app-server`.

    SIGTERM or SIGINT stops it in order (no new clients, the others are told, the app-server is
    closed); a second one stops it at once. SIGHUP reads the token file and the certificate again.
    """
    import gc

    gc.disable()  # until the broker listens: what is loaded stays; saves a fifth of the start

    from mux.server import (  # logs first: it is particular about how structlog is loaded
        logs,
        stderr,
    )

    stderr.install()
    settled = _settle(config_file, flags)
    _check_listen(settled)

    import attrs
    import trio

    from mux.config.codex_binary import find_codex, search_path
    from mux.server.serve import serve as run

    config = settled.config
    binary = find_codex(config.codex_bin, os.environ, settled.origins["codex_bin"])
    # npm's codex is a script that needs the `node` beside it, which a service's PATH may lack.
    os.environ["PATH"] = search_path(os.environ) or os.defpath
    logs.configure(config.log)
    patience = take_over_wait if take_over else None
    trio.run(run, attrs.evolve(config, codex_bin=binary), patience)


class ListenFlagError(click.ClickException):
    """A listen URL can't be parsed; the text is the app-server's own."""

    exit_code = 2

    def show(self, file: IO[Any] | None = None) -> None:
        click.echo(f"{self.message}\n\nFor more information, try '--help'.", file=file, err=True)


def _check_listen(settled: Settled) -> None:
    from mux.config.addresses import ListenUrlError, parse_listen_url
    from mux.config.codex_binary import codex_home

    origin = settled.origins["listen"]
    of = "'--listen <URL>'" if origin == "flag --listen" else f"'listen' ({origin})"
    home = codex_home(os.environ)
    for url in settled.config.listen:
        try:
            parse_listen_url(url, home)
        except ListenUrlError as error:
            raise ListenFlagError(f"error: invalid value '{url}' for {of}: {error}") from error


@appmux.command(name="stdio")
@click.option("--socket", metavar="PATH", help="The broker's unix socket, if it isn't found.")
@click.option(
    "--wait",
    type=click.FloatRange(min=0),
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait for a broker that is gone; with 0, end then.",
)
def attach(socket: str | None, wait: float) -> None:
    """Attach a program that speaks JSON lines on stdin and stdout, as to `codex app-server`.

    The socket is that of APPMUX_SOCKET, else the running broker's, else Codex's control socket. If
    nothing listens there the service is started, if there is one.
    """
    from mux.config import locate
    from mux.stdio import bridge

    sys.exit(bridge.run(locate.socket_path(socket) if socket else None, wait))


@appmux.command()
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@click.option("--state-dir", type=PATH, metavar="DIR", help="The broker's, as in serve.")
@config_flag
def status(as_json: bool, config_file: Path | None, state_dir: Path | None) -> None:
    """Show the running broker: app-server, clients, threads, what waits for an answer."""
    settled = _settle(config_file, {"state_dir": state_dir})

    import trio

    from mux.cli.status import run

    sys.exit(trio.run(run, settled.config, as_json))


@appmux.command()
@click.option("--now", is_flag=True, help="Wait for nothing: what runs is interrupted.")
@click.option("--state-dir", type=PATH, metavar="DIR", help="The broker's, as in serve.")
@config_flag
def restart(now: bool, config_file: Path | None, state_dir: Path | None) -> None:
    """Replace the app-server by a new process, after upgrading codex or changing its config.

    Waits until no turn runs and no approval is pending, and holds new work back meanwhile. No
    client loses its connection. Ctrl-C stops the waiting, not the restart.
    """
    settled = _settle(config_file, {"state_dir": state_dir})

    import trio

    from mux.cli.restart import run

    sys.exit(trio.run(run, settled.config, now))


@appmux.command()
@click.option("--codex-bin", type=PATH, metavar="PATH", help="As in serve.")
@click.option("--hold", is_flag=True, help="Keep serving; prints how to attach your own TUI.")
@click.option("--svg", type=PATH, metavar="FILE", help="Save the picture.")
@config_flag
def demo(codex_bin: Path | None, hold: bool, svg: Path | None, config_file: Path | None) -> None:
    """Two clients, one app-server, no network: a turn that both see, an approval that one answers.

    Uses a scripted model, the real app-server and directories of its own. Exits 0 only if both
    clients saw everything.
    """
    settled = _settle(config_file, {"codex_bin": codex_bin})

    import trio

    from mux.config.codex_binary import find_codex
    from mux.demo.run import run

    binary = find_codex(settled.config.codex_bin, os.environ, settled.origins["codex_bin"])
    sys.exit(trio.run(run, binary, hold, svg))


@appmux.command(cls=TakesCodexArgs, options_metavar="[OPTIONS] [-- ARG…]")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@serve_flags
def config(as_json: bool, config_file: Path | None, **flags: object) -> None:
    """Print every setting and where it comes from, as TOML that --config takes.

    Takes the flags of serve, and shows what serve would run with.
    """
    from mux.config.load import toml_value

    settled = _settle(config_file, flags)
    if as_json:
        shown = {
            key: {"value": str(value) if isinstance(value, Path) else value, "from": origin}
            for key, value, origin in settled.items()
        }
        click.echo(json.dumps(shown, indent=2))
        return
    lines = [
        (f"# {key} is not set" if value is None else f"{key} = {toml_value(value)}", origin)
        for key, value, origin in settled.items()
    ]
    width = min(COMMENT_COLUMN, max(len(line) for line, _ in lines))
    for line, origin in lines:
        click.echo(f"{line:<{width}}  # from {origin}")


COMMENT_COLUMN = 60
"""Greatest column of ``config``'s comments; one long list shouldn't push them off the screen."""
