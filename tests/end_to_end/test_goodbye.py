"""The end of a connection: who has said goodbye is gone at once, and its socket is closed soon."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import AsyncIterator
from typing import Final

import pytest
import trio
import trio.testing

from mux.downstream.connection import CLOSE_DEADLINE
from tests.end_to_end.brokered import brokered, client
from tests.end_to_end.frames import CLOSE, TEXT, Framer, frame, framer, padded
from tests.end_to_end.native import Native
from tests.end_to_end.peer import PATIENCE
from tests.end_to_end.scenes import status_shows

MIB: Final = 1024 * 1024
SMALL_LIMIT: Final = 64 * 1024
LAST_WORDS: Final = {
    1000: frame(CLOSE, (1000).to_bytes(2, "big")),
    1002: frame(0x3, b"x"),
    1007: frame(TEXT, b'{"id":7,"method":"\xff"}'),
    1009: frame(TEXT, padded(SMALL_LIMIT + 1)),
}
"""What ends a connection, by the code that it is answered with."""


@pytest.fixture
async def broker() -> AsyncIterator[Native]:
    async with brokered(environ={"APPMUX_LIMITS_MESSAGE_BYTES": str(SMALL_LIMIT)}) as running:
        yield running


async def end(goes: Framer) -> float:
    """Wait until the broker has closed the connection; how long that took."""
    began = trio.current_time()
    with trio.fail_after(PATIENCE):
        with contextlib.suppress(trio.BrokenResourceError):
            while await goes.stream.receive_some():
                pass
    return trio.current_time() - began


@pytest.mark.parametrize("code", LAST_WORDS)
async def test_who_has_said_goodbye_is_gone_at_once(broker: Native, code: int) -> None:
    """It says nothing more and doesn't close: as Python's and node's clients wait for the server.

    What it said just before still counts.
    """
    async with client(broker, "stays") as stays, framer(broker.url) as goes:
        await goes.initialize("goes")
        thread = await stays.start_thread(broker.home.work)
        join = {"id": 1, "method": "thread/resume", "params": {"threadId": thread}}
        await goes.send_text(json.dumps(join))
        await goes.answer()
        rename = {"threadId": thread, "name": "its last word"}
        last = {"id": 2, "method": "thread/name/set", "params": rename}
        await goes.send(frame(TEXT, json.dumps(last).encode()) + LAST_WORDS[code])
        assert (await goes.closed()).code == code
        began = trio.current_time()
        await status_shows(stays, lambda report: len(report["clients"]) == 1)
        assert trio.current_time() - began < CLOSE_DEADLINE
        assert await end(goes) < CLOSE_DEADLINE
        await stays.wait_method("thread/name/updated", threadId=thread)
        # Its own end stays open: the broker's socket is gone for good all the same.
        with trio.fail_after(PATIENCE), contextlib.suppress(trio.BrokenResourceError):
            while True:
                await goes.send(b"x" * 1024)
                await trio.sleep(0.01)


async def test_who_still_sends_what_is_too_long_learns_why(broker: Native) -> None:
    async with framer(broker.url) as goes:
        await goes.initialize("goes")
        async with trio.open_nursery() as nursery:

            async def send_on() -> None:
                with contextlib.suppress(trio.BrokenResourceError):
                    await goes.send(frame(TEXT, padded(16 * MIB)))

            nursery.start_soon(send_on)
            await trio.testing.wait_all_tasks_blocked()  # all that fits is on its way
            assert (await goes.closed()).code == 1009
        await end(goes)


NODE: Final = """
const socket = new WebSocket(process.argv[1]);
socket.onopen = () => {
    const info = {name: "node", version: "1"};
    socket.send(JSON.stringify({id: 1, method: "initialize", params: {clientInfo: info}}));
};
socket.onmessage = () => {
    process.argv[2] === "1000" ? socket.close(1000) : socket.send("x".repeat(100000));
};
socket.onclose = (event) => console.log(event.code);
"""


@pytest.mark.skipif(shutil.which("node") is None, reason="no node here")
@pytest.mark.parametrize("code", [1000, 1009])
async def test_nodes_own_client_hears_the_end(broker: Native, code: int) -> None:
    command = ["node", "--experimental-websocket", "-e", NODE, broker.url, str(code)]
    done = None
    with trio.move_on_after(PATIENCE):
        done = await trio.run_process(
            command, check=False, capture_stdout=True, capture_stderr=True
        )
    assert done is not None, "node's client waits for ever"
    if b"bad option" in done.stderr or b"WebSocket is not defined" in done.stderr:
        pytest.skip("this node has no WebSocket of its own")
    assert done.stdout.decode() == f"{code}\n", done.stderr
