"""A runtime for the page's tests: broker, app-server and scripted model, in a thread of their own.

Playwright's synchronous half has the test's thread; what is trio's runs beside it. A story asks for
it by `Runtime.run`, and gets a device in by `Runtime.ticket`, which an operator says yes to.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import Future
from contextlib import asynccontextmanager
from typing import Any, Final, TypeVar

import attrs
import trio

from mux.demo.scripted_model import Scripted
from tests.end_to_end.brokered import brokered, client
from tests.end_to_end.native import Native
from tests.end_to_end.peer import Peer, connect_unix
from tests.page.scenes import script
from tests.page.seeds import CONFIG, begin

T = TypeVar("T")

ALL: Final = ("observe", "approve", "drive", "admin")
"""What an operator's browser may."""

TICKET_SECONDS: Final = 120.0
"""For a browser to come with its ticket, on a machine that is busy with other tests."""

START_SECONDS: Final = 180.0
"""For the start of a broker and its app-server, beside as many other tests."""


@attrs.define(eq=False)
class Runtime:
    """A running broker, as a test's thread sees it."""

    broker: Native
    desk: Peer
    """A second client, that follows what it begins: the operator at a terminal."""
    operator: Peer
    _token: trio.lowlevel.TrioToken
    _nursery: trio.Nursery

    @property
    def origin(self) -> str:
        """Where the page is."""
        return self.broker.url.replace("ws://", "http://")

    @property
    def model(self) -> Scripted:
        return self.broker.model

    def run(self, work: Callable[..., Awaitable[T]], *arguments: Any) -> T:
        """Run something of trio's, and wait for it."""
        return trio.from_thread.run(work, *arguments, trio_token=self._token)

    def now(self, work: Callable[..., T], *arguments: Any) -> T:
        """Call something in trio's thread."""
        return trio.from_thread.run_sync(work, *arguments, trio_token=self._token)

    async def start(self, work: Callable[..., Awaitable[None]]) -> None:
        """Begin something that goes on beside the test, and wait until it has started."""
        await self._nursery.start(work)

    def request(self, method: str, params: Any = None) -> Any:
        """Ask the broker as the desk."""
        return self.run(self.desk.request, method, params)

    def begin(self, title: str, words: str) -> str:
        """Have the desk begin a thread. Return its id."""
        return self.run(begin, self.desk, self.broker.home.work, title, words)

    def ticket(self, *scopes: str) -> str:
        """Return a ticket. The operator says yes to whoever comes with it."""
        begun = self.run(self.operator.request, "mux/pairing/begin", {"scopes": scopes or ALL})
        self.now(self._nursery.start_soon, self._confirm, begun["id"])
        return str(begun["ticket"])

    async def _confirm(self, id: int) -> None:
        try:
            await self.operator.wait_method("mux/pairing/asked", id=id, timeout=TICKET_SECONDS)
        except AssertionError:
            return  # nobody came with it: the test that wanted it says why
        await self.operator.request("mux/pairing/confirm", {"id": id, "accept": True})


@contextlib.contextmanager
def runtime(model: Scripted | None = None, **options: Any) -> Iterator[Runtime]:
    """Run a broker for as long as the block takes."""
    ready: Future[Runtime] = Future()
    over = trio.Event()

    async def main() -> None:
        try:
            async with _running(model or script(), options) as made:
                ready.set_result(made)
                await over.wait()
        except BaseException as failure:
            if not ready.done():
                ready.set_exception(failure)
            raise

    thread = threading.Thread(target=trio.run, args=(main,))
    thread.start()
    found = ready.result(START_SECONDS)
    try:
        yield found
    finally:
        found.now(over.set)
        thread.join()


@asynccontextmanager
async def _running(model: Scripted, options: dict[str, Any]) -> AsyncIterator[Runtime]:
    async with (
        brokered(model=model, config=CONFIG, **options) as broker,
        client(broker, "desk", extensions={"appmux": {"version": 1}}) as desk,
        connect_unix(broker.socket) as operator,
        trio.open_nursery() as nursery,
    ):
        token = trio.lowlevel.current_trio_token()
        yield Runtime(broker, desk, operator, token, nursery)
        nursery.cancel_scope.cancel()
