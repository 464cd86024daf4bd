"""Records what the real app-server writes in a few turns: `python -m tests.record_turns`.

Each story becomes `tests/core/recorded/NAME.jsonl`: its stdout from the answer to `thread/start` on
to that of a last `thread/resume`, line for line, only with this machine's paths and the longer
texts of Codex's own taken out. Run it again for a new version of Codex.

Hands to: `tests.core.recordings`. Hears from: `codex app-server`, with a scripted model.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import attrs
import trio

from mux.demo.scripted_model import CallTool, Patch, Reason, Run, Say, Scripted
from tests.end_to_end.native import Native, native_stdio
from tests.end_to_end.peer import Json, Peer, answers

DIRECTORY: Final = Path(__file__).parent / "core" / "recorded"
HOME: Final = "/home/someone"
SAID_TO_MODELS: Final = frozenset({"developer_instructions", "developerInstructions"})
LONG: Final = 200

PATCH: Final = "*** Begin Patch\n*** Add File: a.txt\n+hello\n+there\n*** End Patch"
PLAN_MODE: Final = {
    "mode": "plan",
    "settings": {"model": "scripted", "reasoning_effort": None, "developer_instructions": None},
}
PLANNED: Final = (
    "First this.\n<proposed_plan>\n", "# One\n", "- do\n", "- redo\n", "</proposed_plan>\n", "Bye."
)  # fmt: skip


@attrs.frozen
class Turn:
    """One turn: what the user says, and what the model's script answers."""

    script: tuple[Any, ...]
    params: Json = attrs.field(factory=dict)


STORIES: Final[dict[str, tuple[Turn, ...]]] = {
    "text": (
        Turn(((Reason("one thought", "as it came"), Say("Some words. ", chunks=4)),)),
        Turn((Say("And quite a few more of them.", chunks=6),)),
    ),
    "commands": (
        Turn(
            (
                Run("for i in 1 2 3 4; do echo line $i; sleep 0.1; done"),
                Run("echo outside; sleep 0.1; echo again", escalated=True),
                Say("Both ran.", chunks=3),
            )
        ),
    ),
    "files": (Turn((Patch(PATCH), Say("Written.", chunks=2))),),
    "several": (
        Turn((Say("Hello.", chunks=2),)),
        Turn(
            (
                (
                    Reason("two at once"),
                    Say("I run both.", chunks=3),
                    Run("sleep 0.1; for i in 1 2 3; do echo a$i; sleep 0.1; done"),
                    Run("sleep 0.15; for i in 1 2 3; do echo b$i; sleep 0.1; done"),
                ),
                Say("They ran.", chunks=3),
            )
        ),
    ),
    "background": (
        Turn(
            (
                CallTool(
                    "exec_command",
                    {
                        "cmd": "for i in 1 2 3 4 5 6; do echo x$i; sleep 0.3; done",
                        "yield_time_ms": 500,
                    },
                ),
                Say("It goes on.", chunks=3),
            )
        ),
        Turn((Say("Meanwhile.", chunks=3),)),
    ),
    "plan": (Turn((Say(chunks=PLANNED),), {"collaborationMode": PLAN_MODE}),),
}


async def record(turns: tuple[Turn, ...]) -> list[str]:
    """Play a story on the real app-server; what it wrote, line by line."""
    model = Scripted()
    for place, turn in enumerate(turns):
        model.on(f"turn {place}", *turn.script)
    async with (
        native_stdio(model=model, config={"show_raw_agent_reasoning": True}) as running,
        trio.open_nursery() as nursery,
    ):
        peer = running.peer
        nursery.start_soon(_accept_all, peer)
        await peer.initialize("recorder")
        thread = await peer.start_thread(running.home.work)
        begin = next(at for at, m in enumerate(peer.inbox) if "thread" in m.get("result", {}))
        for place, turn in enumerate(turns):
            await peer.run_turn(thread, f"turn {place}", **turn.params)
        await _until_quiet(peer)
        last = await peer.ask("thread/resume", {"threadId": thread})
        await peer.result(last)
        nursery.cancel_scope.cancel()
        end = next(at for at, m in enumerate(peer.inbox) if answers(last)(m))
        return [_scrubbed(json.loads(line), running) for line in peer.raw[begin : end + 1]]
    raise AssertionError("the app-server ended early")


async def _accept_all(peer: Peer) -> None:
    """Answer every approval, a moment after it was asked for."""
    seen = 0
    while True:
        asked = await peer.wait(lambda m: "method" in m and "id" in m, since=seen, timeout=1e6)
        seen = peer.inbox.index(asked) + 1
        await peer.respond(asked["id"], {"decision": "accept"})


async def _until_quiet(peer: Peer) -> None:
    """Wait until every item that was started is complete: one may outlive its turn."""
    for started in peer.heard("item/started"):
        id = started["params"]["item"]["id"]
        await peer.wait(_completes(id))


def _completes(id: str) -> Callable[[Any], bool]:
    return lambda m: m.get("method") == "item/completed" and m["params"]["item"]["id"] == id


def _scrubbed(message: Json, running: Native) -> str:
    """The line as written, without what is of this machine or of Codex's own prompts."""
    text = json.dumps(_shortened(message), separators=(",", ":"), ensure_ascii=False)
    return text.replace(str(running.home.root), HOME)


def _shortened(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            key: "…" if key in SAID_TO_MODELS and len(str(inner)) > LONG else _shortened(inner)
            for key, inner in value.items()
        }
    if isinstance(value, list):
        return [_shortened(inner) for inner in value]
    return value


async def main() -> None:
    """Record all stories."""
    DIRECTORY.mkdir(exist_ok=True)
    for name, turns in STORIES.items():
        lines = await record(turns)
        (DIRECTORY / f"{name}.jsonl").write_text("".join(f"{line}\n" for line in lines))


if __name__ == "__main__":
    trio.run(main)
