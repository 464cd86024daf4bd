"""The ``appmux`` command's first step: run the stdio bridge at once, anything else by ``main``.

``main`` loads click, for which the bridge has no time. ``appmux serve`` forks before that: the
first process becomes the broker's supervisor, which stays small.
"""

from __future__ import annotations

import os
import sys

from mux.errors import AppmuxError
from mux.posix import standard_streams

VARIABLE = "APPMUX_SUPERVISOR"
"""As in ``supervisor.channel``: a broker has it, and the stdio bridge needn't load that."""


def main() -> None:
    """Run a command and exit; never returns."""
    standard_streams.complete()
    if sys.argv[1:2] == ["stdio"]:
        from mux.stdio import bridge, command_line  # noqa: PLC0415 (only this command's)

        given = command_line.plain_arguments(sys.argv[2:])
        if given is not None:
            try:
                overrides = command_line.read_overrides(given.overrides, (), "appmux stdio")
                sys.exit(bridge.run(given.socket, given.wait, overrides))
            except AppmuxError as error:
                standard_streams.write_stderr(f"Error: {error}\n")
                sys.exit(error.exit_status)

    if sys.argv[1:2] == ["serve"] and VARIABLE not in os.environ:
        from mux.supervisor import supervisor  # noqa: PLC0415 (only this command's)

        sys.exit(supervisor.run(_by_click))
    _by_click()


def _by_click() -> None:
    from mux.cli.main import main as by_click  # noqa: PLC0415
    from mux.cli.terminal import output  # noqa: PLC0415 (click, which the bridge has no time for)

    output.prepare()
    by_click()
