"""A streamed search (of codex 0.171 and later): each client hears its own, and ends its own.

Played with the table as it is, and as if nobody had looked at its methods yet: what a newer codex
brings leaks no id.
"""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import pytest

from tests.codex_bundles import bundle
from tests.end_to_end.brokered import brokered, client
from tests.end_to_end.devices import DEVICES_ONLY, operator_of, pair
from tests.end_to_end.native import Native, native_ws
from tests.end_to_end.peer import Json, Peer, RpcError, answers, connect_ws
from tests.newest import VERSION, newest_codex

STREAM: Final = "thread/search/stream"
PARTIAL: Final = "thread/search/partial"
FOUND: Final = 3
MOST_SEARCHES: Final = 50
"""Until one goes as it mostly does."""

UNSEEN: Final = """
import runpy, sys
from mux.core.protocol import methods; from mux.core.policy import scopes
for method in ("thread/search/stream", "thread/search/stream/cancel", "thread/search/cancel"):
    methods.REQUESTS.pop(method, None)
    del scopes.SCOPES[method]
del methods.NOTIFICATIONS["thread/search/partial"]
sys.argv[0] = "appmux"
runpy.run_module("mux", run_name="__main__", alter_sys=True)
"""
"""`appmux`, as it would be had nobody looked at the streamed search."""


@pytest.fixture(autouse=True)
def _codex_that_streams_searches(monkeypatch: pytest.MonkeyPatch) -> None:
    if STREAM in bundle(experimental=True).params("ClientRequest"):
        return
    newest = newest_codex()
    if newest is None:
        pytest.skip(f"this codex has no `{STREAM}`, and npm could not install {VERSION}")
    monkeypatch.setenv("APPMUX_CODEX_BIN", str(newest))


@asynccontextmanager
async def served(how: str) -> AsyncIterator[Native]:
    """The native listener, the broker, or a broker whose table doesn't know the search."""
    if how == "native":
        async with native_ws() as running:
            yield running
    else:
        program = (sys.executable, "-c", UNSEEN) if how == "unseen" else None
        async with brokered(program=program) as running:
            yield running


async def threads_to_find(running: Native, peer: Peer) -> None:
    for number in range(FOUND):
        thread = await peer.start_thread(running.home.work)
        await peer.run_turn(thread, f"a needle, number {number}")


def threads(found: list[Json]) -> set[str]:
    return {each["thread"]["id"] for each in found}


@pytest.mark.parametrize("how", ["native", "table", "unseen"])
async def test_partial_results_come_to_their_asker_alone(how: str) -> None:
    async with (
        served(how) as running,
        client(running, "a", experimentalApi=True) as a,
        client(running, "b", experimentalApi=True) as b,
        client(running, "plain", experimentalApi=False) as plain,
    ):
        await threads_to_find(running, a)
        for peer, others, id in ((a, (b, plain), "s"), (b, (a, plain), 7)):
            before = [len(each.inbox) for each in others]
            partials = await search_with_partials(peer, id)
            for each in partials:
                assert each["params"]["requestId"] == id
                assert type(each["params"]["requestId"]) is type(id)
            for other, seen in zip(others, before, strict=True):
                assert not other.heard(PARTIAL, since=seen)


async def search_with_partials(peer: Peer, id: int | str) -> list[Json]:
    """Search until some of the results come before the answer: natively that is best effort."""
    for _ in range(MOST_SEARCHES):
        since = len(peer.inbox)
        await peer.ask(STREAM, {"searchTerm": "needle"}, id=id)
        found = threads((await peer.result(id, since=since))["data"])
        assert len(found) == FOUND
        if partials := peer.heard(PARTIAL, since=since):
            assert all(threads(each["params"]["data"]) <= found for each in partials)
            return partials
    raise AssertionError("no partial result ever came")


@pytest.mark.parametrize("how", ["native", "table", "unseen"])
async def test_a_cancel_ends_the_own_search_and_no_other(how: str) -> None:
    async with (
        served(how) as running,
        client(running, "a", experimentalApi=True) as a,
        client(running, "b", experimentalApi=True) as b,
    ):
        await threads_to_find(running, a)
        # Natively each connection has its ids; here the small ones are those of the broker's own.
        kept = await b.ask(STREAM, {"searchTerm": "needle"}, id="s")
        for foreign in ["s", *range(60)]:
            await a.request(f"{STREAM}/cancel", {"requestId": foreign})
        assert len((await b.result(kept))["data"]) == FOUND
        ended: Json = {}
        for _ in range(MOST_SEARCHES):  # one may be through before its cancel comes
            since = len(a.inbox)
            await a.ask(STREAM, {"searchTerm": "needle"}, id="s")
            await a.ask(f"{STREAM}/cancel", {"requestId": "s"}, id="c")
            ended = await a.wait(answers("s"), since=since)
            if "error" in ended:
                break
        assert ended["error"]["message"] == "thread search cancelled"


async def test_a_phone_that_observes_can_search() -> None:
    async with (
        brokered(*DEVICES_ONLY) as broker,
        operator_of(broker) as desk,
    ):
        await desk.initialize("desk")
        await threads_to_find(broker, desk)
        token = await pair(broker, desk, "phone", "observe")
        async with connect_ws(broker.url, token) as phone:
            await phone.initialize("phone", experimentalApi=True)
            await search_with_partials(phone, 1_000)
            await phone.request(f"{STREAM}/cancel", {"requestId": "s"})
            with pytest.raises(RpcError, match="needs the scope `admin`"):
                await phone.request("modelProvider/default/set", {"providerId": "x"})
        assert not desk.heard(PARTIAL), json.dumps(desk.heard(PARTIAL))
