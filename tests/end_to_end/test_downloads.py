"""A thread's files, fetched by URLs that are good once."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import trio

from mux.demo.scripted_model import Scripted
from mux.demo.scripted_steps import Patch, Say
from tests.end_to_end.brokered import brokered, client
from tests.end_to_end.devices import DEVICES_ONLY, operator_of, pair
from tests.end_to_end.native import Native
from tests.end_to_end.peer import Peer, RpcError, connect_ws
from tests.end_to_end.plays import AWARE
from tests.end_to_end.scenes import ACCEPT, TURN_COMPLETED
from tests.end_to_end.test_uploads import OCTETS, TUS, about, begin, http

BODY = os.urandom(700_000)
PATCH = Patch("*** Begin Patch\n*** Add File: made.txt\n+made by the agent\n*** End Patch")


@pytest.fixture
async def broker() -> AsyncIterator[Native]:
    async with brokered() as running:
        yield running


async def _uploaded(broker: Native, thread: str, name: str, body: bytes = BODY) -> str:
    async with http(broker) as web:
        headers = TUS | {
            "Upload-Length": str(len(body)),
            "Upload-Metadata": about(filename=name, thread=thread),
            "Content-Type": "application/offset+octet-stream",
        }
        answer = await web.post("/v1/files", headers=headers, content=body)
        assert answer.status_code == 201
        return str((await web.get(answer.headers["location"])).json()["path"])


async def _opened(desk: Peer, thread: str, path: str) -> str:
    opened = await desk.request("mux/files/open", {"threadId": thread, "path": path})
    return str(opened["url"])


async def test_a_file_is_fetched_whole_in_parts_and_once(broker: Native) -> None:
    async with client(broker, "desk", **AWARE) as desk, http(broker) as web:
        thread = await desk.start_thread(broker.home.work)
        path = await _uploaded(broker, thread, "a.bin")
        url = await _opened(desk, thread, path)
        head = await web.head(url)
        tag = head.headers["etag"]
        assert head.headers["content-length"] == str(len(BODY))
        assert head.headers["content-disposition"].startswith("attachment")
        assert "sandbox" in head.headers["content-security-policy"]
        part = await web.get(url, headers={"Range": "bytes=100-199", "If-Range": tag})
        assert (part.status_code, part.content) == (206, BODY[100:200])
        assert part.headers["content-range"] == f"bytes 100-199/{len(BODY)}"
        assert (await web.get(url, headers={"If-None-Match": tag})).status_code == 304
        assert (await web.get(url, headers={"Range": "bytes=900000-"})).status_code == 416
        whole = await web.get(url)
        assert whole.content == BODY
        assert (await web.get(url)).status_code == 404


async def test_a_picture_is_shown_and_a_page_is_not(broker: Native) -> None:
    async with client(broker, "desk", **AWARE) as desk, http(broker) as web:
        thread = await desk.start_thread(broker.home.work)
        for name, how in (("a.png", "inline"), ("a.svg", "attachment"), ("a.html", "attachment")):
            path = await _uploaded(broker, thread, name, b"<script>1</script>")
            answer = await web.get(await _opened(desk, thread, path))
            assert answer.headers["content-disposition"].startswith(how)


async def test_a_file_that_changes_meanwhile_is_noticed(broker: Native) -> None:
    async with client(broker, "desk", **AWARE) as desk, http(broker) as web:
        thread = await desk.start_thread(broker.home.work)
        path = await _uploaded(broker, thread, "a.bin")
        url = await _opened(desk, thread, path)
        await trio.Path(path).write_bytes(b"shorter")
        with pytest.raises(httpx.RemoteProtocolError):
            await web.get(url)


async def test_a_file_that_changes_while_it_is_sent_breaks_off(broker: Native) -> None:
    large = 64 * 1024 * 1024  # more than the sockets hold, so that it is still being sent
    async with client(broker, "desk", **AWARE) as desk, http(broker) as web:
        thread = await desk.start_thread(broker.home.work)
        path = broker.home.work / "large.bin"
        _fill(path, large)
        url = await _opened(desk, thread, str(path))
        came: list[int] = []

        async def fetch() -> None:
            async with web.stream("GET", url) as answer:
                assert answer.headers["content-length"] == str(large)
                async for piece in answer.aiter_raw():
                    if not came:
                        _touch(path)
                    came.append(len(piece))

        with pytest.raises(httpx.RemoteProtocolError):
            await fetch()
        assert 0 < sum(came) < large


def _fill(path: Path, size: int) -> None:
    with path.open("wb") as file:
        file.truncate(size)


def _touch(path: Path) -> None:
    """Change a byte, and set the clock of that back: nobody sees it by the time of change."""
    before = path.stat()
    with path.open("r+b") as file:
        file.write(b"x")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


async def test_a_url_and_an_upload_end_with_their_device() -> None:
    async with brokered(*DEVICES_ONLY) as broker, operator_of(broker) as operator:
        await operator.initialize("operator", **AWARE)
        thread = await operator.start_thread(broker.home.work)
        token = await pair(broker, operator, "phone", "observe", "drive", "admin")
        async with (
            connect_ws(broker.url, token) as phone,
            http(broker, authorization=f"Bearer {token}") as web,
        ):
            await phone.initialize("phone")
            path = broker.home.work / "a.txt"
            path.write_text("hello")
            opened = await _opened(phone, thread, str(path))
            again = await _opened(phone, thread, str(path))
            assert (await web.get(opened)).text == "hello"
            begun = await begin(web, len(BODY), filename="b.bin")
            sent = trio.Event()

            async def body() -> AsyncIterator[bytes]:
                yield BODY[:300_000]
                sent.set()
                await revoked.wait()
                yield BODY[300_000:]

            revoked = trio.Event()
            async with trio.open_nursery() as nursery:

                async def bring() -> None:
                    headers = OCTETS | {"Upload-Offset": "0", "Content-Length": str(len(BODY))}
                    answer = await web.patch(begun, headers=headers, content=body())
                    assert answer.status_code == 401, answer.text

                nursery.start_soon(bring)
                await sent.wait()
                await operator.request("mux/devices/revoke", {"name": "phone"})
                revoked.set()
            assert (await web.get(again)).status_code == 404


async def test_what_a_link_leads_to_is_not_let_out(broker: Native) -> None:
    async with client(broker, "desk", **AWARE) as desk:
        thread = await desk.start_thread(broker.home.work)
        path = Path(await _uploaded(broker, thread, "a.bin"))
        _swap(path, Path("/etc/passwd"))
        with pytest.raises(RpcError, match="can't be opened"):
            await _opened(desk, thread, str(path))


def _swap(path: Path, target: Path) -> None:
    path.unlink()
    path.symlink_to(target)


async def test_by_scope() -> None:
    model = Scripted()
    model.on("write it", PATCH, Say("done"))
    async with (
        brokered(*DEVICES_ONLY, model=model) as broker,
        operator_of(broker) as operator,
    ):
        await operator.initialize("operator", **AWARE)
        token = await pair(broker, operator, "guest", "observe")
        thread = await operator.start_thread(broker.home.work)
        await operator.start_turn(thread, "write it")
        asked = await operator.wait_method("item/fileChange/requestApproval", threadId=thread)
        await operator.respond(asked["id"], ACCEPT)
        await operator.wait_method(TURN_COMPLETED, threadId=thread)
        made = str(broker.home.work / "made.txt")
        async with connect_ws(broker.url, token) as guest, http(broker) as web:
            await guest.initialize("guest")
            listed = await guest.request("mux/files/list", {"threadId": thread})
            assert [(each["path"], each["how"]) for each in listed["files"]] == [(made, "created")]
            url = await _opened(guest, thread, "made.txt")
            assert (await web.get(url)).text == "made by the agent\n"
            with pytest.raises(RpcError) as refused:
                await _opened(guest, thread, str(broker.home.codex_home / "config.toml"))
            assert refused.value.code == -32003
