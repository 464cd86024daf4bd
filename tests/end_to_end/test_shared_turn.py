"""The thin line through the whole: one app-server, two clients, a turn and an approval."""

from __future__ import annotations

from mux.demo.scripted_model import Run, Say, Scripted
from tests.end_to_end.brokered import brokered, client

DELTA = "item/agentMessage/delta"
APPROVAL = "item/commandExecution/requestApproval"


async def test_two_clients_see_one_turn_and_the_second_answers_its_approval() -> None:
    model = Scripted()
    model.on("say it", Say("Hello from the one runtime", chunks=6))
    model.on("run it", Run("echo approved > proof.txt", escalated=True), Say("Done."))
    async with brokered(model=model) as broker, client(broker, "desk") as desk:
        thread = await desk.start_thread(broker.home.work)
        await desk.run_turn(thread, "say it")
        async with client(broker, "phone") as phone:
            resumed = await phone.request("thread/resume", {"threadId": thread})
            assert resumed["thread"]["id"] == thread

            mark = len(phone.inbox), len(desk.inbox)
            await phone.run_turn(thread, "say it")
            await desk.wait_method("turn/completed", since=mark[1], threadId=thread)
            texts = [
                "".join(each["params"]["delta"] for each in peer.heard(DELTA, since=since))
                for peer, since in ((phone, mark[0]), (desk, mark[1]))
            ]
            assert texts == ["Hello from the one runtime"] * 2

            await desk.start_turn(thread, "run it")
            at_desk = await desk.wait_method(APPROVAL)
            at_phone = await phone.wait_method(APPROVAL)
            assert at_desk == at_phone
            await phone.respond(at_phone["id"], {"decision": "accept"})
            for peer in (desk, phone):
                resolved = await peer.wait_method("serverRequest/resolved")
                assert resolved["params"] == {"threadId": thread, "requestId": at_desk["id"]}
                await peer.wait_method("turn/completed", since=peer.inbox.index(resolved))
            assert (broker.home.work / "proof.txt").read_text() == "approved\n"
