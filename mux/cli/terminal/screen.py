"""The output of commands: a console with colours where a terminal is, tables that fit, short ids.

A colour only repeats what the words say. `NO_COLOR` switches colours off.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final, Literal, TypeAlias

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mux.text import visible

PIPED_WIDTH: Final = 200
"""Columns where stdout is no terminal: a line that wraps is hard on ``grep``."""

WIDE: Final = 120
"""Columns from which on a table has room for what is only nice to know."""

GAP: Final = 2
"""Blanks between two columns."""

LEAST_COLUMN: Final = 8
"""Columns of a text that is cut, at least: less says nothing."""

Cut: TypeAlias = Literal["left", "right"]
"""The end at which a text is cut. A path's end says more than its beginning."""

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


def cut(text: Text, width: int) -> Text:
    """Return a line that fits into ``width``."""
    shortened = text.copy()
    shortened.truncate(width, overflow="ellipsis")
    return shortened


def table(
    title: str,
    columns: Sequence[str],
    rows: Iterable[Sequence[str | Text]],
    width: int,
    *,
    cuts: Mapping[str, Cut],
) -> Table:
    """Return a table that fits into ``width``.

    ``cuts`` names the columns that are cut where there is no room, and at which end. All others are
    whole, so that what stands there can be copied.
    """
    cells = [[cell if isinstance(cell, Text) else plain(cell) for cell in row] for row in rows]
    widths = [
        max(cell_len(column), *(row[place].cell_len for row in cells))
        for place, column in enumerate(columns)
    ]
    _shorten(widths, [place for place, column in enumerate(columns) if column in cuts], width)
    made = Table(
        title=title or None, title_justify="left", title_style="bold", box=None,
        pad_edge=False, padding=(0, GAP, 0, 0), header_style="dim",
    )  # fmt: skip
    for column, least in zip(columns, widths, strict=True):
        made.add_column(column, no_wrap=True, width=least)
    for row in cells:
        made.add_row(
            *(
                _cut(cell, least, cuts.get(column))
                for column, cell, least in zip(columns, row, widths, strict=True)
            )
        )
    return made


def _shorten(widths: list[int], may_be_cut: list[int], width: int) -> None:
    """Make the widest of the columns that may be cut narrower, until all fit."""
    while sum(widths) + GAP * (len(widths) - 1) > width:
        place = max(may_be_cut, key=lambda each: widths[each], default=None)
        if place is None or widths[place] <= LEAST_COLUMN:
            return
        widths[place] -= 1


def _cut(cell: Text, width: int, end: Cut | None) -> Text:
    if end is None or cell.cell_len <= width:
        return cell
    text = cell.plain
    if end == "left":
        while cell_len(text) > width - 1:
            text = text[1:]
        return Text(f"…{text}", cell.style)
    while cell_len(text) > width - 1:
        text = text[:-1]
    return Text(f"{text}…", cell.style)


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
