"""Finds the broker for the stdio bridge: tries each place, or has the service started."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from mux.config import locate
from mux.config.codex_binary import codex_home
from mux.posix import standard_streams
from mux.stdio import joined
from mux.stdio.joined import Joined

CONNECT_DEADLINE: Final = 2.0
"""Seconds that one try may block: a unix socket answers at once, or its queue is full."""

HOW_TO_START: Final = (
    "start it with `appmux serve`, or have it as a service: `appmux service install`; a socket of"
    " another place is named by --socket or APPMUX_SOCKET"
)


class NotReachedError(Exception):
    """No place could be connected to; the text says why of each."""


def connect(named: Path | None) -> tuple[socket.socket, str, Joined | None]:
    """Connect to the socket ``named``, or else to the first that takes it of those searched.

    Those are the running broker's of this machine, the broker that was joined, and Codex's control
    socket. Return the connection, non-blocking, its place for people, and the broker that was
    joined if it is that. Raises ``NotReachedError``.
    """
    places: Iterable[Path | Joined] = [named] if named else _searched()
    failures = []
    for place in places:
        if isinstance(place, Joined):
            try:
                link = joined.connect(place)
            except OSError as failure:
                failures.append(f"{place.url}: {failure.strerror or failure}")
                continue
            link.setblocking(False)
            return link, place.url, place
        link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        link.settimeout(CONNECT_DEADLINE)
        try:
            link.connect(locate.address(place))
        except OSError as failure:
            link.close()
            reason = failure.strerror or "its queue is full"
            failures.append(f"unix://{place}: {reason}")
            continue
        link.setblocking(False)
        return link, f"unix://{place}", None
    raise NotReachedError("; ".join(failures))


def _searched() -> Iterator[Path | Joined]:
    """Yield the places to try; this machine's own broker comes before one that was joined.

    Unless that one is named: then nothing else is meant. Raises ``NotReachedError``.
    """
    elsewhere = None if os.environ.get(locate.SOCKET_VARIABLE) else joined.read(os.environ)
    named = os.environ.get(joined.VARIABLE)
    if named and not os.environ.get(locate.SOCKET_VARIABLE):
        if elsewhere is None:
            raise NotReachedError(f"{joined.VARIABLE}: no broker was joined as {named}")
        yield elsewhere
        return
    control = codex_home(os.environ) / locate.CONTROL_SOCKET
    for place in locate.sockets(os.environ):
        if place == control and elsewhere is not None:
            yield elsewhere
            elsewhere = None
        yield place
    if elsewhere is not None:
        yield elsewhere


def start_service() -> bool:
    """Start the service if it is installed, and return whether that worked.

    Its output goes to stderr.
    """
    # -P: a directory `mux` in the client's working directory isn't this program.
    argv = [sys.executable, "-P", "-m", "mux", "service", "start"]
    reader, writer = os.pipe()  # not our stderr, whose reader might keep the child waiting
    actions = [
        (os.POSIX_SPAWN_OPEN, standard_streams.STDIN, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_DUP2, writer, standard_streams.STDOUT),
        (os.POSIX_SPAWN_DUP2, writer, standard_streams.STDERR),
    ]
    child = os.posix_spawn(sys.executable, argv, os.environ, file_actions=actions)
    os.close(writer)
    with os.fdopen(reader, encoding="utf-8", errors="replace") as words:
        for line in words:
            standard_streams.write_stderr(line)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
