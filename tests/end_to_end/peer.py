"""A client that does nothing by itself, over pipes, WebSocket or a unix socket.

A `Peer` keeps all it hears, and a test waits for what it is looking for. It fits the app-server's
own listeners and the broker's alike.

Hands to: the tests and `native`.
Hears from: `codex app-server`, or the broker.
"""

from __future__ import annotations

import contextlib
import itertools
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Final, Protocol, TypeAlias

import attrs
import trio
from trio_websocket import ConnectionClosed, WebSocketConnection, wrap_client_stream

Json: TypeAlias = dict[str, Any]

# Where 18 programs want two cores, what takes 2 s alone took 20; short enough to notice a hang.
PATIENCE: Final = 60.0
# A closing handshake that the other end doesn't join is not waited for.
CLOSE_PATIENCE: Final = 1.0
# Twice what the app-server was seen to send in one frame.
MAX_FRAME_BYTES: Final = 256 * 1024 * 1024
RECEIVE_BYTES: Final = 256 * 1024
RECEIVE_QUEUE: Final = 1024
# What of the inbox a test that fails is shown.
SHOWN_MESSAGES: Final = 40
SHOWN_CHARACTERS: Final = 300


@attrs.frozen
class RpcError(Exception):
    """The other end answered a request with an error."""

    code: int
    message: str
    data: Any = None

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"


class GoneError(Exception):
    """The connection is closed, so what was waited for can't come any more."""


class Link(Protocol):
    """How a `Peer` reaches the other end: whole messages each way."""

    async def send(self, message: str | bytes) -> None: ...

    def receive(self) -> AsyncIterator[str | bytes]: ...

    async def close(self) -> None: ...


@attrs.define
class Peer:
    """One JSON-RPC client. All it hears is kept in `inbox`, parsed, in order, for ever.

    `raw` holds the same messages as they came. What isn't JSON is in both as text.
    """

    link: Link
    inbox: list[Any] = attrs.field(factory=list)
    raw: list[str | bytes] = attrs.field(factory=list)
    gone: bool = False
    hello: Json = attrs.field(factory=dict)
    _ids: Iterator[int] = attrs.field(factory=lambda: itertools.count(1))
    _news: trio.Event = attrs.field(factory=trio.Event)

    async def listen(self) -> None:
        """Fill the inbox until the other end closes."""
        try:
            async for message in self.link.receive():
                self.raw.append(message)
                try:
                    self.inbox.append(json.loads(message))
                except ValueError:
                    self.inbox.append(message)
                self._wake()
        finally:
            self.gone = True
            self._wake()

    async def initialize(
        self, name: str = "native-test", *, experimental: bool = True, **capabilities: Any
    ) -> Json:
        """Shake hands; the result, which `hello` keeps too."""
        client = {"name": name, "title": None, "version": "0.1"}
        asked = {"experimentalApi": experimental, **capabilities}
        self.hello = await self.request("initialize", {"clientInfo": client, "capabilities": asked})
        await self.notify("initialized")
        return self.hello

    async def request(
        self, method: str, params: Any = None, *, timeout: float = PATIENCE, **extra: Any
    ) -> Any:
        """Ask, and wait for the result. Raises RpcError if the answer is one."""
        since = len(self.inbox)
        request_id = await self.ask(method, params, **extra)
        return await self.result(request_id, timeout=timeout, since=since)

    async def ask(self, method: str, params: Any = None, **extra: Any) -> int | str:
        """Send a request without waiting; its id. `extra` are further top-level fields.

        No `params` are sent as `{}`. A choice of `id` is a field like any other.
        """
        request_id = extra.pop("id", None)
        if request_id is None:
            request_id = next(self._ids)
        asked = {} if params is None else params
        await self._send({"id": request_id, "method": method, "params": asked, **extra})
        return request_id  # type: ignore[no-any-return]

    async def result(
        self, request_id: int | str, *, timeout: float = PATIENCE, since: int = 0
    ) -> Any:
        """Wait for the answer to a request of ours. Raises RpcError if it is an error."""
        answer = await self.wait(answers(request_id), timeout=timeout, since=since)
        if "error" in answer:
            error = answer["error"]
            raise RpcError(error["code"], error["message"], error.get("data"))
        return answer["result"]

    async def notify(self, method: str, params: Any = None) -> None:
        """Send a notification."""
        await self._send({"method": method} | ({} if params is None else {"params": params}))

    async def respond(self, request_id: Any, result: Any) -> None:
        """Answer a server request."""
        await self._send({"id": request_id, "result": result})

    async def respond_error(self, request_id: Any, code: int, message: str) -> None:
        """Answer a server request with an error."""
        await self._send({"id": request_id, "error": {"code": code, "message": message}})

    async def send_raw(self, message: str | bytes) -> None:
        """Send something as it stands: a line's text over stdio, else a text or binary frame."""
        await self.link.send(message)

    async def wait(
        self, wanted: Callable[[Any], bool], *, timeout: float = PATIENCE, since: int = 0
    ) -> Any:
        """The first message from `inbox[since]` on that is `wanted`, now or when it comes.

        Raises GoneError if the connection closes first, and AssertionError, which shows what was
        heard instead, after `timeout` seconds.
        """
        with trio.move_on_after(timeout):
            for place in itertools.count(since):
                while place >= len(self.inbox):
                    if self.gone:
                        raise GoneError(f"the connection closed; heard: {self._shown(since)}")
                    await self._news.wait()
                if isinstance(self.inbox[place], dict) and wanted(self.inbox[place]):
                    return self.inbox[place]
        raise AssertionError(f"not heard within {timeout} s; heard: {self._shown(since)}")

    async def wait_method(
        self, method: str, *, timeout: float = PATIENCE, since: int = 0, **params: Any
    ) -> Any:
        """The first message of `method` whose params have the given values."""
        return await self.wait(is_method(method, **params), timeout=timeout, since=since)

    async def wait_gone(self, *, timeout: float = PATIENCE) -> None:
        """Wait until the other end has closed."""
        with trio.fail_after(timeout):
            while not self.gone:
                await self._news.wait()

    def heard(self, method: str, *, since: int = 0, **params: Any) -> list[Json]:
        """The messages of `method` so far whose params have the given values."""
        wanted = is_method(method, **params)
        return [m for m in self.inbox[since:] if isinstance(m, dict) and wanted(m)]

    async def start_thread(self, cwd: Path, **params: Any) -> str:
        """Start a thread that works in `cwd`; its id."""
        started = await self.request("thread/start", {"cwd": str(cwd), **params})
        return str(started["thread"]["id"])

    async def start_turn(self, thread_id: str, text: str, **params: Any) -> str:
        """Say `text` on a thread, without waiting for the end of the turn; the turn's id."""
        words = [{"type": "text", "text": text, "text_elements": []}]
        asked = {"threadId": thread_id, "input": words, **params}
        return str((await self.request("turn/start", asked))["turn"]["id"])

    async def run_turn(self, thread_id: str, text: str, **params: Any) -> Json:
        """Say `text` on a thread and wait for the end; the completed turn."""
        since = len(self.inbox)
        await self.start_turn(thread_id, text, **params)
        done = await self.wait_method("turn/completed", since=since, threadId=thread_id)
        return done["params"]["turn"]  # type: ignore[no-any-return]

    async def close(self) -> None:
        """Close the connection from this side."""
        await self.link.close()

    async def _send(self, message: Json) -> None:
        await self.link.send(json.dumps(message))

    def _wake(self) -> None:
        self._news.set()
        self._news = trio.Event()

    def _shown(self, since: int) -> str:
        lines = [json.dumps(m)[:SHOWN_CHARACTERS] for m in self.inbox[since:][-SHOWN_MESSAGES:]]
        return "\n".join(["", *lines]) if lines else "nothing"


def answers(request_id: int | str) -> Callable[[Any], bool]:
    """A condition for `Peer.wait`: the answer to a request, by its id and the id's type."""

    def wanted(message: Json) -> bool:
        has = message.get("id")
        return "method" not in message and has == request_id and type(has) is type(request_id)

    return wanted


def is_method(method: str, **params: Any) -> Callable[[Any], bool]:
    """A condition for `Peer.wait`: a message of `method` whose params have the given values."""

    def wanted(message: Json) -> bool:
        if message.get("method") != method:
            return False
        has = message.get("params") or {}
        return all(has.get(name) == value for name, value in params.items())

    return wanted


@contextmanager
def plainly() -> Iterator[None]:
    """Raise what went wrong itself, out of the groups that nurseries wrap around it."""
    try:
        yield
    except BaseExceptionGroup as group:
        cause: BaseException = group
        while isinstance(cause, BaseExceptionGroup) and len(cause.exceptions) == 1:
            cause = cause.exceptions[0]
        raise cause from None


# --- Over pipes ----------------------------------------------------------------------------------


@attrs.define
class StdioLink:
    """A link over the pipes of a process."""

    process: trio.Process
    _buffer: bytearray = attrs.field(factory=bytearray)
    # Several tasks of a test may send at once, and a pipe takes one writer at a time.
    _turn: trio.StrictFIFOLock = attrs.field(factory=trio.StrictFIFOLock)

    async def send(self, message: str | bytes) -> None:
        line = message.encode() if isinstance(message, str) else message
        assert self.process.stdin is not None
        async with self._turn:
            await self.process.stdin.send_all(line + b"\n")

    async def receive(self) -> AsyncGenerator[str, None]:
        assert self.process.stdout is not None
        async for piece in self.process.stdout:
            self._buffer += piece
            if b"\n" in piece:
                *lines, self._buffer = self._buffer.split(b"\n")
                for line in lines:
                    yield line.decode()

    async def close(self) -> None:
        assert self.process.stdin is not None
        await self.process.stdin.aclose()


# --- Over WebSocket ------------------------------------------------------------------------------


@attrs.define
class WsLink:
    """A link over a WebSocket."""

    connection: WebSocketConnection

    async def send(self, message: str | bytes) -> None:
        await self.connection.send_message(message)

    async def receive(self) -> AsyncGenerator[str | bytes, None]:
        with contextlib.suppress(ConnectionClosed):
            while True:
                yield await self.connection.get_message()

    async def close(self) -> None:
        await self.connection.aclose()


@asynccontextmanager
async def connect_ws(
    url: str, token: str | None = None, headers: Sequence[tuple[str, str]] = ()
) -> AsyncIterator[Peer]:
    """A client of a WebSocket listener, not yet initialized."""
    host, _, rest = url.removeprefix("ws://").partition("/")
    name, _, port = host.rpartition(":")
    stream = await trio.open_tcp_stream(name.strip("[]"), int(port))
    bearer = [("Authorization", f"Bearer {token}")] if token is not None else []
    async with connect(stream, host, f"/{rest}", [*bearer, *headers]) as peer:
        yield peer


@asynccontextmanager
async def connect_unix(path: Path | str, resource: str = "/rpc") -> AsyncIterator[Peer]:
    """A client of a unix socket listener, not yet initialized."""
    # A socket's address holds about 100 characters, a link to it can stand deeper.
    stream = await trio.open_unix_socket(str(await trio.Path(path).resolve()))
    async with connect(stream, "localhost", resource) as peer:
        yield peer


@asynccontextmanager
async def connect(
    stream: trio.SocketStream | trio.SSLStream[trio.SocketStream],
    host: str,
    resource: str,
    headers: Sequence[tuple[str, str]] = (),
    queue: int = RECEIVE_QUEUE,
    *,
    subprotocols: Sequence[str] | None = None,
) -> AsyncIterator[Peer]:
    """A client over a stream that is open. Raises what trio-websocket raises when refused.

    `queue`: how many messages are taken from the socket before somebody wants them.
    """
    # Where the other end refuses or closes first, the library leaves the socket open.
    with plainly():
        async with stream, trio.open_nursery() as nursery:
            with trio.fail_after(PATIENCE):
                connection = await wrap_client_stream(
                    nursery,
                    stream,
                    host,
                    resource,
                    subprotocols=subprotocols,
                    extra_headers=[(name.encode(), value.encode()) for name, value in headers],
                    message_queue_size=queue,
                    max_message_size=MAX_FRAME_BYTES,
                    receive_buffer_size=RECEIVE_BYTES,
                )
            peer = Peer(WsLink(connection))
            nursery.start_soon(peer.listen)
            try:
                yield peer
            finally:
                with trio.move_on_after(CLOSE_PATIENCE) as scope:
                    scope.shield = True
                    await connection.aclose()
                nursery.cancel_scope.cancel()
