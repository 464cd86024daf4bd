"""Approvals: put to every follower, decided once, by the first valid answer."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from mux.demo.scripted_model import Hold, Run, Say, Scripted
from tests.end_to_end.brokered import brokered, client
from tests.end_to_end.native import Native
from tests.end_to_end.peer import PATIENCE, Json, Peer, is_method
from tests.end_to_end.scenes import (
    ACCEPT,
    APPROVAL,
    COMPLETED,
    DECLINE,
    LIST,
    RESOLVED,
    TURN_COMPLETED,
    eventually,
    join,
    onlooker,
    shared_thread,
    status_shows,
    tool_outputs,
)

TWENTY = 20
APPROVED = "echo ran >> ran.txt"


def _ran(broker: Native) -> int:
    """How often the approved command has run."""
    file = broker.home.work / "ran.txt"
    return len(file.read_text().splitlines()) if file.exists() else 0


def _script() -> Scripted:
    model = Scripted()
    model.on("run it", Run(APPROVED, escalated=True), Say("Over."))
    return model


async def _asked(thread: str, asker: Peer, *others: Peer) -> list[Json]:
    """A turn that asks for an approval; the approval as each of them has heard it."""
    marks = [len(peer.inbox) for peer in (asker, *others)]
    await asker.start_turn(thread, "run it")
    return [
        await peer.wait_method(APPROVAL, since=since)
        for peer, since in zip((asker, *others), marks, strict=True)
    ]


async def _outcome(peer: Peer, call: Json) -> str:
    """How the command's item ended."""
    wanted = call["params"]["itemId"]
    done = await peer.wait(
        lambda m: is_method(COMPLETED)(m) and m["params"]["item"]["id"] == wanted
    )
    return str(done["params"]["item"]["status"])


async def _approvals(peer: Peer, count: int) -> dict[str, Json]:
    """Wait for this many approvals; by the word that the command echoes."""
    await eventually(lambda: len(peer.heard(APPROVAL)) == count, f"{count} approvals")
    return {m["params"]["command"].split("echo ")[1].split()[0]: m for m in peer.heard(APPROVAL)}


async def test_twenty_approvals_answered_from_both_sides_at_once() -> None:
    model = Scripted()
    runs = [Run(f"echo {n} >> ran.txt", escalated=True) for n in range(TWENTY)]
    model.on("all of them", tuple(runs), Say("Over."))
    async with (
        brokered(model=model) as broker,
        client(broker, "desk") as desk,
        client(broker, "phone") as phone,
    ):
        thread = await shared_thread(broker, desk, phone)
        marks = len(desk.inbox), len(phone.inbox)
        await desk.start_turn(thread, "all of them")
        asked = await _approvals(desk, TWENTY)
        assert asked == await _approvals(phone, TWENTY)
        ids = {call["id"] for call in asked.values()}
        assert len(ids) == TWENTY
        async with trio.open_nursery() as nursery:
            for n, call in enumerate(asked.values()):
                # One accepts and the other declines; each is first in the queue every second time.
                sides = [(desk, ACCEPT if n % 4 < 2 else DECLINE)]
                sides.insert(n % 2, (phone, DECLINE if n % 4 < 2 else ACCEPT))
                for peer, decision in sides:
                    nursery.start_soon(peer.respond, call["id"], decision)
        for peer, since in zip((desk, phone), marks, strict=True):
            await peer.wait_method(TURN_COMPLETED, since=since, threadId=thread)
            resolved = [each["params"]["requestId"] for each in peer.heard(RESOLVED)]
            assert sorted(resolved) == sorted(ids)
        outcomes = {word: await _outcome(desk, call) for word, call in asked.items()}
        assert outcomes == {word: await _outcome(phone, call) for word, call in asked.items()}
        assert set(outcomes.values()) == {"completed", "declined"}
        ran = (broker.home.work / "ran.txt").read_text().split()
        assert sorted(ran) == sorted(n for n, was in outcomes.items() if was == "completed")


async def test_an_approval_that_nobody_saw_is_a_newcomers_to_answer() -> None:
    model = Scripted()
    model.on("run it", (Hold("gate"), Run(APPROVED, escalated=True)), Say("Over."))
    async with brokered(model=model) as broker, onlooker(broker) as outside:
        async with client(broker, "asker") as asker:
            thread = await shared_thread(broker, asker)
            await asker.start_turn(thread, "run it")
            with trio.fail_after(PATIENCE):
                await model.reached("gate")
        await status_shows(outside, lambda report: len(report["clients"]) == 1)
        model.release("gate")
        report = await status_shows(outside, lambda report: report["serverRequests"])
        [pending] = report["serverRequests"]
        assert (pending["offeredTo"], pending["answeredBy"]) == ([], None)

        async with client(broker, "one") as one, client(broker, "two") as two:
            assert one.heard(APPROVAL) == []
            for peer, others in ((one, []), (two, [one])):
                marks = [len(other.inbox) for other in others]
                await join(peer, thread)
                [answer] = [m for m in peer.inbox if m.get("result", {}).get("thread")]
                asked = await peer.wait_method(APPROVAL)
                assert peer.inbox.index(answer) < peer.inbox.index(asked)
                assert asked["id"] == pending["id"]
                await join(peer, thread)  # once more it is offered once more, as natively
                await peer.request(LIST)
                assert [each["id"] for each in peer.heard(APPROVAL)] == [pending["id"]] * 2
                for other, since in zip(others, marks, strict=True):
                    await other.request(LIST)
                    assert other.heard(APPROVAL, since=since) == []
            await two.respond(pending["id"], ACCEPT)
            for peer in (one, two):
                await peer.wait_method(RESOLVED, requestId=pending["id"], threadId=thread)
                await peer.wait_method(TURN_COMPLETED, threadId=thread)
            async with client(broker, "late") as late:
                await join(late, thread)
                await late.request(LIST)
                assert late.heard(APPROVAL) == []
        assert _ran(broker) == 1


NO_ANSWERS: list[Any] = [
    None, [], ["accept"], "accept", True, 1, {}, {"decision": None}, {"decision": "approve"},
    {"decision": ["accept"]}, {"decision": {"accept": {}}}, {"bogus": 1},
]  # fmt: skip


async def test_what_is_no_answer_leaves_it_to_the_other() -> None:
    async with (
        brokered(model=_script()) as broker,
        client(broker, "broken") as broken,
        client(broker, "sound") as sound,
    ):
        thread = await shared_thread(broker, broken, sound)
        at_broken, at_sound = await _asked(thread, broken, sound)
        id = at_broken["id"]
        await broken.respond_error(id, -32601, "method not found")
        for answer in NO_ANSWERS:
            await broken.respond(id, answer)
        await broken.send_raw(f'{{"id":{id},"result":{{}},"error":{{"code":1,"message":"x"}}}}')
        await broken.request("mux/status")  # so all that has been heard
        assert sound.heard(RESOLVED) == []
        await sound.respond(at_sound["id"], ACCEPT)
        for peer in (broken, sound):
            assert await _outcome(peer, at_broken) == "completed"
            assert len(peer.heard(RESOLVED, requestId=id)) == 1
        assert _ran(broker) == 1


async def test_one_that_abstained_may_still_decide() -> None:
    async with (
        brokered(model=_script()) as broker,
        client(broker, "one") as one,
        client(broker, "two") as two,
    ):
        thread = await shared_thread(broker, one, two)
        at_one, _ = await _asked(thread, one, two)
        await one.respond(at_one["id"], {})
        await one.respond(at_one["id"], ACCEPT)
        assert await _outcome(two, at_one) == "completed"
        assert _ran(broker) == 1


async def test_when_all_abstain_the_model_is_told_and_the_turn_goes_on() -> None:
    async with (
        brokered(model=_script()) as broker,
        client(broker, "one") as one,
        client(broker, "two") as two,
    ):
        thread = await shared_thread(broker, one, two)
        at_one, at_two = await _asked(thread, one, two)
        await one.respond(at_one["id"], {"decision": "perhaps"})
        await two.respond_error(at_two["id"], -32603, "no screen")
        assert await _outcome(one, at_one) == "failed"
        for peer in (one, two):
            await peer.wait_method(RESOLVED, requestId=at_one["id"])
            done = await peer.wait_method(TURN_COMPLETED, since=peer.inbox.index(at_one))
            assert done["params"]["turn"]["status"] == "completed"
        assert "approval request failed" in tool_outputs(broker.model.requests[-1])[-1]
        assert _ran(broker) == 0


async def test_answers_that_change_nothing() -> None:
    async with (
        brokered(model=_script()) as broker,
        client(broker, "one") as one,
        client(broker, "two") as two,
        client(broker, "stranger") as stranger,
    ):
        thread = await shared_thread(broker, one, two)
        at_one, at_two = await _asked(thread, one, two)
        id = at_one["id"]
        # Not to those it wasn't offered to, nor by the app-server's own id, nor of another type.
        await stranger.respond(id, ACCEPT)
        for wrong in (0, id + 1, str(id), -1, 2**62):
            await one.respond(wrong, ACCEPT)
        await stranger.request("mux/status")
        await one.request("mux/status")
        assert _ran(broker) == 0
        assert one.heard(RESOLVED) == []
        await two.respond(at_two["id"], DECLINE)
        await two.request("mux/status")  # the broker has it: two sockets have no order
        await one.respond(id, ACCEPT)  # late
        await two.respond(id, ACCEPT)  # double
        assert await _outcome(one, at_one) == "declined"
        for peer in (one, two):
            await peer.wait_method(TURN_COMPLETED, since=peer.inbox.index(at_one))
            await peer.respond(id, ACCEPT)  # long over
            await peer.request(LIST)
            assert len(peer.heard(APPROVAL)) == len(peer.heard(RESOLVED)) == 1
        assert stranger.heard(APPROVAL) == stranger.heard(RESOLVED) == []
        assert _ran(broker) == 0


@pytest.mark.parametrize(("decision", "outcome", "turn"), [
    ("accept", "completed", "completed"),
    ("acceptForSession", "completed", "completed"),
    ("decline", "declined", "completed"),
    ("cancel", "declined", "interrupted"),
])  # fmt: skip
async def test_every_decision_is_an_answer(decision: str, outcome: str, turn: str) -> None:
    async with (
        brokered(model=_script()) as broker,
        client(broker, "one") as one,
        client(broker, "two") as two,
    ):
        thread = await shared_thread(broker, one, two)
        at_one, at_two = await _asked(thread, one, two)
        await two.respond(at_two["id"], {"decision": decision})
        assert await _outcome(one, at_one) == outcome
        done = await one.wait_method(TURN_COMPLETED, since=one.inbox.index(at_one))
        assert done["params"]["turn"]["status"] == turn
        assert _ran(broker) == (outcome == "completed")


async def test_an_interrupt_takes_the_approval_back_from_everybody() -> None:
    async with (
        brokered(model=_script()) as broker,
        client(broker, "one") as one,
        client(broker, "two") as two,
    ):
        thread = await shared_thread(broker, one, two)
        at_one, _ = await _asked(thread, one, two)
        turn = at_one["params"]["turnId"]
        await two.request("turn/interrupt", {"threadId": thread, "turnId": turn})
        for peer in (one, two):
            await peer.wait_method(RESOLVED, requestId=at_one["id"])
            await peer.respond(at_one["id"], ACCEPT)
        await status_shows(one, lambda report: report["serverRequests"] == [])
        assert _ran(broker) == 0


async def test_those_that_leave_have_not_abstained() -> None:
    async with brokered(model=_script()) as broker, client(broker, "stays") as stays:
        async with client(broker, "goes") as goes:
            thread = await shared_thread(broker, goes, stays)
            [_, at_stays] = await _asked(thread, goes, stays)
        await status_shows(stays, lambda report: len(report["clients"]) == 1)
        # It unsubscribes too: now nobody follows, and it comes back for the approval.
        named = {"threadId": thread}
        assert await stays.request("thread/unsubscribe", named) == {"status": "unsubscribed"}
        await stays.respond(at_stays["id"], ACCEPT)  # no follower any more, so not its to answer
        since = len(stays.inbox)
        await join(stays, thread)
        again = await stays.wait_method(APPROVAL, since=since)
        assert again["id"] == at_stays["id"]
        assert _ran(broker) == 0
        await stays.respond(again["id"], ACCEPT)
        assert await _outcome(stays, again) == "completed"
        assert _ran(broker) == 1
