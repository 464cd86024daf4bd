"""The ``appmux`` command's first step: the stdio door at once, everything else by ``cli``.

``cli`` loads click and the settings, for which the door has no time.

Hands to: ``stdio``, ``cli``, ``output``. Hears from: a person's shell; a program that starts the
door.
"""

from __future__ import annotations

import sys

from mux.errors import AppmuxError
from mux.posix import standard_streams


def main() -> None:
    """Exits; never returns."""
    standard_streams.complete()
    if sys.argv[1:2] == ["stdio"]:
        from mux.stdio import bridge

        parameters = bridge.plain_arguments(sys.argv[2:])
        if parameters is not None:
            try:
                sys.exit(bridge.run(*parameters))
            except AppmuxError as error:
                standard_streams.say(f"Error: {error}\n")
                sys.exit(error.exit_status)

    from mux.cli import output
    from mux.cli.main import main as by_click

    output.prepare()
    by_click()
