"""The flags that stand for settings, and the settings that they make.

``settle`` loads the settings of ``serve`` from its flags; ``of_broker`` loads those of the broker
that a command asks.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final, get_args

import click

from mux.cli.common.options import PATH, together
from mux.config.load import Settled, load
from mux.config.model import FLAGS, AuthMode, Config, LogFormat, LogLevel

CODEX_ARGS: Final = "mux.cli.common.settings.codex_args"
"""The key under which click keeps the arguments after ``--`` until the command runs."""


def of_broker(config_file: Path | None, state_dir: Path | None) -> Config:
    """Return the settings of the broker that ``broker_flags`` name. Raises ``ConfigError``."""
    return load({"state_dir": state_dir}, os.environ, config_file).config


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


serve_flags = together(
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
    click.option(
        "--config",
        "config_file",
        type=PATH,
        metavar="FILE",
        help="TOML; else $APPMUX_CONFIG, else config.toml in the platform's config directory.",
    ),
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
        "--tls-cert", type=PATH, metavar="PATH", help="Of wss:// listeners: PEM, with its chain."
    ),
    click.option("--tls-key", type=PATH, metavar="PATH", help="The certificate's key, PEM."),
    click.option("--log-level", type=click.Choice(get_args(LogLevel)), help="(default info)"),
    click.option(
        "--log-format",
        type=click.Choice(get_args(LogFormat)),
        help="auto: console on a terminal and in the journal, json elsewhere (default auto).",
    ),
)
"""Every setting's flag: for ``serve``, and for ``config``, which shows their effect."""


def settle(config_file: Path | None, flags: dict[str, object]) -> Settled:
    """Load the settings from click's parameters and the arguments after ``--``.

    Raises ``ConfigError``.
    """
    by_parameter = {
        flag.removeprefix("--").replace("-", "_"): key
        for key, flag in FLAGS.items()
        if flag.startswith("--")
    }
    given = {by_parameter[name]: value for name, value in flags.items()}
    given["codex_args"] = click.get_current_context().meta.get(CODEX_ARGS)
    return load(given, os.environ, config_file)
