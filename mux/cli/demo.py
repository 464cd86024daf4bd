"""``appmux demo``: see in a minute what appmux does."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click
import trio

from mux.cli.options import PATH, config_flag
from mux.cli.settings import settle
from mux.config.codex_binary import find_codex
from mux.demo.run import run


@click.command()
@click.option("--codex-bin", type=PATH, metavar="PATH", help="As in serve.")
@click.option("--hold", is_flag=True, help="Keep serving; prints how to attach your own TUI.")
@click.option("--svg", type=PATH, metavar="FILE", help="Save the picture.")
@config_flag
def demo(codex_bin: Path | None, hold: bool, svg: Path | None, config_file: Path | None) -> None:
    """Two clients, one app-server, no network: a turn that both see, an approval that one answers.

    Uses a scripted model, the real app-server and directories of its own. Exits 0 only if both
    clients saw everything.
    """
    settled = settle(config_file, {"codex_bin": codex_bin})
    binary = find_codex(settled.config.codex_bin, os.environ, settled.origins["codex_bin"])
    sys.exit(trio.run(run, binary, hold, svg))
