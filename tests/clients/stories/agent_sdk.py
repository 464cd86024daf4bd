"""codex-agent-sdk: text streamed, an approval by a handler, and one that it knows no answer to."""

from __future__ import annotations

import os
from typing import Any

import anyio
from codex_agent_sdk.client import CodexClient
from codex_agent_sdk.types import CodexClientOptions

options = CodexClientOptions(codex_path=os.environ["CODEX"], cwd=os.environ["WORK"])
asked: list[str] = []


async def accepts(params: dict[str, Any]) -> str:
    asked.append(params["command"])
    return "accept"


async def main() -> None:
    for handler in (accepts, None):
        async with CodexClient(options, command_approval_handler=handler) as client:
            started = await client.thread_start({"cwd": os.environ["WORK"]})
            thread = started["thread"]["id"]
            for prompt in ("say hello", "run it"):
                deltas = [each async for each in client.stream_prompt_text(thread, prompt)]
                print("".join(deltas))
    print(asked)


anyio.run(main)
