"""Threads whose snapshot is too long to be decoded: how the app-server writes it, and joins."""

from __future__ import annotations

from typing import Any, Final

import pytest

from mux.core.protocol.envelope.long_line import LONG_BYTES, LongLine, read_snapshot
from mux.demo.scripted_model import Hold, Say, Scripted
from tests.end_to_end.brokered import brokered, client
from tests.end_to_end.native import native_stdio
from tests.end_to_end.peer import Json, Peer
from tests.end_to_end.scenes import DELTA, TURN_COMPLETED

LONG: Final = 'some "text" é\n' * (LONG_BYTES // 12)


def scripted() -> Scripted:
    """A model that says much, and then begins to say more."""
    model = Scripted()
    model.on("much", Say(LONG))
    model.on("more", (Say("Done. "), Say(chunks=("so far ", Hold("mid"), "and on"))))
    return model


async def says(peer: Peer, thread: str, words: str) -> None:
    text = {"type": "text", "text": words}
    await peer.request("turn/start", {"threadId": thread, "input": [text]})


async def long_thread(peer: Peer, model: Scripted) -> str:
    """A thread of two long turns, and one that runs."""
    thread = str((await peer.request("thread/start"))["thread"]["id"])
    for _ in range(2):
        since = len(peer.inbox)
        await says(peer, thread, "much")
        await peer.wait(lambda m: m.get("method") == TURN_COMPLETED, since=since)
    await says(peer, thread, "more")
    await model.reached("mid")
    await peer.wait(lambda m: m.get("params", {}).get("delta") == "so far ")
    return thread


def as_long_line(line: bytes) -> LongLine:
    long = LongLine(line[:LONG_BYTES])
    for at in range(LONG_BYTES, len(line), 50_000):
        long.add(line[at : at + 50_000])
    return long


@pytest.mark.parametrize("method", ["thread/resume", "thread/fork"])
async def test_a_long_snapshot_is_of_the_shape_by_which_its_ends_are_found(method: str) -> None:
    """If it isn't any more it is read whole, which makes everybody wait."""
    model = scripted()
    async with native_stdio(model=model) as running:
        peer = running.peer
        await peer.initialize()
        thread = await long_thread(peer, model)
        result: Json = await peer.request(method, {"threadId": thread})
        line = next(
            text.encode() if isinstance(text, str) else bytes(text)
            for text, message in zip(peer.raw, peer.inbox, strict=True)
            if message.get("result") == result
        ).rstrip(b"\n")
        model.release("mid")
    snapshot = read_snapshot(as_long_line(line))
    assert snapshot is not None
    turns = result["thread"]["turns"]
    assert [id.decode() for id in snapshot.line.turns] == [each["id"] for each in turns]
    assert len(turns) == 3
    assert snapshot.has_status
    last = snapshot.last_turns(snapshot.end, set())
    assert last is not None
    assert last[0].id == turns[-1]["id"]
    running_turns = [each["id"] for each in turns if each["status"] == "inProgress"]
    marked = [snapshot.turn_at(mark) for mark in snapshot.line.running]
    assert marked == [snapshot.line.turns[id.encode()] for id in running_turns]


async def test_one_joins_a_long_thread_that_runs_and_forks_and_reads_it() -> None:
    model = scripted()
    async with (
        brokered(model=model) as broker,
        client(broker, "desk") as desk,
        client(broker, "late") as late,
    ):
        thread = await long_thread(desk, model)
        joined: Any = await late.request("thread/resume", {"threadId": thread})
        *before, last = joined["thread"]["turns"]
        assert [each["items"][-1]["text"] for each in before] == [LONG, LONG]
        assert joined["thread"]["status"]["type"] == "active"
        assert last["status"] == "inProgress"
        shown = [each for each in last["items"] if each["type"] == "agentMessage"]
        done = [
            m["params"]["item"] for m in desk.inbox
            if m.get("method") == "item/completed" and m["params"]["turnId"] == last["id"]
        ]  # fmt: skip
        assert last["items"] == done
        assert [each["text"] for each in shown] == ["Done. "]
        await late.wait(lambda m: m.get("method") == DELTA and m["params"]["delta"] == "so far ")
        model.release("mid")
        await late.wait(lambda m: m.get("method") == TURN_COMPLETED)
        read = await desk.request("thread/read", {"threadId": thread, "includeTurns": True})
        forked = await late.request("thread/fork", {"threadId": thread})
        for each in (read, forked):
            texts = [turn["items"][-1]["text"] for turn in each["thread"]["turns"]]
            assert texts == [LONG, LONG, "so far and on"]
