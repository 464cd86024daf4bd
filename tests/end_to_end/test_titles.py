"""Two real TUIs on one thread: the model makes one title, both get it, nobody else hears of it."""

from __future__ import annotations

import json
import shlex
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import attrs
import pytest

from mux.demo.scripted_model import Fail, Hold, Response, Say, Scripted
from tests.codex_bundles import bundle
from tests.end_to_end import elicitor
from tests.end_to_end.brokered import brokered, client
from tests.end_to_end.devices import DEVICES_ONLY, operator_of, pair
from tests.end_to_end.native import Home, Native, codex_bin
from tests.end_to_end.peer import Json, Peer
from tests.end_to_end.scenes import eventually
from tests.end_to_end.test_audit import records
from tests.end_to_end.tui import QUIET, Tui, tmux_is_missing, tui
from tests.newest import version_of

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


# A TUI of 0.171 whose title thread fails names the thread by the person's own words.
FALLS_BACK: Final = version_of(codex_bin()) >= "0.171"


@needs_tmux
@pytest.mark.parametrize("fails_first", [False, True])
async def test_two_tuis_have_one_title_made(fails_first: bool) -> None:
    model = titling(fails_first=fails_first)
    async with (
        brokered(model=model, config=QUIET) as broker,
        client(broker, "phone") as phone,
    ):
        thread = await phone.start_thread(broker.home.work)
        await phone.run_turn(thread, "greet")
        async with two_tuis(broker, thread) as tuis:
            since, asked = len(phone.inbox), len(model.requests)
            await phone.run_turn(thread, "greet again")
            await model.reached(GATE)
            await recorded(broker, "turn/asked", 4)  # two of the phone's, two titles
            model.release(GATE)
            told = await phone.wait_method("thread/name/updated", since=since)
            names = {f"{TITLE} {2 if fails_first else 1}"}
            if fails_first and FALLS_BACK:
                names.add("greet again")
            assert told["params"]["threadName"] in names
            await recorded(broker, "turn/answered", 4)
            # The greeting, and its title; where that failed, another.
            assert len(model.requests) - asked == (3 if fails_first else 2)
            assert [each for each in phone.inbox[since:] if of_another(each, thread)] == []
            assert (await phone.request("thread/loaded/list"))["data"] == [thread]
            present = await phone.request("mux/presence/read")
            follows = [each["threads"] for each in present["clients"]]
            assert follows == [[thread]] * 3
            for each in tuis:
                since = len(phone.inbox)
                await each.say("greet")
                await phone.wait_method("turn/completed", since=since, threadId=thread)
            assert len(model.requests) - asked == (5 if fails_first else 4)


@needs_tmux
async def test_a_devices_tui_has_a_title_made_by_a_thread_that_can_do_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Read-only, with nobody to be asked, its tools off: that loosens nothing. No server is run."""
    model = titling()
    async with (
        brokered(*DEVICES_ONLY, model=model, config=QUIET | _MARKING) as broker,
        operator_of(broker) as operator,
    ):
        await operator.initialize("desk")
        token = await pair(broker, operator, "phone", "observe", "drive")
        monkeypatch.setenv("PHONES_TOKEN", token)
        remote = ("--remote", broker.url, "--remote-auth-token-env", "PHONES_TOKEN")
        mark = broker.home.work / "began"
        async with tui(broker.home, *remote) as screen:
            await screen.see("›")
            await screen.say("greet")
            await screen.see("Hello from the one runtime")
            await model.reached(GATE)
            began = mark.read_text()
            model.release(GATE)
            told = await operator.wait_method("thread/name/updated")
        assert told["params"]["threadName"] == f"{TITLE} 1"
        assert began == "began\n"  # for the thread of the person's, and for no other
        assert [each["method"] for each in records(broker, "request/refused")] == []


_SERVER: Final = shlex.join([sys.executable, str(Path(elicitor.__file__))])
_MARKING: Final[Json] = {
    "mcp_servers": {
        "marking": {"command": "/bin/sh", "args": ["-c", f"echo began >>began; exec {_SERVER}"]}
    }
}
"""A server of the host's that says when it is begun, in the directory of its thread."""


def of_another(message: Json, thread: str) -> bool:
    """Whether it is about another thread."""
    params = message.get("params") or {}
    about = params.get("threadId") or (params.get("thread") or {}).get("id")
    return about not in (None, thread)


async def recorded(broker: Native, kind: str, times: int) -> None:
    """Wait until the audit log has that many records of a kind."""
    await eventually(lambda: len(records(broker, kind)) >= times, f"{times} times {kind}")


# --- As the app-server would tell it --------------------------------------------------------------


async def title_thread(peer: Peer, broker: Native) -> str:
    """A title thread, as a TUI makes it; all that is said of its beginning has been heard."""
    thread = await peer.start_thread(
        broker.home.work,
        ephemeral=True,
        threadSource="thread_title",
        sandbox="read-only",
        environments=[],
    )
    await peer.wait(
        lambda each: (
            each.get("method") == "thread/started" and each["params"]["thread"]["id"] == thread
        )
    )
    return thread


async def outcome(peer: Peer, thread: str) -> list[Json]:
    """Have a title made: the answer and all that is said of it, up to its end."""
    since = len(peer.inbox)
    schema = {"type": "object", "properties": {"title": {"type": "string"}}}
    params = {
        "threadId": thread,
        "input": [{"type": "text", "text": "Title it.\nUser prompt:\ngreet"}],
        "outputSchema": schema | {"required": ["title"], "additionalProperties": False},
    }
    await peer.request("turn/start", params)
    await peer.wait_method("turn/completed", since=since, threadId=thread)
    of_it = [each for each in peer.inbox[since:] if not of_another(each, thread)]
    return [each for each in of_it if each.get("method") != "account/rateLimits/updated"]


async def test_an_outcome_told_again_is_as_the_first_and_fits_the_schema() -> None:
    model = titling()
    model.release(GATE)
    async with (
        brokered(model=model) as broker,
        client(broker, "a", experimentalApi=True) as a,
        client(broker, "b", experimentalApi=True) as b,
    ):
        thread = await a.start_thread(broker.home.work)
        await a.run_turn(thread, "greet")
        await b.request("thread/resume", {"threadId": thread})
        of_a = await title_thread(a, broker)
        of_b = await title_thread(b, broker)
        asked = len(model.requests)
        first, again = await outcome(a, of_a), await outcome(b, of_b)
        assert len(model.requests) == asked + 1
        assert [each.get("method") for each in again] == [each.get("method") for each in first]
        assert "turn/completed" in [each.get("method") for each in again]
        valid = bundle(experimental=True)
        for at, told in enumerate(again):
            assert of_a not in json.dumps(told)
            if "method" in told:
                valid.validate("ServerNotification", told)
                assert told["params"]["threadId"] == of_b
            else:
                valid.validate("v2/TurnStartResponse", told["result"])
                assert told["result"]["turn"]["id"] != first[at]["result"]["turn"]["id"]
        # It is over, as far as anybody can tell.
        resumed = await a.request("thread/resume", {"threadId": of_b})
        [turn] = resumed["thread"]["turns"]
        assert (turn["status"], turn["items"][-1]["text"]) == (
            "completed",
            json.dumps({"title": f"{TITLE} 1"}),
        )
        assert (await b.request("thread/unsubscribe", {"threadId": of_b}))["status"] == (
            "unsubscribed"
        )
