"""Stories of the other server requests: tools, questions, permissions, forms; and sub-agents."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Final

from mux.demo.scripted_model import CallTool, Run, Say, Step
from tests.conformance.stage import CUT_SHORT, Player, Stage, Story
from tests.end_to_end.peer import Json
from tests.end_to_end.scenes import ACCEPT, APPROVAL

CALL: Final = "item/tool/call"
FORM: Final = "mcpServer/elicitation/request"
PERMISSIONS: Final = "item/permissions/requestApproval"
QUESTION: Final = "item/tool/requestUserInput"

TOOL: Final[Json] = {
    "type": "function",
    "name": "lookup",
    "description": "Looks up.",
    "inputSchema": {"type": "object", "properties": {}},
}
FOUND: Final[Json] = {"contentItems": [{"type": "inputText", "text": "it is 42"}], "success": True}
OPTIONS: Final = [{"label": name, "description": name} for name in ("Red", "Blue")]
ASKED: Final = {"id": "q", "header": "H", "question": "Which colour?", "options": OPTIONS}
NETWORK: Final[Json] = {"network": {"enabled": True}}
ELICITOR: Final[Json] = {
    "command": sys.executable,
    "args": [str(Path(__file__).parents[1] / "end_to_end" / "elicitor.py")],
    "default_tools_approval_mode": "approve",
}


async def _asked(stage: Stage, step: Step, method: str) -> tuple[str, list[Player], list[Any]]:
    """A thread that two follow, on which `method` is asked; the requests as they came to each."""
    stage.script("ask me", step, Say("Over."))
    players = await stage.clients("a", "b")
    thread = await players[0].thread(turn=True)
    await players[1].join(thread)
    await players[0].say(thread, "ask me")
    return thread, players, [await player.offered(method) for player in players]


async def _tool_thread(stage: Stage, *names: str) -> tuple[str, list[Player]]:
    """A thread whose first client has brought a tool, which the model calls at `look up`."""
    stage.script("look up", CallTool("lookup", {"q": 1}), Say("Over."))
    first, *others = players = await stage.clients(*names)
    thread = await first.thread(turn=True, dynamicTools=[TOOL])
    for player in others:
        await player.join(thread)
    return thread, players


async def a_tool_of_the_only_client(stage: Stage) -> None:
    thread, (a,) = await _tool_thread(stage, "a")
    for answer in (FOUND, FOUND | {"success": False}):
        await a.say(thread, "look up")
        await a.answers(await a.offered(CALL, tool="lookup", arguments={"q": 1}), answer)
        await a.ends(thread)


async def a_tool_that_fails(stage: Stage) -> None:
    thread, (a,) = await _tool_thread(stage, "a")
    await a.say(thread, "look up")
    await a.fails(await a.offered(CALL))
    await a.ends(thread)


async def a_tool_of_one_of_two(stage: Stage) -> None:
    """Natively the other one is asked as well."""
    thread, (a, b) = await _tool_thread(stage, "a", "b")
    await b.say(thread, "look up")
    await a.answers(await a.offered(CALL), FOUND)
    for player in (a, b):
        await player.ends(thread)


async def a_tool_while_interrupted(stage: Stage) -> None:
    thread, (a,) = await _tool_thread(stage, "a")
    turn = (await a.say(thread, "look up"))["turn"]["id"]
    request = await a.offered(CALL)
    await a.ask("turn/interrupt", {"threadId": thread, "turnId": turn})
    await a.ends(thread)
    await a.answers(request, FOUND)


async def a_question(stage: Stage) -> None:
    step = CallTool("request_user_input", {"questions": [ASKED]})
    thread, players, (_, at_b) = await _asked(stage, step, QUESTION)
    await players[1].answers(at_b, {"answers": {"q": {"answers": ["Blue"]}}})
    for player in players:
        await player.ends(thread)


async def a_question_that_nobody_answers(stage: Stage) -> None:
    """It is taken back with its turn."""
    step = CallTool("request_user_input", {"questions": [ASKED]})
    thread, (a, b), _ = await _asked(stage, step, QUESTION)
    turn = a.peer.heard("turn/started", threadId=thread)[-1]["params"]["turn"]["id"]
    await b.ask("turn/interrupt", {"threadId": thread, "turnId": turn})
    for player in (a, b):
        await player.ends(thread)
        await player.hears("serverRequest/resolved")


async def permissions_granted(stage: Stage) -> None:
    step = CallTool("request_permissions", {"reason": "because", "permissions": NETWORK})
    thread, players, (at_a, _) = await _asked(stage, step, PERMISSIONS)
    await players[0].answers(at_a, {"permissions": NETWORK, "scope": "turn"})
    for player in players:
        await player.ends(thread)


async def permissions_refused(stage: Stage) -> None:
    step = CallTool("request_permissions", {"reason": "because", "permissions": NETWORK})
    thread, players, (_, at_b) = await _asked(stage, step, PERMISSIONS)
    await players[1].answers(at_b, {"permissions": {}, "scope": "turn"})
    for player in players:
        await player.ends(thread)


async def a_form_of_an_mcp_server(stage: Stage) -> None:
    step = CallTool("ask", namespace="mcp__elicitor")
    thread, players, (at_a, _) = await _asked(stage, step, FORM)
    await players[0].answers(at_a, {"action": "accept", "content": {"word": "plum"}})
    for player in players:
        await player.ends(thread)
    await players[1].say(thread, "ask me")
    await players[0].offered(FORM)
    await players[1].answers(await players[1].offered(FORM), {"action": "decline"})
    for player in players:
        await player.ends(thread)


async def mcp_servers_seen_and_called(stage: Stage) -> None:
    a, b = await stage.clients("a", "b")
    thread = await a.thread(turn=True)
    await b.join(thread)
    await b.ask("mcpServerStatus/list", {"threadId": thread})
    call = {"threadId": thread, "server": "elicitor", "tool": "ask", "arguments": {}}
    asked = await b.send("mcpServer/tool/call", call)
    await a.offered(FORM)
    await b.answers(await b.offered(FORM), {"action": "accept", "content": {"word": "fig"}})
    await b.answered(asked)
    await b.ask("mcpServer/tool/call", {**call, "server": "nobody"})
    stage.forget()
    await b.ask("config/mcpServer/reload")
    for player in (a, b):
        await player.hears("mcpServer/startupStatus/updated", name="elicitor", status="ready")


async def a_sub_agent(stage: Stage) -> None:
    """Natively it is heard by everybody; here by those that follow its parent."""
    agent = {"message": f"{stage.name}: child work", "task_name": "child"}
    stage.script(
        "spawn", CallTool("spawn_agent", agent, namespace="multi_agent_v1"), Say("Spawned.")
    )
    stage.script("child work", Say(chunks=("Child ", stage.gate("child"), "done.")))
    a = await stage.client("a")
    parent = await a.thread(turn=True)
    await a.say(parent, "spawn")
    item = await a.hears_item("collabAgentToolCall")
    [child] = item["receiverThreadIds"]
    await a.ends(parent)
    stage.release("child")
    await a.ends(child)
    await a.ask("thread/read", {"threadId": child})
    await a.ask("thread/list", {"parentThreadId": parent})


async def a_sub_agents_approval(stage: Stage) -> None:
    agent = {"message": f"{stage.name}: child work", "task_name": "child"}
    stage.script(
        "spawn", CallTool("spawn_agent", agent, namespace="multi_agent_v1"), Say("Spawned.")
    )
    stage.script("child work", Run("echo child", escalated=True), Say("Child done."))
    a, stranger = await stage.clients("a", "stranger")
    parent = await a.thread(turn=True)
    await a.say(parent, "spawn")
    [child] = (await a.hears_item("collabAgentToolCall"))["receiverThreadIds"]
    request = await a.offered(APPROVAL, threadId=child)
    await a.ends(parent)
    await a.answers(request, ACCEPT)
    await a.ends(child)
    await stranger.ask("thread/read", {"threadId": child})


_PERMISSIONS: Final = {"features": {"request_permissions_tool": True}}
_ELICITOR: Final = {"mcp_servers": {"elicitor": ELICITOR}}

STORIES = (
    Story(a_tool_of_the_only_client),
    Story(a_tool_that_fails, shows=("tool-owner",)),
    Story(a_tool_of_one_of_two, shows=("tool-owner",)),
    Story(a_tool_while_interrupted, chance=CUT_SHORT),
    Story(a_question),
    Story(a_question_that_nobody_answers, chance=CUT_SHORT),
    Story(permissions_granted, config=_PERMISSIONS),
    Story(permissions_refused, config=_PERMISSIONS),
    Story(a_form_of_an_mcp_server, config=_ELICITOR),
    Story(mcp_servers_seen_and_called, config=_ELICITOR),
    Story(a_sub_agent, alone=True),
    Story(a_sub_agents_approval, alone=True, shows=("sub-agents",)),
)
