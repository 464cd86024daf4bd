"""``appmux serve``: run the broker in this process.

The app-server is asked for as soon as the settings say which, before what the broker runs on is
loaded: both take their time at once then.
"""

from __future__ import annotations

import gc
import math
import os
from functools import partial
from pathlib import Path
from typing import IO, Any

import attrs
import click

from mux.cli.common.options import exits
from mux.cli.common.settings import TakesCodexArgs, serve_flags, settle
from mux.config.addresses import ListenUrlError, parse_listen_url
from mux.config.codex_binary import app_server_command, codex_home, find_codex, search_path
from mux.config.load import Settled
from mux.server.observability import stderr
from mux.server.settings_watch import SettingsWatch
from mux.supervisor.opening import Opening

NOT_THE_APP_SERVERS = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")
"""Variables that address a service manager's sockets to us."""


@click.command(
    cls=TakesCodexArgs,
    options_metavar="[OPTIONS] [-- ARG…]",
    epilog=exits(
        "0 after a drain",
        "1 a wrong setting or state",
        "2 a wrong argument or listen URL",
        "the app-server's own if it never came up",
    ),
)
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
    gc.disable()  # until the broker listens: what it makes before then stays as well
    stderr.install()
    settled = settle(config_file, flags)
    _check_listen(settled)
    config = settled.config
    binary = find_codex(config.codex_bin, os.environ, settled.origins["codex_bin"])
    # npm's codex is a script that needs the `node` beside it, which a service's PATH may lack.
    os.environ["PATH"] = search_path(os.environ) or os.defpath
    opening = Opening.of(os.environ)
    if opening is not None and not take_over:
        environ = {k: v for k, v in os.environ.items() if k not in NOT_THE_APP_SERVERS}
        opening.request_early(app_server_command(binary, config.codex_args), environ)

    import trio  # noqa: PLC0415 (most of a start, as what follows is)

    # Before `serve`: `logs` has structlog loaded without rich.
    from mux.server.observability import logs  # noqa: PLC0415
    from mux.server.serve import serve as run  # noqa: PLC0415

    logs.configure(config.log)
    patience = take_over_wait if take_over else None
    watch = SettingsWatch(settled, partial(settle, config_file, flags))
    trio.run(run, attrs.evolve(config, codex_bin=binary), patience, watch, opening)


class ListenFlagError(click.ClickException):
    """A listen URL can't be parsed; the text is the app-server's own."""

    exit_code = 2

    def show(self, file: IO[Any] | None = None) -> None:
        click.echo(f"{self.message}\n\nFor more information, try '--help'.", file=file, err=True)


def _check_listen(settled: Settled) -> None:
    origin = settled.origins["listen"]
    of = "'--listen <URL>'" if origin == "flag --listen" else f"'listen' ({origin})"
    home = codex_home(os.environ)
    for url in settled.config.listen:
        try:
            parse_listen_url(url, home)
        except ListenUrlError as error:
            raise ListenFlagError(f"error: invalid value '{url}' for {of}: {error}") from error
