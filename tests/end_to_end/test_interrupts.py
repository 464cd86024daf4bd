"""An interrupt behind the end of its turn: codex 0.163 never answers it, the broker does."""

from __future__ import annotations

import pytest

from mux.demo.scripted_model import Hold, Say, Scripted
from tests.end_to_end.brokered import brokered, client
from tests.end_to_end.lives import life
from tests.end_to_end.peer import RpcError
from tests.end_to_end.scenes import DELTA, TURN_COMPLETED, shared_thread


async def test_a_second_interrupt_is_answered_and_a_restart_does_not_wait_for_it() -> None:
    model = Scripted()
    model.on("stream", Say(chunks=("early ", Hold("middle"), "late")))
    async with (
        brokered(model=model) as broker,
        client(broker, "desk") as desk,
        client(broker, "phone") as phone,
    ):
        thread = await shared_thread(broker, desk)
        turn = await desk.start_turn(thread, "stream")
        await desk.wait_method(DELTA, delta="early ")
        named = {"threadId": thread, "turnId": turn}
        since = len(desk.inbox)
        assert await desk.request("turn/interrupt", named) == {}
        await desk.wait_method(TURN_COMPLETED, since=since)
        for peer in (phone, desk):  # both pressed the button
            with pytest.raises(RpcError, match="no active turn to interrupt"):
                await peer.request("turn/interrupt", named)
        assert (await desk.request("mux/restart"))["generation"] == 2
        await life(desk, 2)
        await desk.run_turn(thread, "and on")
