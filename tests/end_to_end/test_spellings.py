"""What the app-server reads in several ways, the broker reads in the same one."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mux.demo.scripted_model import Hold, Run, Say, Scripted
from tests.core.protocol.envelope.test_request_params import OTHERS, SPELLINGS, THREAD
from tests.end_to_end.brokered import brokered, client
from tests.end_to_end.devices import DEVICES_ONLY, operator_of, pair
from tests.end_to_end.native import native_stdio
from tests.end_to_end.peer import Json, Peer, RpcError, answers, connect_ws

APPROVAL = "item/commandExecution/requestApproval"
EXTENSION: dict[str, Any] = {"extensions": {"appmux": {}}}


def hidden(value: object) -> str:
    """A text that the app-server's parser reads as the value."""
    return json.dumps({"$serde_json::private::RawValue": json.dumps(value)})


def readings(thread: str) -> dict[str, str]:
    """Params that the app-server reads as naming the thread, though they don't say so plainly."""
    id, params = json.dumps(thread), {"threadId": thread}
    return {
        "a list": f"[{id}]",
        "a text for an id": f'{{"threadId":{hidden(thread)}}}',
        "a text for all": hidden(params),
    }


async def said(peer: Peer, method: str, params: str) -> Json:
    """The answer to a request whose params are this very text."""
    id = f"{method} {len(peer.inbox)}"
    await peer.send_raw(f'{{"id":{json.dumps(id)},"method":"{method}","params":{params}}}')
    answer: Json = await peer.wait(answers(id))
    return answer


async def test_what_the_app_server_itself_takes_for_an_id() -> None:
    """The table of spellings is the installed codex's: all of it, and nothing beside it."""
    async with native_stdio() as running:
        peer = running.peer
        await peer.initialize("one")
        thread = await peer.start_thread(running.home.work)
        await peer.run_turn(thread, "hello")
        for name, spelt in SPELLINGS.items():
            read = await peer.request("thread/read", {"threadId": spelt(thread)})
            assert read["thread"]["id"] == thread, name
        for other in OTHERS:
            asked = {"threadId": other.replace(THREAD, thread)}
            with pytest.raises(RpcError, match="invalid thread id"):
                await peer.request("thread/read", asked)
        for name, params in readings(thread).items():
            answer = await said(peer, "thread/unsubscribe", params)
            assert "result" in answer, f"{name}: need it be refused any more? {answer}"


async def test_nobody_is_unsubscribed_by_another_spelling() -> None:
    model = Scripted()
    model.on("run it", Run("echo ran", escalated=True), Say("done"))
    async with (
        brokered(*DEVICES_ONLY, model=model) as broker,
        operator_of(broker) as desk,
    ):
        await desk.initialize("desk")
        thread = await desk.start_thread(broker.home.work)
        token = await pair(broker, desk, "phone", "observe")
        async with connect_ws(broker.url, token) as phone:
            await phone.initialize("phone")
            for name, spelt in SPELLINGS.items():
                params = {"threadId": spelt(thread)}
                answer = await phone.request("thread/unsubscribe", params)
                assert answer == {"status": "notSubscribed"}, name
            twice = f'{{"threadId":1,"threadId":{json.dumps(thread)}}}'
            answer = await said(phone, "thread/unsubscribe", twice)
            assert answer["result"] == {"status": "notSubscribed"}
            for name, text in readings(thread).items():
                answer = await said(phone, "thread/unsubscribe", text)
                assert answer["error"]["code"] == -32600, name
        await desk.start_turn(thread, "run it")
        asked = await desk.wait_method(APPROVAL)
        assert asked["params"]["threadId"] == thread
        await desk.respond(asked["id"], {"decision": "accept"})
        await desk.wait_method("turn/completed", threadId=thread)


async def test_a_turn_is_one_by_any_spelling_of_its_thread() -> None:
    """Sent twice it runs once; on a busy thread it is refused; what is told has its own id."""
    model = Scripted()
    model.on("hold on", (Hold("go"), Say("done")))
    async with brokered(model=model) as broker, client(broker, "phone", **EXTENSION) as phone:
        thread = await phone.start_thread(broker.home.work)
        words = [{"type": "text", "text": "hold on"}]
        turn = {"threadId": thread, "input": words, "clientUserMessageId": "m1"}
        first = await phone.request("turn/start", turn)
        for spelt in SPELLINGS.values():
            again = turn | {"threadId": spelt(thread)}
            assert await phone.request("turn/start", again) == first
            busy = {"threadId": spelt(thread), "input": words, "ifBusy": "reject"}
            with pytest.raises(RpcError, match="a turn runs on this thread already") as caught:
                await phone.request("turn/start", busy)
            assert caught.value.code == -32012
        queued = {"threadId": thread.upper(), "input": words, "ifBusy": "queue"}
        place = (await phone.request("turn/start", queued))["appmux"]["queued"]
        assert (place["threadId"], place["place"]) == (thread, 1)
        await phone.request("mux/queue/remove", {"id": place["id"]})
        model.release("go")
        await phone.wait_method("turn/completed", threadId=thread)
        assert len(phone.heard("turn/started")) == 1


async def test_what_is_hidden_in_a_text_loosens_nothing() -> None:
    """The parser's own keys would carry any value past whoever judges it."""
    async with (
        brokered(*DEVICES_ONLY) as broker,
        operator_of(broker) as desk,
    ):
        await desk.initialize("desk")
        thread = await desk.start_thread(broker.home.work)
        await desk.run_turn(thread, "hello")
        token = await pair(broker, desk, "phone", "observe", "drive")
        async with connect_ws(broker.url, token) as phone:
            await phone.initialize("phone")
            lax = {"type": "dangerFullAccess"}
            turn = {"threadId": thread, "input": [{"type": "text", "text": "hi"}]}
            for params in (
                hidden(turn | {"sandboxPolicy": lax}),
                json.dumps(turn)[:-1] + f',"sandboxPolicy":{hidden(lax)}}}',
                json.dumps(turn)[:-1] + f',"sandboxPolicy":{{"type":{hidden(lax["type"])}}}}}',
                json.dumps(turn)[:-1] + f',"approvalPolicy":{hidden("never")}}}',
            ):
                answer = await said(phone, "turn/start", params)
                assert "no field is called" in answer["error"]["message"]
        assert not desk.heard("thread/settings/updated")
