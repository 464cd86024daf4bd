"""Stories of turns: streamed, steered, interrupted, failed, joined late, left in the middle."""

from __future__ import annotations

from mux.demo.scripted_model import CallTool, Fail, Reason, Run, Say
from tests.conformance.stage import CUT_SHORT, Player, Stage, Story
from tests.end_to_end.scenes import DELTA


async def _streaming(stage: Stage, *names: str) -> tuple[str, list[Player]]:
    """A thread that all these follow, whose agent has said `early ` and waits before `late`."""
    stage.script("stream", Say(chunks=("early ", stage.gate("middle"), "late")))
    first, *others = players = await stage.clients(*names)
    thread = await first.thread(turn=True)
    for player in others:
        await player.join(thread)
    await first.say(thread, "stream")
    for player in players:
        await player.hears(DELTA, delta="early ")
    return thread, players


async def a_plain_turn(stage: Stage) -> None:
    stage.script("greet", (Reason("Thinking."), Say("Hello there", chunks=2)))
    a, b = await stage.clients("a", "b")
    thread = await a.thread(turn=True)
    await b.join(thread)
    await a.turn(thread, "greet")
    await b.ends(thread)


async def commands_of_a_turn(stage: Stage) -> None:
    stage.script("run", Run("echo one; exit 3"), Run("cat nothing-there"), Say("Over."))
    a, b = await stage.clients("a", "b")
    thread = await a.thread(turn=True)
    await b.join(thread)
    await a.turn(thread, "run")
    await b.ends(thread)


async def a_plan(stage: Stage) -> None:
    plan = [{"step": "one", "status": "in_progress"}, {"step": "two", "status": "pending"}]
    stage.script("plan", CallTool("update_plan", {"plan": plan}), Say("Over."))
    a = await stage.client("a")
    thread = await a.thread()
    await a.turn(thread, "plan")


async def steered(stage: Stage) -> None:
    """By what is meant for it, with the turn named, and a wrong one."""
    # What is said meanwhile is heard at once, and the turn shall last until both are answered.
    stage.script("more", Say(chunks=("some ", stage.gate("end"), "more")))
    thread, (a, b) = await _streaming(stage, "a", "b")
    turn = a.peer.heard("turn/started", threadId=thread)[-1]["params"]["turn"]["id"]
    await b.say(thread, "more", "turn/steer", expectedTurnId=turn)
    await b.say(thread, "more", "turn/steer", expectedTurnId="another")
    stage.release("middle")
    stage.release("end")
    for player in (a, b):
        await player.ends(thread)
    await b.say(thread, "hello", "turn/steer", expectedTurnId=turn)


async def begun_twice(stage: Stage) -> None:
    """A turn runs already: the second one to begin it joins it."""
    thread, (a, b) = await _streaming(stage, "a", "b")
    await b.say(thread, "hello")
    stage.release("middle")
    for player in (a, b):
        await player.ends(thread)


async def interrupted_by_the_other(stage: Stage) -> None:
    thread, (a, b) = await _streaming(stage, "a", "b")
    turn = a.peer.heard("turn/started", threadId=thread)[-1]["params"]["turn"]["id"]
    await b.ask("turn/interrupt", {"threadId": thread, "turnId": "another"})
    await b.ask("turn/interrupt", {"threadId": thread, "turnId": turn})
    for player in (a, b):
        await player.ends(thread)
    await a.turn(thread, "hello")
    await b.ends(thread)
    await b.ask("thread/turns/list", {"threadId": thread, "itemsView": "full"})


async def the_model_fails(stage: Stage) -> None:
    stage.script("fail", Fail(400, "no", "bad"))
    stage.script("break", (Say("So far"), Fail()))
    a, b = await stage.clients("a", "b")
    thread = await a.thread(turn=True)
    await b.join(thread)
    for text in ("fail", "break", "hello"):
        await a.turn(thread, text)
        await b.ends(thread)


async def joined_in_the_middle(stage: Stage) -> None:
    """Natively what was said before is lost to the newcomer."""
    thread, (a,) = await _streaming(stage, "a")
    late = await stage.client("late")
    await late.ask("thread/resume", {"threadId": thread})
    stage.release("middle")
    for player in (a, late):
        await player.ends(thread)
    await late.ask("thread/turns/list", {"threadId": thread, "itemsView": "full"})


async def left_in_the_middle(stage: Stage) -> None:
    """The turn goes on; who comes later finds it done."""
    thread, (a, stranger) = await _streaming(stage, "a", "stranger")
    await stranger.ask("thread/unsubscribe", {"threadId": thread})
    stage.forget()
    await a.leaves()
    stage.release("middle")
    await stranger.hears("thread/status/changed", threadId=thread, status={"type": "idle"})
    await stranger.ask("thread/turns/list", {"threadId": thread, "itemsView": "full"})
    await stranger.join(thread)
    await stranger.turn(thread, "hello")


async def the_same_message_twice(stage: Stage) -> None:
    a = await stage.client("a")
    thread = await a.thread()
    await a.turn(thread, "hello", clientUserMessageId="one")
    await a.turn(thread, "hello", clientUserMessageId="two")
    await a.ask("thread/items/list", {"threadId": thread})


async def with_an_output_schema(stage: Stage) -> None:
    """As the TUI asks for a title, on an ephemeral thread."""
    a, stranger = await stage.clients("a", "stranger")
    thread = await a.thread(ephemeral=True, threadSource="thread_title")
    title = {"type": "object", "properties": {"title": {"type": "string"}}}
    await a.turn(thread, "title", outputSchema=title)
    await a.ask("thread/unsubscribe", {"threadId": thread})
    await stranger.ask("thread/read", {"threadId": thread})


async def compacted(stage: Stage) -> None:
    a, b, _ = await stage.clients("a", "b", "stranger")
    thread = await a.thread(turn=True)
    await b.join(thread)
    await b.ask("thread/compact/start", {"threadId": thread})
    for player in (a, b):
        await player.ends(thread)
    await a.turn(thread, "again")
    await b.ends(thread)


async def a_shell_command(stage: Stage) -> None:
    a, b = await stage.clients("a", "b")
    thread = await a.thread(turn=True)
    await b.join(thread)
    await b.ask("thread/shellCommand", {"threadId": thread, "command": "echo from the shell"})
    for player in (a, b):
        await player.ends(thread)
    await a.ask("thread/items/list", {"threadId": thread})


async def reviewed(stage: Stage) -> None:
    a, b = await stage.clients("a", "b")
    thread = await a.thread(turn=True)
    await b.join(thread)
    target = {"type": "custom", "instructions": "look at it"}
    await b.ask("review/start", {"threadId": thread, "target": target, "delivery": "inline"})
    for player in (a, b):
        await player.ends(thread)


async def reviewed_apart(stage: Stage) -> None:
    a, b = await stage.clients("a", "b")
    thread = await a.thread(turn=True)
    await b.join(thread)
    target = {"type": "custom", "instructions": "look at it"}
    asked = {"threadId": thread, "target": target, "delivery": "detached"}
    await b.ask("review/start", asked)


async def reverted(stage: Stage) -> None:
    a, b, _ = await stage.clients("a", "b", "stranger")
    thread = await a.thread(turn=True)
    await b.join(thread)
    await a.turn(thread, "again")
    await b.ends(thread)
    turn = a.peer.heard("turn/started", threadId=thread)[-1]["params"]["turn"]["id"]
    await b.ask("thread/revert", {"threadId": thread, "beforeTurnId": turn})
    await a.hears("thread/reverted", threadId=thread)
    await a.turn(thread, "instead")
    await b.ends(thread)
    await b.ask("thread/turns/list", {"threadId": thread, "itemsView": "full"})


async def items_put_in(stage: Stage) -> None:
    a = await stage.client("a")
    thread = await a.thread(turn=True)
    said = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "x"}]}
    await a.ask("thread/inject_items", {"threadId": thread, "items": [said]})
    await a.turn(thread, "again")
    await a.ask("thread/items/list", {"threadId": thread})


async def settings_of_a_turn(stage: Stage) -> None:
    thread, (a, b) = await _streaming(stage, "a", "b")
    turn = a.peer.heard("turn/started", threadId=thread)[-1]["params"]["turn"]["id"]
    await b.ask("turn/settings/update", {"threadId": thread, "turnId": turn, "model": "other"})
    stage.release("middle")
    for player in (a, b):
        await player.ends(thread)
    await a.turn(thread, "hello", model="scripted", approvalPolicy="never", effort="low")
    await b.ends(thread)


async def in_the_background(stage: Stage) -> None:
    """A command goes on after its turn, and is ended by the other client."""
    stage.script(
        "serve", CallTool("exec_command", {"cmd": "sleep 600", "yield_time_ms": 250}), Say(".")
    )
    a, b = await stage.clients("a", "b")
    thread = await a.thread(turn=True)
    await b.join(thread)
    await a.turn(thread, "serve")
    await b.ends(thread)
    listed = await b.ask("thread/backgroundTerminals/list", {"threadId": thread})
    process = listed["data"][0]["processId"]
    asked = {"threadId": thread, "processId": process}
    await b.ask("thread/backgroundTerminals/terminate", asked)
    for player in (a, b):
        await player.hears_item("commandExecution")
    await a.ask("thread/backgroundTerminals/clean", {"threadId": thread})


STORIES = (
    Story(a_plain_turn),
    Story(commands_of_a_turn),
    Story(a_plan),
    Story(steered),
    Story(begun_twice),
    Story(interrupted_by_the_other, chance=CUT_SHORT),
    Story(the_model_fails),
    Story(joined_in_the_middle, shows=("late-text",)),
    Story(left_in_the_middle),
    Story(the_same_message_twice),
    Story(with_an_output_schema, shows=("title-threads",)),
    Story(compacted),
    Story(a_shell_command),
    Story(reviewed),
    Story(reviewed_apart),
    Story(reverted),
    Story(items_put_in),
    Story(settings_of_a_turn),
    Story(in_the_background),
)
