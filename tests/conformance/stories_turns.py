"""Stories of turns: plain ones, steered and interrupted ones."""

from __future__ import annotations

from mux.scripted_model import Reason, Run, Say
from tests.conformance.stage import Stage, Story
from tests.end_to_end.scenes import ACCEPT, APPROVAL


async def a_plain_turn(stage: Stage) -> None:
    stage.script("greet", (Reason("Thinking."), Say("Hello there", chunks=2)))
    a = await stage.client("a")
    thread = await a.thread()
    await a.turn(thread, "greet")


async def two_follow_an_approval(stage: Stage) -> None:
    stage.script("run it", Run("echo hi", escalated=True), Say("It ran."))
    a, b = await stage.clients("a", "b")
    thread = await a.thread(turn=True)
    await b.join(thread)
    await a.say(thread, "run it")
    await a.offered(APPROVAL)
    await b.answers(await b.offered(APPROVAL), ACCEPT)
    for player in (a, b):
        await player.ends(thread)


STORIES = (
    Story(a_plain_turn),
    Story(two_follow_an_approval),
)
