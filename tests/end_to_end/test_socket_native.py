"""The control socket between appmux and Codex's own listener: neither takes it from the other."""

from __future__ import annotations

import signal

import pytest
import trio

from mux.config.addresses import parse_listen_url
from mux.downstream.listener import open_listener
from mux.downstream.sockets.unix_socket import ListenError
from tests.end_to_end.native import native, native_unix, private_home

NOBODY = "http://127.0.0.1:9/v1"


async def test_ours_finds_codexs_own_listener_and_takes_over_what_a_killed_one_left() -> None:
    async with native_unix() as running:
        assert running.socket is not None
        address = parse_listen_url("unix://", running.home.codex_home)
        assert str(address) == str(running.socket)
        with pytest.raises(ListenError, match=f"process {running.process.pid} listens there"):
            await open_listener(address)
        running.process.send_signal(signal.SIGKILL)
        await running.process.wait()
        assert running.socket.is_symlink()
        opened = await open_listener(address)
        assert running.socket.is_socket()
        assert not running.socket.is_symlink()
        await opened.aclose()


async def test_codexs_own_listener_finds_ours() -> None:
    with private_home(NOBODY) as home:
        opened = await open_listener(parse_listen_url("unix://", home.codex_home))
        async with native("--listen", "unix://", home=home) as running:
            await running.wait_log("app-server control socket is already in use at")
            await running.process.wait()
        async with await trio.open_unix_socket(opened.url.removeprefix("unix://")):
            pass
        await opened.aclose()
