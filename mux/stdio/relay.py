"""``appmux-codex app-server --listen URL``: a listener of a program's own, on the shared runtime.

Some programs start ``codex app-server --listen unix://PATH`` (or a loopback ``ws://``), wait until
it listens, and dial that. With the real codex they would get a runtime of their own. The relay
listens there instead. It copies the bytes of each connection to the broker and back, from the
upgrade on.

If the program's command line has overrides, the head of each request is read, too: the overrides
go into it (``stdio.overrides``).

A connection to a unix socket goes to the broker's unix socket. One to a port goes to the broker's
loopback listener, so that nobody gets more by this way than there.

Each connection has two threads, one for each direction: a peer that doesn't read holds up its own
connection alone. Used by ``codex_wrapper``.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
import stat
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn
from urllib.parse import urlsplit

from mux.config import locate
from mux.errors import AppmuxError
from mux.posix import standard_streams
from mux.stdio.websocket import (
    HEAD_BYTES,
    OVERRIDES,
    ClientWebSocket,
    WebSocketError,
    read_headers,
)

if TYPE_CHECKING:
    from mux.stdio.overrides import DoorOverrides

UNIX, WS = "unix://", "ws://"
LOOPBACK: Final = frozenset({"127.0.0.1", "::1"})

BACKLOG: Final = 128
"""As the native listener; a program opens a handful of connections."""

CONNECTIONS: Final = 256
"""Connections at once, two threads each. A program opens a handful; a hundred times as many is one
that leaks them, and the newest is closed."""

HEAD_DEADLINE: Final = 10.0
"""Seconds for a program to send the head of its request, if that is read."""

SWITCHING: Final = b"HTTP/1.1 101"

COPY_BYTES: Final = 256 * 1024

CONNECT_DEADLINE: Final = 2.0
"""Seconds that one try to reach the broker may block: it answers at once, or its queue is full."""

BROKER_WAIT: Final = 60.0
"""Seconds for a broker whose service was just started, as the stdio bridge waits: a cold disk."""

FIRST_TRY, LONGEST_TRY = 0.05, 1.0
"""Seconds between two tries to reach it, doubled from the first to the longest."""


class RelayError(AppmuxError):
    """The relay can't listen, or there is no broker; the text says what to do."""


def run(
    url: str, start_service: Callable[[], bool], overrides: DoorOverrides | None = None
) -> NoReturn:
    """Listen until SIGTERM or SIGINT, then exit with 0. Raises ``AppmuxError``.

    ``start_service`` starts the broker's service and returns whether there is one. ``overrides``
    are those of the program's command line.
    """
    relay = _Relay(start_service, overrides)
    with relay.connect(url, wait=BROKER_WAIT) as broker:
        relay.try_overrides(broker)  # found out now, with a reason, instead of at each connection
    listener = _listen(url)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: _leave(url))
    _print_address(url, listener)
    relay.serve(url, listener)


def _leave(url: str) -> NoReturn:
    if url.startswith(UNIX):
        with contextlib.suppress(OSError):
            locate.socket_path(url).unlink()
    os._exit(0)


# -- listening -------------------------------------------------------------------------------------


def _listen(url: str) -> socket.socket:
    if url.startswith(UNIX):
        return _listen_unix(locate.socket_path(url))
    parts = urlsplit(url)
    family = socket.AF_INET6 if ":" in str(parts.hostname) else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((str(parts.hostname), parts.port or 0))
    except OSError as failure:
        raise RelayError(f"can't listen on {url}: {failure.strerror}") from failure
    listener.listen(BACKLOG)
    return listener


def _listen_unix(path: Path) -> socket.socket:
    """Listen on a socket that is its owner's alone; one that nobody listens on is replaced."""
    _clear(path)
    listener = socket.socket(socket.AF_UNIX)
    mask = os.umask(0o177)
    try:
        listener.bind(str(path))
    except OSError as failure:
        reason = failure.strerror or str(failure)  # a path that is too long has no errno
        raise RelayError(f"can't listen on {UNIX}{path}: {reason}") from failure
    finally:
        os.umask(mask)
    listener.listen(BACKLOG)
    return listener


def _clear(path: Path) -> None:
    try:
        kind = path.stat().st_mode
    except FileNotFoundError:
        with contextlib.suppress(FileNotFoundError):
            path.unlink()  # a link to a socket that is gone
        return
    except OSError as failure:
        raise RelayError(f"can't listen on {UNIX}{path}: {failure.strerror}") from failure
    if not stat.S_ISSOCK(kind):
        raise RelayError(f"{path} exists and is not a socket: name another path")
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(CONNECT_DEADLINE)
        try:
            probe.connect(locate.address(path))
        except OSError as failure:
            if failure.errno != errno.ECONNREFUSED:
                raise RelayError(f"can't listen on {UNIX}{path}: {failure.strerror}") from failure
            path.unlink()
        else:
            raise RelayError(f"{path} is already in use: another program listens there")


def _print_address(url: str, listener: socket.socket) -> None:
    """Say where the relay listens, in the native listener's words: programs look for them."""
    if url.startswith(UNIX):
        standard_streams.write_stderr(f"  listening on: {url}\n")
        return
    host, port = listener.getsockname()[:2]
    where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    standard_streams.write_stderr(
        f"codex app-server (WebSockets)\n  listening on: ws://{where}\n"
        f"  readyz: http://{where}/readyz\n  healthz: http://{where}/healthz\n"
    )


# -- passing on ------------------------------------------------------------------------------------


class _Relay:
    """Connections to the broker, and the threads that copy them."""

    def __init__(self, start_service: Callable[[], bool], overrides: DoorOverrides | None) -> None:
        self.start_service = start_service
        self.overrides = overrides
        self.places = threading.Semaphore(CONNECTIONS)

    def serve(self, url: str, listener: socket.socket) -> NoReturn:
        while True:
            client = listener.accept()[0]
            if self.places.acquire(blocking=False):
                threading.Thread(target=self._pass_on, args=(url, client), daemon=True).start()
            else:
                client.close()

    def _pass_on(self, url: str, client: socket.socket) -> None:
        try:
            with client, self.connect(url, wait=0.0) as broker:
                self._shake_hands(client, broker)
                back = threading.Thread(target=_copy, args=(broker, client), daemon=True)
                back.start()
                _copy(client, broker)
                back.join()
        except OSError:
            pass  # one of the two went away meanwhile
        except AppmuxError as error:
            standard_streams.write_stderr(f"appmux-codex: {error}\n")
        finally:
            self.places.release()

    # -- overrides ---------------------------------------------------------------------------------

    def try_overrides(self, broker: socket.socket) -> None:
        """Ask the broker whether the overrides hold. Raises ``OverrideError`` if they must.

        A listener that asks for a token tells nothing before it is shown one.
        """
        if self.overrides is None:
            return
        upgrade = ClientWebSocket()
        broker.settimeout(CONNECT_DEADLINE)
        try:
            broker.sendall(upgrade.hello(headers=self.overrides.header()))
            while not upgrade.open and (received := broker.recv(COPY_BYTES)):
                upgrade.feed(received)
        except (OSError, WebSocketError):
            return
        if upgrade.open:
            self._judge(upgrade.headers)

    def _judge(self, headers: Mapping[bytes, bytes]) -> None:
        assert self.overrides is not None
        if text := self.overrides.answered(headers.get(OVERRIDES)):
            standard_streams.write_stderr(f"appmux-codex: {text}\n")

    def _shake_hands(self, client: socket.socket, broker: socket.socket) -> None:
        """Pass on the upgrade with the overrides in it, and its answer. Raises ``OverrideError``.

        What isn't an upgrade passes as it came. Without overrides nothing is read.
        """
        header = self.overrides.header() if self.overrides is not None else b""
        if not header:
            return
        client.settimeout(HEAD_DEADLINE)
        head, rest = _read_head(client)
        client.settimeout(None)
        broker.sendall(head + header + b"\r\n" + rest if head else rest)
        answer, rest = _read_head(broker)
        if answer.startswith(SWITCHING):
            self._judge(read_headers(answer))
        client.sendall(answer + b"\r\n" + rest if answer else rest)

    # -- the broker --------------------------------------------------------------------------------

    def connect(self, url: str, wait: float) -> socket.socket:
        """Connect to the broker; without one, start its service and wait so many seconds for it.

        Raises ``RelayError``.
        """
        end, pause, started = 0.0, FIRST_TRY, False
        while True:
            failures = []
            for place in _places(url):
                try:
                    return _dial(place)
                except OSError as failure:
                    failures.append(f"{place}: {failure.strerror or 'its queue is full'}")
            if wait and not started:
                started = self.start_service()
                end = time.monotonic() + wait
            if not started or time.monotonic() > end:
                raise RelayError(_no_broker(url, failures))
            time.sleep(pause)
            pause = min(pause * 2, LONGEST_TRY)


def _places(url: str) -> Iterator[str]:
    """Yield the broker's listeners to which connections of this URL may be passed on."""
    if url.startswith(UNIX):
        own = locate.socket_path(url)
        yield from (f"{UNIX}{path}" for path in locate.sockets(os.environ) if path != own)
        return
    for announced in locate.announced(locate.state_dir(os.environ)) or ():
        if announced.startswith(WS) and urlsplit(announced).hostname in LOOPBACK:
            yield announced


def _dial(place: str) -> socket.socket:
    """Connect to one of the broker's listeners. Raises ``OSError``."""
    if place.startswith(UNIX):
        broker = socket.socket(socket.AF_UNIX)
        broker.settimeout(CONNECT_DEADLINE)
        try:
            broker.connect(locate.address(Path(place.removeprefix(UNIX))))
        except OSError:
            broker.close()
            raise
    else:
        parts = urlsplit(place)
        address = (str(parts.hostname), parts.port or 0)
        broker = socket.create_connection(address, CONNECT_DEADLINE)
    broker.settimeout(None)
    return broker


def _no_broker(url: str, failures: list[str]) -> str:
    if url.startswith(UNIX):
        return f"no broker to attach to ({'; '.join(failures)}): start one with `appmux serve`"
    tried = "; ".join(failures) or "none listens"
    return (
        f"no broker with a loopback listener to attach to ({tried}):"
        " start one with `appmux serve`, or have the program use `--listen unix://PATH`"
    )


def _read_head(source: socket.socket) -> tuple[bytes, bytes]:
    """Return an HTTP head up to its empty line, and the bytes after that.

    Of what is no head all is returned as bytes after it.
    """
    received = b""
    while (end := received.find(b"\r\n\r\n")) < 0:
        more = source.recv(COPY_BYTES) if len(received) <= HEAD_BYTES else b""
        if not more:
            return b"", received
        received += more
    return received[: end + 2], received[end + 4 :]


def _copy(source: socket.socket, target: socket.socket) -> None:
    """Copy bytes until the source ends, then tell the target that no more come.

    A connection that breaks is cut both ways, so that the other direction ends, too.
    """
    try:
        while received := source.recv(COPY_BYTES):
            target.sendall(received)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
