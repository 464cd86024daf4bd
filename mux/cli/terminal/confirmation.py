"""Questions to the person at the terminal, before something of theirs is changed."""

from __future__ import annotations

import sys

import click

from mux.errors import AppmuxError


class UnansweredError(AppmuxError):
    """A question got no answer because nobody is there, or the answer was no."""


def is_terminal() -> bool:
    """Return whether somebody is there to ask."""
    return sys.stdin.isatty()


def confirm(question: str, *, yes: bool) -> None:
    """Return only after a yes. Raises ``UnansweredError``."""
    if yes:
        return
    if not is_terminal():
        raise UnansweredError(f"{question} There is no terminal to ask on: say it with --yes")
    if not click.confirm(question):
        raise UnansweredError("nothing was changed")
