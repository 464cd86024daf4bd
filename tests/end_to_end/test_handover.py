"""The broker is killed under everybody, and the next one goes on with the same app-server."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from mux.demo.scripted_model import CallTool, Hold, Run, Say, Scripted
from tests.end_to_end.brokered import brokered, client
from tests.end_to_end.doors import door
from tests.end_to_end.native import Native
from tests.end_to_end.peer import PATIENCE, Json, Peer
from tests.end_to_end.scenes import (
    ACCEPT,
    APPROVAL,
    COMPLETED,
    DELTA,
    RESOLVED,
    TURN_COMPLETED,
    TURN_STARTED,
    app_server_pid,
    ended,
    eventually,
    join,
    shared_thread,
    status_shows,
)
from tests.end_to_end.tui import QUIET, tmux_is_missing, tui

AWARE: Json = {"extensions": {"appmux": {"version": 1}}}
LISTENING = "listening on: ws://"


async def kill_broker(running: Native) -> None:
    """Kill the broker, without waiting for the next one."""
    pid = running.broker_pid
    assert pid != running.process.pid
    os.kill(pid, signal.SIGKILL)
    await eventually(lambda: ended(pid), "the broker's end")


async def next_broker(running: Native) -> None:
    """Kill the broker, and wait until the next one serves."""
    before = running.shown().count(LISTENING)
    await kill_broker(running)
    await eventually(lambda: running.shown().count(LISTENING) > before, "the next broker")


@asynccontextmanager
async def same_app_server(running: Native, peer: Peer) -> AsyncIterator[None]:
    """Inside, the app-server stays the one that it was."""
    before = await app_server_pid(peer)
    yield
    async with client(running, "looks") as looks:
        assert await app_server_pid(looks) == before


def text_of(peer: Peer, thread: str, since: int = 0) -> list[str]:
    """The agent's messages that the peer has seen complete on the thread."""
    items = [each["params"]["item"] for each in peer.heard(COMPLETED, since=since, threadId=thread)]
    return [item["text"] for item in items if item["type"] == "agentMessage"]


def words(text: str) -> list[Json]:
    return [{"type": "text", "text": text, "text_elements": []}]


async def test_a_turn_runs_on_and_none_of_its_text_is_lost() -> None:
    model = Scripted()
    model.on("tell", Say(chunks=("one ", Hold("first"), "two ", Hold("second"), "three")))
    async with brokered(model=model) as broker, client(broker, "before") as before:
        thread = await shared_thread(broker, before)
        async with same_app_server(broker, before):
            turn = await before.start_turn(thread, "tell")
            await before.wait_method(DELTA, threadId=thread, turnId=turn)
            await kill_broker(broker)
            model.release("first")  # nobody reads the app-server now
            async with client(broker, "after") as after:  # its connection is queued, not refused
                joined = await join(after, thread)
                assert joined["thread"]["status"]["type"] == "active"
                seen = "one "
                while seen != "one two ":
                    deltas = after.heard(DELTA, threadId=thread)
                    seen = "".join(each["params"]["delta"] for each in deltas)
                    await trio.sleep(0.01)
                model.release("second")
                done = await after.wait_method(TURN_COMPLETED, threadId=thread)
                assert (done["params"]["turn"]["id"], done["params"]["turn"]["status"]) == (
                    turn,
                    "completed",
                )
                assert text_of(after, thread) == ["one two three"]
                assert (await after.run_turn(thread, "hello"))["status"] == "completed"


async def test_an_approval_is_offered_again_and_answered() -> None:
    model = Scripted()
    model.on("do it", (Run("echo done", escalated=True),), Say("I did."))
    async with brokered(model=model) as broker, client(broker, "before") as before:
        thread = await shared_thread(broker, before)
        async with same_app_server(broker, before):
            await before.start_turn(thread, "do it")
            offered = await before.wait_method(APPROVAL, threadId=thread)
            await next_broker(broker)
            await next_broker(broker)
            async with client(broker, "after") as after:
                await join(after, thread)
                again = await after.wait_method(APPROVAL, threadId=thread)
                assert again == offered, "it has the same id, and says the same"
                await after.respond(again["id"], ACCEPT)
                resolved = await after.wait_method(RESOLVED, threadId=thread)
                assert resolved["params"]["requestId"] == again["id"]
                done = await after.wait_method(TURN_COMPLETED, threadId=thread)
                assert done["params"]["turn"]["status"] == "completed"
                assert text_of(after, thread) == ["I did."]
                assert len(after.heard(APPROVAL)) == 1


async def test_the_queue_goes_on() -> None:
    model = Scripted()
    model.on("wait", (Hold("gate"), Say("Waited.")))
    async with brokered(model=model) as broker, client(broker, "before", **AWARE) as before:
        thread = await shared_thread(broker, before)
        async with same_app_server(broker, before):
            await before.start_turn(thread, "wait")
            for text in ("do one", "do two"):
                asked = {"threadId": thread, "input": words(text), "ifBusy": "queue"}
                assert "queued" in (await before.request("turn/start", asked))["appmux"]
            await next_broker(broker)
            async with client(broker, "after", **AWARE) as after:
                await join(after, thread)
                [queue] = (await after.request("mux/queue/list"))["queues"]
                assert [turn["text"] for turn in queue["turns"]] == ["do one", "do two"]
                assert {turn["name"] for turn in queue["turns"]} == {"before"}
                model.release("gate")
                await eventually(
                    lambda: len(after.heard(TURN_COMPLETED, threadId=thread)) == 3,
                    "the end of three turns",
                )
                assert text_of(after, thread) == [
                    "Waited.",
                    "You said: do one",
                    "You said: do two",
                ]


async def test_a_message_that_is_sent_again_runs_once() -> None:
    model = Scripted()
    model.on("tell", Say(chunks=("half, ", Hold("mid"), "whole")))
    async with brokered(model=model) as broker, client(broker, "phone") as before:
        thread = await shared_thread(broker, before)
        async with same_app_server(broker, before):
            asked = {"threadId": thread, "input": words("tell"), "clientUserMessageId": "m1"}
            answer = await before.request("turn/start", asked)
            await model.reached("mid")
            await next_broker(broker)
            async with client(broker, "phone") as after:
                await join(after, thread)
                assert (await after.request("turn/start", asked)) == answer
                model.release("mid")
                await after.wait_method(TURN_COMPLETED, threadId=thread)
                assert (await after.request("turn/start", asked)) == answer
                assert (await after.run_turn(thread, "next"))["status"] == "completed"
                assert len(after.heard(TURN_STARTED)) == 1


async def test_what_is_sent_in_the_moment_of_the_end_runs_once() -> None:
    """Whether it went up, and whether its answer came down, isn't known to anybody."""
    async with brokered() as broker, client(broker, "first") as first:
        thread = await shared_thread(broker, first)
        async with same_app_server(broker, first):
            for number in range(3):
                asked = {
                    "threadId": thread,
                    "input": words(f"message {number}"),
                    "clientUserMessageId": f"m{number}",
                }
                async with client(broker, "phone") as phone:
                    await phone.ask("turn/start", asked)
                    await trio.sleep(number / 300)
                    await next_broker(broker)
                async with client(broker, "phone") as phone:
                    await join(phone, thread)
                    turn = (await phone.request("turn/start", asked))["turn"]["id"]
                    await _over(phone, thread, turn)
            read = {"threadId": thread, "includeTurns": True}
            async with client(broker, "last") as last:
                turns = (await last.request("thread/read", read))["thread"]["turns"]
            said = [
                item["content"][0]["text"]
                for turn in turns
                for item in turn["items"]
                if item["type"] == "userMessage"
            ]
            assert said == ["hello", "message 0", "message 1", "message 2"]


async def _over(peer: Peer, thread: str, turn: str) -> None:
    """Wait until the turn is over."""
    read = {"threadId": thread, "includeTurns": True}
    with trio.fail_after(PATIENCE):
        while True:
            turns = (await peer.request("thread/read", read))["thread"]["turns"]
            if any(each["id"] == turn and each["status"] == "completed" for each in turns):
                return
            await trio.sleep(0.02)


async def test_a_client_that_replays_has_everything_once() -> None:
    """Killed three times in the middle of a stream, with more of it on its way each time."""
    model = Scripted()
    chunks: list[str | Hold] = []
    for stage in range(4):
        chunks += [Hold(f"stage {stage}"), *(f"{stage}.{n} " for n in range(200))]
    model.on("count", Say(chunks=tuple(chunks)))
    async with brokered(model=model) as broker, client(broker, "phone", **AWARE) as before:
        thread = await shared_thread(broker, before)
        cursor = {"epoch": before.hello["appmux"]["epoch"], "seq": _last_seq(before.inbox)}
        seen: list[Json] = []
        async with same_app_server(broker, before):
            await before.start_turn(thread, "count")
            for stage in range(4):
                async with client(broker, "phone", **AWARE) as phone:
                    asked = {"after": cursor, "threadIds": [thread]}
                    assert (await phone.request("mux/replay", asked))["complete"]
                    model.release(f"stage {stage}")
                    if stage < 3:
                        await phone.wait(_is_delta_of(stage))
                        await kill_broker(broker)
                        await phone.wait_gone()
                    else:
                        await phone.wait_method(TURN_COMPLETED, threadId=thread)
                    seen += [each for each in phone.inbox if _seq(each) is not None]
                    cursor = cursor | {"seq": _last_seq(seen)}
        seqs = [seq for each in seen if (seq := _seq(each)) is not None]
        assert seqs == sorted(set(seqs)), "in order, none twice"
        deltas = [each["params"]["delta"] for each in seen if each["method"] == DELTA]
        assert "".join(deltas) == "".join(each for each in chunks if isinstance(each, str))


def _is_delta_of(stage: int) -> Callable[[Json], bool]:
    def wanted(message: Json) -> bool:
        return message.get("method") == DELTA and message["params"]["delta"].startswith(f"{stage}.")

    return wanted


def _last_seq(messages: Iterable[Any]) -> int:
    return max(seq for each in messages if (seq := _seq(each)) is not None)


def _seq(message: Any) -> int | None:
    return message.get("seq") if isinstance(message, dict) else None


async def test_watches_and_processes_of_a_lost_connection_are_ended() -> None:
    async with (
        brokered() as broker,
        client(broker, "before") as before,
        same_app_server(broker, before),
    ):
        spawn = {"command": ["sleep", "600"], "processHandle": "h", "cwd": str(broker.home.work)}
        await before.request("process/spawn", spawn)
        app_server = await app_server_pid(before)
        await eventually(lambda: _children(app_server, "sleep"), "the process")
        await next_broker(broker)
        await eventually(lambda: not _children(app_server, "sleep"), "the process's end")
        async with client(broker, "after") as after:
            report = await status_shows(after, lambda each: each["clients"])
            assert all(each["id"] > 1 for each in report["clients"]), "no number comes twice"


async def test_the_broker_alone_is_restarted() -> None:
    """As after an upgrade: everybody is told, nobody is refused, and the turn runs on."""
    model = Scripted()
    model.on("tell", Say(chunks=("one ", Hold("gate"), "two")))
    async with brokered(model=model) as broker, client(broker, "before") as before:
        thread = await shared_thread(broker, before)
        async with same_app_server(broker, before):
            turn = await before.start_turn(thread, "tell")
            await before.wait_method(DELTA, threadId=thread, turnId=turn)
            inode = broker.socket.stat().st_ino
            done = await trio.run_process(
                [sys.executable, "-m", "mux", "restart", "--broker"],
                env=broker.home.environ(),
                capture_stdout=True,
            )
            assert b"codex has run on" in done.stdout
            await before.wait_gone()
            assert before.link.connection.closed.code == 1012  # type: ignore[attr-defined]
            assert broker.socket.stat().st_ino == inode
            async with client(broker, "after") as after:
                await join(after, thread)
                model.release("gate")
                await after.wait_method(TURN_COMPLETED, threadId=thread)
                assert text_of(after, thread) == ["one two"]
        assert "ended unexpectedly" not in broker.shown()


def _children(pid: int, name: str) -> list[int]:
    found = []
    for each in Path("/proc").glob("[0-9]*"):
        try:
            stat = (each / "stat").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if f"({name})" in stat and int(stat.rpartition(")")[2].split()[1]) == pid:
            found.append(int(each.name))
    return found


@attrs.frozen
class Tool:
    """A tool that a client provides."""

    name: str = "lookup"

    def to_json(self) -> Json:
        return {"name": self.name, "description": "Looks it up.", "inputSchema": {"type": "object"}}


async def test_a_tool_call_waits_for_the_program_that_provides_the_tool() -> None:
    model = Scripted()
    model.on("look", (CallTool("lookup", {}),), Say("Found."))
    async with brokered(model=model) as broker, client(broker, "tools") as before:
        thread = await before.start_thread(broker.home.work, dynamicTools=[Tool().to_json()])
        await before.run_turn(thread, "hello")
        async with same_app_server(broker, before):
            await before.start_turn(thread, "look")
            await before.wait_method("item/tool/call", threadId=thread)
            await next_broker(broker)
            async with client(broker, "phone") as other:
                await join(other, thread)
                async with client(broker, "tools") as after:
                    await join(after, thread)
                    call = await after.wait_method("item/tool/call", threadId=thread)
                    result = {"contentItems": [{"type": "inputText", "text": "x"}], "success": True}
                    await after.respond(call["id"], result)
                    done = await after.wait_method(TURN_COMPLETED, threadId=thread)
                    assert done["params"]["turn"]["status"] == "completed"
                assert other.heard("item/tool/call") == []


async def test_fresh_and_ephemeral_threads_are_there_for_who_comes_back() -> None:
    model = Scripted()
    model.on("do it", (Run("echo done", escalated=True),), Say("I did."))
    async with brokered(model=model) as broker, client(broker, "before") as before:
        fresh = await before.start_thread(broker.home.work)
        passing = await before.start_thread(broker.home.work, ephemeral=True)
        async with same_app_server(broker, before):
            await before.run_turn(passing, "hello")
            await before.start_turn(passing, "do it")
            offered = await before.wait_method(APPROVAL, threadId=passing)
            await next_broker(broker)
            async with client(broker, "after") as after:
                assert (await join(after, fresh))["thread"]["id"] == fresh
                assert (await after.run_turn(fresh, "hello"))["status"] == "completed"
                await join(after, passing)
                again = await after.wait_method(APPROVAL, threadId=passing)
                assert again["id"] == offered["id"]
                await after.respond(again["id"], ACCEPT)
                done = await after.wait_method(TURN_COMPLETED, threadId=passing)
                assert done["params"]["turn"]["status"] == "completed"


async def test_a_client_of_the_stdio_bridge_notices_nothing_but_what_was_in_flight() -> None:
    """It isn't told to reconnect: the bridge does, and its turn and its approval go on."""
    model = Scripted()
    model.on("do it", (Run("echo done", escalated=True),), Say("I did."))
    async with brokered(model=model) as broker, door(broker) as there:
        thread = await shared_thread(broker, there.peer)
        async with client(broker, "looks") as looks, same_app_server(broker, looks):
            await there.peer.start_turn(thread, "do it")
            asked = await there.peer.wait_method(APPROVAL, threadId=thread)
            since = len(there.peer.inbox)
            await next_broker(broker)
            await there.peer.request("thread/loaded/list")
            assert there.peer.heard(TURN_COMPLETED, since=since) == []
            assert there.peer.heard(RESOLVED, since=since) == []
            await there.peer.respond(asked["id"], ACCEPT)
            done = await there.peer.wait_method(TURN_COMPLETED, since=since, threadId=thread)
            assert done["params"]["turn"]["status"] == "completed"
            assert text_of(there.peer, thread, since) == ["I did."]


@pytest.mark.skipif(tmux_is_missing(), reason="there is no tmux")
async def test_the_real_tui_shows_the_turn_going_on() -> None:
    model = Scripted()
    model.on("think", Say(chunks=("The first half, ", Hold("half"), "and the second.")))
    async with brokered(model=model, config=QUIET) as broker, client(broker, "phone") as phone:
        thread = await shared_thread(broker, phone)
        async with same_app_server(broker, phone):
            way = ("resume", thread, "--remote", broker.url)
            async with tui(broker.home, *way) as screen:
                await screen.see("You said: hello")
                await screen.say("think")
                await model.reached("half")
                await next_broker(broker)
                await screen.gone("Reconnecting")
                model.release("half")
                await screen.see("The first half, and the second.")
                await screen.gone("Working")
                await screen.say("again")
                await screen.see("You said: again")
