"""The supervisor's lines on stderr, which the service manager keeps."""

from __future__ import annotations

from mux.posix.standard_streams import write_stderr


def log(text: str) -> None:
    """Write a line for operators. Never waits, never fails."""
    write_stderr(f"appmux: {text}\n")
