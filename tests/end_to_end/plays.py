"""How the examples of the extension are played: each request is sent to a real broker.

An example that needs something there before (a device, an approval that waits) has a play in
`PLAYS`: it sets that up, and sends the example with the ids that there are. The others are sent as
they stand. A play also makes the broker send the notifications that belong to it.

Hands to: `test_extension`. Hears from: the broker.
"""

from __future__ import annotations

import base64
import contextlib
import sqlite3
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

import attrs
import httpx
import trio

from mux.core.extension import catalog
from mux.demo.scripted_model import Hold, Run, Say, Scripted
from tests.end_to_end.brokered import brokered
from tests.end_to_end.browsers import Browser, origin_of
from tests.end_to_end.devices import DEVICES_ONLY, pair, post
from tests.end_to_end.native import Native
from tests.end_to_end.peer import PATIENCE, Json, Peer, connect_unix, connect_ws
from tests.end_to_end.scenes import APPROVAL, eventually, join
from tests.extension_schemas import example
from tests.tailnet.stand_in import tailscaled

AWARE: Final[Json] = {"extensions": {"appmux": {"version": 1}}}


@attrs.define
class Stage:
    """A broker with two clients that know it: `operator`, who may everything; `guest` observes.

    Both hear what happens; `posted` holds the bodies of `POST /v1/pair`, by part of the schema,
    `queued` what was told of turns that were queued, `sessions` the bodies of `POST /v1/session`,
    and `browsers` those that came.
    """

    broker: Native
    operator: Peer
    guest: Peer
    posted: list[tuple[str, Json]] = attrs.field(factory=list)
    queued: list[Json] = attrs.field(factory=list)
    sessions: list[tuple[str, Json]] = attrs.field(factory=list)
    browsers: list[Peer] = attrs.field(factory=list)

    async def play(self, method: str) -> Any:
        """The real answer to the example of a method."""
        play = PLAYS.get(method, _as_it_stands)
        return await play(self, method, example(catalog.METHODS[method])["params"])

    async def thread(self, says: str | None = None) -> str:
        """A thread that both follow; with a turn running on it, if something is said."""
        thread = await self.operator.start_thread(self.broker.home.work)
        await join(self.guest, thread)
        if says is not None:
            await self.operator.start_turn(thread, says)
        return thread

    async def approval(self) -> Json:
        """An approval that both have before them."""
        thread = await self.thread("run it")
        await self.guest.wait_method(APPROVAL, threadId=thread)
        return await self.operator.wait_method(APPROVAL, threadId=thread)  # type: ignore[no-any-return]

    async def device(self, name: str) -> None:
        """A device in the book."""
        await self.operator.request("mux/devices/add", {"name": name, "scopes": ["observe"]})


@asynccontextmanager
async def stage() -> AsyncIterator[Stage]:
    """A broker, its operator, and a guest."""
    model = Scripted()
    model.on("hold on", (Hold("for ever"), Say("Done.")))
    model.on("run it", Run("echo > proof.txt", escalated=True), Say("Done."))
    with tempfile.TemporaryDirectory() as directory, tailscaled(Path(directory)) as daemon:
        environ = {
            "APPMUX_APPROVALS_POLICY": "quorum",
            "APPMUX_TAILNET_SOCKET": str(daemon.socket),
        }
        options: Json = {"model": model, "environ": environ}
        async with brokered(*DEVICES_ONLY, **options) as broker, connect_unix(broker.socket) as op:
            await op.initialize("operator", **AWARE)
            token = await pair(broker, op, "guest", "observe")
            async with connect_ws(broker.url, token) as guest:
                await guest.initialize("guest", **AWARE)
                yield Stage(broker, op, guest)


# --- Examples that need something there before ------------------------------------------------


async def _as_it_stands(on: Stage, method: str, params: Json) -> Any:
    return await on.operator.request(method, params)


async def _upload(on: Stage, thread: str) -> str:
    """A file comes to a thread; its path."""
    named = base64.b64encode(thread.encode()).decode()
    headers = {"Tus-Resumable": "1.0.0", "Upload-Length": "0", "Upload-Metadata": f"thread {named}"}
    socket = httpx.AsyncHTTPTransport(uds=str(on.broker.socket.resolve()))
    async with httpx.AsyncClient(transport=socket, base_url="http://localhost") as web:
        assert (await web.post("/v1/files", headers=headers)).status_code == HTTPStatus.CREATED
    added = await on.operator.wait_method("mux/files/added", threadId=thread)
    return str(added["params"]["path"])


async def _of_files(on: Stage, method: str, params: Json) -> Any:
    thread = await on.thread()
    own = {"threadId": thread, "path": await _upload(on, thread)}
    return await on.operator.request(method, {name: own[name] for name in params})


async def _replay(on: Stage, method: str, params: Json) -> Any:
    thread = await on.thread()
    async with aware(on, "come back") as peer:
        after = {name: peer.hello["appmux"][name] for name in ("epoch", "seq")}
        answer = await peer.request(method, params | {"after": after, "threadId": thread})
        gap = await peer.request(method, params | {"threadId": thread})  # of another epoch
        assert not gap["complete"]
    return answer


async def _list(on: Stage, method: str, params: Json) -> Any:
    await on.approval()
    answer = await on.operator.request(method, params)
    assert answer["approvals"]
    return answer


async def _answer(on: Stage, method: str, params: Json) -> Any:
    approval = await on.approval()
    await on.guest.respond(approval["id"], params["result"])
    await on.guest.wait_method("mux/refused", requestId=approval["id"])
    return await on.operator.request(method, params | {"id": approval["id"]})


async def _queue(on: Stage, method: str, params: Json) -> Any:
    """A turn is queued behind one that runs, and the queue is held: what the example asks then."""
    thread = await on.thread("hold on")
    since = len(on.operator.inbox)
    words = [{"type": "text", "text": "and then this", "text_elements": []}]
    asked = {"threadId": thread, "input": words, "ifBusy": "queue"}
    answer = await on.operator.request("turn/start", asked)
    on.queued.append(answer["appmux"])
    turn = (await on.operator.wait_method("turn/started", threadId=thread))["params"]["turn"]["id"]
    await on.operator.request("turn/interrupt", {"threadId": thread, "turnId": turn})
    await on.operator.wait_method("turn/completed", since=since, threadId=thread)
    named = {"id": answer["appmux"]["queued"]["id"], "threadId": thread}
    return await on.operator.request(method, params | {name: named[name] for name in params})


async def _confirm(on: Stage, method: str, params: Json) -> Any:
    """A device is paired; the same ticket again is refused."""
    begin = example(catalog.METHODS["mux/pairing/begin"])["params"]
    begun = await on.operator.request("mux/pairing/begin", begin | {"name": "paired here"})
    body = example(catalog.SHAPES["pair"])["request"] | {"ticket": begun["ticket"]}
    on.posted.append(("request", body))

    async def device() -> None:
        status, granted = await post(on.broker.url, body)
        on.posted.append(("paired" if status == 200 else "refused", granted))

    answer = None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(device)
        await on.operator.wait_method("mux/pairing/asked", id=begun["id"])
        answer = await on.operator.request(method, params | {"id": begun["id"]})
    await device()
    await on.operator.wait_method("mux/pairing/ended", id=begun["id"], outcome="again")
    return answer


async def _of_a_device(on: Stage, method: str, params: Json) -> Any:
    name = f"for {method}"
    await on.device(name)
    again = {"to": f"{name}, again"} if "to" in params else {}
    return await on.operator.request(method, params | {"name": name} | again)


async def _of_a_session(on: Stage, method: str, params: Json) -> Any:
    """A browser is paired by its key, proves who it is, and asks; of another key it is refused."""
    browser = Browser(origin_of(on.broker))
    on.sessions.append(("paired", await browser.pair(on.operator, "observe", name=method)))
    begun = await on.operator.request("mux/pairing/begin", {"scopes": ["observe"]})
    body = example(catalog.SHAPES["session"])["request"] | {"ticket": begun["ticket"]}
    on.sessions.append(("request", body))
    async with browser.connect() as peer:
        on.browsers.append(peer)
        if method == "mux/session/prove":
            return peer.hello
        return await peer.request(method, params)


async def _of_notices(on: Stage, method: str, params: Json) -> Any:
    """A push is made (for a service that isn't there) of an approval that nobody looks at."""
    await on.operator.request("mux/focus", {"threadId": None})
    address = {"server": "https://ntfy.invalid", "topic": "t"}
    await on.operator.request("mux/push/register", {"service": "ntfy", "address": address})
    before = len(pushes(on.broker))
    approval = await on.approval()
    await eventually(lambda: len(pushes(on.broker)) > before, "a push that is written down")
    if "id" in params:
        params = params | {"id": pushes(on.broker)[0]}
    answer = await on.operator.request(method, params)
    await on.operator.respond(approval["id"], {"decision": "decline"})
    return answer


def pushes(broker: Native) -> list[str]:
    """The ids of the pushes made so far, the last one first; else their devices alone know them."""
    (path,) = broker.home.root.rglob("notices.sqlite3")
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as ledger:
        return [str(id) for (id,) in ledger.execute("SELECT id FROM push ORDER BY at DESC")]


@asynccontextmanager
async def aware(on: Stage, name: str) -> AsyncIterator[Peer]:
    """Another client of the operator's, which knows the broker."""
    async with connect_unix(on.broker.socket) as peer:
        await peer.initialize(name, **AWARE)
        yield peer


async def _of_audit(on: Stage, method: str, params: Json) -> Any:
    await on.device("audited")
    answer: Json = {}
    with trio.fail_after(PATIENCE):  # until it is written
        while "audited" not in str(answer):
            answer = await on.operator.request(method, params)
    return answer


Play = Callable[[Stage, str, Json], Awaitable[Any]]

PLAYS: Final[dict[str, Play]] = {
    "mux/files/list": _of_files,
    "mux/files/open": _of_files,
    "mux/replay": _replay,
    "mux/approvals/list": _list,
    "mux/approvals/answer": _answer,
    "mux/notices/list": _of_notices,
    "mux/notices/read": _of_notices,
    "mux/notices/test": _of_notices,
    "mux/queue/list": _queue,
    "mux/queue/remove": _queue,
    "mux/queue/start": _queue,
    "mux/pairing/confirm": _confirm,
    "mux/devices/revoke": _of_a_device,
    "mux/devices/rename": _of_a_device,
    "mux/devices/scope": _of_a_device,
    "mux/session/prove": _of_a_session,
    "mux/session/token": _of_a_session,
    "mux/session/end": _of_a_session,
    "mux/audit/list": _of_audit,
}
