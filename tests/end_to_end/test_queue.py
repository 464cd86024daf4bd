"""`ifBusy` on the real app-server: turns that are steered, rejected and queued."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import attrs
import pytest
import trio

from mux.demo.scripted_model import Hold, Say, Scripted
from tests.end_to_end.brokered import brokered, client
from tests.end_to_end.devices import pair
from tests.end_to_end.lives import kill_app_server
from tests.end_to_end.native import Native
from tests.end_to_end.peer import Json, Peer, RpcError, connect_ws
from tests.end_to_end.scenes import (
    TURN_COMPLETED,
    TURN_STARTED,
    shared_thread,
    status,
    status_shows,
)
from tests.end_to_end.tui import QUIET, tmux_is_missing, tui

AWARE: Json = {"extensions": {"appmux": {"version": 1}}}


def scripted() -> Scripted:
    model = Scripted()
    model.on("wait", (Hold("gate"), Say("Waited.")))
    model.on("do one", Say("One."))
    model.on("do two", Say("Two."))
    model.on("do at once", (Hold("breath"), Say("Done.")))
    return model


@attrs.frozen
class Scene:
    """A turn runs that the desk began; a phone follows, too."""

    broker: Native
    desk: Peer
    phone: Peer
    thread: str
    turn: str

    async def says(self, peer: Peer, text: str, if_busy: str, **more: Any) -> Json:
        words = [{"type": "text", "text": text, "text_elements": []}]
        params = {"threadId": self.thread, "input": words, "ifBusy": if_busy, **more}
        return await peer.request("turn/start", params)  # type: ignore[no-any-return]

    async def changed(self, peer: Peer, what: str, since: int = 0) -> Json:
        """What `mux/queue` told of this change."""

        def wanted(message: Json) -> bool:
            told = message.get("params", {}).get("change", {})
            return message.get("method") == "mux/queue" and told["what"] == what

        return (await peer.wait(wanted, since=since))["params"]  # type: ignore[no-any-return]

    async def completed(self, turn: str) -> None:
        await self.phone.wait(
            lambda each: (
                each.get("method") == TURN_COMPLETED and each["params"]["turn"]["id"] == turn
            )
        )

    async def said(self) -> list[str]:
        """What was said on the thread, in order, as the app-server has it."""
        read = {"threadId": self.thread, "includeTurns": True}
        turns = (await self.phone.request("thread/read", read))["thread"]["turns"]
        items = [item for turn in turns for item in turn["items"] if item["type"] == "userMessage"]
        return [item["content"][0]["text"] for item in items]


@asynccontextmanager
async def scene(**options: Any) -> AsyncIterator[Scene]:
    async with (
        brokered(model=scripted(), **options) as broker,
        client(broker, "desk", **AWARE) as desk,
        client(broker, "phone", **AWARE) as phone,
    ):
        thread = await shared_thread(broker, desk, phone)
        turn = await desk.start_turn(thread, "wait")
        await phone.wait_method(TURN_STARTED, threadId=thread)
        yield Scene(broker, desk, phone, thread, turn)


async def test_queued_turns_run_one_after_another() -> None:
    async with scene() as on:
        steered = await on.says(on.phone, "and more", "steer")
        assert (steered["turn"]["id"], steered["appmux"]) == (on.turn, {"steered": True})
        with pytest.raises(RpcError) as rejected:
            await on.says(on.phone, "no", "reject")
        assert (rejected.value.code, rejected.value.data["turnId"]) == (-32012, on.turn)
        one = await on.says(on.phone, "do one", "queue", clientUserMessageId="m-1")
        two = await on.says(on.desk, "do two", "queue")
        gone = await on.says(on.desk, "never", "queue")
        places = [each["appmux"]["queued"]["place"] for each in (one, two, gone)]
        assert places == [1, 2, 3]
        again = await on.says(on.phone, "do one", "queue", clientUserMessageId="m-1")
        assert again == one
        listed = await on.phone.request("mux/queue/list", {"threadId": on.thread})
        waits = [each["text"] for each in listed["queues"][0]["turns"]]
        assert waits == ["do one", "do two", "never"]
        await on.phone.request("mux/queue/remove", {"id": gone["appmux"]["queued"]["id"]})
        await on.changed(on.desk, "removed")

        on.broker.model.release("gate")
        first = await on.changed(on.phone, "started")
        assert first["change"]["id"] == one["appmux"]["queued"]["id"]
        await on.completed(first["change"]["turn"]["id"])
        since = next(at for at, each in enumerate(on.phone.inbox) if each.get("params") == first)
        second = await on.changed(on.phone, "started", since + 1)
        await on.completed(second["change"]["turn"]["id"])
        assert (await on.said())[-3:] == ["and more", "do one", "do two"]
        assert (await on.phone.request("mux/queue/list"))["queues"] == []


async def test_two_in_one_breath_on_an_idle_thread() -> None:
    async with scene() as on:
        on.broker.model.release("gate")
        await on.completed(on.turn)
        words = [{"type": "text", "text": "do at once", "text_elements": []}]
        params = {"threadId": on.thread, "input": words, "ifBusy": "queue"}
        ids = [(peer, await peer.ask("turn/start", params)) for peer in (on.desk, on.phone)]
        answers = [await peer.result(id) for peer, id in ids]
        assert sorted("turn" in each for each in answers) == [False, True]
        on.broker.model.release("breath")
        await on.changed(on.phone, "started")


async def test_an_interrupt_holds_the_queue_until_somebody_says_so() -> None:
    async with scene() as on:
        await on.says(on.phone, "do one", "queue")
        await on.desk.request("turn/interrupt", {"threadId": on.thread, "turnId": on.turn})
        held = await on.changed(on.phone, "held")
        assert held["held"] == "interrupted"
        await on.completed(on.turn)
        assert "do one" not in await on.said()
        await on.phone.request("mux/queue/start", {"threadId": on.thread})
        started = await on.changed(on.phone, "started")
        await on.completed(started["change"]["turn"]["id"])
        assert (await on.said())[-1] == "do one"


async def test_a_queue_survives_a_crash_and_its_clients() -> None:
    async with scene() as on:
        async with client(on.broker, "late", **AWARE) as late:
            await on.says(late, "do one", "queue")
        for peer in (on.desk, on.phone):
            await peer.request("thread/unsubscribe", {"threadId": on.thread})
        await kill_app_server(on.phone)
        await status_shows(on.phone, lambda report: report["appServer"]["generation"] == 2)
        await status_shows(on.phone, lambda report: report["appServer"]["state"] == "ready")
        (queue,) = (await on.phone.request("mux/queue/list"))["queues"]
        assert (queue["held"], queue["turns"][0]["name"]) == ("appServerEnded", "late")
        await on.phone.request("thread/resume", {"threadId": on.thread, "excludeTurns": True})
        await on.phone.request("mux/queue/start", {"threadId": on.thread})
        started = await on.changed(on.phone, "started")
        await on.completed(started["change"]["turn"]["id"])
        assert (await on.said())[-1] == "do one"


async def test_what_a_device_has_queued_goes_when_it_is_revoked() -> None:
    async with scene() as on:
        token = await pair(on.broker, on.desk, "lost phone", "observe", "drive")
        async with connect_ws(on.broker.url, token) as lost:
            await lost.initialize("lost", **AWARE)
            await on.says(lost, "do one", "queue")
        await on.says(on.desk, "do two", "queue")
        await on.desk.request("mux/devices/revoke", {"name": "lost phone"})
        removed = await on.changed(on.phone, "removed")
        assert "access has ended" in removed["change"]["why"]
        assert [each["text"] for each in removed["turns"]] == ["do two"]


async def test_over_a_planned_restart_it_goes_on() -> None:
    async with scene() as on:
        await on.says(on.phone, "do one", "queue")
        restart = await on.desk.ask("mux/restart")
        await status(on.desk)  # so it has been read
        on.broker.model.release("gate")
        assert (await on.desk.result(restart))["generation"] == 2
        started = await on.changed(on.phone, "started")
        await on.completed(started["change"]["turn"]["id"])
        assert (await on.said())[-1] == "do one"


@pytest.mark.skipif(tmux_is_missing(), reason="tmux, in which the TUI runs, is not installed")
async def test_the_tui_shows_a_queued_turn_when_it_starts() -> None:
    async with (
        scene(config=QUIET) as on,
        tui(on.broker.home, "resume", on.thread, "--remote", on.broker.url) as screen,
    ):
        await screen.see("› wait")
        await on.says(on.phone, "do one", "queue")
        with trio.move_on_after(0.3):  # nothing comes that could be waited for
            await screen.see("› do one")
            raise AssertionError("it is shown before it has started")
        on.broker.model.release("gate")
        await screen.see("• Waited.", "› do one", "• One.")
