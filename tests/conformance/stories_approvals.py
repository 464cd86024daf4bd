"""Stories of approvals: who is asked, whose word counts, what becomes of those never answered."""

from __future__ import annotations

from functools import partial

from mux.demo.scripted_model import Patch, Run, Say
from tests.conformance.stage import CUT_SHORT, Player, Stage, Story
from tests.end_to_end.peer import Json
from tests.end_to_end.scenes import ACCEPT, APPROVAL, DECLINE

PATCH = "item/fileChange/requestApproval"
CANCEL: Json = {"decision": "cancel"}
NEW_FILE = "*** Begin Patch\n*** Add File: new.txt\n+hello\n*** End Patch"


async def _asked(stage: Stage, *names: str) -> tuple[str, list[Player]]:
    """A thread that all these follow, on which a command of the first waits for a word."""
    stage.script("run it", Run("echo hi", escalated=True), Say("Over."))
    first, *others = players = await stage.clients(*names)
    thread = await first.thread(turn=True)
    for player in others:
        await player.join(thread)
    await first.say(thread, "run it")
    return thread, players


async def accepted_by_the_other(stage: Stage) -> None:
    thread, (a, b) = await _asked(stage, "a", "b")
    await a.offered(APPROVAL)
    await b.answers(await b.offered(APPROVAL), ACCEPT)
    for player in (a, b):
        await player.ends(thread)


async def declined(stage: Stage) -> None:
    thread, (a, b) = await _asked(stage, "a", "b")
    await b.offered(APPROVAL)
    await a.answers(await a.offered(APPROVAL), DECLINE)
    for player in (a, b):
        await player.ends(thread)


async def cancelled(stage: Stage) -> None:
    thread, (a, b) = await _asked(stage, "a", "b")
    await a.offered(APPROVAL)
    await b.answers(await b.offered(APPROVAL), CANCEL)
    for player in (a, b):
        await player.ends(thread)


async def accepted_for_the_session(stage: Stage) -> None:
    thread, (a, b) = await _asked(stage, "a", "b")
    await b.offered(APPROVAL)
    await a.answers(await a.offered(APPROVAL), {"decision": "acceptForSession"})
    for player in (a, b):
        await player.ends(thread)
    await b.turn(thread, "run it")
    await a.ends(thread)


async def answered_twice(stage: Stage) -> None:
    """The first word counts; later ones, and words about nothing, are ignored."""
    thread, (a, b) = await _asked(stage, "a", "b")
    at_a, at_b = await a.offered(APPROVAL), await b.offered(APPROVAL)
    await b.answers(at_b, ACCEPT)
    await a.hears("serverRequest/resolved")
    await a.answers(at_a, DECLINE)
    await b.answers(at_b, CANCEL)
    await a.fails(at_a)
    for player in (a, b):
        await player.ends(thread)


async def answered_at_once(stage: Stage) -> None:
    """Both say the same in the same moment."""
    thread, (a, b) = await _asked(stage, "a", "b")
    asked = [(player, await player.offered(APPROVAL)) for player in (a, b)]
    async with stage.together() as nursery:
        for player, request in asked:
            nursery.start_soon(partial(player.answers, request, ACCEPT))
    for player in (a, b):
        await player.ends(thread)


async def a_patch(stage: Stage) -> None:
    stage.script("write", Patch(NEW_FILE), Say("Over."))
    a, b = await stage.clients("a", "b")
    thread = await a.thread(turn=True)
    await b.join(thread)
    for answer in (DECLINE, ACCEPT):
        await a.say(thread, "write")
        await a.offered(PATCH)
        await b.answers(await b.offered(PATCH), answer)
        for player in (a, b):
            await player.ends(thread)
    await a.ask("fs/readFile", {"path": str(stage.work / "new.txt")})


async def two_at_once(stage: Stage) -> None:
    """Commands of two threads wait for a word, and are answered the other way round."""
    stage.script("run it", Run("echo hi", escalated=True), Say("Over."))
    a = await stage.client("a")
    threads = [await a.thread(turn=True) for _ in range(2)]
    asked = []
    for thread in threads:
        await a.say(thread, "run it")
        asked.append((thread, await a.offered(APPROVAL)))
    for (thread, request), answer in zip(reversed(asked), (ACCEPT, DECLINE), strict=True):
        await a.answers(request, answer)
        await a.ends(thread)


async def interrupted(stage: Stage) -> None:
    thread, (a, b) = await _asked(stage, "a", "b")
    for player in (a, b):
        await player.offered(APPROVAL)
    stage.forget()
    await b.ask("turn/interrupt", {"threadId": thread, "turnId": await _running(b, thread)})
    for player in (a, b):
        await player.ends(thread)
        await player.hears("serverRequest/resolved")


async def _running(player: Player, thread: str) -> str:
    asked = {"threadId": thread, "limit": 1}
    return str((await player.ask("thread/turns/list", asked))["data"][0]["id"])


async def offered_to_a_newcomer(stage: Stage) -> None:
    thread, (a, b) = await _asked(stage, "a", "b")
    for player in (a, b):
        await player.offered(APPROVAL)
    late = await stage.client("late")
    await late.join(thread)
    await late.answers(await late.offered(APPROVAL), ACCEPT)
    for player in (a, b, late):
        await player.ends(thread)


async def nobody_is_left(stage: Stage) -> None:
    """It waits for whoever comes."""
    thread, (a, b) = await _asked(stage, "a", "b")
    for player in (a, b):
        await player.offered(APPROVAL)
        await player.leaves()
    stranger = await stage.client("stranger")
    await stranger.ask("thread/read", {"threadId": thread})
    await stranger.join(thread)
    await stranger.answers(await stranger.offered(APPROVAL), ACCEPT)
    await stranger.ends(thread)


async def resumed_by_one_that_was_asked(stage: Stage) -> None:
    """What waits is offered again, under its id."""
    thread, (a, b) = await _asked(stage, "a", "b")
    for player in (a, b):
        await player.offered(APPROVAL)
    for _ in range(2):
        await b.join(thread)
        await b.offered(APPROVAL)
    await a.answers(await a.offered_last(APPROVAL), DECLINE)
    for player in (a, b):
        await player.ends(thread)


async def unsubscribed_while_it_waits(stage: Stage) -> None:
    thread, (a, b) = await _asked(stage, "a", "b")
    at_a = await a.offered(APPROVAL)
    await b.offered(APPROVAL)
    await b.ask("thread/unsubscribe", {"threadId": thread})
    await a.answers(at_a, ACCEPT)
    await a.ends(thread)
    await b.join(thread)


async def answered_with_an_error(stage: Stage) -> None:
    thread, (a, b) = await _asked(stage, "a", "b")
    at_a = await a.offered(APPROVAL)
    await b.fails(await b.offered(APPROVAL))
    await b.settle()
    await a.answers(at_a, ACCEPT)
    for player in (a, b):
        await player.ends(thread)


async def answered_with_nonsense(stage: Stage) -> None:
    thread, (a, b) = await _asked(stage, "a", "b")
    at_a = await a.offered(APPROVAL)
    await b.answers(await b.offered(APPROVAL), {"bogus": 1})
    await b.settle()
    await a.answers(at_a, ACCEPT)
    for player in (a, b):
        await player.ends(thread)


async def the_only_one_answers_with_an_error(stage: Stage) -> None:
    thread, (a,) = await _asked(stage, "a")
    await a.fails(await a.offered(APPROVAL))
    await a.ends(thread)


async def answered_by_a_stranger(stage: Stage) -> None:
    stranger = await stage.client("stranger")
    thread, (a,) = await _asked(stage, "a")
    request = await a.offered(APPROVAL)
    await stranger.answers(request, DECLINE)
    await stranger.settle()
    await a.answers(request, ACCEPT)
    await a.ends(thread)


async def old_style_decisions(stage: Stage) -> None:
    """What one that never declared anything of note is asked, and an answer of its older days."""
    stage.script("run it", Run("echo hi", escalated=True), Say("Over."))
    a = await stage.client("a", experimental=False)
    thread = await a.thread(approvalPolicy="untrusted")
    await a.say(thread, "run it")
    await a.answers(await a.offered(APPROVAL), {"decision": "accept", "unknown": 1})
    await a.ends(thread)


STORIES = (
    Story(accepted_by_the_other),
    Story(declined),
    Story(cancelled, chance=CUT_SHORT),
    Story(accepted_for_the_session),
    Story(answered_twice),
    Story(answered_at_once),
    Story(a_patch),
    Story(two_at_once),
    Story(interrupted, chance=CUT_SHORT),
    Story(offered_to_a_newcomer, shows=("late-text",)),
    Story(nobody_is_left, shows=("late-text",)),
    Story(resumed_by_one_that_was_asked),
    Story(unsubscribed_while_it_waits),
    Story(answered_with_an_error, shows=("abstaining",)),
    Story(answered_with_nonsense, shows=("abstaining",)),
    Story(the_only_one_answers_with_an_error),
    Story(answered_by_a_stranger, shows=("who-may-answer",)),
    Story(old_style_decisions),
)
