"""`appmux serve`: its start, its signals, its end, as a service manager and a person see them."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import pytest
import trio
import trio.testing
import trio_websocket

from mux.server.reload import Reload
from tests.end_to_end.brokered import brokered, client
from tests.end_to_end.frames import framer
from tests.end_to_end.native import Home, Native, codex_bin, native_ws, private_home
from tests.end_to_end.peer import PATIENCE, Peer, WsLink, connect_ws
from tests.end_to_end.scenes import LIST, LOOK_SECONDS, app_server_pid, ended, eventually, onlooker

GOING_AWAY = 1001
UNAUTHORIZED = 401
FILE_BYTES = 6 * 1024 * 1024
GREETINGS_BYTES = 64 * 1024  # more than that can only be owed of the file
"""More than the sockets between broker and client hold, so that some of it is owed."""


async def _ended(broker: Native) -> int:
    with trio.fail_after(PATIENCE):
        return await broker.process.wait()


def _close_of(peer: Peer) -> trio_websocket.CloseReason:
    assert isinstance(peer.link, WsLink)
    closed = peer.link.connection.closed
    assert closed is not None
    return closed


# --- Start ----------------------------------------------------------------------------------------


async def test_each_listener_is_announced_with_its_real_address() -> None:
    async with brokered("--listen", "ws://127.0.0.2:0") as broker:
        other = (await broker.wait_log(r"  listening on: (ws://127\.0\.0\.2:\d+)\n"))[1]
        await broker.wait_log(other.removeprefix("ws://") + "/healthz\n")
        lines = [each for each in broker.shown().splitlines() if each.startswith("  ")]
        assert lines == [
            *_announced(broker.url),
            f"  listening on: unix://{broker.socket}",
            *_announced(other),
        ]
        async with connect_ws(other) as peer:
            await peer.initialize("there")


def _announced(url: str) -> list[str]:
    address = url.removeprefix("ws://")
    health = [f"  {path}: http://{address}/{path}" for path in ("readyz", "healthz")]
    return [f"  listening on: {url}", *health]


async def test_the_native_listener_is_announced_in_the_same_words() -> None:
    async with native_ws() as native:
        await native.wait_log("healthz: .*\n")
        lines = [each for each in native.shown().splitlines() if each.startswith("  ")]
        assert lines[:3] == _announced(native.url)


async def test_systemd_is_told_when_it_is_up_and_when_it_stops(tmp_path: Path) -> None:
    address = tmp_path / "notify"
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as told:
        told.bind(str(address))
        told.settimeout(0)
        async with brokered(environ={"NOTIFY_SOCKET": str(address)}) as broker:
            for state in (b"READY=1", b"STOPPING=1"):
                with trio.fail_after(PATIENCE):
                    await trio.lowlevel.wait_readable(told)
                assert told.recv(100) == state
                broker.process.send_signal(signal.SIGTERM)
            assert await _ended(broker) == 0


# --- Starts that fail -----------------------------------------------------------------------------


async def _refused(home: Home, *arguments: str) -> tuple[int, str]:
    """Start `serve` where it can't; its exit status and what it says."""
    own = {"APPMUX_CODEX_BIN": str(codex_bin()), "APPMUX_LOG_FORMAT": "json"}
    with trio.fail_after(PATIENCE):
        done = await trio.run_process(
            [sys.executable, "-m", "mux", "serve", *arguments],
            check=False,
            capture_stderr=True,
            env=home.environ() | own,
        )
    said = done.stderr.decode()
    assert "Traceback" not in said
    return done.returncode, said


NO_AUTH = "refusing to start non-loopback websocket listener 0.0.0.0:0 without auth"
WRONG: Final[dict[str, tuple[list[str], int, str]]] = {
    "an open door": (["--listen", "ws://0.0.0.0:0"], 1, NO_AUTH),
    "auth without a token": (
        ["--ws-auth", "capability-token"],
        1,
        "`--ws-token-file` or `--ws-token-sha256` is required when `--ws-auth capability-token`",
    ),
    "a token without auth": (
        ["--ws-token-file", "/dev/null"],
        1,
        "websocket auth flags require `--ws-auth capability-token` or",
    ),
    "an empty secret": (
        ["--ws-auth", "signed-bearer-token", "--ws-shared-secret-file", "HOME/empty"],
        1,
        "/empty must not be empty",
    ),
    "a host name": (["--listen", "ws://localhost:1"], 2, "expected `ws://IP:PORT`"),
    "another scheme": (["--listen", "http://127.0.0.1:1"], 2, "unsupported --listen URL"),
}


async def test_wrong_flags_are_told_in_the_native_words() -> None:
    got: dict[str, tuple[int, str]] = {}

    async def start(home: Home, name: str) -> None:
        flags = [each.replace("HOME", str(home.home)) for each in WRONG[name][0]]
        got[name] = await _refused(home, *flags)

    with private_home("http://127.0.0.1:1/v1") as home:
        (home.home / "empty").touch()
        async with trio.open_nursery() as nursery:
            for name in WRONG:
                nursery.start_soon(start, home, name)
    for name, (_, status, text) in WRONG.items():
        assert text in got[name][1], name
        assert got[name][0] == status, name


async def test_an_app_server_that_does_not_come_up_gives_its_status_and_last_words() -> None:
    with private_home("http://127.0.0.1:1/v1") as home:
        status, said = await _refused(home, "--listen", "ws://127.0.0.1:0", "--", "--no-such-flag")
    assert status == 2  # as the app-server exits
    last = said[said.index("Error: ") :]
    assert "exit status 2" in last
    assert "--no-such-flag" in last


def _bound_and_gone(path: Path) -> None:
    path.parent.mkdir(parents=True, mode=0o700)
    with closing(socket.socket(socket.AF_UNIX)) as gone:
        gone.bind(str(path))


async def test_a_stale_socket_is_replaced_and_a_file_is_not() -> None:
    with private_home("http://127.0.0.1:1/v1") as home:
        control = home.codex_home / "app-server-control" / "app-server-control.sock"
        _bound_and_gone(control)
        async with brokered(home=home) as broker:
            async with onlooker(broker) as peer:
                await app_server_pid(peer)
            # A second one finds a live listener, and leaves it alone.
            status, said = await _refused(home, "--state-dir", str(home.root / "other"))
            assert status == 1
            assert f"app-server control socket is already in use at {control}" in said
            async with client(broker, "still") as peer:
                assert await peer.request(LIST) == {"data": [], "nextCursor": None}
            broker.process.terminate()  # and it isn't killed before it has tidied up
            assert await _ended(broker) == 0
        assert not control.exists()
        control.write_text("mine")
        status, said = await _refused(home)
        assert status == 1
        assert f"app-server control socket path exists and is not a socket: {control}" in said
        assert control.read_text() == "mine"


# --- SIGHUP ---------------------------------------------------------------------------------------


async def _lets_in(broker: Native, token: str) -> bool:
    try:
        async with connect_ws(broker.url, token) as peer:
            await peer.initialize("somebody")
    except trio_websocket.ConnectionRejected as rejected:
        if rejected.status_code == UNAUTHORIZED:
            return False
        raise
    return True


async def test_the_token_file_is_read_again_on_sighup(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("the first\n")
    guarded = ("--ws-auth", "capability-token", "--ws-token-file", str(file))
    async with brokered(*guarded) as broker, connect_ws(broker.url, "the first") as inside:
        await inside.initialize("inside")
        assert not await _lets_in(broker, "the second")
        file.write_text("the second\n")
        assert await _lets_in(broker, "the first")  # not before it is told
        broker.process.send_signal(signal.SIGHUP)
        await broker.wait_log("secrets read again")
        assert not await _lets_in(broker, "the first")
        assert await _lets_in(broker, "the second")
        file.unlink()  # now it can't be read: what is known stays
        broker.process.send_signal(signal.SIGHUP)
        await broker.wait_log("secrets not read again")
        assert await _lets_in(broker, "the second")
        assert await inside.request(LIST) == {"data": [], "nextCursor": None}
        assert "the second" not in broker.shown()


async def test_a_pipe_in_the_place_of_the_token_holds_up_nobody(tmp_path: Path) -> None:
    """Neither at a start nor at a SIGHUP does anybody wait for the pipe's other end."""
    file = tmp_path / "token"
    file.write_text("the first\n")
    guarded = ("--ws-auth", "capability-token", "--ws-token-file", str(file))
    async with brokered(*guarded) as broker, connect_ws(broker.url, "the first") as inside:
        await inside.initialize("inside")
        file.unlink()
        os.mkfifo(file)
        broker.process.send_signal(signal.SIGHUP)
        await broker.wait_log("secrets not read again")
        assert "it is a pipe (FIFO), where a file belongs" in broker.shown()
        assert await inside.request(LIST) == {"data": [], "nextCursor": None}
        assert await _lets_in(broker, "the first")
        file.unlink()
        file.write_text("the second\n")
        broker.process.send_signal(signal.SIGHUP)
        await broker.wait_log("secrets read again")
        assert await _lets_in(broker, "the second")
        file.unlink()
        os.mkfifo(file)
        command = [sys.executable, "-m", "mux", "serve", "--listen", "ws://127.0.0.1:0", *guarded]
        with trio.fail_after(PATIENCE):
            done = await trio.run_process(
                command, env=broker.home.environ(), capture_stderr=True, check=False
            )
        assert done.returncode == 1
        assert f"secret {file}: it is a pipe" in done.stderr.decode()


async def test_a_file_server_that_hangs_holds_up_nobody(
    autojump_clock: trio.testing.MockClock,
) -> None:
    answers = threading.Event()
    told: list[tuple[str, dict[str, object]]] = []
    audit: Any = SimpleNamespace(record=lambda *given: told.append(given))
    nothing: Any = None

    def hanging() -> Callable[[], None]:
        answers.wait(PATIENCE)
        return lambda: told.append(("in force", {}))

    await Reload(nothing, None, audit).read_again("secrets", hanging)
    answers.set()
    why = {"what": "secrets", "why": "no answer within 10 s"}
    assert told == [("config/reload-failed", why)]


# --- The end --------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_drains(number: signal.Signals) -> None:
    async with brokered() as broker:
        big = broker.home.work / "big"
        big.write_bytes(b"x" * FILE_BYTES)
        read = {"id": "big", "method": "fs/readFile", "params": {"path": str(big)}}
        async with client(broker, "polite") as polite, framer(broker.url) as slow:
            pid = await app_server_pid(polite)
            await slow.initialize("slow")
            await slow.send_text(json.dumps(read))
            # Its answer is owed by now, most of it: the client hasn't read any.
            await eventually(lambda: '"slow"' in broker.shown(), "the slow one in the log")
            with trio.fail_after(PATIENCE):
                while (await _owed(polite)) < GREETINGS_BYTES:
                    await polite.request(LIST)
            broker.process.send_signal(number)
            await polite.wait_gone()
            assert _close_of(polite).code == GOING_AWAY
            assert "shutting down" in str(_close_of(polite).reason)
            await _refuses(broker.url)
            answer = await slow.answer()
            assert len(answer["result"]["dataBase64"]) > FILE_BYTES
            assert (await slow.closed()).code == GOING_AWAY
        assert await _ended(broker) == 0
        assert ended(pid)
        assert not broker.socket.exists()


async def _refuses(url: str) -> None:
    """Wait until nobody listens there: for a moment the kernel may still queue connections."""
    host, _, port = url.removeprefix("ws://").rpartition(":")
    with trio.fail_after(PATIENCE):
        while True:
            try:
                stream = await trio.open_tcp_stream(host, int(port))
            except OSError:
                return
            await stream.aclose()
            await trio.sleep(LOOK_SECONDS)


async def _owed(peer: Peer) -> int:
    clients = (await peer.request("mux/status"))["clients"]
    return sum(each["bytesOwed"] for each in clients if each["name"] == "slow")


async def test_a_second_signal_ends_at_once() -> None:
    async with brokered() as broker, framer(broker.url) as silent:
        await silent.initialize("silent")  # it will not answer the close frame
        async with onlooker(broker) as peer:
            pid = await app_server_pid(peer)
        broker.process.send_signal(signal.SIGTERM)
        await broker.wait_log("draining")
        broker.process.send_signal(signal.SIGTERM)
        assert await _ended(broker) == 0
        await broker.wait_log("ending at once")
        assert ended(pid)
        assert not broker.socket.exists()
