"""The README's program, as it stands there, beside a real broker."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import trio

from mux.demo.scripted_model import Run, Say, Scripted
from tests.end_to_end.brokered import brokered
from tests.end_to_end.peer import PATIENCE, Peer, connect_unix

README = Path(__file__).parent.parent.parent / "README.md"


async def test_the_second_client_sees_the_turn_and_decides_the_approval() -> None:
    # As `appmux setup` leaves it: a port asks for a token, the unix socket for none.
    auth = ("--ws-auth", "device-token")
    model = Scripted()
    model.on("run it", (Say("I would like to."), Run("echo hi", escalated=True)), Say("It ran."))
    async with brokered(*auth, model=model) as broker, connect_unix(broker.socket) as desk:
        await desk.initialize("desk")
        thread = await desk.start_thread(broker.home.work)
        await desk.run_turn(thread, "hello")
        process: trio.Process = await trio.lowlevel.open_process(
            [sys.executable, "-c", program(), thread],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=broker.home.environ(),
        )
        assert process.stdin
        assert process.stdout
        try:
            await wait_followers(desk, thread, 2)
            await desk.start_turn(thread, "run it")
            printed = await read_up_to(process.stdout, "accept or decline? ")
            assert "I would like to.\nRun " in printed
            assert "echo hi" in printed
            await process.stdin.send_all(b"accept\n")
            assert await read_up_to(process.stdout, "It ran.\n") == "decided\nIt ran.\n"
            ran = await desk.wait(
                lambda m: m.get("params", {}).get("item", {}).get("aggregatedOutput") == "hi\n"
            )
            assert ran["params"]["item"]["status"] == "completed"
        finally:
            process.kill()
            with trio.CancelScope(shield=True):
                await process.wait()
                await process.stdin.aclose()
                await process.stdout.aclose()


def program() -> str:
    (found,) = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    return str(found)


async def wait_followers(desk: Peer, thread: str, count: int) -> None:
    """Wait until so many clients follow the thread."""
    with trio.fail_after(PATIENCE):
        while True:
            threads = (await desk.request("mux/status"))["threads"]
            if [len(each["followers"]) for each in threads if each["id"] == thread] == [count]:
                return


async def read_up_to(stdout: trio.abc.ReceiveStream, end: str) -> str:
    """What is printed, up to ``end``."""
    printed = ""
    with trio.fail_after(PATIENCE):
        while not printed.endswith(end):
            piece = await stdout.receive_some()
            assert piece, f"it ended after {printed!r}"
            printed += piece.decode()
    return printed
