"""Paragraphs on a terminal: lines end between words, whatever the width."""

from __future__ import annotations

import os
import pty
import subprocess
import sys

import pytest

TEXT = "a sentence about `appmux pair` and a path " * 4 + "x" * 90


@pytest.mark.parametrize("columns", [40, 80])
def test_a_terminal_gets_whole_words(columns: int) -> None:
    ours, theirs = pty.openpty()
    program = f"from mux.cli.terminal import output; output.echo({TEXT!r})"
    environ = os.environ | {"COLUMNS": str(columns)}
    with os.fdopen(theirs, "wb") as terminal:
        command = [sys.executable, "-c", program]
        subprocess.run(command, stdout=terminal, env=environ, check=True)
    with os.fdopen(ours, "rb") as reader:
        lines = reader.read1(65536).decode().splitlines()
    assert " ".join(lines) == TEXT
    assert all(len(line) <= columns for line in lines[:-1])
    assert len(lines) > len(TEXT) / columns - 1
    assert lines[-1] == "x" * 90, "a word that is too long, as a link, stays whole"


def test_a_file_gets_one_line() -> None:
    program = f"from mux.cli.terminal import output; output.echo({TEXT!r})"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout == TEXT + "\n"
