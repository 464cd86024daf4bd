"""A broker that speaks TLS, over the real app-server."""

from __future__ import annotations

import signal
import ssl
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from mux.demo.scripted_model import Say, Scripted
from tests import knocks
from tests.certificates import Issued, issue
from tests.end_to_end.brokered import brokered, client
from tests.end_to_end.native import Native, codex_bin
from tests.end_to_end.peer import PATIENCE, Peer, connect
from tests.end_to_end.scenes import DELTA, shared_thread

TEXT = "Hello over TLS. " * 2000


@asynccontextmanager
async def _serving(where: Path, *arguments: str, **options: object) -> AsyncIterator[Native]:
    """A broker that listens on `wss://` too, with the files in `where`."""
    files = ("--tls-cert", str(where / "server.pem"), "--tls-key", str(where / "server.key"))
    async with brokered("--listen", "wss://127.0.0.1:0", *files, *arguments, **options) as broker:  # type: ignore[arg-type]
        yield broker


async def _place(broker: Native) -> tuple[str, int]:
    found = await broker.wait_log(r"listening on: wss://([0-9.]+):([0-9]+)")
    return found[1], int(found[2])


@asynccontextmanager
async def _encrypted(
    broker: Native, context: ssl.SSLContext
) -> AsyncIterator[trio.SSLStream[trio.SocketStream]]:
    host, port = await _place(broker)
    async with await trio.open_tcp_stream(host, port) as bare:
        stream = trio.SSLStream(bare, context, server_hostname=host, https_compatible=True)
        with trio.fail_after(PATIENCE):
            await stream.do_handshake()
        yield stream


@asynccontextmanager
async def _client(broker: Native, issued: Issued, name: str) -> AsyncIterator[Peer]:
    async with (
        _encrypted(broker, issued.trusting()) as stream,
        connect(stream, "localhost", "/") as peer,
    ):
        await peer.initialize(name)
        yield peer


async def test_a_client_over_tls_sees_a_turn_as_others_do(tmp_path: Path) -> None:
    issued = issue(tmp_path)
    model = Scripted()
    model.on("say it", Say(TEXT, chunks=500))
    async with (
        _serving(tmp_path, model=model) as broker,
        client(broker, "desk") as desk,
        _client(broker, issued, "abroad") as abroad,
    ):
        thread = await shared_thread(broker, desk, abroad)
        marks = len(desk.inbox), len(abroad.inbox)
        await abroad.run_turn(thread, "say it")
        await desk.wait_method("turn/completed", since=marks[0], threadId=thread)
        texts = [
            "".join(each["params"]["delta"] for each in peer.heard(DELTA, since=since))
            for peer, since in zip((desk, abroad), marks, strict=True)
        ]
        assert texts == [TEXT, TEXT]
        report = await desk.request("mux/status")
        assert {each["name"]: each["transport"] for each in report["clients"]} == {
            "desk": "ws",
            "abroad": "wss",
        }
        assert any(each["url"].startswith("wss://127.0.0.1:") for each in report["listeners"])


async def test_http_is_answered_over_tls(tmp_path: Path) -> None:
    issued = issue(tmp_path)
    async with _serving(tmp_path) as broker:
        for path in ("/healthz", "/metrics"):
            async with _encrypted(broker, issued.trusting()) as stream:
                with trio.fail_after(PATIENCE):
                    await stream.send_all(knocks.local(f"GET {path}"))
                    said = b""
                    while piece := await stream.receive_some():
                        said += piece
            head, _, body = said.partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200 OK\r\n")
            assert f"content-length: {len(body)}\r\n".encode() in head


async def test_the_certificate_is_read_again_on_sighup(tmp_path: Path) -> None:
    first = issue(tmp_path)
    async with _serving(tmp_path) as broker, _client(broker, first, "old") as old:
        second = issue(tmp_path)
        async with _client(broker, first, "not before it is told"):
            pass
        broker.process.send_signal(signal.SIGHUP)
        await broker.wait_log("certificate read again")
        async with _client(broker, second, "new"):
            pass
        with pytest.raises(trio.BrokenResourceError):
            async with _client(broker, first, "one that knows the old one alone"):
                pass
        second.key.write_text("nonsense")  # what can't be used changes nothing
        broker.process.send_signal(signal.SIGHUP)
        await broker.wait_log("certificate not read again")
        async with _client(broker, second, "another"):
            pass
        assert await old.request("thread/loaded/list") == {"data": [], "nextCursor": None}


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--listen", "wss://127.0.0.1:0"], "without a certificate: give `--tls-cert`"),
        (
            ["--listen", "wss://127.0.0.1:0", "--tls-cert", "missing.pem", "--tls-key", "x"],
            "can't read the TLS certificate",
        ),
        (["--tls-cert", "missing.pem"], "`--tls-cert` needs `--tls-key`"),
        (["--listen", "wss://0.0.0.0:0"], "without auth"),
    ],
)
async def test_what_is_wrong_is_said_at_the_start(
    arguments: list[str], told: str, tmp_path: Path
) -> None:
    done = await trio.run_process(
        [sys.executable, "-m", "mux", "serve", *arguments, "--state-dir", str(tmp_path / "state")],
        check=False,
        capture_stderr=True,
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "APPMUX_CODEX_BIN": str(codex_bin())},
    )
    assert done.returncode == 1
    assert told in done.stderr.decode()
    assert "Traceback" not in done.stderr.decode()
