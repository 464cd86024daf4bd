"""The app-server is killed under its clients: they stay, are told what is over, and go on."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from mux.demo.scripted_model import Hold, Run, Say, Scripted
from tests.end_to_end.brokered import brokered, client
from tests.end_to_end.lives import app_server, kill_app_server, life
from tests.end_to_end.peer import Json, Peer, RpcError
from tests.end_to_end.scenes import (
    ACCEPT,
    APPROVAL,
    DECLINE,
    DELTA,
    LIST,
    RESOLVED,
    TURN_COMPLETED,
    ended,
    eventually,
    join,
    running,
    shared_thread,
)
from tests.view import View

STATUS = "thread/status/changed"


async def test_mid_text_the_turn_ends_for_everybody_and_the_thread_goes_on() -> None:
    model = Scripted()
    model.on("tell", Say(chunks=("half ", Hold("mid"), "never said")))
    async with (
        brokered(model=model) as broker,
        client(broker, "desk") as desk,
        client(broker, "phone") as phone,
        client(broker, "onlooker") as onlooker,
    ):
        thread = await shared_thread(broker, desk, phone)
        turn = await desk.start_turn(thread, "tell")
        for peer in (desk, phone):
            await peer.wait_method(DELTA, delta="half ")
        await onlooker.request(LIST)  # behind which nothing of before is on its way
        *marks, mark = [len(peer.inbox) for peer in (desk, phone, onlooker)]
        await kill_app_server(desk)
        for peer, since in zip((desk, phone), marks, strict=True):
            over = await peer.wait_method(TURN_COMPLETED, since=since)
            told = over["params"]["turn"]
            assert (told["id"], told["status"], told["error"]) == (turn, "interrupted", None)
            assert told["durationMs"] >= 0
            before = peer.inbox[since : peer.inbox.index(over, since)]
            [idle] = [each["params"] for each in before if each.get("method") == STATUS]
            assert idle == {"threadId": thread, "status": {"type": "idle"}}
        await onlooker.wait_method(STATUS, since=mark, threadId=thread, status={"type": "idle"})

        # Nobody resumed, and everybody follows.
        mark = len(desk.inbox)
        await phone.run_turn(thread, "and now?")
        await desk.wait_method(TURN_COMPLETED, since=mark)
        for peer in (desk, phone):
            assert View(thread).hear_all(peer.inbox).turns[turn] == "interrupted"
        assert onlooker.heard(TURN_COMPLETED) == []
        # A newcomer's snapshot says the same; what was killed needn't have been stored.
        async with client(broker, "late") as late:
            seen = View(thread, await late.request("thread/resume", {"threadId": thread}))
            told = View(thread).hear_all(desk.inbox).turns
            assert seen.turns.items() <= told.items()
            assert told.keys() - seen.turns.keys() <= {turn}
        assert (await app_server(desk))["generation"] == 2


async def test_mid_command_its_asker_is_told_what_may_be_asked_again() -> None:
    async with (
        brokered() as broker,
        client(broker, "desk") as desk,
        client(broker, "phone") as phone,
    ):
        words = ["sleep", f"98761.{os.getpid()}"]  # so that nobody else's are found
        command = await desk.ask("command/exec", {"command": words, "processId": "p"})
        await eventually(lambda: running(*words), "the command")
        [child] = running(*words)
        # It reads no more, so this stays unanswered.
        await kill_app_server(desk, signal.SIGSTOP)
        reading = await phone.ask("thread/list")
        await phone.request("mux/status")
        await kill_app_server(desk)
        with pytest.raises(RpcError) as failed:
            await desk.result(command)
        assert failed.value.data == {"generation": 1, "retryable": False}
        assert "ended before it answered `command/exec`" in failed.value.message
        with pytest.raises(RpcError) as failed:
            await phone.result(reading)
        assert failed.value.data == {"generation": 1, "retryable": True}
        assert (await phone.request("thread/list"))["data"] == []
        await eventually(lambda: ended(child), "the command's end")


async def test_a_turn_mid_command_ends_and_so_does_the_command() -> None:
    model = Scripted()
    words = ["sleep", f"98762.{os.getpid()}"]
    model.on("run", Run(f"exec {' '.join(words)}", escalated=True), Say("never said"))
    async with (
        brokered(model=model) as broker,
        client(broker, "desk") as desk,
        client(broker, "phone") as phone,
    ):
        thread = await shared_thread(broker, desk, phone)
        turn = await desk.start_turn(thread, "run")
        offer = await desk.wait_method(APPROVAL)
        await phone.respond(offer["id"], ACCEPT)
        await eventually(lambda: running(*words), "the command")
        [child] = running(*words)
        mark = len(phone.inbox)
        await kill_app_server(desk)
        over = await phone.wait_method(TURN_COMPLETED, since=mark)
        assert over["params"]["turn"]["id"] == turn
        await eventually(lambda: ended(child), "the command's end")
        assert (await phone.run_turn(thread, "next"))["status"] == "completed"


async def test_with_an_approval_pending_it_is_resolved_for_everybody() -> None:
    model = Scripted()
    model.on("run", Run("touch never", escalated=True), Say("done"))
    async with (
        brokered(model=model) as broker,
        client(broker, "desk") as desk,
        client(broker, "phone") as phone,
    ):
        thread = await shared_thread(broker, desk, phone)
        await desk.start_turn(thread, "run")
        offers = [await peer.wait_method(APPROVAL) for peer in (desk, phone)]
        await kill_app_server(desk)
        for peer in (desk, phone):
            resolved = await peer.wait_method(RESOLVED)
            assert resolved["params"] == {"threadId": thread, "requestId": offers[0]["id"]}
        # An answer to the dead one's request reaches nobody, whatever id the next one uses.
        await desk.wait_method(TURN_COMPLETED, since=desk.inbox.index(offers[0]))
        mark = len(desk.inbox)
        await desk.start_turn(thread, "run")
        second = await desk.wait_method(APPROVAL, since=mark)
        assert second["id"] not in (0, offers[0]["id"])
        for stale in (offers[1]["id"], 0):
            await phone.respond(stale, ACCEPT)
        await phone.request("mux/status")  # so they have been read
        await desk.respond(second["id"], DECLINE)
        await desk.wait_method(TURN_COMPLETED, since=mark)
        assert not (broker.home.work / "never").exists()


async def test_threads_that_are_only_in_memory_are_closed() -> None:
    async with (
        brokered() as broker,
        client(broker, "desk") as desk,
        client(broker, "phone") as phone,
    ):
        fresh = await desk.start_thread(broker.home.work)
        ephemeral = await phone.start_thread(broker.home.work, ephemeral=True)
        await phone.run_turn(ephemeral, "hello")
        kept = await shared_thread(broker, desk)
        await kill_app_server(desk)
        for thread in (fresh, ephemeral):
            for peer in (desk, phone):
                await peer.wait_method("thread/closed", threadId=thread)
                status = peer.heard(STATUS, threadId=thread)[-1]
                assert status["params"]["status"] == {"type": "notLoaded"}
        with pytest.raises(RpcError, match="thread not found"):
            await desk.start_turn(fresh, "hello")
        assert desk.heard("thread/closed", threadId=kept) == []
        assert (await desk.run_turn(kept, "go on"))["status"] == "completed"


async def test_watches_go_on_and_spawned_processes_are_told_to_have_ended() -> None:
    async with (
        brokered() as broker,
        client(broker, "desk") as desk,
        client(broker, "phone") as phone,
    ):
        file = broker.home.work / "watched"
        file.write_text("1")
        for peer in (desk, phone):
            await peer.request("fs/watch", {"watchId": "w", "path": str(file)})
        spawned = {
            "processHandle": "h",
            "command": ["sleep", "98763"],
            "cwd": str(broker.home.work),
        }
        await desk.request("process/spawn", spawned)
        await kill_app_server(desk)
        exited = (await desk.wait_method("process/exited"))["params"]
        assert (exited["processHandle"], exited["exitCode"]) == ("h", -1)
        await life(desk, 2)
        await changed(file, desk, phone)
        # Its id is free again, and so is each watch its client's own.
        await desk.request("process/spawn", spawned)
        await desk.request("fs/unwatch", {"watchId": "w"})
        await changed(file, phone)
        assert phone.heard("process/exited") == []


async def changed(file: Path, *peers: Peer) -> None:
    """Write to the file until these have heard of it under their own id."""
    marks = [len(peer.inbox) for peer in peers]

    def heard() -> bool:
        file.write_text(file.read_text() + "x")  # the watch itself may take a moment to begin
        told = [p.heard("fs/changed", since=m) for p, m in zip(peers, marks, strict=True)]
        return all(told) and {each[0]["params"]["watchId"] for each in told} == {"w"}

    await eventually(heard, "fs/changed")


async def test_what_a_thread_was_started_with_still_holds() -> None:
    model = Scripted()
    async with (
        brokered(model=model) as broker,
        client(broker, "desk") as desk,
        client(broker, "phone") as phone,
    ):
        elsewhere = broker.home.work / "elsewhere"
        elsewhere.mkdir()
        thread = await desk.start_thread(elsewhere, **GIVEN)
        await desk.run_turn(thread, "hello")
        before = await settings(phone, thread), model.requests[-1]
        await kill_app_server(desk)
        await life(desk, 2)
        assert await settings(phone, thread) == before[0]
        await phone.run_turn(thread, "again")
        assert wishes(model.requests[-1]) == wishes(before[1])
        assert before[0]["approvalPolicy"] == GIVEN["approvalPolicy"]
        assert wishes(before[1])["model"] == GIVEN["model"]


async def test_so_does_what_was_changed_since() -> None:
    model = Scripted()
    async with (
        brokered(model=model) as broker,
        client(broker, "desk") as desk,
        client(broker, "phone") as phone,
    ):
        elsewhere = broker.home.work / "elsewhere"
        elsewhere.mkdir()
        thread = await shared_thread(broker, desk, model="first-model", sandbox="workspace-write")
        changed: Json = {
            "model": "second-model",
            "cwd": str(elsewhere),
            "approvalPolicy": "never",
            "sandboxPolicy": {"type": "readOnly", "networkAccess": True},
            "effort": "high",
        }
        await desk.run_turn(thread, "for this turn and those after it", **changed)
        before = await settings(phone, thread)
        assert {key: before[key] for key in ("model", "cwd", "approvalPolicy")} == {
            key: changed[key] for key in ("model", "cwd", "approvalPolicy")
        }
        assert before["sandbox"] == changed["sandboxPolicy"]
        for generation in (2, 3):
            await kill_app_server(desk)
            await life(desk, generation)
            assert await settings(phone, thread) == before
        await phone.run_turn(thread, "again")
        assert wishes(model.requests[-1])["model"] == "second-model"


GIVEN: Json = {
    "model": "another-model",
    "approvalPolicy": "never",
    "sandbox": "workspace-write",
    "developerInstructions": "Answer in rhymes.",
    "config": {"features.default_mode_request_user_input": True, "model_verbosity": "low"},
}


async def settings(peer: Peer, thread: str) -> Json:
    """What the app-server says a thread is run with."""
    answer = await join(peer, thread)
    return {key: value for key, value in answer.items() if key != "thread"}


def wishes(request: Json) -> Json:
    """What of a request to the model follows from a thread's settings."""
    told = [str(item) for item in request["input"] if item.get("role") == "developer"]
    return {
        "model": request["model"],
        "rhymes": any("Answer in rhymes." in text for text in told),
        "tools": sorted(tool.get("name", "") for tool in request["tools"]),
        "text": request.get("text"),
    }
