"""What commands print: a console with colours where a terminal is, tables that fit, short ids.

A colour only repeats what the words say. `NO_COLOR` switches colours off.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mux.text import visible

PIPED_WIDTH: Final = 200
"""Columns where stdout is no terminal: a line that wraps is hard on ``grep``."""

WIDE: Final = 120
"""Columns from which on a table has room for what is only nice to know."""

LEAST_ID: Final = 8
"""Characters of a short id, at least. The end of a thread's id is by chance, its beginning time."""


def console() -> Console:
    """Return the console for stdout: as wide as the terminal."""
    made = Console(highlight=False)
    if made.is_terminal:
        return made
    return Console(width=PIPED_WIDTH, highlight=False)


def plain(text: object, style: str = "") -> Text:
    """Return text as it is: no markup, no control characters."""
    return Text(visible(str(text)), style)


def line(*parts: str | tuple[str, str] | Text) -> Text:
    """Return a line of texts; a pair is a text with its style."""
    return Text.assemble(
        *(
            part if isinstance(part, Text) else plain(*((part,) if isinstance(part, str) else part))
            for part in parts
        )
    )


def table(
    title: str,
    columns: Sequence[str],
    rows: Iterable[Sequence[str | Text]],
    *,
    cut: Sequence[str] = (),
    whole: Sequence[str] = (),
) -> Table:
    """Return a table. Columns named in ``cut`` end in … where there is no room; those in ``whole``
    are never broken, so that what stands there can be copied.
    """
    made = Table(title=title or None, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    made.pad_edge = False
    for column in columns:
        if column in cut:
            made.add_column(column, overflow="ellipsis", no_wrap=True, ratio=1)
        else:
            made.add_column(column, overflow="fold", no_wrap=column in whole)
    for row in rows:
        made.add_row(*(cell if isinstance(cell, Text) else plain(cell) for cell in row))
    return made


def short_ids(ids: Iterable[str], least: int = LEAST_ID) -> Mapping[str, str]:
    """Return for each id its shortest ending that no other has, of ``least`` characters or more."""
    whole = list(dict.fromkeys(ids))
    shortened = {}
    for id in whole:
        length = min(least, len(id))
        while length < len(id) and any(
            other != id and other.endswith(id[-length:]) for other in whole
        ):
            length += 1
        shortened[id] = id[-length:]
    return shortened


def path(name: str | None) -> str:
    """Return a directory as a person writes it: with ``~`` for the home directory."""
    if not name:
        return ""
    try:
        home = str(Path.home())
    except RuntimeError:  # there is none
        return name
    if name == home:
        return "~"
    return "~" + name.removeprefix(home) if name.startswith(home + "/") else name
