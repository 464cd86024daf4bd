"""What the stories about the broker begin with, and what they look at from the side.

Hands to: the end-to-end tests. Hears from: `brokered` and `peer`, which it puts together.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final, Literal

import attrs
import trio

from tests.end_to_end.brokered import ONLY_THE_SERVER, brokered
from tests.end_to_end.native import Native, codex_bin
from tests.end_to_end.peer import PATIENCE, Json, Peer, connect_ws

APPROVAL: Final = "item/commandExecution/requestApproval"
COMPLETED: Final = "item/completed"
DELTA: Final = "item/agentMessage/delta"
LIST: Final = "thread/loaded/list"
RESOLVED: Final = "serverRequest/resolved"
TURN_COMPLETED: Final = "turn/completed"
TURN_STARTED: Final = "turn/started"

ACCEPT: Final[Json] = {"decision": "accept"}
DECLINE: Final[Json] = {"decision": "decline"}

# How often to look at what nobody tells us of: a process, a file, the broker's own report.
LOOK_SECONDS: Final = 0.01


# --- Waiting for what isn't told ------------------------------------------------------------------


async def eventually(condition: Callable[[], object], what: str) -> None:
    """Wait until `condition()` holds. Raises AssertionError that names `what`."""
    with trio.move_on_after(PATIENCE):
        while not condition():  # noqa: ASYNC110 (there is no event for it)
            await trio.sleep(LOOK_SECONDS)
        return
    raise AssertionError(f"not seen within {PATIENCE} s: {what}")


async def status(peer: Peer) -> Json:
    """The broker's report on itself."""
    return await peer.request("mux/status")  # type: ignore[no-any-return]


async def status_shows(peer: Peer, condition: Callable[[Json], object]) -> Json:
    """Wait until the broker's report fulfils `condition`; that report."""
    seen: Json = {}
    with trio.move_on_after(PATIENCE):
        while not condition(seen := await status(peer)):  # noqa: ASYNC110 (as above)
            await trio.sleep(LOOK_SECONDS)
        return seen
    raise AssertionError(f"the broker's report never showed it: {json.dumps(seen)}")


async def app_server_pid(peer: Peer) -> int:
    """The process that the broker runs as its app-server, once it does."""
    report = await status_shows(peer, lambda report: report["appServer"]["pid"])
    return int(report["appServer"]["pid"])


async def gated(broker: Native) -> None:
    """Wait until the broker knows what is experimental in the codex that it runs."""
    async with onlooker(broker) as peer:
        await status_shows(peer, lambda report: report["appServer"]["schemaVersion"])


def alive(pid: int) -> bool:
    """Whether the process runs (one that has ended and is unread doesn't)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def ended(pid: int) -> bool:
    """Whether the process runs no more."""
    return not alive(pid)


async def kill_at_once(broker: Native) -> None:
    """Kill a supervisor and its broker, with no time to write anything; both have ended then.

    A broker whose supervisor alone is killed ends by itself, sooner or later.
    """
    pid = broker.broker_pid
    broker.process.kill()
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    with trio.fail_after(PATIENCE):
        await broker.process.wait()
    await eventually(lambda: ended(pid), "the broker's end")


def running(*words: str) -> list[int]:
    """The processes whose command line is exactly `words`."""
    wanted = "\0".join((*words, "")).encode()
    found = []
    for each in Path("/proc").glob("[0-9]*"):
        try:
            if (each / "cmdline").read_bytes() == wanted:
                found.append(int(each.name))
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended while we looked
    return found


# --- A thread that several follow -----------------------------------------------------------------


async def shared_thread(broker: Native, first: Peer, *others: Peer, **params: Any) -> str:
    """A thread that `first` has started and that all follow; its id. It has one turn behind it."""
    thread = await first.start_thread(broker.home.work, **params)
    await first.run_turn(thread, "hello")  # before a first turn nobody else can resume it
    for peer in others:
        await join(peer, thread)
    return thread


async def join(peer: Peer, thread: str) -> Json:
    """Resume the thread, with nothing of its past."""
    params = {"threadId": thread, "excludeTurns": True}
    return await peer.request("thread/resume", params)  # type: ignore[no-any-return]


def about(peer: Peer, thread: str, since: int = 0) -> list[Json]:
    """All that the peer has heard with this thread's id in its params."""
    return [
        message
        for message in peer.inbox[since:]
        if "method" in message and message.get("params", {}).get("threadId") == thread
    ]


def tool_outputs(request: Json) -> list[str]:
    """What the model is told of its function calls in a request, oldest first, as text."""
    kept = [item for item in request["input"] if item.get("type") == "function_call_output"]
    return [json.dumps(item["output"]) for item in kept]


# --- What goes over the app-server's pipes --------------------------------------------------------


@attrs.frozen
class Tapped:
    """A broker whose app-server's stdin and stdout are copied into files."""

    broker: Native
    tap: Path

    @property
    def sent(self) -> list[bytes]:
        """The whole lines that the broker has written to the app-server so far."""
        return self._lines("stdin")

    def about(self, thread: str) -> list[Json]:
        """The app-server's notifications with this thread's id in their params so far."""
        messages = [json.loads(line) for line in self._lines("stdout")]
        return [
            each
            for each in messages
            if "id" not in each and each.get("params", {}).get("threadId") == thread
        ]

    async def find(self, pipe: Literal["stdin", "stdout"], needle: bytes) -> str:
        """The first whole line that holds `needle`, now or when it comes."""
        await eventually(lambda: any(needle in line for line in self._lines(pipe)), repr(needle))
        return next(line for line in self._lines(pipe) if needle in line).decode()

    def asked(self, method: str) -> list[Json]:
        """The params of the broker's requests of this method so far."""
        messages = [json.loads(line) for line in self.sent]
        return [each["params"] for each in messages if each.get("method") == method]

    def _lines(self, name: str) -> list[bytes]:
        return (self.tap / name).read_bytes().split(b"\n")[:-1]


@asynccontextmanager
async def tapped(tap: Path, **options: Any) -> AsyncIterator[Tapped]:
    """`brokered`, over the real app-server, with its pipes copied into the directory `tap`."""
    script = tap / "tapped-codex"
    # `tee` writes to its stdout first. So that isn't the next pipe: a line is in the file before
    # anybody can have read it.
    stdin, stdout = (
        f"tee '{tap}/{name}' /dev/fd/3 3>&1 >/dev/null" for name in ("stdin", "stdout")
    )
    program = f"{stdin} | '{codex_bin()}' \"$@\" | {stdout}\n"
    script.write_text(f"#!/bin/sh\n{ONLY_THE_SERVER}{program}")
    script.chmod(0o755)
    async with brokered(codex=str(script), **options) as broker:
        yield Tapped(broker, tap)


@asynccontextmanager
async def onlooker(broker: Native) -> AsyncIterator[Peer]:
    """A connection without a handshake, which may only ask for the broker's report."""
    async with connect_ws(broker.url) as peer:
        yield peer
