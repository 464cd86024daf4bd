"""Joining in the middle: a late client's view is what it would be had it been there all along.

That it is so at every single position is shown on recorded turns (`tests.core.test_join_property`);
here, that the real app-server makes such turns and such snapshots. Each scene is held somewhere,
joined there by two, one with the past and one without, and let go.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import attrs
import pytest

from mux.demo.scripted_model import Hold, Patch, Reason, Run, Say, Scripted
from tests.end_to_end.brokered import brokered, client
from tests.end_to_end.peer import Json, Peer
from tests.end_to_end.scenes import COMPLETED, TURN_COMPLETED, status
from tests.view import View

OUTPUT = "item/commandExecution/outputDelta"
FILE_APPROVAL = "item/fileChange/requestApproval"
PLAN_MODE = {
    "mode": "plan",
    "settings": {"model": "scripted", "reasoning_effort": None, "developer_instructions": None},
}
PLAN = ("Well.\n<proposed_plan>\n", "# One\n", Hold("plan"), "- two\n", "</proposed_plan>\nSo.")
PATCH = "*** Begin Patch\n*** Add File: new.txt\n+hello\n*** End Patch"


def gated(name: str) -> Run:
    """A command that says something, waits for the file of this name, and says more.

    Before, it asks whether it is heard: what a command prints in its first moments isn't streamed.
    """
    asks = f"until [ -e {name}.heard ]; do echo {name}?; sleep 0.02; done"
    gate = f"until [ -e {name} ]; do sleep 0.02; done"
    return Run(f"{asks}; echo {name} begins; {gate}; echo {name} ends")


@attrs.define
class Stage:
    """What a scene is played on: who watches it from the start, and what can be let go."""

    model: Scripted
    desk: Peer
    work: Path
    thread: str

    async def held(self, name: str, kinds: int) -> None:
        """Wait until the model stands at a gate, and so many kinds of text have come from it."""
        await self.model.reached(name)
        await self.desk.wait(lambda _: len(self.view().streamed) >= kinds)

    async def printed(self, *names: str) -> None:
        """Wait until gated commands have said their first words."""
        for name in names:
            await self.desk.wait(_prints(f"{name}?\n"))
            (self.work / f"{name}.heard").touch()
            await self.desk.wait(_prints(f"{name} begins\n"))

    def open(self, *names: str) -> None:
        """Let gated commands go on."""
        for name in names:
            (self.work / name).touch()

    def view(self) -> View:
        return View(self.thread).hear_all(self.desk.inbox)


def _prints(text: str) -> Callable[[Any], bool]:
    return lambda m: m.get("method") == OUTPUT and text in m["params"]["delta"]


async def _mid_text(stage: Stage) -> None:
    await stage.held("mid", 1)
    await stage.desk.wait(lambda m: m.get("params", {}).get("delta") == "w1 ")


async def _text_goes_on(stage: Stage) -> None:
    stage.model.release("mid")


async def _mid_plan(stage: Stage) -> None:
    await stage.held("plan", 2)
    await stage.desk.wait_method("item/plan/delta")


async def _plan_goes_on(stage: Stage) -> None:
    stage.model.release("plan")


async def _one_prints(stage: Stage) -> None:
    await stage.printed("one")


async def _one_goes_on(stage: Stage) -> None:
    stage.open("one")


async def _both_print(stage: Stage) -> None:
    await stage.printed("one", "two")


async def _both_go_on(stage: Stage) -> None:
    stage.open("two", "one")


async def _one_is_over(stage: Stage) -> None:
    await stage.printed("one", "two")
    stage.open("two")
    await stage.desk.wait(lambda m: m.get("method") == COMPLETED and _is_output(m, "two ends"))


def _is_output(message: Any, text: str) -> bool:
    return text in str(message["params"]["item"].get("aggregatedOutput"))


async def _patch_is_asked_for(stage: Stage) -> None:
    await stage.desk.wait_method(FILE_APPROVAL)


async def _patch_is_accepted(stage: Stage) -> None:
    (asked,) = stage.desk.heard(FILE_APPROVAL)
    await stage.desk.respond(asked["id"], {"decision": "accept"})


Step = Callable[[Stage], Awaitable[None]]
TELL = Say(chunks=("w0 ", "w1 ", Hold("mid"), "w2 ", "w3"))


@attrs.frozen
class Scene:
    """A turn, where it is held, and what lets it go on. ``items``: how many it has in the end."""

    script: tuple[Any, ...]
    hold: Step
    go_on: Step
    items: int
    params: Json = attrs.field(factory=dict)


SCENES = {
    "text": Scene((TELL,), _mid_text, _text_goes_on, 2),
    "text after a command": Scene(
        (Run("echo first"), (Reason("thinking"), TELL)), _mid_text, _text_goes_on, 4
    ),
    "command": Scene((gated("one"), Say("ran")), _one_prints, _one_goes_on, 3),
    "two commands": Scene(
        ((Say("both"), gated("one"), gated("two")), Say("ran")), _both_print, _both_go_on, 5
    ),
    "one of two commands": Scene(
        ((Say("both"), gated("one"), gated("two")), Say("ran")), _one_is_over, _one_goes_on, 5
    ),
    "file change": Scene(
        (Patch(PATCH), Say("written")), _patch_is_asked_for, _patch_is_accepted, 3
    ),
    "plan": Scene(
        (Say(chunks=PLAN),), _mid_plan, _plan_goes_on, 3, {"collaborationMode": PLAN_MODE}
    ),
}


@attrs.define
class Late:
    """One that joins late, perhaps twice. ``since``: where each answer stands in its inbox."""

    peer: Peer
    thread: str
    turns: bool
    answers: list[Json] = attrs.field(factory=list)

    async def join(self) -> None:
        asked: Json = {"threadId": self.thread}
        if not self.turns:
            asked["excludeTurns"] = True
        self.answers.append(await self.peer.request("thread/resume", asked))
        await status(self.peer)  # its answer stands behind all that belongs to the join

    def views(self) -> list[View]:
        """Its view as it reads on over all its joins, begun with each answer."""
        return [View(self.thread, each).hear_all(self.peer.inbox) for each in self.answers]


@pytest.mark.parametrize("name", SCENES)
async def test_a_late_view_is_that_of_one_that_was_there(name: str) -> None:
    scene, model = SCENES[name], Scripted()
    model.on("tell", *scene.script)
    async with brokered(model=model) as broker, AsyncExitStack() as stack:
        desk = await stack.enter_async_context(client(broker, "desk"))
        thread = await desk.start_thread(broker.home.work)
        stage = Stage(model, desk, broker.home.work, thread)
        await desk.start_turn(thread, "tell", **scene.params)
        await scene.hold(stage)
        late = []
        for turns in (True, False):
            peer = await stack.enter_async_context(client(broker, f"late {turns}"))
            late.append(Late(peer, thread, turns))
            await late[-1].join()
        past = stage.view().items.keys() - stage.view().streamed.keys()
        _look(stage, late, past=past)
        await late[0].join()
        _look(stage, late, past=past)
        await scene.go_on(stage)
        for peer in (desk, *(each.peer for each in late)):
            await peer.wait_method(TURN_COMPLETED, threadId=thread)
            await status(peer)
        _look(stage, late, past=past)
        assert len(stage.view().items) == scene.items
        again = await desk.request("thread/resume", {"threadId": thread})
        assert View(thread, again).items == stage.view().items, "the app-server says the same"


def _look(stage: Stage, late: list[Late], *, past: set[str]) -> None:
    """Compare. ``past``: items that were over when they joined."""
    whole = stage.view()
    assert whole.faults == []
    for each in late:
        for view in each.views():
            items = {id: whole.items[id] for id in whole.items if each.turns or id not in past}
            assert view.faults == []
            assert view.items == items
            assert view.streamed == whole.streamed
            assert view.asked == whole.asked
            assert view.status == whole.status
            assert set(view.turns.items()) <= set(whole.turns.items())
            assert set(view.texts()) <= set(whole.texts())


# ── threads that the app-server can't be asked for ────────────────────────────────────────────


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
        turn = await desk.start_turn(thread, "second")
        await model.reached("mid")
        await desk.wait(lambda m: m.get("params", {}).get("delta") == "t")
        async with client(broker, "phone") as phone:
            answer = await phone.request("thread/resume", {"threadId": thread})
            model.release("mid")
            for peer in (desk, phone):
                await peer.wait(lambda m: _ended(m) == turn)
            late = View(thread, answer).hear_all(phone.inbox)
            whole = View(thread).hear_all(desk.inbox)
            assert (late.items, late.turns) == (whole.items, whole.turns)
            assert late.texts() == ["one", "two"]


def _ended(message: Any) -> Any:
    return message["params"]["turn"]["id"] if message.get("method") == TURN_COMPLETED else None
