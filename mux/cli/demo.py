"""``appmux demo``: see in a minute what appmux does."""

from __future__ import annotations

import os
import sys
from functools import partial
from pathlib import Path

import click
import trio

from mux.cli.common.options import PATH, config_flag, exits, json_flag, outcome
from mux.cli.common.settings import settle
from mux.config.codex_binary import find_codex
from mux.demo.run import run


@click.command(epilog=exits("0 both clients saw everything", "1 they didn't"))
@click.option("--codex-bin", type=PATH, metavar="PATH", help="As in serve.")
@click.option(
    "--hold",
    is_flag=True,
    help="Keep serving; prints how to attach your own TUI, and a link to the page.",
)
@click.option("--open", "opened", is_flag=True, help="Hold, and open the page in a browser.")
@click.option("--svg", type=PATH, metavar="FILE", help="Save the picture.")
@json_flag
@config_flag
def demo(
    *,
    codex_bin: Path | None,
    hold: bool,
    opened: bool,
    svg: Path | None,
    as_json: bool,
    config_file: Path | None,
) -> None:
    """Two clients, one app-server, no network: a turn that both see, an approval that one answers.

    Uses a scripted model, the real app-server and directories of its own.
    """
    settled = settle(config_file, {"codex_bin": codex_bin})
    binary = find_codex(settled.config.codex_bin, os.environ, settled.origins["codex_bin"])
    with outcome(as_json) as done:
        status = trio.run(partial(run, binary, hold, svg, opened=opened))
        done["well"] = status == 0
    sys.exit(status)
