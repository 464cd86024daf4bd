"""A push service on a stand: a real HTTP server (hypercorn) that records and answers as it is told.

Hands to: the tests of the services, what was heard. Hears from: the broker's side, over loopback.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import attrs
import hypercorn
import trio
from hypercorn.trio import serve

from tests.certificates import Issued


@attrs.frozen
class Heard:
    """One request."""

    method: str
    path: str
    http: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@attrs.frozen
class Said:
    """One answer."""

    status: int = 200
    body: Any = b""
    headers: dict[str, str] = attrs.field(factory=dict)


Answering = Callable[[Heard], Said | Awaitable[Said]]


@attrs.define(eq=False)
class Stand:
    """What was heard, and what will be answered: first `answers` in order, then by `otherwise`."""

    url: str = ""
    heard: list[Heard] = attrs.field(factory=list)
    answers: list[Said] = attrs.field(factory=list)
    otherwise: Answering = attrs.field(default=lambda _heard: Said())
    _news: trio.Event = attrs.field(factory=trio.Event)

    async def until(self, count: int, seconds: float = 30.0) -> list[Heard]:
        """Wait until so many requests were heard."""
        with trio.fail_after(seconds):
            while len(self.heard) < count:
                await self._news.wait()
        return self.heard

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        """ASGI."""
        if scope["type"] == "lifespan":
            while True:
                event = await receive()
                await send({"type": f"{event['type']}.complete"})
        body, more = b"", True
        while more:
            event = await receive()
            if event["type"] == "http.disconnect":
                return
            body += event.get("body", b"")
            more = event.get("more_body", False)
        headers = {name.decode().lower(): value.decode() for name, value in scope["headers"]}
        query = scope["query_string"].decode()
        path = scope["raw_path"].decode() + (f"?{query}" if query else "")
        heard = Heard(scope["method"], path, scope["http_version"], headers, body)
        self.heard.append(heard)
        news, self._news = self._news, trio.Event()
        news.set()
        said = self.answers.pop(0) if self.answers else self.otherwise(heard)
        if not isinstance(said, Said):
            said = await said
        content = said.body if isinstance(said.body, bytes) else json.dumps(said.body).encode()
        answered = [(name.encode(), value.encode()) for name, value in said.headers.items()]
        await send({"type": "http.response.start", "status": said.status, "headers": answered})
        await send({"type": "http.response.body", "body": content})


@asynccontextmanager
async def standing(issued: Issued | None = None, port: int = 0) -> AsyncIterator[Stand]:
    """A stand on loopback; with a certificate: TLS, HTTP/2 and HTTP/1.1."""
    stand = Stand()
    config = hypercorn.Config()
    config.bind = [f"127.0.0.1:{port}"]
    config.graceful_timeout = 0.1
    config.shutdown_timeout = 0.1
    config.accesslog = config.errorlog = None
    if issued is not None:
        config.certfile, config.keyfile = str(issued.cert), str(issued.key)
    stop = trio.Event()
    async with trio.open_nursery() as nursery:

        async def run(task_status: trio.TaskStatus[list[str]]) -> None:
            await serve(stand.app, config, shutdown_trigger=stop.wait, task_status=task_status)

        (bound,) = await nursery.start(run)
        stand.url = bound.replace("127.0.0.1", "localhost") if issued else bound
        try:
            yield stand
        finally:
            stop.set()
            nursery.cancel_scope.cancel()
