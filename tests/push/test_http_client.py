"""Calling the services: who may be called, and every way in which a call can fail."""

from __future__ import annotations

import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpcore
import pytest
import trio

from mux.config import model
from mux.push import http_client as web_module
from mux.push.endpoints import Endpoint
from mux.push.http_client import ANSWER_BYTES, Unreachable, Web, open_web
from mux.push.message import PushError
from mux.push.outcome import Delivered, Retry
from mux.push.services.registry import open_services
from tests.certificates import issue
from tests.push.stand import Heard, Said, standing
from tests.push.told import NOW, endpoint, push

Behaving = Callable[[trio.SocketStream], Awaitable[None]]


@asynccontextmanager
async def opened(
    timeout: float = 10.0, private_hosts: tuple[str, ...] = (), ca: Path | None = None
) -> AsyncIterator[Web]:
    web = open_web(timeout, private_hosts, ca)
    yield web
    await web.aclose()


@asynccontextmanager
async def behaving(behave: Behaving) -> AsyncIterator[str]:
    """A TCP server whose connections behave so, after the head of a request; its URL."""

    async def handle(stream: trio.SocketStream) -> None:
        try:
            async with stream:
                read = b""
                while b"\r\n\r\n" not in read:
                    if not (part := await stream.receive_some()):
                        return
                    read += part
                await behave(stream)
        except trio.BrokenResourceError:
            pass

    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        port = listener.socket.getsockname()[1]
        nursery.start_soon(trio.serve_listeners, handle, [listener])
        yield f"http://127.0.0.1:{port}"
        nursery.cancel_scope.cancel()


async def fails(web: Web, url: str, *, guarded: bool = False) -> str:
    with pytest.raises(Unreachable) as caught:
        await web.send(url, headers={}, content=b"x", guarded=guarded)
    return str(caught.value)


# -- faults ----------------------------------------------------------------------------------------


async def test_refused() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
        async with opened() as web:
            assert "refused" in await fails(web, url)


async def test_slow() -> None:
    async def say_nothing(_stream: trio.SocketStream) -> None:
        await trio.sleep_forever()

    async with opened(timeout=0.2) as web, behaving(say_nothing) as url:
        assert await fails(web, url) == "no answer in 0.2 s"


async def test_dripping() -> None:
    """Something comes all the time, but never an end."""

    async def drip(stream: trio.SocketStream) -> None:
        await stream.send_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        while True:
            await stream.send_all(b"1\r\nx\r\n")
            await trio.sleep(0.01)

    async with opened(timeout=0.3) as web, behaving(drip) as url:
        assert await fails(web, url) == "no answer in 0.3 s"


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nonly this",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nab",
        b"SSH-2.0-OpenSSH_9.9\r\n",
    ],
)
async def test_cut_mid_stream_or_no_http(said: bytes) -> None:
    async with opened() as web, behaving(lambda stream: stream.send_all(said)) as url:
        assert await fails(web, url)
        outcome = await _deliver(Path(), url)
        assert isinstance(outcome, Retry)


async def _deliver(state_dir: Path, url: str) -> Any:
    address = {"server": url, "topic": "larder-secret"}
    services = open_services(model.Push(), state_dir)
    outcome = await services.deliver(Endpoint("x", "host", "ntfy", address, "full", 0), push(), NOW)
    await services.web.aclose()
    return outcome


@pytest.mark.filterwarnings("ignore:Async generator")  # httpcore's, of which the rest isn't read
async def test_an_answer_without_end_is_read_to_a_point() -> None:
    async def flood(stream: trio.SocketStream) -> None:
        await stream.send_all(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            await stream.send_all(b"x" * 65536)

    async with opened() as web, behaving(flood) as url:
        answer = await web.send(url, headers={}, content=b"")
        assert len(answer.body) == ANSWER_BYTES


async def test_a_wrong_certificate(tmp_path: Path) -> None:
    issued, other = issue(tmp_path), issue(tmp_path, name="other")
    ca = tmp_path / "ca.pem"
    other.authority.cert_pem.write_to_path(str(ca))
    async with standing(issued) as stand, opened(ca=ca) as web:
        assert "its certificate isn't good: " in await fails(web, stand.url)
        assert not stand.heard


async def test_a_certificate_for_another_name(tmp_path: Path) -> None:
    issued = issue(tmp_path)
    ca = tmp_path / "ca.pem"
    issued.authority.cert_pem.write_to_path(str(ca))
    async with standing(issued) as stand, opened(ca=ca) as web:
        url = stand.url.replace("localhost", "ip6-localhost.localhost")
        assert await fails(web, url)
        assert not stand.heard
        assert (await web.send(stand.url, headers={}, content=b"")).status == 200


async def test_an_http2_connection_that_dies_is_replaced(tmp_path: Path) -> None:
    issued = issue(tmp_path)
    ca = tmp_path / "ca.pem"
    issued.authority.cert_pem.write_to_path(str(ca))
    async with opened(ca=ca) as web:
        async with standing(issued) as stand:
            assert (await web.send(stand.url, headers={}, content=b"")).status == 200
        assert await fails(web, stand.url)
        async with standing(issued) as again:
            assert (await web.send(again.url, headers={}, content=b"")).status == 200
            assert again.heard[0].http == "2"


async def test_an_http2_connection_that_says_nothing_is_not_used_again(tmp_path: Path) -> None:
    issued = issue(tmp_path)
    ca = tmp_path / "ca.pem"
    issued.authority.cert_pem.write_to_path(str(ca))
    async with standing(issued) as stand, opened(timeout=60.0, ca=ca) as web:
        assert (await web.send(stand.url, headers={}, content=b"")).status == 200
        stand.otherwise = _never
        patience = web._own.timeout
        assert (patience.read or web.timeout) < web.timeout, "httpcore is the one that notices"
        web._own.timeout = 0.5
        assert await fails(web, stand.url) == "no answer in 60 s"
        web._own.timeout = patience
        transport = web._own._transport
        assert isinstance(transport, web_module._Transport)
        stand.otherwise = lambda _heard: Said()
        assert (await web.send(stand.url, headers={}, content=b"")).status == 200
        assert len(transport.pool.connections) == 2, "it was sent by another one"


async def _never(_heard: Heard) -> Said:
    await trio.sleep_forever()
    raise AssertionError


def test_an_authority_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("hunter2")
    for name in ("ca.pem", "none.pem"):
        with pytest.raises(PushError, match=r"push\.ca_file .*\.pem can't be used") as caught:
            open_web(1, (), tmp_path / name)
        assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("url", ["hooks.example/x", "htps://x", "http://[::1", "", "/x"])
async def test_an_address_of_the_settings_that_is_no_url(url: str) -> None:
    async with opened() as web:
        with pytest.raises(PushError, match="isn't a URL"):
            await web.send(url, headers={}, content=b"")


# -- whom a device may have called -----------------------------------------------------------------


@pytest.mark.parametrize(
    "resolved",
    [
        ["127.0.0.1"],
        ["10.1.2.3", "192.168.0.1", "172.16.0.1", "169.254.169.254", "100.64.0.1", "0.0.0.0"],
        ["::1", "fe80::1%eth0", "fd00::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::"],
        ["224.0.0.1", "255.255.255.255", "ff02::1"],
        ["64:ff9b:1::7f00:1", "::ffff:8.8.8.8", "fec0::1", "2606:4700::5efe:7f00:1"],
    ],
)
async def test_a_name_that_leads_home_is_not_called(
    monkeypatch: pytest.MonkeyPatch, resolved: list[str]
) -> None:
    async with standing() as stand, opened() as web:
        port = int(stand.url.rpartition(":")[2])
        _resolve(monkeypatch, resolved, port)
        url = f"http://rebound.example:{port}/"
        assert await fails(web, url, guarded=True) == "its name leads to no public address"
        assert not stand.heard


async def test_the_connection_goes_to_the_address_that_was_judged(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A name server that answers differently the second time gains nothing."""
    async with standing() as stand, opened() as web:
        port = int(stand.url.rpartition(":")[2])
        asked = _resolve(monkeypatch, ["93.184.215.14"], port, then=["127.0.0.1"])
        called: list[str] = []

        async def connect_tcp(_backend: Any, host: str, *_more: Any, **_named: Any) -> Any:
            called.append(host)
            raise httpcore.ConnectError("nobody there")

        monkeypatch.setattr(httpcore.TrioBackend, "connect_tcp", connect_tcp)
        assert await fails(web, f"http://rebound.example:{port}/", guarded=True) == "nobody there"
        assert called == ["93.184.215.14"]
        assert asked == ["rebound.example"]


def _resolve(
    monkeypatch: pytest.MonkeyPatch, first: list[str], port: int, then: list[str] | None = None
) -> list[str]:
    asked: list[str] = []

    async def getaddrinfo(host: str, *_more: Any, **_named: Any) -> Any:
        asked.append(str(host))
        found = first if len(asked) == 1 or then is None else then
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, port)) for each in found]

    monkeypatch.setattr(trio.socket, "getaddrinfo", getaddrinfo)
    return asked


async def test_a_host_that_the_settings_name_is_called_wherever_it_is() -> None:
    async with standing() as stand:
        host, _, port = stand.url.removeprefix("http://").partition(":")
        for allowed in (host, f"{host}:{port}"):
            async with opened(private_hosts=(allowed,)) as web:
                answer = await web.send(stand.url, headers={}, content=b"", guarded=True)
                assert answer.status == 200
        async with opened(private_hosts=(f"{host}:1",)) as web:
            assert await fails(web, stand.url, guarded=True)


async def test_a_redirect_is_not_followed() -> None:
    async with standing() as stand, opened(private_hosts=("127.0.0.1",)) as web:
        stand.answers = [Said(307, headers={"location": f"{stand.url}/inside"})]
        answer = await web.send(stand.url, headers={}, content=b"", guarded=True)
        assert answer.status == 307
        assert len(stand.heard) == 1


async def test_a_proxy_in_the_environment_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    async with standing() as stand, opened() as web:
        assert (await web.send(stand.url, headers={}, content=b"")).status == 200


# -- secrets ---------------------------------------------------------------------------------------


async def test_nothing_secret_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Also if a library's log level is lowered for all."""
    caplog.set_level(logging.DEBUG)
    async with standing() as stand, opened() as web:
        headers = {"authorization": "Bearer hunter2"}
        await web.send(f"{stand.url}/hunter2", headers=headers, content=b"hunter2")
    assert "hunter2" not in caplog.text


async def test_a_key_that_http_cannot_carry_is_not_told(tmp_path: Path) -> None:
    async with standing() as stand:
        token = tmp_path / "token"
        token.write_text("hunter2\r\nx: y")
        token.chmod(0o600)
        settings = model.Push(
            ntfy=model.Ntfy(server=stand.url, topic="t", token_file=token),
        )
        services = open_services(settings, tmp_path)
        there = endpoint("ntfy", device="host", server=stand.url, topic="larder")
        outcome = await services.deliver(there, push(), NOW)
        assert not isinstance(outcome, Delivered)
        assert "hunter2" not in str(outcome)
        assert "line end" in str(outcome)
        await services.web.aclose()
