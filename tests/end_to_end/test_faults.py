"""What the broker makes of an app-server at fault, in ways that the real one doesn't show."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trio

from tests import faulty_app_server, knocks
from tests.end_to_end.brokered import ONLY_THE_SERVER, brokered, client, errors
from tests.end_to_end.native import Native, private_home
from tests.end_to_end.peer import PATIENCE, Peer, RpcError, answers, connect_ws
from tests.end_to_end.scenes import eventually, status_shows
from tests.faulty_app_server import NO_MESSAGES

DEADLINE = {"APPMUX_LIMITS_REQUEST_DEADLINE": "6"}
"""Soon over, but not before the app-server, a process that starts, has answered `initialize`: which
takes 0.1 s, and where 18 programs want two cores 2 s."""


def _codex(where: Path, fault: str) -> str:
    """A `codex` that is a faulty app-server."""
    codex = where / "codex"
    program = f"exec '{sys.executable}' '{faulty_app_server.__file__}' {fault}\n"
    codex.write_text(f"#!/bin/sh\n{ONLY_THE_SERVER}{program}")
    codex.chmod(0o755)
    return str(codex)


@asynccontextmanager
async def _faulty(where: Path, fault: str, **limits: str) -> AsyncIterator[Native]:
    async with brokered(codex=_codex(where, fault), environ=limits) as broker:
        yield broker


async def test_an_answer_that_never_comes_becomes_an_error(tmp_path: Path) -> None:
    async with _faulty(tmp_path, "silent", **DEADLINE) as broker, client(broker, "one") as one:
        methods = {"thread/list": True, "thread/name/set": False}
        asked = {method: await one.ask(method) for method in methods}
        for method, retryable in methods.items():
            with pytest.raises(RpcError, match=f"did not answer `{method}` within 6 s") as caught:
                await one.result(asked[method])
            assert caught.value.data["retryable"] is retryable
        await status_shows(one, lambda report: report["appServer"]["requestsInFlight"] == 0)


async def test_an_answer_that_comes_too_late_changes_nothing(tmp_path: Path) -> None:
    async with _faulty(tmp_path, "late", **DEADLINE) as broker, client(broker, "one") as one:
        with pytest.raises(RpcError, match="did not answer `slow`"):
            await one.request("slow", id="same")
        since = len(one.inbox)
        # Before the answer to this comes the late one; the id is the client's own to use again.
        assert await one.request("quick", {"a": 1}, id="same") == {"a": 1, "asked": 1}
        assert await one.request("quick", {}) == {"asked": 2}
        assert len([m for m in one.inbox[since:] if answers("same")(m)]) == 1


async def test_overload_is_retried_unseen(tmp_path: Path) -> None:
    limits = {"APPMUX_LIMITS_OVERLOAD_FIRST_WAIT": "0.001"}
    async with _faulty(tmp_path, "overloaded", **limits) as broker, client(broker, "one") as one:
        assert await one.request("twice", {"times": 2}) == {"times": 2, "asked": 3}
        assert await one.request("eight", {"times": 8}) == {"times": 8, "asked": 9}
        with pytest.raises(RpcError) as caught:
            await one.request("forever", {"times": 1000})
        assert caught.value.code == -32001
        assert caught.value.message == "Server overloaded; retry later."
        assert await one.request("twice", {"times": 0}) == {"times": 0, "asked": 4}


async def test_a_retry_stands_no_longer_than_the_deadline(tmp_path: Path) -> None:
    limits = {"APPMUX_LIMITS_OVERLOAD_FIRST_WAIT": "0.5", **DEADLINE}
    async with _faulty(tmp_path, "overloaded", **limits) as broker, client(broker, "one") as one:
        with pytest.raises(RpcError, match="did not answer `much` within 6 s"):
            await one.request("much", {"times": 1000})
        assert await one.request("none", {"times": 0}) == {"times": 0, "asked": 1}


def _warned(peer: Peer, times: int) -> bool:
    return len(peer.heard("warning")) >= times


async def test_what_is_no_message_is_passed_over(tmp_path: Path) -> None:
    async with (
        _faulty(tmp_path, "noisy") as broker,
        client(broker, "one") as one,
        client(broker, "two") as two,
    ):
        for n in range(3):
            assert await one.request("any", {"n": n}) == {"n": n, "asked": n + 1}
        for peer in (one, two):
            await eventually(partial(_warned, peer, 6), "the warnings")
            texts = [each["params"]["message"] for each in peer.heard("warning")]
            assert texts == ["in halves", "x" * faulty_app_server.LONG] * 3
            assert {each["method"] for each in peer.inbox if "method" in each} <= {
                "warning", "turn/started", "item/completed",
            }  # fmt: skip
        assert [m for m in two.inbox if "method" not in m] == [{"id": 1, "result": two.hello}]
        await broker.wait_log("app-server wrote a line that is no message")
        assert len(NO_MESSAGES) > 10
        assert not errors(broker)


async def test_clients_wait_for_an_app_server_that_comes_up(tmp_path: Path) -> None:
    """It says nothing yet: they are attached, unready, and told so when it gives up."""
    limits = {"APPMUX_LIMITS_REQUEST_DEADLINE": "10"}  # long enough for all that is tried meanwhile
    async with _faulty(tmp_path, "mute", **limits) as broker, connect_ws(broker.url) as early:
        host, _, port = broker.url.removeprefix("ws://").rpartition(":")
        async with await trio.open_tcp_stream(host, int(port)) as stream:
            assert (await knocks.ask(stream, knocks.request("GET /readyz"))).status == 503
        async with await trio.open_tcp_stream(host, int(port)) as stream:
            assert (await knocks.ask(stream, knocks.request("GET /healthz"))).status == 200
        with pytest.raises(RpcError, match="Not initialized"):
            await early.request("thread/list")
        hello = await early.ask("initialize", {"clientInfo": {"name": "a", "version": "1"}})
        assert (await early.request("mux/status"))["appServer"]["state"] != "ready"
        await early.wait_gone()
        assert [m for m in early.inbox if answers(hello)(m) and "result" in m] == []
        with trio.fail_after(PATIENCE):
            assert await broker.process.wait() == 1
        await broker.wait_log("Error: codex app-server did not come up")


@pytest.mark.parametrize(
    ("fault", "status", "words"),
    [("dies", 7, "last words"), ("rude", 1, "initialize")],
)
async def test_one_that_never_comes_up_ends_the_broker(
    tmp_path: Path, fault: str, status: int, words: str
) -> None:
    with private_home("http://127.0.0.1:1/v1") as home:
        command = [sys.executable, "-m", "mux", "serve", "--listen", "ws://127.0.0.1:0"]
        own = {"APPMUX_CODEX_BIN": _codex(tmp_path, fault)}
        with trio.fail_after(PATIENCE):
            done = await trio.run_process(
                command, check=False, capture_stderr=True, env=home.environ() | own
            )
    said = done.stderr.decode()
    assert words in said[said.index("Error: codex app-server did not come up") :]
    assert done.returncode == status
