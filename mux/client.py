"""A small JSON-RPC client, for appmux's own commands.

It connects to one of the broker's listeners over WebSocket, on TCP or on a unix socket. It sends
requests, answers server requests, and stores every message that it receives in ``inbox``.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Final, TypeAlias

import attrs
import trio
import trio_websocket

import mux
from mux.config import locate
from mux.errors import AppmuxError

Json: TypeAlias = dict[str, Any]

CONNECT_DEADLINE: Final = 5.0
"""Seconds from the first byte to the WebSocket handshake's end, on the same machine."""

CLOSE_DEADLINE: Final = 1.0
"""Seconds for the broker to join the closing handshake. The connection ends in any case."""

MESSAGE_BYTES: Final = 64 * 1024 * 1024
"""The longest message taken: the broker's own default limit."""

HEARD_AHEAD: Final = 64
"""Messages parsed before they are looked at: a burst of deltas costs fewer task switches."""

UNAUTHORIZED: Final = 401

EVERYWHERE: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}
"""A listener on all addresses, and the address by which its own machine reaches it."""


class ClientError(AppmuxError):
    """A broker can't be reached, went away, or answered a request with an error."""


class RefusedError(ClientError):
    """A listener answered, but refused the connection.

    ``status`` is the HTTP status; 0 if there was none.
    """

    def __init__(self, text: str, status: int = 0) -> None:
        super().__init__(text)
        self.status = status


@attrs.define(eq=False, repr=False)
class Client:
    """A connection to a broker."""

    url: str
    _connection: trio_websocket.WebSocketConnection
    on_message: Callable[[Json], None] = attrs.field(default=lambda _message: None)
    """Called with each message as it comes, before anybody who waits for it wakes up."""
    inbox: list[Json] = attrs.field(factory=list)
    """All messages received, in order."""
    _gone: str | None = None
    """Why the connection ended; None while it stands."""
    _ids: Iterator[int] = attrs.field(factory=lambda: itertools.count(1))
    _news: trio.Event = attrs.field(factory=trio.Event)

    @property
    def gone(self) -> bool:
        """True if the connection has ended."""
        return self._gone is not None

    async def initialize(self, name: str, capabilities: Json | None = None) -> Json:
        """Shake hands under ``name`` and return the broker's answer."""
        info = {"name": name, "title": None, "version": mux.__version__}
        params = {"clientInfo": info, "capabilities": capabilities or {}}
        hello = await self.request("initialize", params)
        await self.notify("initialized")
        return hello

    async def request(self, method: str, params: Json | None = None) -> Json:
        """Send a request and return its result.

        Raises ``ClientError`` if the answer is an error or never comes.
        """
        id = next(self._ids)
        since = len(self.inbox)
        await self._send({"id": id, "method": method, "params": params or {}})
        answer = await self.wait(lambda m: "method" not in m and m.get("id") == id, since)
        if "error" in answer:
            raise ClientError(str(answer["error"].get("message")))
        result: Json = answer["result"]
        return result

    async def notify(self, method: str, params: Json | None = None) -> None:
        """Send a notification."""
        await self._send({"method": method} | ({} if params is None else {"params": params}))

    async def respond(self, id: int | str, result: Json) -> None:
        """Answer a server request."""
        await self._send({"id": id, "result": result})

    async def wait(self, matches: Callable[[Json], bool], since: int = 0) -> Json:
        """Return the first message from ``inbox[since]`` on that is wanted, now or when it comes.

        Raises ``ClientError`` if the connection ends first.
        """
        place = since
        while True:
            while place >= len(self.inbox):
                if self._gone is not None:
                    raise ClientError(self._gone)
                await self._news.wait()
            if matches(self.inbox[place]):
                return self.inbox[place]
            place += 1

    async def listen(self) -> None:
        """Fill the inbox until the connection ends."""
        try:
            while True:
                message = json.loads(await self._connection.get_message())
                self.inbox.append(message)
                self.on_message(message)
                self._wake()
        except trio_websocket.ConnectionClosed as closed:
            self._gone = f"the connection to {self.url} was closed ({_reason(closed)})"
        except ValueError as malformed:
            self._gone = f"{self.url} doesn't speak JSON-RPC: {malformed}"
        self._wake()

    async def _send(self, message: Json) -> None:
        try:
            await self._connection.send_message(json.dumps(message))
        except trio_websocket.ConnectionClosed as closed:
            raise ClientError(
                f"the connection to {self.url} was closed ({_reason(closed)})"
            ) from closed

    def _wake(self) -> None:
        self._news.set()
        self._news = trio.Event()


def _reason(closed: trio_websocket.ConnectionClosed) -> str:
    if closed.reason is None:
        return "without a word"
    return " ".join(str(part) for part in (closed.reason.code, closed.reason.reason) if part)


@asynccontextmanager
async def connect_any(urls: Iterable[str]) -> AsyncIterator[Client]:
    """Connect to the first of a broker's listeners that lets us in, before ``initialize``.

    A unix socket is tried first: it needs no token. Raises ``ClientError`` if no listener lets us
    in.
    """
    failures: list[str] = []
    async with AsyncExitStack() as stack:
        connection = None
        for url in sorted(urls, key=lambda url: not url.startswith("unix:")):
            try:
                connection = await stack.enter_async_context(connect(url))
                break
            except RefusedError as refused:
                failures.append(_why_refused(refused))
            except ClientError as failure:
                failures.append(str(failure))
        if connection is None:
            raise ClientError(
                f"no answer from the broker: {'; '.join(failures) or 'it has no listener'}. If it"
                " doesn't run any more, start it with `appmux serve`"
            )
        yield connection


def _why_refused(refused: RefusedError) -> str:
    if refused.status == UNAUTHORIZED:
        return f"{refused}: it asks for a token; let it listen on a unix socket too (`unix://`)"
    return str(refused)


@asynccontextmanager
async def connect(
    url: str, on_message: Callable[[Json], None] = lambda _message: None
) -> AsyncIterator[Client]:
    """Connect to ``ws://IP:PORT`` or ``unix://PATH``, before ``initialize``.

    Raises ``ClientError`` if nobody listens there, ``RefusedError`` if the connection is refused.
    """
    stream = await _open(url)
    with _plainly(url):
        async with stream, trio.open_nursery() as nursery:
            client = Client(url, await _handshake(nursery, stream, url), on_message)
            nursery.start_soon(client.listen)
            try:
                yield client
            finally:
                with trio.move_on_after(CLOSE_DEADLINE, shield=True):
                    await client._connection.aclose()
                nursery.cancel_scope.cancel()


async def _open(url: str) -> trio.SocketStream:
    scheme, _, rest = url.partition("://")
    if scheme == "wss":
        raise ClientError(f"{url} isn't asked: let it listen on a unix socket too (`unix://`)")
    try:
        with trio.fail_after(CONNECT_DEADLINE):
            if scheme == "unix":
                return await trio.open_unix_socket(locate.address(Path(rest)))
            host, _, port = rest.partition("/")[0].rpartition(":")
            ip = host.strip("[]")
            return await trio.open_tcp_stream(EVERYWHERE.get(ip, ip), int(port))
    except trio.TooSlowError as failure:
        raise ClientError(f"can't connect to {url}: no answer") from failure
    except (OSError, ValueError) as failure:
        reason = getattr(failure, "strerror", None) or str(failure)
        raise ClientError(f"can't connect to {url}: {reason}") from failure


async def _handshake(
    nursery: trio.Nursery, stream: trio.SocketStream, url: str
) -> trio_websocket.WebSocketConnection:
    try:
        with trio.fail_after(CONNECT_DEADLINE):
            return await trio_websocket.wrap_client_stream(
                nursery,
                stream,
                "localhost",
                "/",
                message_queue_size=HEARD_AHEAD,
                max_message_size=MESSAGE_BYTES,
            )
    except trio.TooSlowError as failure:
        raise RefusedError(f"{url} gave no WebSocket handshake") from failure


@contextmanager
def _plainly(url: str) -> Iterator[None]:
    """Raise an error alone, out of the groups that a nursery wraps around it.

    The library's own task in the nursery raises a refusal, so it is translated here.
    """
    try:
        yield
    except BaseExceptionGroup as group:
        cause: BaseException = group
        while isinstance(cause, BaseExceptionGroup) and len(cause.exceptions) == 1:
            cause = cause.exceptions[0]
        if isinstance(cause, trio_websocket.ConnectionRejected):
            status = cause.status_code
            raise RefusedError(f"{url} answered HTTP {status}", status) from cause
        if isinstance(cause, trio_websocket.HandshakeError):
            raise RefusedError(f"{url} gave no WebSocket handshake") from cause
        raise cause from cause.__cause__
