"""Two real TUIs on one thread: one title is asked of the model, both get it, nobody else sees it."""

from __future__ import annotations

import json
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import attrs
import pytest
import trio

from mux.scripted_model import Fail, Hold, Response, Say, Scripted
from tests.end_to_end.brokered import brokered, client
from tests.end_to_end.native import Home, Native
from tests.end_to_end.peer import PATIENCE, Json, Peer
from tests.end_to_end.tui import LOOK_SECONDS, QUIET, Tui, tmux_is_missing, tui

needs_tmux = pytest.mark.skipif(
    tmux_is_missing(), reason="tmux, in which the TUI runs, is not installed"
)

TITLE = "Greet the runtime"
GATE = "title"


@attrs.define
class Titling(Scripted):
    """A model whose titles stand at a gate, and tell one another apart. The first may fail."""

    fails_first: bool = False
    titles: int = 0

    def answer(self, request: Json) -> Response:
        if not (request.get("text") or {}).get("format"):
            return super().answer(request)
        self.titles += 1
        if self.fails_first and self.titles == 1:
            return (Hold(GATE), Fail())
        return (Hold(GATE), Say(json.dumps({"title": f"{TITLE} {self.titles}"})))


def titling(*, fails_first: bool = False) -> Titling:
    model = Titling(fails_first=fails_first)
    model.on("greet", Say("Hello from the one runtime"))
    return model


@asynccontextmanager
async def second_home(broker: Native) -> AsyncIterator[Home]:
    """Another machine's CODEX_HOME, as it were, with the broker's working directory."""
    home = Home(broker.home.root / "second")
    home.codex_home.mkdir(parents=True)
    shutil.copy(broker.home.codex_home / "config.toml", home.codex_home / "config.toml")
    home.work.symlink_to(broker.home.work)
    yield home


@asynccontextmanager
async def two_tuis(broker: Native, thread: str) -> AsyncIterator[tuple[Tui, Tui]]:
    """Two that follow the thread, and show its first turn."""
    async with (
        second_home(broker) as second,
        tui(broker.home, "resume", thread) as a,
        tui(second, "resume", thread, "--remote", broker.url) as b,
    ):
        for each in (a, b):
            await each.see("› greet", "• Hello from the one runtime")
        yield a, b


async def unfollowed(peer: Peer) -> list[Json]:
    """The TUIs, once they follow their one thread and no title thread any more."""
    with trio.fail_after(PATIENCE):
        while True:
            loaded = await peer.request("mux/presence/read")
            tuis = [each for each in loaded["clients"] if each["name"] == "codex-tui"]
            asked: dict[str, Any] = await peer.request("mux/status")
            if not asked["appServer"]["requestsInFlight"]:
                return tuis
            await trio.sleep(LOOK_SECONDS)


async def named(peer: Peer, since: int) -> str:
    """The name that the thread gets."""
    told = await peer.wait_method("thread/name/updated", since=since)
    return str(told["params"]["threadName"])


@needs_tmux
@pytest.mark.parametrize("fails_first", [False, True])
async def test_two_tuis_have_one_title_made(fails_first: bool) -> None:
    model = titling(fails_first=fails_first)
    async with brokered("--log-level", "debug", model=model, config=QUIET) as broker:
        async with client(broker, "phone") as phone:
            thread = await phone.start_thread(broker.home.work)
            await phone.run_turn(thread, "greet")
            async with two_tuis(broker, thread):
                since, asked = len(phone.inbox), len(model.requests)
                await phone.run_turn(thread, "greet again")
                await model.reached(GATE)
                await _both_have_asked(broker)
                model.release(GATE)
                assert await named(phone, since) == f"{TITLE} {2 if fails_first else 1}"
                # The greeting, and the title; where that failed, once more.
                await _both_have_left(broker)
                assert len(model.requests) - asked == (3 if fails_first else 2)
                others = [
                    each
                    for each in phone.inbox[since:]
                    if _thread_of(each) not in (None, thread)
                ]
                assert others == []
                for each in await unfollowed(phone):
                    assert each["threads"] == [thread]
                loaded = await phone.request("thread/loaded/list")
                assert loaded["data"] == [thread]


def _thread_of(message: Json) -> str | None:
    params = message.get("params") or {}
    found = params.get("threadId") or (params.get("thread") or {}).get("id")
    return str(found) if found else None


async def _both_have_asked(broker: Native) -> None:
    await _logged(broker, '"turn/start"', 0)


async def _both_have_left(broker: Native) -> None:
    await _logged(broker, '"turn/start"', 0)


async def _logged(broker: Native, what: str, times: int) -> None:
    with trio.fail_after(PATIENCE):
        while broker.shown().count(what) < times:
            await trio.sleep(LOOK_SECONDS)
