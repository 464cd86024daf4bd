"""Whose answer decides, on the real app-server: programs that say yes by themselves, and people."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import attrs
import pytest
import trio
from openai_codex.client import CodexClient

from mux.demo.scripted_model import Run, Say, Scripted
from tests.end_to_end.brokered import brokered, client
from tests.end_to_end.native import Native
from tests.end_to_end.peer import Json, Peer, connect_unix, connect_ws
from tests.end_to_end.scenes import (
    ACCEPT,
    APPROVAL,
    DECLINE,
    RESOLVED,
    TURN_COMPLETED,
    eventually,
    join,
    shared_thread,
    status,
    status_shows,
)
from tests.end_to_end.test_audit import recorded
from tests.end_to_end.test_sdk import apart, config, used
from tests.end_to_end.tui import QUIET, tmux_is_missing, tui

RULE = '[{policy = "quorum", command = "touch"}]'
ASKS = "Would you like to run the following command?"


def scripted() -> Scripted:
    model = Scripted()
    model.on("run it", Run("touch proof.txt", escalated=True), Say("It ran."))
    model.on("look", Run("ls >seen.txt", escalated=True), Say("Seen."))
    return model


@attrs.frozen
class Scene:
    """Two people and a program that says yes to all, on one thread.

    `phone` comes over WebSocket, `desk` over the unix socket; so does `program`. `yeses`: the ids
    to which the program has said yes.
    """

    broker: Native
    phone: Peer
    desk: Peer
    program: Peer
    thread: str
    yeses: list[Any]

    def ran(self, name: str = "proof.txt") -> bool:
        return (self.broker.home.work / name).exists()


@asynccontextmanager
async def scene(tmp: Any, *arguments: str, **environ: str) -> AsyncIterator[Scene]:
    """The phone proves who it is by a token of its own."""
    token = tmp / "token"
    token.write_text("a token that nobody guesses, of some length")
    auth = ("--ws-auth", "capability-token", "--ws-token-file", str(token))
    variables = {f"APPMUX_APPROVALS_{name.upper()}": value for name, value in environ.items()}
    async with (
        brokered(*auth, *arguments, model=scripted(), environ=variables) as broker,
        connect_phone(broker, token.read_text()) as phone,
        connect_unix(broker.socket) as desk,
        connect_unix(broker.socket) as program,
        trio.open_nursery() as nursery,
    ):
        await desk.initialize("desk")
        await program.initialize("program")
        thread = await shared_thread(broker, phone, desk, program)
        yeses: list[Any] = []
        nursery.start_soon(says_yes, program, yeses)
        yield Scene(broker, phone, desk, program, thread, yeses)
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def connect_phone(broker: Native, token: str) -> AsyncIterator[Peer]:
    async with connect_ws(broker.url, token) as phone:
        await phone.initialize("phone")
        yield phone


async def says_yes(peer: Peer, yeses: list[Any]) -> None:
    """As the official SDK: whatever it is offered, at once, for ever."""
    since = 0
    while True:
        offer = await peer.wait(
            lambda each: each.get("method") == APPROVAL, since=since, timeout=99
        )
        since = peer.inbox.index(offer, since) + 1
        await peer.respond(offer["id"], ACCEPT)
        yeses.append(offer["id"])


async def voted(on: Scene, *names: str) -> Json:
    """The one approval, once these have voted, as the broker reports it."""
    report = await status_shows(
        on.desk,
        lambda report: [
            each
            for each in report["serverRequests"]
            if [vote["name"] for vote in each["votes"]] == list(names)
        ],
    )
    (one,) = report["serverRequests"]
    return dict(one)


async def said_all(on: Scene) -> None:
    """Wait until the broker has had the program's second yes: it is asked once more.

    Later it would take the place of another's of the same principal.
    """
    await eventually(lambda: len(on.yeses) == 2, "the program's second yes")
    await status(on.program)


async def test_under_first_the_program_decides(tmp_path: Any) -> None:
    async with scene(tmp_path) as on:
        await on.phone.run_turn(on.thread, "run it")
        assert on.ran()


async def test_under_quorum_the_program_does_not_decide_alone(tmp_path: Any) -> None:
    async with scene(tmp_path, rules=RULE) as on:
        await on.phone.start_turn(on.thread, "run it")
        asked = await on.phone.wait_method(APPROVAL)
        assert "it takes a yes of 2 principals" in asked["params"]["reason"]
        one = await voted(on, "program")
        assert one["policy"] == "quorum of 2"
        await said_all(on)
        await on.desk.respond(asked["id"], ACCEPT)  # the same principal as the program
        await voted(on, "desk")
        assert not on.ran()
        await on.phone.respond(asked["id"], {"decision": "acceptForSession"})
        await eventually(on.ran, "the command's file")
        for peer in (on.phone, on.desk, on.program):
            await peer.wait_method(RESOLVED, requestId=asked["id"])
            assert len(peer.heard(RESOLVED, requestId=asked["id"])) == 1
        # Said before this one is over, the next words would be a part of it.
        await on.phone.wait_method(TURN_COMPLETED, since=on.phone.inbox.index(asked))
        await on.phone.run_turn(on.thread, "look")  # no rule is about this
        assert on.ran("seen.txt")


async def test_a_lax_rule_covers_a_simple_command_and_nothing_besides(tmp_path: Any) -> None:
    """In the shell that the real codex puts around it."""
    rules = '[{policy = "first", command = "touch"}, {policy = "first", command = "ls"}]'
    async with scene(tmp_path, policy="quorum", rules=rules) as on:
        await on.phone.run_turn(on.thread, "run it")
        assert on.ran()
        await on.phone.start_turn(on.thread, "look")  # ls >seen.txt
        await voted(on, "program")
        assert not on.ran("seen.txt")


async def test_the_official_sdk_says_yes_and_does_not_decide_alone(tmp_path: Any) -> None:
    async with scene(tmp_path, rules=RULE) as on:
        low = CodexClient(config(on.broker))  # its own handler accepts whatever comes
        with used(low):
            await apart(low.initialize)
            params: dict[str, Any] = {"cwd": str(on.broker.home.work)}
            thread = (await apart(lambda: low.thread_start(params))).thread.id
            await join(on.phone, thread)
            await apart(lambda: low.turn_start(thread, "run it"))
            asked = await on.phone.wait_method(APPROVAL, threadId=thread)
            await voted(on, "codex_python_sdk")
            assert not on.ran()
            await on.phone.respond(asked["id"], DECLINE)
            await on.phone.wait_method(TURN_COMPLETED, threadId=thread)
            assert not on.ran()


async def test_under_owner_the_program_waits_for_whoever_began_the_turn(tmp_path: Any) -> None:
    async with scene(tmp_path, policy="owner") as on:
        await on.phone.start_turn(on.thread, "run it")
        asked = await on.phone.wait_method(APPROVAL)
        one = await voted(on, "program")
        assert "phone (capability-token), which began the turn" in one["waitsFor"]
        assert not on.ran()
        await on.phone.respond(asked["id"], DECLINE)
        done = await on.phone.wait_method(TURN_COMPLETED, since=on.phone.inbox.index(asked))
        assert done["params"]["turn"]["status"] == "completed"
        assert not on.ran()


async def test_under_owner_others_count_after_the_delay(tmp_path: Any) -> None:
    async with scene(tmp_path, policy="owner", owner_delay="0.5") as on:
        await on.phone.start_turn(on.thread, "run it")
        await on.phone.wait_method(APPROVAL)
        await eventually(on.ran, "the command's file")


async def test_under_local_one_over_tcp_counts_only_where_the_listener_says_so(
    tmp_path: Any,
) -> None:
    """All come from loopback, as what a proxy passes on does; few proxies say so."""
    async with scene(tmp_path, "--listen", "ws+local://127.0.0.1:0", policy="local") as on:
        found = (line.partition("listening on: ") for line in on.broker.shown().splitlines())
        urls = [url for _, said, url in found if said and url.startswith("ws://")]
        (local,) = set(urls) - {on.broker.url}
        token = (tmp_path / "token").read_text()
        headers = [("X-Forwarded-For", "100.64.0.9")]
        await on.program.request("thread/unsubscribe", {"threadId": on.thread})
        async with (
            connect_ws(on.broker.url, token) as far,
            connect_ws(local, token, headers) as proxied,
            connect_ws(local, token) as near,
        ):
            for name, peer in (("far", far), ("proxied", proxied), ("near", near)):
                await peer.initialize(name)
                await join(peer, on.thread)
            await on.phone.start_turn(on.thread, "run it")
            for peer in (far, proxied):
                asked = await peer.wait_method(APPROVAL)
                await peer.respond(asked["id"], ACCEPT)
                refused = await peer.wait_method("mux/refused", needs="local")
                assert "`ws+local://` in `listen`" in refused["params"]["why"]
            assert not on.ran()
            asked = await near.wait_method(APPROVAL)
            await near.respond(asked["id"], ACCEPT)
            await eventually(on.ran, "the command's file")
            await far.wait_method(RESOLVED, requestId=asked["id"])


async def test_the_command_line_says_what_it_waits_for(tmp_path: Any) -> None:
    async with scene(tmp_path, rules=RULE) as on:
        await on.phone.start_turn(on.thread, "run it")
        asked = await on.phone.wait_method(APPROVAL)
        await voted(on, "program")
        await said_all(on)
        told = await appmux(on, "approvals")
        assert "policy: quorum of 2; waits for a yes of 2 principals, 1 so far" in told
        assert "voted: program (local): accept" in told
        told = await appmux(on, "approve", "--yes", str(asked["id"]))
        assert "your yes is kept, but nothing is decided: waits for" in told
        told = await appmux(on, "status")
        assert "waits (quorum of 2) for a yes of 2 principals, 1 so far" in told
        await on.phone.respond(asked["id"], ACCEPT)
        await eventually(on.ran, "the command's file")
        await recorded(on.broker, "approval/answered")
        told = await appmux(on, "audit")
        (line,) = [each for each in told.splitlines() if "approval/answered" in each]
        assert "policy quorum of 2" in line
        assert "votes appmux (local" in line


async def appmux(on: Scene, *arguments: str) -> str:
    """What a command of ours prints."""
    command = [sys.executable, "-m", "mux", *arguments]
    environ = on.broker.home.environ()
    done = await trio.run_process(command, capture_stdout=True, env=environ)
    return done.stdout.decode()


@pytest.mark.skipif(tmux_is_missing(), reason="tmux, in which the TUI runs, is not installed")
async def test_the_tui_shows_the_question_until_it_is_decided() -> None:
    environ = {"APPMUX_APPROVALS_POLICY": "quorum"}
    async with (
        brokered(model=scripted(), config=QUIET, environ=environ) as broker,
        client(broker, "phone") as phone,
    ):
        thread = await shared_thread(broker, phone)
        async with tui(broker.home, "resume", thread, "--remote", broker.url) as screen:
            await screen.see("› hello")
            await phone.start_turn(thread, "run it")
            await screen.see(ASKS, "[appmux: it takes a yes of 2 principals, 0 so far")
            await screen.press("y", "[appmux: your yes is kept, but nothing is decided")
            await screen.see(ASKS)
            asked = await phone.wait_method(APPROVAL)
            await phone.respond(asked["id"], DECLINE)
            await screen.gone(ASKS)
            await screen.see("• It ran.")
            assert not (broker.home.work / "proof.txt").exists()
