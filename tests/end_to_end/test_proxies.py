"""The recipes of `docs/proxy.md`, played with the real programs: page, turn, upload, long idle."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Final

import httpx
import pytest
import trio
from playwright.sync_api import BrowserContext

from mux.downstream.http.routes import PASSED_ON
from tests import knocks
from tests.end_to_end.brokered import brokered
from tests.end_to_end.chromium import chromium, in_chromium
from tests.end_to_end.devices import DEVICES_ONLY, operator_of
from tests.end_to_end.native import Native
from tests.end_to_end.peer import PATIENCE, Peer, connect, connect_unix, connect_ws
from tests.end_to_end.proxied import PROXIES, Proxy, listens, running, sshd
from tests.end_to_end.test_browser import OWN_PAGE, let_in, pairing, saying_yes
from tests.ports import kept_port

ELSEWHERE: Final = "127.0.0.5"
"""The address that a client comes from: not the proxy's."""

IDLE_SECONDS: Final = 65.0
"""Longer than what is usual for a proxy to leave an idle connection alone: a minute."""

FILE: Final = os.urandom(24 * 2**20)
"""More than nginx takes by default (1 MiB), and than any of these keeps in memory."""

FIRST: Final = 8 * 2**20
"""Bytes of its first piece."""

TUS: Final = {"Tus-Resumable": "1.0.0"}
OCTETS: Final = TUS | {"Content-Type": "application/offset+octet-stream"}

SPOOFED: Final = ("X-Forwarded-For", "6.6.6.6")


@asynccontextmanager
async def behind(name: str, where: Path) -> AsyncIterator[tuple[Native, Proxy, Peer, str]]:
    """A broker behind a proxy, the broker's operator, and a device's token."""
    with kept_port() as port:
        environ = OWN_PAGE | {
            "APPMUX_WEB_ORIGINS": f"https://localhost:{port}",
            "APPMUX_WEB_TRUSTED_PROXIES": "127.0.0.1,::1",
        }
        async with (
            brokered(*DEVICES_ONLY, environ=environ) as broker,
            PROXIES[name](broker, port, where) as proxy,
            operator_of(broker) as operator,
        ):
            wanted = {"scopes": ["observe", "approve", "drive"], "name": "laptop"}
            token = (await operator.request("mux/devices/add", wanted))["token"]
            yield broker, proxy, operator, token


@asynccontextmanager
async def attached(proxy: Proxy, token: str) -> AsyncIterator[Peer]:
    """A device's program that comes by the proxy, and says that it is somebody else."""
    stream = await proxy.connect(ELSEWHERE)
    headers = [("Authorization", f"Bearer {token}"), SPOOFED]
    async with connect(stream, f"localhost:{proxy.port}", "/", headers) as peer:
        await peer.initialize("laptop")
        yield peer


@pytest.mark.parametrize("name", PROXIES)
async def test_page_turn_and_addresses(name: str, tmp_path: Path) -> None:
    chromium()
    async with behind(name, tmp_path) as (broker, proxy, operator, token):
        async with saying_yes(operator):
            ticket = pairing(operator)

            def story(context: BrowserContext) -> None:
                let_in(context, proxy.origin, ticket()).reload()

            await in_chromium(story, "--ignore-certificate-errors")
        async with attached(proxy, token) as laptop:
            thread = await laptop.start_thread(broker.home.work)
            await laptop.run_turn(thread, "hello")
            report = await operator.request("mux/status")
            (seen,) = [each for each in report["clients"] if each["name"] == "laptop"]
            assert seen["peer"] == ELSEWHERE
            assert seen["transport"] == "wss by proxy 127.0.0.1"
        listed = (await operator.request("mux/devices/list"))["devices"]
        seen_from = {each["name"]: each["address"] for each in listed}
        assert seen_from["laptop"] == ELSEWHERE
        # Failures are counted by who comes, and nobody becomes somebody else by saying so.
        async with await proxy.connect(ELSEWHERE) as stream:
            sent = proxy.request("GET /", *knocks.UPGRADE, ": ".join(SPOOFED))
            assert (await knocks.ask(stream, sent)).status == 401
        report = await operator.request("mux/status")
        assert report["failedAuthentications"]["addresses"] == {ELSEWHERE: 1}


@pytest.mark.parametrize("name", PROXIES)
async def test_an_upload_passes_whole_and_goes_on_where_it_broke_off(
    name: str, tmp_path: Path
) -> None:
    async with behind(name, tmp_path) as (_, proxy, _, token):
        bearer = {"Authorization": f"Bearer {token}"}
        async with httpx.AsyncClient(
            base_url=proxy.origin, verify=proxy.trusting(), headers=bearer, timeout=PATIENCE
        ) as web:
            name64 = base64.b64encode(b"film.bin").decode()
            head = TUS | {"Upload-Length": str(len(FILE)), "Upload-Metadata": f"filename {name64}"}
            begun = await web.post("/v1/files", headers=head)
            assert begun.status_code == 201, begun.text
            url = begun.headers["location"]
            await break_off(proxy, url, token, FILE[:FIRST])

            async def here() -> int:
                return int((await web.head(url, headers=TUS)).headers["upload-offset"])

            # What came before the break is kept: the proxy has passed it on as it came.
            offset = await here()
            assert 0 < offset <= FIRST
            for piece in (FILE[offset : offset + FIRST], FILE[offset + FIRST :]):
                done = await web.patch(
                    url, headers=OCTETS | {"Upload-Offset": str(await here())}, content=piece
                )
                assert done.status_code == 204, done.text
            told = (await web.get(url)).json()
            assert (told["bytes"], told["sha256"]) == (len(FILE), hashlib.sha256(FILE).hexdigest())


async def break_off(proxy: Proxy, url: str, token: str, piece: bytes) -> None:
    """Send a piece that isn't whole, wait until the broker has some of it, and leave."""
    lines = [f"PATCH {url} HTTP/1.1", f"host: localhost:{proxy.port}",
             f"authorization: Bearer {token}", "upload-offset: 0", "tus-resumable: 1.0.0",
             "content-type: application/offset+octet-stream",
             f"content-length: {len(FILE)}", "", ""]  # fmt: skip
    stream = await proxy.connect()
    await stream.send_all("\r\n".join(lines).encode() + piece)
    await trio.aclose_forcefully(stream.transport_stream)


async def test_what_is_idle_for_over_a_minute_goes_on(tmp_path: Path) -> None:
    """Of all proxies at once: the time is what it takes."""
    async with AsyncExitStack() as stack:
        idle = []
        for name in PROXIES:
            (tmp_path / name).mkdir()
            try:
                _, proxy, _, token = await stack.enter_async_context(behind(name, tmp_path / name))
            except pytest.skip.Exception:
                continue
            idle.append((name, await stack.enter_async_context(attached(proxy, token))))
        if not idle:
            pytest.skip("none of these is installed: " + ", ".join(PROXIES))
        await trio.sleep(IDLE_SECONDS)
        for name, peer in idle:
            assert await peer.request("thread/loaded/list"), name


async def test_before_an_open_listener_nobody_gets_in_by_a_proxy(tmp_path: Path) -> None:
    met = 0
    async with brokered() as broker:
        for name, start in PROXIES.items():
            (tmp_path / name).mkdir()
            with kept_port() as port:
                try:
                    async with start(broker, port, tmp_path / name) as proxy:
                        met += 1
                        for line in ("GET /", "GET /healthz"):
                            sent = proxy.request(line, *knocks.UPGRADE)
                            async with await proxy.connect() as stream:
                                reply = await knocks.ask(stream, sent)
                            assert (reply.status, reply.body) == (403, PASSED_ON), name
                except pytest.skip.Exception:
                    continue
    if not met:
        pytest.skip("none of these is installed: " + ", ".join(PROXIES))


# -- SSH -------------------------------------------------------------------------------------------


async def test_the_socket_by_ssh(tmp_path: Path) -> None:
    near = tmp_path / "near.sock"
    async with brokered(*DEVICES_ONLY) as broker, sshd(tmp_path) as server:
        command = server.command(
            "appmux.sock",
            ("/tmp/appmux.sock", str(near)),
            ("/home/YOU/.codex/app-server-control/app-server-control.sock", str(broker.socket)),
        )
        async with running(command, near.exists), connect_unix(near) as peer:
            await peer.initialize("far")
            thread = await peer.start_thread(broker.home.work)
            await peer.run_turn(thread, "hello")
            (seen,) = (await peer.request("mux/status"))["clients"]
            assert (seen["transport"], seen["principalKind"]) == ("unix", "local-user")


async def test_a_port_by_ssh(tmp_path: Path) -> None:
    """The page opens at the near end, and programs come with their token; none is `local`."""
    chromium()
    async with (
        brokered(*DEVICES_ONLY, environ=OWN_PAGE) as broker,
        operator_of(broker) as operator,
        sshd(tmp_path) as server,
        saying_yes(operator),
    ):
        token = await operator.request("mux/devices/add", {"scopes": ["drive", "observe"]})
        with kept_port() as port:
            far = broker.url.removeprefix("ws://")
            pairs = ("14500:127.0.0.1:14500", f"127.0.0.1:{port}:{far}")
            async with running(server.command("14500", pairs), listens(port)):
                ticket = pairing(operator)

                def story(context: BrowserContext) -> None:
                    let_in(context, f"http://127.0.0.1:{port}", ticket())

                await in_chromium(story)
                async with connect_ws(f"ws://127.0.0.1:{port}", token["token"]) as peer:
                    await peer.initialize("far")
                    thread = await peer.start_thread(broker.home.work)
                    await peer.run_turn(thread, "hello")
