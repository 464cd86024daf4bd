r"""Standard output for commands: any character can be written, and a failure is reported once.

``prepare`` replaces standard output by a stream that takes any text. A character that the encoding
lacks is escaped (``\u4e2d``); our own signs have replacements in ASCII.

A full disk, a pipe whose reader has gone, and a closed descriptor raise ``OutputError`` once. Later
output is dropped.

``entry`` calls ``prepare`` before any command runs, ``main`` calls ``flush`` at the end.
"""

from __future__ import annotations

import codecs
import errno
import io
import os
import shutil
import signal
import sys
import textwrap
from typing import Any, Final

import click

from mux.errors import AppmuxError

ERRORS: Final = "appmux"
"""The name by which a codec finds the handler of characters that it lacks."""

SIGNS: Final = {"→": "->", "…": "...", "·": "-", "–": "-", "—": "-", "’": "'", "×": "x"}
"""Signs of our own texts, and their ASCII."""

STDOUT: Final = 1

SIGNAL_STATUS: Final = 128
"""Added to N in the exit status for "ended by signal N", as shells do."""


class OutputError(AppmuxError):
    """Standard output accepts no more. If a pipe's reader has gone, the error is silent."""

    def __init__(self, failure: OSError) -> None:
        super().__init__(f"can't write to standard output: {failure.strerror}")
        self.silent = isinstance(failure, BrokenPipeError)
        if self.silent:
            self.exit_status = SIGNAL_STATUS + signal.SIGPIPE


class _FailsOnce(io.FileIO):
    """Standard output whose first failure raises ``OutputError``; later output is dropped."""

    failed = False

    def write(self, data: Any, /) -> int:
        if data and not self.failed:  # libraries write empty data to find out the stream's kind
            try:
                return super().write(data)
            except OSError as failure:
                self.failed = True
                raise OutputError(failure) from None
        return memoryview(data).nbytes


class _Closed(io.RawIOBase):
    """Replaces a standard output that was closed before we began."""

    failed = False

    def writable(self) -> bool:
        return True

    def write(self, data: Any, /) -> int:
        if data and not self.failed:
            self.failed = True
            raise OutputError(OSError(errno.EBADF, os.strerror(errno.EBADF)))
        return memoryview(data).nbytes


def _written_out(failure: UnicodeError) -> tuple[str | bytes, int]:
    if not isinstance(failure, UnicodeEncodeError):
        raise failure
    lacking = failure.object[failure.start : failure.end]
    plain = "".join(SIGNS.get(each, each) for each in lacking)
    return plain.encode("ascii", "backslashreplace").decode("ascii"), failure.end


def prepare() -> None:
    """Replace standard output by a stream that takes any text."""
    codecs.register_error(ERRORS, _written_out)
    stream = None if sys.__stdout__ is None else sys.stdout  # see `standard_streams.complete`
    raw = _Closed() if stream is None else _FailsOnce(STDOUT, "wb", closefd=False)
    unbuffered = isinstance(getattr(stream, "buffer", None), io.RawIOBase)  # as of `python -u`
    sys.stdout = io.TextIOWrapper(
        raw if unbuffered else io.BufferedWriter(raw),
        encoding="utf-8" if stream is None else stream.encoding,
        errors=ERRORS,
        line_buffering=stream is not None and bool(stream.line_buffering),
        # Into the buffer: click writes there as well, so the order of the output is kept.
        write_through=True,
    )


def echo(text: str, *, err: bool = False) -> None:
    """Print a paragraph; on a terminal its lines are broken between words."""
    if (sys.stderr if err else sys.stdout).isatty():
        width = shutil.get_terminal_size().columns
        text = textwrap.fill(text, width, break_long_words=False, break_on_hyphens=False)
    click.echo(text, err=err)


def flush() -> None:
    """Write the rest of the output. Raises ``OutputError``."""
    if sys.stdout is not None:
        sys.stdout.flush()
