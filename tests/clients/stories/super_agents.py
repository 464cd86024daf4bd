"""super-agents: its MCP server, which dials the app-server for each tool call.

An agent is started with its task, read until it is done, and given another.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

from mcp import ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client

PATIENCE = 60.0
LOOK_SECONDS = 0.1

server = StdioServerParameters(
    command=str(Path(sys.executable).with_name("super-agents-mcp")),
    env=os.environ | {"SUPER_AGENTS_APP_SERVER_ENDPOINT": f"unix://{os.environ['APP_SERVER']}"},
)


async def call(session: ClientSession, tool: str, **arguments: Any) -> Any:
    answer = await session.call_tool(tool, arguments)
    text = "".join(getattr(each, "text", "") for each in answer.content)
    assert not answer.isError, text
    return json.loads(text)


async def says(session: ClientSession, words: str) -> Any:
    """Read the agent's thread until these words are in it, and its turn is over."""
    async with asyncio.timeout(PATIENCE):
        while True:
            read = json.dumps(
                await call(session, "super_agents_read", name="helper", includeTurns=True)
            )
            if words in read and '"inProgress"' not in read:
                return read
            await asyncio.sleep(LOOK_SECONDS)


async def main() -> None:
    async with stdio_client(server) as pipes, ClientSession(*pipes) as session:
        await session.initialize()
        work = os.environ["WORK"]
        started = await call(
            session, "super_agents_start", name="helper", prompt="say hello", cwd=work
        )
        print(started["turnStarted"])
        await says(session, "Hello to you.")
        await call(session, "super_agents_start_turn", name="helper", prompt="look around")
        await says(session, "Seen.")
        sessions = await call(session, "super_agents_sessions")
        print("helper" in json.dumps(sessions))


asyncio.run(main())
