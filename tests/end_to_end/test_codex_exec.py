"""`codex exec --remote`, which codex has since 0.171, on the shared runtime."""

from __future__ import annotations

import hashlib
import json
import subprocess
from pathlib import Path

import pytest
import trio

from tests.end_to_end.brokered import brokered, client
from tests.end_to_end.native import Native
from tests.newest import VERSION, newest_codex

PATIENCE = 60.0
TOKEN = "a-token-of-a-test"


@pytest.fixture
def codex() -> Path:
    """A codex that has `exec --remote`."""
    newest = newest_codex()
    if newest is None:
        pytest.skip(f"npm could not install the newest codex ({VERSION}): `make newest`")
    return newest


async def run_exec(
    codex: Path, broker: Native, *arguments: str, **environ: str
) -> list[dict[str, str]]:
    """Run `codex exec --json`; returns its events."""
    command = [str(codex), "exec", "--json", "--skip-git-repo-check", *arguments]
    with trio.fail_after(PATIENCE):
        done = await trio.run_process(
            command,
            env=broker.home.environ() | environ,
            cwd=broker.home.work,
            stdin=subprocess.DEVNULL,
            capture_stdout=True,
            capture_stderr=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr.decode()
    return [json.loads(line) for line in done.stdout.splitlines()]


async def test_what_exec_does_is_seen_by_who_is_attached(codex: Path) -> None:
    async with brokered(codex=str(codex)) as broker, client(broker, "watching") as watching:
        for url in (broker.url, f"unix://{broker.socket}"):
            events = await run_exec(codex, broker, "--remote", url, "say hello")
            thread = next(e["thread_id"] for e in events if e["type"] == "thread.started")
            assert "turn.completed" in {event["type"] for event in events}
            started = watching.heard("thread/started")
            assert thread in {each["params"]["thread"]["id"] for each in started}
            turns = await watching.request("thread/turns/list", {"threadId": thread})
            assert [turn["status"] for turn in turns["data"]] == ["completed"]


async def test_exec_brings_its_token(codex: Path) -> None:
    digest = hashlib.sha256(TOKEN.encode()).hexdigest()
    auth = ("--ws-auth", "capability-token", "--ws-token-sha256", digest)
    async with brokered(*auth, codex=str(codex)) as broker:
        remote = ("--remote", broker.url, "--remote-auth-token-env", "A_TOKEN")
        events = await run_exec(codex, broker, *remote, "say hello", A_TOKEN=TOKEN)
        assert "turn.completed" in {event["type"] for event in events}
