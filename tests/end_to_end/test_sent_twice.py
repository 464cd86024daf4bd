"""A message that is sent again under the same `clientUserMessageId` runs once."""

from __future__ import annotations

from typing import Any

import pytest

from mux.demo.scripted_model import Hold, Say, Scripted
from tests.end_to_end.brokered import brokered, client
from tests.end_to_end.lives import kill_app_server
from tests.end_to_end.peer import Json, Peer, RpcError
from tests.end_to_end.scenes import TURN_COMPLETED, TURN_STARTED, shared_thread


def message(thread: str, text: str, id: str, **further: Any) -> Json:
    words = [{"type": "text", "text": text, "text_elements": []}]
    return {"threadId": thread, "input": words, "clientUserMessageId": id, **further}


def said(model: Scripted, text: str) -> int:
    """In how many requests this was the last that the model heard of a person."""
    return sum(text in str(request["input"][-1]) for request in model.requests)


def items(peer: Peer, text: str) -> list[Json]:
    """The user's messages with this text that the peer has seen on the thread."""
    kept = [each["params"]["item"] for each in peer.heard("item/completed")]
    return [each for each in kept if each["type"] == "userMessage" and text in str(each["content"])]


async def test_a_phone_that_does_not_know_whether_it_was_sent_sends_it_again() -> None:
    model = Scripted()
    model.on("tell", Say(chunks=("half, ", Hold("mid"), "whole")))
    async with brokered(model=model) as broker, client(broker, "desk") as desk:
        thread = await shared_thread(broker, desk)
        mark = len(desk.inbox)
        async with client(broker, "phone") as phone:
            await phone.ask("turn/start", message(thread, "tell", "m1"))
            await model.reached("mid")
        async with client(broker, "phone") as phone:  # its connection broke, it came back
            answer = await phone.request("turn/start", message(thread, "tell", "m1"))
            started = (await desk.wait_method(TURN_STARTED, since=mark))["params"]["turn"]
            assert answer["turn"]["id"] == started["id"]
            model.release("mid")
            await desk.wait(lambda m: completed(m) == started["id"])
            # And again, long after: the same answer, and nothing runs.
            assert await phone.request("turn/start", message(thread, "tell", "m1")) == answer
            assert (await desk.run_turn(thread, "next"))["status"] == "completed"
        assert said(model, "tell") == 1
        assert len(items(desk, "tell")) == 1
        assert len(desk.heard(TURN_STARTED)) == 3


def completed(message: Json) -> object:
    if message.get("method") != TURN_COMPLETED:
        return None
    return message["params"]["turn"]["id"]


async def test_pipelined_twice_it_runs_once_and_both_are_answered() -> None:
    model = Scripted()
    async with brokered(model=model) as broker, client(broker, "desk") as desk:
        thread = await shared_thread(broker, desk)
        mark = len(desk.inbox)
        asked = [await desk.ask("turn/start", message(thread, "twice", "m1")) for _ in range(5)]
        told = [await desk.result(each) for each in asked]
        assert all(each == told[0] for each in told)
        await desk.wait_method(TURN_COMPLETED, since=mark)
        assert len(items(desk, "twice")) == 1


async def test_steering_twice_adds_it_once() -> None:
    model = Scripted()
    model.on("tell", Say(chunks=("half, ", Hold("mid"), "whole")))
    async with brokered(model=model) as broker, client(broker, "desk") as desk:
        thread = await shared_thread(broker, desk)
        turn = await desk.start_turn(thread, "tell")
        await model.reached("mid")
        steer = message(thread, "and rhyme", "s1", expectedTurnId=turn)
        assert await desk.request("turn/steer", steer) == await desk.request("turn/steer", steer)
        model.release("mid")
        await desk.wait(lambda m: completed(m) == turn)
        assert len(items(desk, "and rhyme")) == 1


async def test_one_that_failed_runs_when_it_is_sent_again() -> None:
    async with brokered() as broker, client(broker, "desk") as desk:
        thread = await shared_thread(broker, desk)
        wrong = message(thread, "again", "m1", expectedTurnId="no such turn")
        for _ in range(2):
            with pytest.raises(RpcError):
                await desk.request("turn/steer", wrong)
        mark = len(desk.inbox)
        await desk.request("turn/start", message(thread, "again", "m1"))
        await desk.wait_method(TURN_COMPLETED, since=mark)
        assert len(items(desk, "again")) == 1


async def test_one_that_the_app_server_died_with_may_be_sent_again() -> None:
    model = Scripted()
    async with brokered(model=model) as broker, client(broker, "desk") as desk:
        thread = await shared_thread(broker, desk)
        await kill_app_server(desk)
        asked = message(thread, "surely", "m1")
        try:
            first = await desk.request("turn/start", asked)
        except RpcError:  # it was on its way when the app-server ended
            first = await desk.request("turn/start", asked)
        await desk.wait(lambda m: completed(m) == first["turn"]["id"])
        assert await desk.request("turn/start", asked) == first
        assert len(items(desk, "surely")) == 1


async def test_one_whose_turn_was_taken_back_runs_when_it_is_sent_again() -> None:
    async with (
        brokered() as broker,
        client(broker, "desk") as desk,
        client(broker, "phone") as phone,
    ):
        thread = await shared_thread(broker, desk, phone)
        said = []
        for text in ("kept", "gone"):
            first = await phone.request("turn/start", message(thread, text, text))
            said.append(first["turn"]["id"])
            await desk.wait(lambda m: completed(m) == said[-1])
        revert = {"threadId": thread, "beforeTurnId": said[-1]}
        await desk.request("thread/revert", revert)
        again = [
            (await phone.request("turn/start", message(thread, text, text)))["turn"]["id"]
            for text in ("kept", "gone")
        ]
        assert again[0] == said[0]
        assert again[1] not in said
        await desk.wait(lambda m: completed(m) == again[1])
        assert len(items(desk, "gone")) == 2
        assert len(items(desk, "kept")) == 1
