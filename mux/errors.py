"""The errors that a person is meant to read.

``cli`` prints ``Error: …`` and exits with ``exit_status``, without a traceback. Any exception that
isn't derived from this class is a bug, and is shown as one.
"""

from __future__ import annotations


class AppmuxError(Exception):
    """An expected failure. Its text says what failed, where, and what to do about it."""

    exit_status: int = 1
    """The process's exit status: 1 for a wrong setting or state, 2 for a wrong argument."""
