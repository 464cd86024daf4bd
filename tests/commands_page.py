"""The page of all commands: `python -m tests.commands_page` writes `docs/commands.md`.

It is made of the commands' help. `tests/test_docs.py` keeps it in step.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import click

from mux.cli import main

PAGE: Final = Path(__file__).parents[1] / "docs" / "commands.md"

WIDTH: Final = 80

HEAD: Final = """\
# Commands

<!-- Made by `make commands` from the commands' help (mux/cli): change it there. -->

`appmux` alone shows what waits for you, as `appmux status` does. `appmux COMMAND --help` says what
stands here. A command that asks the broker finds it by its state directory: `--state-dir`, else the
setting. Where an id is wanted, its end is enough.

Exit status, where a command says nothing else: 0 it is done, 1 it isn't, and stderr says why in a
line, 2 the command line is wrong, 130 Ctrl-C, 141 the reader of a pipe has gone. `--json` prints an
object, a list, or, where a command goes on, an object a line; what a person reads then goes to
stderr.
"""


def page() -> str:
    """Return the text of the page."""
    return "\n".join([HEAD, *_lines()])


def _lines() -> Iterator[str]:
    context = click.Context(main.appmux, info_name="appmux")
    for section, commands in main.SECTIONS.items():
        yield f"## {section}"
        yield ""
        for name in commands:
            command = main.appmux.get_command(context, name)
            assert command is not None
            yield from _command(command, name, context)


def _command(command: click.Command, name: str, parent: click.Context) -> Iterator[str]:
    context = click.Context(
        command, info_name=name, parent=parent, terminal_width=WIDTH, max_content_width=WIDTH
    )
    context.help_option_names = ["-h", "--help"]
    yield f"### `{context.command_path}`"
    yield ""
    yield "```text"
    yield command.get_help(context).rstrip()
    yield "```"
    yield ""
    if isinstance(command, click.Group):
        for each in command.list_commands(context):
            inner = command.get_command(context, each)
            assert inner is not None
            yield from _command(inner, each, context)


if __name__ == "__main__":
    PAGE.write_text(page())
