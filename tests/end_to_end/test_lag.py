"""A client that lags: the others don't notice, the broker holds no more, and it misses nothing."""

from __future__ import annotations

from typing import Any, Final

import trio

from mux.demo.scripted_model import Run, Say, Scripted
from tests.end_to_end.brokered import brokered, client, logged
from tests.end_to_end.native import Native
from tests.end_to_end.peer import Peer
from tests.end_to_end.scenes import (
    ACCEPT,
    APPROVAL,
    DELTA,
    RESOLVED,
    TURN_COMPLETED,
    TURN_STARTED,
    about,
    eventually,
    join,
    shared_thread,
    status,
)
from tests.end_to_end.stalling import memory, stalling
from tests.view import View

AWARE: Final[dict[str, Any]] = {"extensions": {"appmux": {"version": 1}}}
SMALL: Final = {
    "APPMUX_LIMITS_OUTBOX_BYTES": str(256 * 1024),
    "APPMUX_LIMITS_JOURNAL_MEMORY_BYTES": str(2 * 1024 * 1024),
    "APPMUX_LIMITS_CATCH_UP_BYTES": str(256 * 1024),
}
"""What is owed and what is remembered, so low that most of the past is on disk alone."""

PART: Final = 20_000
PARTS: Final = 5
PATIENCE: Final = 120.0
FLAT: Final = 10 * 1024 * 1024
"""Bytes by which the broker may grow from the second part to the last, while 16 MB pass through it
that one client doesn't take: in the first its buffers get their size. 1 to 4 MB were seen."""

GROWS: Final = 60 * 1024 * 1024
"""Bytes by which it may grow in all, with what it takes to catch up; 15 to 25 MB were seen."""


def long_talk() -> Scripted:
    """Five times 20,000 deltas; between them a command that takes an approval."""
    model = Scripted()
    answers = [
        (Say(_words(part), chunks=PART), Run(f"echo {part}", escalated=True))
        for part in range(PARTS)
    ]
    model.on("talk", *answers, Say("That was all."))
    model.on("short", Say("A short answer."))
    return model


def _words(part: int) -> str:
    """So many words of 8 characters, each another."""
    return "".join(f"{part}{word:06} " for word in range(PART))


async def accept_all(peer: Peer) -> None:
    """Accept every approval that the peer is offered."""
    seen = 0
    while True:
        asked = await peer.wait(_asks, since=seen, timeout=PATIENCE)
        seen = peer.inbox.index(asked, seen) + 1
        await peer.respond(asked["id"], ACCEPT)


def _asks(message: Any) -> bool:
    return bool(message.get("method") == APPROVAL)


async def _lags(broker: Native, desk: Peer) -> None:
    """Wait until the broker has the phone for a client that lags, whoever else may have lagged."""
    [phone] = [each["id"] for each in (await status(desk))["clients"] if each["name"] == "phone"]

    def told() -> bool:
        lagging = [each for each in logged(broker) if each.event.startswith("client lags")]
        return phone in [each.fields["client"] for each in lagging]

    await eventually(told, "that the phone lags")


async def test_one_of_three_stops_reading_while_100_000_notifications_stream() -> None:
    async with (
        brokered(model=long_talk(), environ=SMALL) as broker,
        client(broker, "desk") as desk,
        client(broker, "wall") as wall,
        stalling(broker, "phone") as phone,
        trio.open_nursery() as nursery,
    ):
        thread = await shared_thread(broker, desk, wall, phone.peer)
        nursery.start_soon(accept_all, desk)
        begin = [len(peer.inbox) for peer in (desk, wall, phone.peer)]
        before, held = memory(broker.broker_pid), []
        phone.stall()
        await desk.start_turn(thread, "talk")
        seen = begin[1]
        for _ in range(PARTS):
            asked = await wall.wait(_asks, since=seen, timeout=PATIENCE)
            seen = wall.inbox.index(asked, seen) + 1
            held.append(memory(broker.broker_pid))
        for peer, since in ((desk, begin[0]), (wall, begin[1])):
            await peer.wait_method(TURN_COMPLETED, since=since, timeout=PATIENCE)
        held.append(memory(broker.broker_pid))
        await _lags(broker, desk)
        assert len(phone.peer.inbox) < begin[2] + PART, "it took little meanwhile"
        phone.go_on()
        await phone.peer.wait_method(TURN_COMPLETED, since=begin[2], timeout=PATIENCE)
        after = memory(broker.broker_pid)
        nursery.cancel_scope.cancel()
        _same(thread, wall.inbox[begin[1] :], phone.peer.inbox[begin[2] :])
        assert len(phone.peer.heard(DELTA, since=begin[2])) < PARTS * PART / 2, "merged"
        shown = [f"{each / 2**20:.1f}" for each in (before, *held, after)]
        assert max(held) - held[1] < FLAT, f"the broker grew, part by part, in MB: {shown}"
        assert after - before < GROWS, f"the broker grew, part by part, in MB: {shown}"
        mark = len(phone.peer.inbox)
        await desk.run_turn(thread, "short")
        await phone.peer.wait_method(TURN_COMPLETED, since=mark)
        assert (await status(desk))["clients"]


def _same(thread: str, prompt: list[Any], late: list[Any]) -> None:
    """Both were told the same, in the same order: events as they are, texts as they add up."""
    prompt, late = _from_turn(prompt), _from_turn(late)
    assert _told(thread, late) == _told(thread, prompt)
    views = [View(thread).hear_all(each) for each in (prompt, late)]
    assert views[0] == views[1]
    assert views[1].faults == []
    texts = [_words(part) for part in range(PARTS)]
    assert views[1].texts() == [*texts, "That was all."]


def _from_turn(messages: list[Any]) -> list[Any]:
    """Without what is still heard of the joining before."""
    begin = next(at for at, m in enumerate(messages) if m.get("method") == TURN_STARTED)
    return messages[begin:]


def _told(thread: str, messages: list[Any]) -> list[Any]:
    """All of the thread in order, where consecutive deltas of a stream are one."""
    told: list[Any] = []
    for message in messages:
        params = message.get("params", {})
        if params.get("threadId") != thread:
            continue
        if params.get("delta") is not None:
            stream = (message["method"], params["itemId"])
            if told and told[-1][:2] == stream:
                told[-1] = (*stream, told[-1][2] + params["delta"])
            else:
                told.append((*stream, params["delta"]))
        else:
            told.append((message["method"], message.get("id"), params))
    return told


async def test_while_it_lags_a_client_can_ask_answer_follow_and_unfollow() -> None:
    async with (
        brokered(model=long_talk(), environ=SMALL) as broker,
        client(broker, "desk") as desk,
        stalling(broker, "phone") as phone,
    ):
        talking = await shared_thread(broker, desk, phone.peer)
        left = await shared_thread(broker, desk, phone.peer)
        joined = await shared_thread(broker, desk)
        late = phone.peer
        await status(late)  # behind which nothing of its joining is on its way
        begin = len(late.inbox)
        phone.stall()
        turn = await desk.start_turn(talking, "talk")
        await desk.wait_method(APPROVAL, timeout=PATIENCE)
        await _lags(broker, desk)
        asked = [await late.ask("mux/status") for _ in range(3)]
        unfollow = await late.ask("thread/unsubscribe", {"threadId": left})
        follow = await late.ask("thread/resume", {"threadId": joined, "excludeTurns": True})
        await _until_known(broker, desk, joined)
        await desk.run_turn(left, "short")
        await desk.run_turn(joined, "short")
        phone.go_on()
        offered = await late.wait_method(APPROVAL, since=begin, timeout=PATIENCE)
        await late.respond(offered["id"], ACCEPT)
        await late.wait_method(RESOLVED, since=begin, timeout=PATIENCE)
        await late.wait_method(TURN_COMPLETED, since=begin, threadId=joined, timeout=PATIENCE)
        answers = [m["id"] for m in late.inbox[begin:] if "method" not in m]
        assert answers == [*asked, unfollow, follow]
        methods = {m["method"] for m in about(late, left, begin)}
        told_to_all = {"thread/status/changed", "thread/readState/changed"}
        assert methods <= told_to_all, "as one that doesn't follow it"
        seen = View(joined).hear_all(late.inbox[begin:])
        assert (seen.texts(), seen.faults) == (["A short answer."], [])
        await desk.request("turn/interrupt", {"threadId": talking, "turnId": turn})


async def _until_known(broker: Native, desk: Peer, thread: str) -> None:
    """Wait until the broker has both clients as followers of the thread."""
    with trio.fail_after(PATIENCE):
        while True:
            threads = (await status(desk))["threads"]
            if any(each["id"] == thread and len(each["followers"]) == 2 for each in threads):
                return


async def test_one_that_lags_and_knows_the_broker_gets_rising_numbers() -> None:
    async with (
        brokered(model=long_talk(), environ=SMALL) as broker,
        client(broker, "desk") as desk,
        stalling(broker, "phone", **AWARE) as phone,
    ):
        talking = await shared_thread(broker, desk)
        other = await shared_thread(broker, desk)
        for thread in (talking, other):
            await join(phone.peer, thread)
        begin = len(phone.peer.inbox)
        phone.stall()
        await desk.start_turn(talking, "talk")
        await desk.wait_method(APPROVAL, timeout=PATIENCE)
        await desk.run_turn(other, "short")
        await _lags(broker, desk)
        phone.go_on()
        await phone.peer.wait_method(TURN_COMPLETED, since=begin, threadId=other, timeout=PATIENCE)
        numbers = [m["seq"] for m in phone.peer.inbox[begin:] if "seq" in m]
        assert numbers == sorted(set(numbers))
        assert numbers[-1] - numbers[0] > PART, "most were merged"
        assert len(numbers) < PART
