"""A client that knows the broker comes back with a cursor: each entry once, in order, then live."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any, Final

import attrs
import pytest
import trio

from mux.demo import scripted_model
from mux.demo.scripted_model import Hold, Run, Say, Scripted
from tests.end_to_end.brokered import brokered, client
from tests.end_to_end.native import Native, private_home
from tests.end_to_end.peer import PATIENCE, Json, Peer, RpcError, connect_ws
from tests.end_to_end.scenes import (
    ACCEPT,
    APPROVAL,
    DELTA,
    RESOLVED,
    TURN_COMPLETED,
    app_server_pid,
    ended,
    eventually,
    join,
    shared_thread,
    status,
)
from tests.view import View

AWARE: Final[dict[str, Any]] = {"extensions": {"appmux": {"version": 1}}}
SMALL: Final = {"APPMUX_LIMITS_JOURNAL_MEMORY_BYTES": "20000"}
"""Less than one turn: the past is on disk alone."""


@attrs.define
class Traveller:
    """A client that knows the broker, over all its connections. ``kept``: all it has heard."""

    broker: Native
    kept: list[Json] = attrs.field(factory=list)
    epoch: str = ""

    @property
    def cursor(self) -> Json:
        seq = max((max(m.get("seq", 0), m.get("cursor", 0)) for m in self.kept), default=0)
        return {"epoch": self.epoch, "seq": seq}

    @asynccontextmanager
    async def attached(self) -> AsyncIterator[Peer]:
        """A connection; what it has heard at the end is kept."""
        async with connect_ws(self.broker.url) as peer:
            hello = await peer.initialize("traveller", **AWARE)
            self.epoch = self.epoch or hello["appmux"]["epoch"]
            try:
                yield peer
            finally:
                self.kept += peer.inbox

    @asynccontextmanager
    async def back(self, thread: str | None = None, **params: Any) -> AsyncIterator[Peer]:
        """A connection that begins with what it missed."""
        async with self.attached() as peer:
            asked = {"after": self.cursor, **params} | ({"threadId": thread} if thread else {})
            answer = await peer.request("mux/replay", asked)
            assert answer["complete"], answer
            yield peer

    def numbers(self) -> list[int]:
        return [m["seq"] for m in self.kept if "seq" in m]

    def texts(self, thread: str) -> list[str]:
        """What the agent has said on the thread, from numbered messages alone."""
        view = View(thread).hear_all(m for m in self.kept if "seq" in m)
        assert view.faults == []
        return view.texts()


def talk(pieces: int) -> Scripted:
    """A turn of many deltas that stands still at each tenth, and a short one."""
    model = Scripted()
    chunks: list[str | Hold] = []
    for piece in range(pieces):
        chunks.append(f"{piece} ")
        if piece % 10 == 9:
            chunks.append(Hold(f"gate {piece // 10}"))
    model.on("talk", Run("echo first"), Say(chunks=tuple(chunks)))
    model.on("ask", Run("echo asked", escalated=True), Say("answered"))
    return model


async def test_the_welcome_and_the_numbers() -> None:
    async with (
        brokered() as broker,
        client(broker, "desk") as desk,
        client(broker, "phone", **AWARE) as phone,
    ):
        thread = await shared_thread(broker, desk)
        mark = phone.hello["appmux"]
        assert mark == {
            "version": 1,
            "epoch": (await status(desk))["store"]["epoch"],
            "seq": 0,
            "began": 0,
            "clientId": mark["clientId"],
            "generation": 1,
        }
        await join(phone, thread)
        await desk.run_turn(thread, "hello")
        await phone.wait_method(TURN_COMPLETED)
        numbers = [m["seq"] for m in phone.inbox if "seq" in m]
        assert all(before < after for before, after in pairwise(numbers))
        assert all("seq" in m for m in phone.inbox if m.get("method", "").startswith("item/"))
        assert not any("seq" in m or "cursor" in m for m in desk.inbox)


@pytest.mark.parametrize("merged", [False, True])
async def test_cut_off_again_and_again_within_a_turn_it_misses_and_repeats_nothing(
    merged: bool,
) -> None:
    model = talk(60)
    async with (
        brokered(model=model, environ=SMALL) as broker,
        client(broker, "desk") as desk,
        client(broker, "resident", **AWARE) as resident,
    ):
        thread = await shared_thread(broker, desk, resident)
        traveller = Traveller(broker)
        before = len(resident.inbox)
        async with traveller.attached() as peer:
            await join(peer, thread)
            await desk.start_turn(thread, "talk")
            await peer.wait_method(DELTA)
        for gate in range(5):
            model.release(f"gate {gate}")
            await desk.wait(_says(f"{gate * 10 + 15} ") if gate < 4 else _says("59 "))
            async with traveller.back(thread, merged=merged) as peer:
                if gate % 2:  # and sometimes it stays for a while
                    await peer.wait(lambda m: m.get("method") == DELTA)
        model.release("gate 5")
        await desk.wait_method(TURN_COMPLETED, since=len(desk.inbox) - 1, threadId=thread)
        async with traveller.back(thread, merged=merged) as peer:
            await peer.wait_method(TURN_COMPLETED)
        await resident.wait_method(TURN_COMPLETED, since=before)
        words = "".join(f"{piece} " for piece in range(60))
        assert traveller.texts(thread)[-1] == words
        numbers, all_numbers = traveller.numbers(), _numbers(resident, traveller.numbers()[0])
        assert all(before < after for before, after in pairwise(numbers))
        if not merged:
            assert numbers == all_numbers, "each entry once"
        assert set(numbers) <= set(all_numbers)


def _says(delta: str) -> Any:
    return lambda m: m.get("method") == DELTA and m["params"]["delta"] == delta


def _numbers(peer: Peer, since: int) -> list[int]:
    return [m["seq"] for m in peer.inbox if m.get("seq", -1) >= since]


async def test_without_a_thread_it_follows_again_what_it_followed_and_goes_on_live() -> None:
    async with brokered() as broker, client(broker, "desk") as desk:
        threads = [await shared_thread(broker, desk) for _ in range(2)]
        traveller = Traveller(broker)
        async with traveller.attached() as peer:
            for thread in threads:
                await join(peer, thread)
            await desk.run_turn(threads[0], "one")
            await peer.wait_method(TURN_COMPLETED)
        for thread in threads:
            await desk.run_turn(thread, "two")
        async with traveller.back() as peer:
            for thread in threads:
                await peer.wait_method(TURN_COMPLETED, threadId=thread)
                await desk.run_turn(thread, "three")
            await peer.wait(lambda m: _completed(m, threads[1]), since=_place(peer, threads[1]) + 1)
        assert traveller.texts(threads[0]) == [f"You said: {n}" for n in ("one", "two", "three")]
        assert traveller.texts(threads[1]) == [f"You said: {n}" for n in ("two", "three")]


def _completed(message: Any, thread: str) -> bool:
    return bool(message.get("method") == TURN_COMPLETED and message["params"]["threadId"] == thread)


def _place(peer: Peer, thread: str) -> int:
    return next(at for at, message in enumerate(peer.inbox) if _completed(message, thread))


async def test_an_approval_that_was_raised_while_it_was_away_can_be_answered() -> None:
    async with brokered(model=talk(10)) as broker, client(broker, "desk") as desk:
        thread = await shared_thread(broker, desk)
        traveller = Traveller(broker)
        async with traveller.attached() as peer:
            await join(peer, thread)
        await desk.start_turn(thread, "ask")
        offered = await desk.wait_method(APPROVAL)
        async with traveller.back(thread) as peer:
            mine = await peer.wait_method(APPROVAL)
            assert mine["id"] == offered["id"]
            await peer.respond(mine["id"], ACCEPT)
            await peer.wait_method(TURN_COMPLETED)
            assert len(peer.heard(RESOLVED)) == 1
        await desk.wait_method(TURN_COMPLETED, threadId=thread, since=desk.inbox.index(offered))
        assert traveller.texts(thread) == ["answered"]


async def test_after_kill_9_of_the_broker_the_past_is_read_from_disk_and_numbers_go_on() -> None:
    model = talk(40)
    async with trio.open_nursery() as nursery:
        await nursery.start(scripted_model.serve, model)
        with private_home(model.base_url) as home:
            async with brokered(model=model, home=home) as broker:
                traveller, thread, turn, head = await _killed_mid_turn(broker)
            async with brokered(model=model, home=home) as broker:
                traveller.broker = broker
                async with traveller.back(thread) as peer:
                    await peer.wait(_says("9 "))
                    welcome = peer.hello["appmux"]
                    await peer.run_turn(thread, "and now?")
        nursery.cancel_scope.cancel()
    assert welcome["epoch"] == traveller.epoch
    view = View(thread).hear_all(m for m in traveller.kept if "seq" in m)
    assert view.texts() == ["You said: hello again", _words(10), "You said: and now?"]
    assert view.turns[turn] == "inProgress"
    numbers, began = traveller.numbers(), welcome["began"]
    assert numbers == sorted(set(numbers))
    assert [n for n in numbers if n <= began][-1] == head, "what ran then is over"
    assert min(n for n in numbers if n > began) > head


async def _killed_mid_turn(broker: Native) -> tuple[Traveller, str, str, int]:
    """A traveller that is away, its thread, the turn that ran at the end, the last number."""
    async with client(broker, "desk") as desk:
        thread = await shared_thread(broker, desk)
        traveller = Traveller(broker)
        async with traveller.attached() as peer:
            await join(peer, thread)
        await desk.run_turn(thread, "hello again")
        turn = await desk.start_turn(thread, "talk")
        await desk.wait(_says("9 "))
        await _until_written(desk)
        head = (await status(desk))["store"]["nextSeq"] - 1
        app_server = await app_server_pid(desk)
        broker.process.send_signal(signal.SIGKILL)
        await broker.process.wait()
        await desk.wait_gone()
        # Which goes with its stdin, and until then keeps the thread from the next one.
        await eventually(lambda: ended(app_server), "the end of its app-server")
    return traveller, thread, turn, head


def _words(pieces: int) -> str:
    return "".join(f"{piece} " for piece in range(pieces))


async def _until_written(peer: Peer) -> None:
    """Wait until the store has written all."""
    with trio.fail_after(PATIENCE):
        while (await status(peer))["store"]["unwrittenEntries"]:
            pass


async def test_a_past_that_is_gone_is_told_with_the_earliest_cursor_there_is() -> None:
    limits = {
        "APPMUX_LIMITS_JOURNAL_MEMORY_BYTES": "1000",
        "APPMUX_LIMITS_JOURNAL_BYTES": "200000",
    }
    async with (
        brokered(environ=limits) as broker,
        client(broker, "desk") as desk,
        client(broker, "phone", **AWARE) as phone,
    ):
        thread = await shared_thread(broker, desk)
        answer: Json = {"complete": True}
        with trio.fail_after(60):
            while answer["complete"]:
                await desk.run_turn(thread, "tell me more " * 500)
                async with connect_ws(broker.url) as other:
                    await other.initialize("other", **AWARE)
                    asked = {"after": _after(phone, 0), "threadId": thread}
                    answer = await other.request("mux/replay", asked)
        assert answer["epoch"] == phone.hello["appmux"]["epoch"]
        assert 0 < answer["earliest"] <= answer["seq"]
        with trio.fail_after(PATIENCE):  # what is still being written may push out some more
            while not answer["complete"]:
                asked = {"after": _after(phone, answer["earliest"] + 5), "threadId": thread}
                answer = await phone.request("mux/replay", asked)
        await desk.run_turn(thread, "live?")
        await phone.wait(lambda m: "You said: live?" in str(m))


def _after(peer: Peer, seq: int) -> Json:
    return {"epoch": peer.hello["appmux"]["epoch"], "seq": seq}


async def test_what_can_not_be_replayed_is_said() -> None:
    async with (
        brokered() as broker,
        client(broker, "desk") as desk,
        client(broker, "phone", **AWARE) as phone,
    ):
        thread = await shared_thread(broker, desk, phone)
        head = (await phone.request("mux/replay", {"after": _after(phone, 0)}))["seq"]
        for after in ({"epoch": "another", "seq": 0}, _after(phone, head + 1000)):
            await _until_live(phone)
            answer = await phone.request("mux/replay", {"after": after, "threadId": thread})
            assert not answer["complete"]
            assert answer["earliest"] == 0
        for params in (
            {},
            {"after": 5},
            {"after": {"seq": 0}},
            {"after": _after(phone, 0) | {"seq": "0"}},
        ):
            with pytest.raises(RpcError) as refused:
                await phone.request("mux/replay", params)
            assert refused.value.code == -32600
        with pytest.raises(RpcError, match=r"capabilities\.extensions\.appmux"):
            await desk.request("mux/replay", {"after": _after(phone, 0)})
        unknown = "0192f0c1-0000-7000-8000-000000000000"
        answer = await phone.request("mux/replay", {"after": _after(phone, 0), "threadId": unknown})
        assert (answer["threads"], answer["missing"]) == ([], [unknown])


async def _until_live(peer: Peer) -> None:
    await status(peer)  # whose answer comes behind what is replayed
