"""The other server requests: tool calls, questions, patches, permissions, MCP forms."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Final

import pytest

from mux.demo.scripted_model import CallTool, Hold, Patch, Say, Scripted
from tests.end_to_end.brokered import brokered, client
from tests.end_to_end.native import Native
from tests.end_to_end.peer import Json, Peer
from tests.end_to_end.scenes import (
    ACCEPT,
    LIST,
    RESOLVED,
    TURN_COMPLETED,
    join,
    shared_thread,
    status_shows,
    tool_outputs,
)

CALL: Final = "item/tool/call"
SCHEMA: Final[Json] = {"type": "object", "properties": {}}
TOOL: Final[Json] = {
    "type": "function", "name": "lookup", "description": "Looks up.", "inputSchema": SCHEMA,
}  # fmt: skip
FOUND: Final[Json] = {"contentItems": [{"type": "inputText", "text": "it is 42"}], "success": True}


# --- Tool calls, which are for one client ---------------------------------------------------------


def _tool_script() -> Scripted:
    model = Scripted()
    model.on("look up", (Hold("gate"), CallTool("lookup")), Say("Over."))
    return model


async def _tool_turn(broker: Native, owner: Peer, *others: Peer) -> tuple[str, str]:
    """A thread whose tool is the owner's, and a turn that will call it once the gate is open."""
    thread = await shared_thread(broker, owner, *others, dynamicTools=[TOOL])
    turn = await owner.start_turn(thread, "look up")
    await broker.model.reached("gate")
    return thread, turn


async def _told(broker: Native, peer: Peer, turn: str) -> str:
    """What the model was told of its call, once the turn is over."""
    done = await peer.wait(
        lambda m: m.get("method") == TURN_COMPLETED and m["params"]["turn"]["id"] == turn
    )
    assert done["params"]["turn"]["status"] == "completed"
    [output] = tool_outputs(broker.model.requests[-1])
    return output


async def test_a_tool_call_goes_to_the_client_that_registered_it() -> None:
    async with (
        brokered(model=_tool_script()) as broker,
        client(broker, "owner") as owner,
        client(broker, "other") as other,
        client(broker, "owner") as namesake,
    ):
        _, turn = await _tool_turn(broker, owner, other, namesake)
        broker.model.release("gate")
        call = await owner.wait_method(CALL, tool="lookup")
        for peer in (other, namesake):
            await peer.respond_error(call["id"], -32601, "unknown tool")  # none of its business
            await peer.request("mux/status")
            assert peer.heard(CALL) == []
        await owner.respond(call["id"], FOUND)
        assert "it is 42" in await _told(broker, other, turn)
        await status_shows(owner, lambda report: report["serverRequests"] == [])


async def test_a_tool_whose_client_has_gone_is_an_error_that_the_model_reads() -> None:
    async with brokered(model=_tool_script()) as broker, client(broker, "other") as other:
        async with client(broker, "owner") as owner:
            _, turn = await _tool_turn(broker, owner, other)
        await status_shows(other, lambda report: len(report["clients"]) == 1)
        broker.model.release("gate")
        told = await _told(broker, other, turn)
        assert "lookup" in told
        assert "no longer attached" in told
        assert other.heard(CALL) == []


async def test_a_tool_whose_client_leaves_in_the_middle_is_an_error_too() -> None:
    async with brokered(model=_tool_script()) as broker, client(broker, "other") as other:
        async with client(broker, "owner") as owner:
            _, turn = await _tool_turn(broker, owner, other)
            broker.model.release("gate")
            await owner.wait_method(CALL)
        told = await _told(broker, other, turn)
        assert "left before it answered" in told
        assert other.heard(CALL) == []


@pytest.mark.parametrize("answer", [{"success": True}, [], None, {"contentItems": "x"}])
async def test_a_tool_answer_that_is_none_is_told_to_the_model(answer: Any) -> None:
    async with brokered(model=_tool_script()) as broker, client(broker, "owner") as owner:
        _, turn = await _tool_turn(broker, owner)
        broker.model.release("gate")
        call = await owner.wait_method(CALL)
        await owner.respond(call["id"], answer)
        assert "could not run it" in await _told(broker, owner, turn)


async def test_a_client_that_came_back_has_its_tools_again() -> None:
    async with brokered(model=_tool_script()) as broker, client(broker, "other") as other:
        async with client(broker, "owner") as owner:
            thread, turn = await _tool_turn(broker, owner, other)
        await status_shows(other, lambda report: len(report["clients"]) == 1)
        async with client(broker, "owner") as again:
            await join(again, thread)
            broker.model.release("gate")
            call = await again.wait_method(CALL)
            await again.respond(call["id"], FOUND)
            assert "it is 42" in await _told(broker, other, turn)
            assert other.heard(CALL) == []


# --- Questions to a person, which are for every follower ------------------------------------------

OPTIONS = [{"label": name, "description": name} for name in ("Red", "Blue")]
QUESTION = {"id": "q", "header": "H", "question": "Which colour?", "options": OPTIONS}
NETWORK = {"network": {"enabled": True}}
NEW_FILE = "*** Begin Patch\n*** Add File: new.txt\n+from a patch\n*** End Patch"
ELICITOR = {
    "command": sys.executable,
    "args": [str(Path(__file__).with_name("elicitor.py"))],
    "default_tools_approval_mode": "approve",
}

ASKED: Final[dict[str, tuple[CallTool | Patch, Any, Json, str]]] = {
    "item/tool/requestUserInput": (
        CallTool("request_user_input", {"questions": [QUESTION]}),
        {"answers": {"q": "Blue"}},
        {"answers": {"q": {"answers": ["Blue"]}}},
        "Blue",
    ),
    "item/permissions/requestApproval": (
        CallTool("request_permissions", {"reason": "because", "permissions": NETWORK}),
        {"permissions": []},
        {"permissions": NETWORK, "scope": "turn"},
        "enabled",
    ),
    "item/fileChange/requestApproval": (
        Patch(NEW_FILE),
        {"decision": "yes"},
        ACCEPT,
        "new.txt",
    ),
    "mcpServer/elicitation/request": (
        CallTool("ask", namespace="mcp__elicitor"),
        {"action": "maybe"},
        {"action": "accept", "content": {"word": "plum"}},
        "plum",
    ),
}
"""By method: what makes the model ask it, a malformed answer, a good one, what the model reads."""


async def test_every_kind_of_question_is_decided_by_the_first_good_answer() -> None:
    model = Scripted()
    for method, (step, _, _, _) in ASKED.items():
        model.on(method, step, Say("Over."))
    config = {
        "features": {"request_permissions_tool": True},
        "mcp_servers": {"elicitor": ELICITOR},
    }
    async with (
        brokered(model=model, config=config) as broker,
        client(broker, "one") as one,
        client(broker, "two") as two,
        client(broker, "stranger") as stranger,
    ):
        thread = await shared_thread(broker, one, two)
        for method, (_, malformed, answer, told) in ASKED.items():
            mark = len(one.inbox)
            await one.start_turn(thread, method)
            at_one = await one.wait_method(method)
            assert await two.wait_method(method) == at_one
            await one.respond(at_one["id"], malformed)
            await two.respond(at_one["id"], answer)
            for peer in (one, two):
                await peer.wait_method(RESOLVED, requestId=at_one["id"], threadId=thread)
            await one.wait_method(TURN_COMPLETED, since=mark, threadId=thread)
            assert told in tool_outputs(model.requests[-1])[-1], method
        assert (broker.home.work / "new.txt").read_text() == "from a patch\n"
        await stranger.request(LIST)
        heard = {each["method"] for each in stranger.inbox if "method" in each}
        assert heard.isdisjoint([*ASKED, RESOLVED]), json.dumps(sorted(heard))
