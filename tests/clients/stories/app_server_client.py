"""codex-app-server-client: a thread with an approval, loaded again by a second app-server."""

from __future__ import annotations

import os
from typing import Any

from codex_app_server_client import SyncCodexAppServer
from codex_app_server_client.types.threads import (
    ThreadListParams,
    ThreadReadParams,
    ThreadStartParams,
)

asked: list[str] = []


def accepts(method: str, params: dict[str, Any]) -> dict[str, Any]:
    asked.append(f"{method} {params['command']}")
    return {"decision": "accept"}


with SyncCodexAppServer(codex_bin=os.environ["CODEX"]) as server:
    server.low_level.on_server_request("item/commandExecution/requestApproval", accepts)
    thread = server.start_thread(ThreadStartParams(cwd=os.environ["WORK"]))
    print(thread.run("say hello").final_response)
    print(thread.run("run it").final_response)
    print(asked)
    read = server.low_level.thread_read(ThreadReadParams(thread_id=thread.id, include_turns=True))
    print(len(read.thread.turns or []))
    print(len(server.low_level.thread_list(ThreadListParams(limit=5)).data))

with SyncCodexAppServer(codex_bin=os.environ["CODEX"]) as server:  # by itself, it declines
    thread = server.resume_thread(thread.id)
    print(thread.run("run it").final_response)
