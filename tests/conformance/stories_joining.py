"""Stories of coming and going in the middle of things."""

from __future__ import annotations

from mux.demo.scripted_model import CallTool, Run, Say
from tests.conformance.stage import CUT_SHORT, Player, Stage, Story
from tests.end_to_end.scenes import ACCEPT, APPROVAL, DECLINE, DELTA

STARTED = "item/started"


async def _streaming(stage: Stage, *names: str, **params: object) -> tuple[str, list[Player]]:
    """As in `stories_turns`: the agent has said `early ` and waits before `late`."""
    stage.script("stream", Say(chunks=("early ", stage.gate("middle"), "late")))
    first, *others = players = await stage.clients(*names)
    thread = await first.thread(turn=True, **params)
    for player in others:
        await player.join(thread)
    await first.say(thread, "stream")
    for player in players:
        await player.hears(DELTA, delta="early ")
    return thread, players


async def resumed_by_a_follower_in_the_middle(stage: Stage) -> None:
    """It has heard all, so nothing is told again."""
    thread, (a, b) = await _streaming(stage, "a", "b")
    for _ in range(2):
        await b.join(thread)
    stage.release("middle")
    for player in (a, b):
        await player.ends(thread)


async def gone_and_back_in_the_middle(stage: Stage) -> None:
    thread, (a, b) = await _streaming(stage, "a", "b")
    await b.ask("thread/unsubscribe", {"threadId": thread})
    await b.join(thread)
    stage.release("middle")
    for player in (a, b):
        await player.ends(thread)


async def read_in_the_middle(stage: Stage) -> None:
    """By one that doesn't follow: it is told what there is, and goes on not following."""
    thread, (a, stranger) = await _streaming(stage, "a", "stranger")
    await stranger.ask("thread/unsubscribe", {"threadId": thread})
    for method, more in (
        ("thread/read", {}),
        ("thread/turns/list", {"limit": 1}),
        ("thread/items/list", {}),
    ):
        await stranger.ask(method, {"threadId": thread, **more})
    stage.release("middle")
    await a.ends(thread)


async def forked_in_the_middle(stage: Stage) -> None:
    thread, (a, b) = await _streaming(stage, "a", "b")
    fork = await b.ask("thread/fork", {"threadId": thread, "excludeTurns": True})
    stage.release("middle")
    for player in (a, b):
        await player.ends(thread)
    await b.turn(fork["thread"]["id"], "on the fork")


async def a_command_joined_in_the_middle(stage: Stage) -> None:
    go = stage.work / "go"
    wait = f"while [ ! -e {go} ]; do sleep 0.02; done; echo out"
    stage.script("wait", CallTool("exec_command", {"cmd": wait, "yield_time_ms": 30000}), Say("."))
    a = await stage.client("a")
    thread = await a.thread(turn=True)
    await a.say(thread, "wait")
    await a.hears_item("commandExecution", STARTED)
    late = await stage.client("late")
    await late.join(thread)
    await late.settle()
    go.touch()
    for player in (a, late):
        await player.ends(thread)


async def an_ephemeral_thread_joined(stage: Stage) -> None:
    a, b = await stage.clients("a", "b")
    thread = await a.thread(turn=True, ephemeral=True)
    await b.join(thread)
    await a.ask("thread/read", {"threadId": thread})


async def begun_by_a_stranger(stage: Stage) -> None:
    """It doesn't follow for that, and isn't asked."""
    stage.script("run it", Run("echo hi", escalated=True), Say("Over."))
    a, stranger = await stage.clients("a", "stranger")
    thread = await a.thread(turn=True)
    await stranger.say(thread, "run it")
    await a.answers(await a.offered(APPROVAL), DECLINE)
    await a.ends(thread)


async def begun_by_a_stranger_while_nobody_follows(stage: Stage) -> None:
    stage.script("run it", Run("echo hi", escalated=True), Say("Over."))
    a, stranger = await stage.clients("a", "stranger")
    thread = await a.thread(turn=True)
    await a.ask("thread/unsubscribe", {"threadId": thread})
    await a.settle()
    await stranger.say(thread, "run it")
    waiting = {"type": "active", "activeFlags": ["waitingOnApproval"]}
    await stranger.hears("thread/status/changed", threadId=thread, status=waiting)
    # The item and the question come right behind that, and to nobody that could tell us.
    for _ in range(5):
        await stranger.settle()
    await a.join(thread)
    await a.answers(await a.offered(APPROVAL), ACCEPT)
    await a.ends(thread)


async def archived_while_it_is_asked(stage: Stage) -> None:
    """What waits for a word is taken back."""
    stage.script("run it", Run("echo hi", escalated=True), Say("Over."))
    a, b = await stage.clients("a", "b")
    thread = await a.thread(turn=True)
    await b.join(thread)
    await a.say(thread, "run it")
    requests = [await player.offered(APPROVAL) for player in (a, b)]
    await b.ask("thread/archive", {"threadId": thread})
    for player, request in zip((a, b), requests, strict=True):
        await player.hears("thread/archived", threadId=thread)
        await player.answers(request, ACCEPT)
    await a.ask("thread/unarchive", {"threadId": thread})
    await a.join(thread)


async def left_while_asked(stage: Stage) -> None:
    """The other one goes on with the thread."""
    stage.script("run it", Run("echo hi", escalated=True), Say("Over."))
    a, b = await stage.clients("a", "b")
    thread = await a.thread(turn=True)
    await b.join(thread)
    await a.say(thread, "run it")
    await a.offered(APPROVAL)
    request = await b.offered(APPROVAL)
    await a.leaves()
    await b.answers(request, ACCEPT)
    await b.ends(thread)
    await b.turn(thread, "hello")


async def threads_of_two_at_once(stage: Stage) -> None:
    a, b = await stage.clients("a", "b")
    for name in "ab":
        stage.script(f"stream {name}", Say(chunks=("early ", stage.gate(name), "late")))
    threads = [await player.thread(turn=True) for player in (a, b)]
    for player, thread in zip((a, b), threads, strict=True):
        await player.say(thread, f"stream {player.name}")
        await player.hears(DELTA, delta="early ")
    for player, thread in reversed(list(zip((a, b), threads, strict=True))):
        stage.release(player.name)
        await player.ends(thread)


async def asked_in_a_burst(stage: Stage) -> None:
    a = await stage.client("a")
    thread = await a.thread(turn=True)
    asked = [await a.send("thread/read", {"threadId": thread}, id=f"r{n}") for n in range(60)]
    for each in asked:
        await a.answered(each)


STORIES = (
    Story(resumed_by_a_follower_in_the_middle),
    Story(gone_and_back_in_the_middle, shows=("late-text",)),
    Story(read_in_the_middle),
    Story(forked_in_the_middle),
    Story(a_command_joined_in_the_middle, shows=("late-text",)),
    Story(an_ephemeral_thread_joined, shows=("only-here",)),
    Story(begun_by_a_stranger),
    Story(begun_by_a_stranger_while_nobody_follows),
    Story(archived_while_it_is_asked, chance=CUT_SHORT),
    Story(left_while_asked),
    Story(threads_of_two_at_once),
    Story(asked_in_a_burst),
)
