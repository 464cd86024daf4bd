"""``appmux config``: every setting, its value and its source."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

import click

from mux.cli.common.options import exits, json_flag
from mux.cli.common.settings import TakesCodexArgs, serve_flags, settle
from mux.config.values import toml_value

COMMENT_COLUMN: Final = 60
"""Greatest column of the comments; one long list shouldn't push them off the screen."""


@click.command(
    cls=TakesCodexArgs,
    epilog=exits("0 the settings can be used", "1 they can't"),
    options_metavar="[OPTIONS] [-- ARG…]",
)
@json_flag
@serve_flags
def config(as_json: bool, config_file: Path | None, **flags: object) -> None:
    """Print every setting and where it comes from, as TOML that --config takes.

    Takes the flags of serve, and shows what serve would run with.
    """
    settled = settle(config_file, flags)
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
