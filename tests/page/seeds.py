"""Fills a fresh runtime with the threads that the page's stories and pictures begin with."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Final

from tests.end_to_end import elicitor
from tests.end_to_end.brokered import client
from tests.end_to_end.native import Native
from tests.end_to_end.peer import Peer
from tests.page.scenes import PARSER

CONFIG: Final[dict[str, Any]] = {
    "mcp_servers": {"elicitor": {"command": sys.executable, "args": [elicitor.__file__]}}
}
"""Codex's settings: with an MCP server whose tool asks a person."""


async def seed(running: Native, directory: Path | None = None) -> dict[str, str]:
    """Begin some threads, in `directory` or the home's. Return their ids by a word for each."""
    work = directory or running.home.work
    (work / "parser.py").write_text(PARSER)
    made: dict[str, str] = {}
    async with client(running, "desk") as peer:
        made["hello"] = await begin(peer, work, "Say hello", "hello")
        made["parser"] = await begin(peer, work, "Capitals get lost", "parser: fix the capitals")
        made["install"] = await begin(peer, work, "Faster patterns", "install the regex package")
        await peer.wait_method("item/commandExecution/requestApproval", threadId=made["install"])
    return made


async def begin(peer: Peer, cwd: Path, title: str, words: str) -> str:
    """Start a thread with a title and a first turn. Return the thread's id."""
    thread = await peer.start_thread(cwd)
    await peer.request("thread/name/set", {"threadId": thread, "name": title})
    await peer.start_turn(thread, words)
    return thread
