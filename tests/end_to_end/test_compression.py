"""Compressed messages: codex's own compression with the newest codex, and a browser's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

import pytest
import trio
from wsproto.connection import Connection, ConnectionType
from wsproto.events import TextMessage
from wsproto.extensions import PerMessageDeflate

from mux.demo.scripted_model import Say, Scripted
from tests import knocks
from tests.end_to_end.brokered import brokered, client
from tests.end_to_end.native import Native
from tests.end_to_end.peer import PATIENCE
from tests.end_to_end.test_codex_exec import codex as codex  # noqa: PLC0414 (the fixture)
from tests.end_to_end.test_codex_exec import run_exec
from tests.end_to_end.tui import Cable, cable, tmux_is_missing, tui

ALWAYS: Final = {"APPMUX_COMPRESSION": "always"}
TAKEN: Final = b"x-codex-app-server-compression: zstd-stream-v1\r\n"
OFFERS: Final = ("sec-websocket-extensions: permessage-deflate; client_max_window_bits",)
TEXT: Final = " ".join(f"word{number}" for number in range(2000))


def talkative() -> Scripted:
    model = Scripted()
    model.on("talk", Say(TEXT, chunks=2000))
    model.on("greet", Say("all of a short text"))
    return model


async def _bytes_of_exec(codex: Path, broker: Native) -> tuple[int, Cable]:
    async with cable(broker.url) as link:
        events = await run_exec(codex, broker, "--remote", link.url, "talk")
        assert TEXT in json.dumps(events)
        return link.carried, link


async def test_exec_of_the_newest_codex_gets_zstd(codex: Path) -> None:
    async with brokered(codex=str(codex), model=talkative(), environ=ALWAYS) as broker:
        packed, link = await _bytes_of_exec(codex, broker)
        assert TAKEN in link.head.lower()
    async with brokered(codex=str(codex), model=talkative()) as broker:
        plain, link = await _bytes_of_exec(codex, broker)
        assert TAKEN not in link.head.lower()  # on this machine
    assert packed < 0.2 * plain


@pytest.mark.skipif(tmux_is_missing(), reason="tmux, in which the TUI runs, is not installed")
async def test_the_newest_terminal_gets_zstd(codex: Path) -> None:
    async with (
        brokered(codex=str(codex), model=talkative(), environ=ALWAYS) as broker,
        client(broker, "phone") as phone,
        cable(broker.url) as link,
    ):
        thread = await phone.start_thread(broker.home.work)
        await phone.run_turn(thread, "hello")
        async with tui(broker.home, "resume", thread, "--remote", link.url, codex=codex) as screen:
            await screen.see("You said: hello")
            assert TAKEN in link.head.lower()
            await phone.run_turn(thread, "greet")
            await screen.see("all of a short text")
            since = len(phone.inbox)
            await screen.say("hello again")
            await phone.wait_method("turn/completed", since=since, threadId=thread)


@pytest.mark.parametrize("setting", ["always", "remote", "never"])
async def test_a_program_on_this_machine_gets_deflate_only_if_it_is_set(setting: str) -> None:
    async with (
        brokered(environ={"APPMUX_COMPRESSION": setting}) as broker,
        await trio.open_tcp_stream("127.0.0.1", int(broker.url.rpartition(":")[2])) as stream,
    ):
        await stream.send_all(knocks.request("GET /", *knocks.UPGRADE, *OFFERS))
        received = b""
        with trio.fail_after(PATIENCE):
            while b"\r\n\r\n" not in received:
                received += await stream.receive_some()
        head, _, rest = received.partition(b"\r\n\r\n")
        assert (b"permessage-deflate" in head) == (setting == "always")
        extension = PerMessageDeflate()
        if setting == "always":
            extension.finalize("permessage-deflate; client_no_context_takeover")
        peer = Connection(ConnectionType.CLIENT, [extension] if setting == "always" else [], rest)
        hello = '{"id": 1, "method": "initialize", "params": {"clientInfo": '
        hello += '{"name": "x", "title": null, "version": "1"}}}'
        await stream.send_all(peer.send(TextMessage(hello)))
        answer = ""
        with trio.fail_after(PATIENCE):
            while "\n" not in answer:
                peer.receive_data(await stream.receive_some())
                answer += "".join(
                    each.data + "\n" * each.message_finished
                    for each in peer.events()
                    if isinstance(each, TextMessage)
                )
        assert answer.startswith('{"id":1,"result":')
