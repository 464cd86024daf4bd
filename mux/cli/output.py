"""What commands print: written whatever the terminal's encoding, and whether or not it is taken.

``prepare`` puts a stream in the place of standard output on which a command may write anything. A
character that the encoding lacks is written out (``\\u4e2d``), our own signs as ASCII has them. A
disk that is full, a pipe whose reader has gone, a closed descriptor raise ``OutputError`` once, and
what is written after that goes nowhere.

Hands to: standard output. Hears from: ``entry``, before any command runs; ``cli``, at its end.
"""

from __future__ import annotations

import codecs
import errno
import io
import os
import signal
import sys
from typing import Any, Final

from mux.errors import AppmuxError

ERRORS: Final = "appmux"
"""The name by which a codec finds what to do with a character that it lacks."""

SIGNS: Final = {"→": "->", "…": "...", "·": "-", "–": "-", "—": "-", "’": "'", "×": "x"}
"""Of our own texts, in ASCII."""

STDOUT: Final = 1

SIGNAL_STATUS: Final = 128
"""A shell's way to say "ended by signal N": 128 + N."""


class OutputError(AppmuxError):
    """Standard output took no more. A pipe's reader that has gone wants to hear no word of it."""

    def __init__(self, failure: OSError) -> None:
        super().__init__(f"can't write to standard output: {failure.strerror}")
        self.silent = isinstance(failure, BrokenPipeError)
        if self.silent:
            self.exit_status = SIGNAL_STATUS + signal.SIGPIPE


class _Told(io.FileIO):
    """Standard output, whose failure is an error of ours, told once."""

    failed = False

    def write(self, data: Any, /) -> int:
        if data and not self.failed:  # libraries write nothing, to see what it is
            try:
                return super().write(data)
            except OSError as failure:
                self.failed = True
                raise OutputError(failure) from None
        return memoryview(data).nbytes


class _Closed(io.RawIOBase):
    """In the place of a standard output that was closed before we began."""

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
    """Make standard output one on which anything may be written."""
    codecs.register_error(ERRORS, _written_out)
    there = None if sys.__stdout__ is None else sys.stdout  # see `standard_streams.complete`
    raw = _Closed() if there is None else _Told(STDOUT, "wb", closefd=False)
    unbuffered = isinstance(getattr(there, "buffer", None), io.RawIOBase)  # as of `python -u`
    sys.stdout = io.TextIOWrapper(
        raw if unbuffered else io.BufferedWriter(raw),
        encoding="utf-8" if there is None else there.encoding,
        errors=ERRORS,
        line_buffering=there is not None and bool(there.line_buffering),
        # Into the buffer: click writes there as well, and what is printed first comes first.
        write_through=True,
    )


def flush() -> None:
    """Write what is left. Raises ``OutputError``."""
    if sys.stdout is not None:
        sys.stdout.flush()
