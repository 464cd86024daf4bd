"""A command's connection to the running broker: blocking, and ready in a few milliseconds.

A command that asks one thing has no use for trio, which takes longer to load than all else here.
The connection is that of the stdio bridge (``stdio.websocket``), on a unix socket or on loopback.
"""

from __future__ import annotations

import itertools
import json
import os
import select
import socket
import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, TypeAlias

import mux
from mux.config import locate
from mux.config.codex_binary import codex_home
from mux.errors import AppmuxError
from mux.host import processes
from mux.stdio.websocket import ClientWebSocket, WebSocketError

Json: TypeAlias = dict[str, Any]

NAME: Final = "appmux"
"""The name by which a command introduces itself."""

CONNECT_DEADLINE: Final = 5.0
"""Seconds from the first byte to the WebSocket handshake's end, on the same machine."""

ANSWER_DEADLINE: Final = 10.0
"""Seconds. The broker answers in a millisecond; a slower one has a problem of its own."""

RECEIVE_BYTES: Final = 256 * 1024

LOCK: Final = "broker.lock"
"""The file that a broker locks in its state directory (as in ``storage.state_dir``)."""

UNAUTHORIZED: Final = 401

EVERYWHERE: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}
"""A listener on all addresses, and the address by which its own machine reaches it."""


FORBIDDEN: Final = -32003
"""The broker's code for a missing scope, as in ``envelope.jsonrpc``, whose import takes a while."""


class BrokerError(AppmuxError):
    """The broker can't be reached, went away, or answered a request with an error.

    ``code`` is that of the JSON-RPC error; None if there was no answer.
    """

    def __init__(self, text: str, code: int | None = None) -> None:
        super().__init__(text)
        self.code = code


def _for_people(error: Json) -> str:
    """Return an error answer's text. That of a missing scope names no method: nobody typed one."""
    data = error.get("data")
    if error.get("code") != FORBIDDEN or not isinstance(data, dict) or "needs" not in data:
        return str(error.get("message"))
    has = ", ".join(map(str, data.get("has") or ())) or "none"
    return f"that needs the scope `{data['needs']}`; you have: {has}"


class NoBrokerError(AppmuxError):
    """No broker runs on the state directory."""


def urls(state_dir: Path) -> list[str]:
    """Return the URLs at which the broker of a state directory listens.

    Raises ``NoBrokerError`` if no broker has announced itself there.
    """
    announced = locate.announced(state_dir)
    if announced is None and _is_held(state_dir):
        # On a full disk the broker couldn't write where it listens; most listen there.
        control = codex_home(os.environ) / locate.CONTROL_SOCKET
        if control.exists():
            return [f"unix://{control}"]
        raise NoBrokerError(
            f"a broker has the state directory {state_dir}, but says nowhere where it listens: it"
            " is starting, or couldn't write it (`appmux doctor` looks at the disk)"
        )
    if announced is None:
        raise NoBrokerError(
            f"no appmux runs on the state directory {state_dir}: start one with `appmux serve`, or"
            " name its directory with --state-dir"
        )
    return announced


def _is_held(state_dir: Path) -> bool:
    """Return whether a process has locked a state directory. The lock isn't taken for that."""
    lock = state_dir / LOCK
    return lock.exists() and bool(processes.of_locks([lock]))


@contextmanager
def connected(urls: Iterable[str]) -> Iterator[Broker]:
    """Connect to the first of a broker's listeners that lets us in, before ``initialize``.

    A unix socket is tried first: it needs no token. Raises ``BrokerError`` if none lets us in.
    """
    failures: list[str] = []
    for url in sorted(urls, key=lambda url: not url.startswith("unix:")):
        try:
            broker = Broker(url)
        except BrokerError as failure:
            failures.append(str(failure))
            continue
        try:
            yield broker
        finally:
            broker.close()
        return
    raise BrokerError(
        f"no answer from the broker: {'; '.join(failures) or 'it has no listener'}. If it doesn't"
        " run any more, start it with `appmux serve`"
    )


def ask(urls: Iterable[str], method: str, params: Json | None = None) -> Json:
    """Return the answer to one request that needs no ``initialize``. Raises ``BrokerError``."""
    with connected(urls) as broker:
        return broker.request(method, params)


class Broker:
    """A connection to the broker. Raises ``BrokerError`` if it can't be made."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.received: deque[Json] = deque()
        """Notifications and server requests that nobody has taken yet, in order."""
        self._ids = itertools.count(1)
        self._websocket = ClientWebSocket()
        self._socket = _dial(url)
        self._complete: deque[bytes] = deque()
        try:
            self._shake_hands()
        except BaseException:
            self._socket.close()
            raise

    def initialize(self, capabilities: Json | None = None, name: str = NAME) -> Json:
        """Introduce ourselves, and return the broker's answer."""
        info = {"name": name, "title": None, "version": mux.__version__}
        hello = self.request("initialize", {"clientInfo": info, "capabilities": capabilities or {}})
        self._send({"method": "initialized"})
        return hello

    def request(
        self, method: str, params: Json | None = None, deadline: float | None = None
    ) -> Json:
        """Return the result of a request. What else comes meanwhile is put into ``received``.

        Raises ``BrokerError`` if the answer is an error, or doesn't come.
        """
        deadline = ANSWER_DEADLINE if deadline is None else deadline
        id, until = next(self._ids), time.monotonic() + deadline
        self._send({"id": id, "method": method, "params": params or {}})
        while True:
            message = self._next(until - time.monotonic())
            if message is None:
                raise BrokerError(f"the broker gave no answer within {deadline:.0f} s")
            if "method" in message:
                self.received.append(message)
            elif message.get("id") == id:
                if (error := message.get("error")) is not None:
                    raise BrokerError(_for_people(error), error.get("code"))
                result: Json = message["result"]
                return result

    def message(self, seconds: float | None = None) -> Json | None:
        """Return the next notification or server request; None if none comes in time."""
        if self.received:
            return self.received.popleft()
        until = None if seconds is None else time.monotonic() + seconds
        while True:
            message = self._next(None if until is None else until - time.monotonic())
            if message is None or "method" in message:
                return message

    def close(self) -> None:
        """End the connection."""
        with suppress(OSError):  # it has ended already
            self._socket.sendall(self._websocket.goodbye())
        self._socket.close()

    # -- messages --------------------------------------------------------------------------------

    def _send(self, message: Json) -> None:
        try:
            for frame in self._websocket.message(json.dumps(message).encode()):
                self._socket.sendall(frame)
        except OSError as failure:
            raise self._gone(failure.strerror or "no answer") from failure

    def _next(self, seconds: float | None) -> Json | None:
        until = None if seconds is None else time.monotonic() + seconds
        while not self._complete:
            left = None if until is None else max(0.0, until - time.monotonic())
            # `poll` and not `settimeout`: the rest of a large frame may take its time.
            if not select.select([self._socket], [], [], left)[0]:
                return None
            self._feed()
        text = self._complete.popleft()
        try:
            message: Json = json.loads(text)
        except ValueError as malformed:
            raise BrokerError(f"{self.url} doesn't speak JSON-RPC: {malformed}") from malformed
        return message

    def _feed(self) -> None:
        try:
            received = self._socket.recv(RECEIVE_BYTES)
            self._complete += self._websocket.feed(received)
            for reply in self._websocket.replies:
                self._socket.sendall(reply)
        except OSError as failure:
            raise self._gone(failure.strerror or str(failure)) from failure
        except WebSocketError as failure:
            raise BrokerError(f"{self.url}: {failure}") from failure
        self._websocket.replies.clear()
        if self._complete:
            return
        if self._websocket.closed is not None:
            code, reason = self._websocket.closed
            raise self._gone(f"{code} {reason}".strip())
        if not received:
            raise self._gone("without a word")

    def _gone(self, how: str) -> BrokerError:
        return BrokerError(f"the connection to {self.url} was closed ({how})")

    def _shake_hands(self) -> None:
        self._socket.settimeout(CONNECT_DEADLINE)
        try:
            self._socket.sendall(self._websocket.hello())
            while not self._websocket.open:
                if not (received := self._socket.recv(RECEIVE_BYTES)):
                    raise BrokerError(f"{self.url} gave no WebSocket handshake")
                self._complete += self._websocket.feed(received)
        except WebSocketError as refused:
            if refused.status == UNAUTHORIZED:
                text = f"{self.url} answered HTTP 401: it asks for a token; let it listen on a"
                raise BrokerError(f"{text} unix socket too (`unix://`)") from refused
            raise BrokerError(f"{self.url} gave no WebSocket handshake: {refused}") from refused
        except OSError as failure:
            raise BrokerError(f"{self.url} gave no WebSocket handshake") from failure
        self._socket.settimeout(None)


def _dial(url: str) -> socket.socket:
    scheme, _, rest = url.partition("://")
    if scheme == "wss":
        raise BrokerError(f"{url} isn't asked: let it listen on a unix socket too (`unix://`)")
    try:
        if scheme == "unix":
            return _dial_unix(Path(rest))
        host, _, port = rest.partition("/")[0].rpartition(":")
        ip = host.strip("[]")
        return socket.create_connection((EVERYWHERE.get(ip, ip), int(port)), CONNECT_DEADLINE)
    except TimeoutError as failure:
        raise BrokerError(f"can't connect to {url}: no answer") from failure
    except (OSError, ValueError) as failure:
        reason = getattr(failure, "strerror", None) or str(failure)
        raise BrokerError(f"can't connect to {url}: {reason}") from failure


def _dial_unix(path: Path) -> socket.socket:
    made = socket.socket(socket.AF_UNIX)
    try:
        made.settimeout(CONNECT_DEADLINE)
        made.connect(locate.address(path))
    except OSError:
        made.close()
        raise
    return made
