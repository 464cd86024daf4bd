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
