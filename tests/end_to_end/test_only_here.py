"""Threads that the app-server can't resume, or that it tells nothing of: what a joiner is told."""

from __future__ import annotations

import pytest

from mux.demo.scripted_model import Hold, Say, Scripted
from tests.end_to_end.brokered import brokered, client
from tests.end_to_end.lives import kill_app_server, life
from tests.end_to_end.peer import Json, Peer
from tests.end_to_end.scenes import DELTA, TURN_COMPLETED, join

LATER = {"preview", "updatedAt", "recencyAt", "turns", "sessionId", "id", "createdAt", "path"}
"""Of a thread, what differs by its being another, or by a turn that it has had since."""


def what_holds(resumed: Json) -> Json:
    """What a resume says of how the thread is run; without cursors, which only a store has."""
    cursors = {"initialTurnsPage", "turnsBackwardsCursor", "itemsBackwardsCursor"}
    told = {name: value for name, value in resumed.items() if name not in cursors}
    thread = {name: value for name, value in told["thread"].items() if name not in LATER}
    return told | {"thread": thread}


async def _changed(peer: Peer, thread: str, cwd: str) -> None:
    """Everything that a thread's settings say is changed."""
    changes: Json = {
        "approvalPolicy": "never",
        "sandboxPolicy": {"type": "workspaceWrite", "networkAccess": True},
        "cwd": cwd,
        "model": "another",
        "effort": "low",
    }
    await peer.request("thread/settings/update", {"threadId": thread} | changes)
    await peer.wait_method("thread/settings/updated", threadId=thread)


async def test_the_joiner_of_a_fresh_thread_is_told_what_the_app_server_will_say_of_it() -> None:
    async with (
        brokered() as broker,
        client(broker, "desk") as desk,
        client(broker, "early") as early,
        client(broker, "late") as late,
    ):
        thread = await desk.start_thread(broker.home.work)
        await _changed(desk, thread, str(broker.home.home))
        before = await join(early, thread)
        assert before["approvalPolicy"] == "never"
        assert before["sandbox"]["networkAccess"] is True
        await desk.run_turn(thread, "hello")
        after = await join(late, thread)  # by now the app-server itself can say so
        assert what_holds(before) == what_holds(after)


async def test_the_joiner_of_an_ephemeral_thread_is_told_what_holds_and_what_it_is_about() -> None:
    async with (
        brokered() as broker,
        client(broker, "desk") as desk,
        client(broker, "late") as late,
    ):
        cwd, roots = str(broker.home.home), [str(broker.home.work), str(broker.home.home)]
        told = []
        for ephemeral in (True, False):
            thread = await desk.start_thread(broker.home.work, ephemeral=ephemeral)
            overrides: Json = {"approvalPolicy": "never", "cwd": cwd, "model": "another"}
            overrides["sandboxPolicy"] = {"type": "readOnly", "networkAccess": True}
            overrides["runtimeWorkspaceRoots"] = roots
            await desk.run_turn(thread, "first words", **overrides)
            await desk.run_turn(thread, "second words")
            told.append(await join(late, thread))
        ours, natively = told
        assert ours["thread"]["preview"] == natively["thread"]["preview"] == "first words"
        assert ours["runtimeWorkspaceRoots"] == roots
        for each in told:
            del each["thread"]["ephemeral"]
        assert what_holds(ours) == what_holds(natively)


@pytest.mark.parametrize("middle", [False, True], ids=["between turns", "in the middle of one"])
async def test_the_joiner_of_an_ephemeral_fork_gets_the_turns_that_it_was_made_with(
    middle: bool,
) -> None:
    model = Scripted()
    model.on("stream", Say(chunks=("early ", Hold("middle"), "late")))
    async with (
        brokered(model=model) as broker,
        client(broker, "desk") as desk,
        client(broker, "late") as late,
    ):
        source = await desk.start_thread(broker.home.work)
        turns = [(await desk.run_turn(source, words))["id"] for words in ("one", "two")]
        if middle:
            turns.append(await desk.start_turn(source, "stream"))
            await desk.wait_method(DELTA, delta="early ")
        asked = {"threadId": source, "ephemeral": True, "excludeTurns": True}
        fork = (await desk.request("thread/fork", asked))["thread"]["id"]
        since = len(desk.inbox)
        model.release("middle")
        if middle:
            await desk.wait_method(TURN_COMPLETED, threadId=source, since=since)
        await desk.run_turn(source, "of the source alone")
        own = (await desk.run_turn(fork, "of the fork alone"))["id"]
        told = (await late.request("thread/resume", {"threadId": fork}))["thread"]["turns"]
        assert [turn["id"] for turn in told] == [*turns, own]
        assert [item["type"] for item in told[0]["items"]] == ["userMessage", "agentMessage"]


async def test_a_fork_that_left_out_its_turns_outlives_the_app_server() -> None:
    async with (
        brokered() as broker,
        client(broker, "desk") as desk,
        client(broker, "late") as late,
    ):
        source = await desk.start_thread(broker.home.work)
        turn = (await desk.run_turn(source, "one"))["id"]
        asked = {"threadId": source, "excludeTurns": True}
        fork = (await desk.request("thread/fork", asked))["thread"]["id"]
        await kill_app_server(desk)
        await life(desk, 2)
        assert desk.heard("thread/closed") == []
        told = (await late.request("thread/resume", {"threadId": fork}))["thread"]["turns"]
        assert [each["id"] for each in told] == [turn]
        await desk.run_turn(fork, "two")
