"""QR codes: drawn on a terminal where they fit, or written to a file."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path
from typing import Final

import click
import segno

from mux.errors import AppmuxError
from mux.posix import private_file

QUIET_BORDER: Final = 2
"""Modules of white around the code: the standard wants 4, cameras need less, screens are small."""

USUAL_WINDOW: Final = (80, 24)
"""Columns and lines of a terminal that doesn't say how large it is."""

PNG_SCALE: Final = 8
PNG_BORDER: Final = 4

WHITE_ON_BLACK: Final = {"fg": (255, 255, 255), "bg": (0, 0, 0)}
"""Set whatever the terminal's own colours are: some cameras read no inverted code."""


class PictureError(AppmuxError):
    """The picture can't be written."""


def drawn(text: str) -> list[str]:
    """Return the lines of a QR code in half blocks, to be shown white on black."""
    picture = io.StringIO()
    segno.make_qr(text, error="l").terminal(picture, border=QUIET_BORDER, compact=True)
    return picture.getvalue().rstrip("\n").split("\n")


def show(text: str) -> None:
    """Draw a code on the terminal, or say why not. Nothing where there is no terminal."""
    if not sys.stdout.isatty() or not (sys.stdout.encoding or "").lower().startswith("utf"):
        return
    lines = drawn(text)
    window = _window()
    needed = (max(map(len, lines)), len(lines) + 1)  # and the line with the cursor
    if window.columns < needed[0] or window.lines < needed[1]:
        click.echo(
            f"No QR code: it needs a window of {needed[0]} × {needed[1]}, and this one is"
            f" {window.columns} × {window.lines}. Make it larger, or give --png FILE."
        )
        return
    for line in lines:
        click.echo(click.style(line, fg=WHITE_ON_BLACK["fg"], bg=WHITE_ON_BLACK["bg"]))


def _window() -> os.terminal_size:
    """Return the window's size now, whatever variables said at the shell's start."""
    size = os.get_terminal_size(sys.stdout.fileno())
    return size if size.columns and size.lines else os.terminal_size(USUAL_WINDOW)


def write_png(text: str, path: Path) -> None:
    """Write a code to a file that only its owner can read. Raises ``PictureError``."""
    picture = io.BytesIO()
    segno.make_qr(text, error="m").save(picture, kind="png", scale=PNG_SCALE, border=PNG_BORDER)
    try:
        descriptor = private_file.open_file(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        with os.fdopen(descriptor, "wb") as file:
            file.write(picture.getvalue())
    except OSError as failure:
        raise PictureError(f"can't write {path}: {failure.strerror}") from failure
