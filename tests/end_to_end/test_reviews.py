"""A review, which is one turn under two ids: joined in the middle, and killed."""

from __future__ import annotations

from collections.abc import Callable

from mux.demo.scripted_model import Hold, Say, Scripted
from tests.end_to_end.brokered import brokered, client
from tests.end_to_end.lives import kill_app_server
from tests.end_to_end.native import Native
from tests.end_to_end.peer import Json, Peer
from tests.end_to_end.scenes import COMPLETED, TURN_COMPLETED, TURN_STARTED, eventually


def reviewing() -> Scripted:
    """A model whose review waits in the middle."""
    model = Scripted()
    model.on("look at it", Say(chunks=("early ", Hold("middle"), "late")))
    return model


async def _reviews(broker: Native, peer: Peer) -> tuple[str, str, str]:
    """A review runs: its thread, its id in `turn/started`, and that in its answer and items."""
    thread = await peer.start_thread(broker.home.work)
    await peer.run_turn(thread, "hello")
    since = len(peer.inbox)
    target = {"type": "custom", "instructions": "look at it"}
    answer = await peer.request("review/start", {"threadId": thread, "target": target})
    started = await peer.wait_method(TURN_STARTED, since=since, threadId=thread)
    await broker.model.reached("middle")

    def has_said() -> bool:
        heard = peer.heard(COMPLETED, since=since, threadId=thread)
        return [each["params"]["item"]["type"] for each in heard][-1:] == ["userMessage"]

    await eventually(has_said, "the review's own words")
    return thread, started["params"]["turn"]["id"], answer["turn"]["id"]


async def test_a_joiner_is_shown_the_review_with_what_it_has_done() -> None:
    async with (
        brokered(model=reviewing()) as broker,
        client(broker, "desk") as desk,
        client(broker, "late") as late,
    ):
        thread, named, also = await _reviews(broker, desk)
        assert named != also
        told = [
            each["params"]["item"]
            for each in desk.heard(COMPLETED, threadId=thread)
            if each["params"]["turnId"] == also
        ]
        assert told
        turns = (await late.request("thread/resume", {"threadId": thread}))["thread"]["turns"]
        shown = turns[-1]
        assert (shown["id"], shown["rootTurnId"], shown["status"]) == (named, also, "inProgress")
        assert shown["items"] == told
        broker.model.release("middle")
        for peer in (desk, late):
            ended = await peer.wait(_ends(also))
            assert ended["params"]["turn"]["status"] == "completed"


def _ends(turn: str) -> Callable[[Json], bool]:
    def wanted(message: Json) -> bool:
        return message.get("method") == TURN_COMPLETED and message["params"]["turn"]["id"] == turn

    return wanted


async def test_killed_in_a_review_its_end_is_told_by_either_id() -> None:
    async with brokered(model=reviewing()) as broker, client(broker, "desk") as desk:
        thread, named, also = await _reviews(broker, desk)
        since = len(desk.inbox)
        await kill_app_server(desk)
        for id in (named, also):
            ended = await desk.wait(_ends(id), since=since)
            assert ended["params"]["turn"]["status"] == "interrupted"
        await desk.run_turn(thread, "and on")
