"""The app-server dies, or is replaced: clients stay, and go on."""

from __future__ import annotations

import os
import signal
from typing import Any

from mux.scripted_model import Hold, Run, Say, Scripted
from tests.end_to_end.brokered import brokered, client
from tests.end_to_end.native import Native
from tests.end_to_end.peer import Peer
from tests.end_to_end.view import View

APPROVAL = "item/commandExecution/requestApproval"


async def app_server(peer: Peer) -> Any:
    return (await peer.request("mux/status"))["appServer"]


async def kill_app_server(peer: Peer) -> None:
    os.kill((await app_server(peer))["pid"], signal.SIGKILL)


async def test_killed_mid_text_the_turn_ends_for_everybody_and_the_thread_goes_on() -> None:
    model = Scripted()
    model.on("tell", Say(chunks=("half ", Hold("mid"), "never said")))
    async with (
        brokered(model=model) as broker,
        client(broker, "desk") as desk,
        client(broker, "phone") as phone,
    ):
        thread = await _thread_with_a_turn(broker, desk, phone)
        turn = await desk.start_turn(thread, "tell")
        await model.reached("mid")
        await phone.wait_method("item/agentMessage/delta", delta="half ")
        await kill_app_server(desk)
        for peer in (desk, phone):
            ended = await peer.wait(lambda m: _turn_ended(m) == turn)
            assert ended["params"]["turn"]["status"] == "interrupted"
        await phone.run_turn(thread, "and now?")
        await desk.wait(lambda m: m.get("method") == "turn/completed" and _turn_ended(m) != turn)
        assert View(thread).hear_all(desk.inbox).turns[turn] == "interrupted"
        assert (await app_server(desk))["generation"] == 2


async def test_killed_with_an_approval_pending_it_is_resolved_for_everybody() -> None:
    model = Scripted()
    model.on("run", Run("touch never", escalated=True), Say("done"))
    async with (
        brokered(model=model) as broker,
        client(broker, "desk") as desk,
        client(broker, "phone") as phone,
    ):
        thread = await _thread_with_a_turn(broker, desk, phone)
        await desk.start_turn(thread, "run")
        offers = [await peer.wait_method(APPROVAL) for peer in (desk, phone)]
        await kill_app_server(desk)
        for peer in (desk, phone):
            resolved = await peer.wait_method("serverRequest/resolved")
            assert resolved["params"]["requestId"] == offers[0]["id"]
        # An answer to the dead one's request reaches nobody, whatever id the next one uses.
        mark = len(desk.inbox)
        await desk.start_turn(thread, "run")
        second = await desk.wait_method(APPROVAL, since=mark)
        await phone.respond(offers[1]["id"], {"decision": "accept"})
        await desk.respond(second["id"], {"decision": "decline"})
        await desk.wait_method("turn/completed", since=mark)
        assert not (broker.home.work / "never").exists()


async def _thread_with_a_turn(broker: Native, desk: Peer, phone: Peer) -> str:
    thread = await desk.start_thread(broker.home.work)
    await desk.run_turn(thread, "hello")
    await phone.request("thread/resume", {"threadId": thread})
    return thread


def _turn_ended(message: Any) -> Any:
    if isinstance(message, dict) and message.get("method") == "turn/completed":
        return message["params"]["turn"]["id"]
    return None
