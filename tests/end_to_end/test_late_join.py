"""Joining in the middle: a late client's view is what it would be had it been there all along."""

from __future__ import annotations

from typing import Any

import pytest

from mux.scripted_model import Hold, Reason, Run, Say, Scripted
from tests.end_to_end.brokered import brokered, client
from tests.end_to_end.view import View


@pytest.mark.parametrize("exclude_turns", [False, True])
async def test_text_streamed_before_is_given_to_the_joiner(exclude_turns: bool) -> None:
    model = Scripted()
    model.on(
        "tell",
        Run("echo first"),
        (Reason("thinking"), Say(chunks=("w0 ", "w1 ", Hold("mid"), "w2 ", "w3"))),
    )
    async with brokered(model=model) as broker, client(broker, "desk") as desk:
        thread = await desk.start_thread(broker.home.work)
        await desk.start_turn(thread, "tell")
        await model.reached("mid")
        await desk.wait(lambda m: _delta(m) == "w1 ")
        async with client(broker, "phone") as phone:
            asked = {"threadId": thread, "excludeTurns": exclude_turns}
            answer = await phone.request("thread/resume", asked)
            await phone.wait(lambda m: _delta(m) == "w0 w1 ")
            again = await phone.request("thread/resume", asked)
            model.release("mid")
            for peer in (desk, phone):
                await peer.wait_method("turn/completed", threadId=thread)
            whole = View(thread).hear_all(desk.inbox)
            for given in (answer, again):
                late = View(thread, given).hear_all(phone.inbox)
                assert late.texts() == whole.texts()
                assert late.unintroduced == []
                if not exclude_turns:
                    assert late.items == whole.items


def _delta(message: Any) -> Any:
    if isinstance(message, dict) and message.get("method") == "item/agentMessage/delta":
        return message["params"]["delta"]
    return None


async def test_a_fresh_thread_can_be_joined() -> None:
    async with (
        brokered() as broker,
        client(broker, "desk") as desk,
        client(broker, "phone") as phone,
    ):
        started = await desk.request("thread/start", {"cwd": str(broker.home.work)})
        thread = started["thread"]["id"]
        resumed = await phone.request("thread/resume", {"threadId": thread})
        assert resumed["thread"]["turns"] == []
        assert {key: resumed[key] for key in started if key != "thread"} == {
            key: started[key] for key in started if key != "thread"
        }
        await phone.run_turn(thread, "hello from the phone")
        await desk.wait_method("turn/completed", threadId=thread)
        assert View(thread).hear_all(desk.inbox) == View(thread).hear_all(phone.inbox)


async def test_an_ephemeral_thread_can_be_joined_with_its_past_and_while_it_runs() -> None:
    model = Scripted()
    model.on("first", Say("one"))
    model.on("second", Say(chunks=("t", Hold("mid"), "wo")))
    async with brokered(model=model) as broker, client(broker, "desk") as desk:
        thread = await desk.start_thread(broker.home.work, ephemeral=True)
        await desk.run_turn(thread, "first")
        await desk.start_turn(thread, "second")
        await model.reached("mid")
        await desk.wait(lambda m: _delta(m) == "t")
        async with client(broker, "phone") as phone:
            answer = await phone.request("thread/resume", {"threadId": thread})
            model.release("mid")
            for peer in (desk, phone):
                await peer.wait(lambda m: _text_of_completed(m) == "two")
                await peer.wait_method("turn/completed", since=len(peer.inbox) - 2)
            late = View(thread, answer).hear_all(phone.inbox)
            whole = View(thread).hear_all(desk.inbox)
            assert (late.items, late.turns) == (whole.items, whole.turns)


def _text_of_completed(message: Any) -> Any:
    if isinstance(message, dict) and message.get("method") == "item/completed":
        return message["params"]["item"].get("text")
    return None
