"""The command line of ``appmux stdio``, without what reads command lines: its start is timed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from mux.config import locate
from mux.posix import standard_streams
from mux.stdio.bridge import WAIT

if TYPE_CHECKING:
    from mux.stdio.overrides import DoorOverrides


class Arguments(NamedTuple):
    """The arguments of ``appmux stdio``."""

    socket: Path | None = None
    """The broker's socket; None to search for one."""
    wait: float = WAIT
    """Seconds to wait for a lost broker."""
    overrides: tuple[str, ...] = ()
    """The texts of ``-c``."""


def plain_arguments(arguments: list[str]) -> Arguments | None:
    """Return the arguments; None for those that ``cli`` explains."""
    read = Arguments()
    left = iter(arguments)
    for argument in left:
        flag, equals, value = argument.partition("=")
        if not argument.startswith("--"):
            flag, equals, value = argument, "", ""
        value = value if equals else next(left, "")
        if flag == "--socket" and value:
            read = read._replace(socket=locate.socket_path(value))
        elif flag == "--wait" and value.replace(".", "", 1).isdigit():
            read = read._replace(wait=float(value))
        elif flag in ("-c", "--config") and "=" in value:
            read = read._replace(overrides=(*read.overrides, value))
        else:
            return None
    return read


def read_overrides(
    values: Sequence[str], ignored: Sequence[str], program: str
) -> DoorOverrides | None:
    """Return the overrides of a command line; None if there are none. Say which are ignored.

    Raises ``AppmuxError`` for one that can't be read.
    """
    if not values and not ignored:
        return None
    from mux.stdio.overrides import DoorOverrides  # noqa: PLC0415 (few programs have any)

    read = DoorOverrides(values, ignored)
    if read.warning:
        standard_streams.write_stderr(f"{program}: {read.warning}\n")
    return read
