"""codex-python-sdk: overrides on its command line, events of a turn, a name, a fork, a command."""

from __future__ import annotations

import os
from typing import Any

from codex_python_sdk import create_client

asked: list[str] = []


def accepts(params: dict[str, Any]) -> dict[str, Any]:
    asked.append(str(params["command"]))
    return {"decision": "accept"}


with create_client(
    codex_command=os.environ["CODEX"],
    process_cwd=os.environ["WORK"],
    server_config_overrides={"approval_policy": "on-request", "sandbox_mode": "workspace-write"},
    on_command_approval=accepts,
    default_thread_params={"cwd": os.environ["WORK"]},
) as client:
    started = client.thread_start()
    thread = started["thread"]["id"]
    print(started["approvalPolicy"], started["sandbox"]["type"])
    print("".join(client.responses_stream_text(prompt="say hello", thread_id=thread)))
    print(client.responses_create(prompt="run it", thread_id=thread).text, asked)
    client.thread_name_set(thread, "A name")
    forked = client.thread_fork(thread)
    print(forked["sandbox"]["type"])
    print(client.command_exec(["echo", "out"])["stdout"])
    print([each.get("name") for each in client.thread_list(limit=1)])
