"""Uploads by the tus protocol to a real broker, which puts them into a thread's directory."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import shutil
import signal
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import h11
import httpx
import pytest
import trio
import tusclient.client

from tests.end_to_end.brokered import brokered, client
from tests.end_to_end.devices import DEVICES_ONLY, pair
from tests.end_to_end.native import Native
from tests.end_to_end.peer import PATIENCE, connect_unix
from tests.end_to_end.plays import AWARE
from tests.end_to_end.scenes import eventually

TUS: Final = {"Tus-Resumable": "1.0.0"}
OCTETS: Final = TUS | {"Content-Type": "application/offset+octet-stream"}
BODY: Final = os.urandom(300_000)


def read(path: Path | str) -> bytes:
    return Path(path).read_bytes()


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def state_of(broker: Native) -> Path:
    return broker.home.home / ".local" / "state" / "appmux"


def audited(broker: Native) -> str:
    return "".join(each.read_text() for each in state_of(broker).glob("audit/*.jsonl"))


def about(**values: str) -> str:
    return ",".join(f"{k} {base64.b64encode(v.encode()).decode()}" for k, v in values.items())


@asynccontextmanager
async def http(broker: Native, **headers: str) -> AsyncIterator[httpx.AsyncClient]:
    base = broker.url.replace("ws://", "http://")
    async with httpx.AsyncClient(base_url=base, headers=headers, timeout=PATIENCE) as web:
        yield web


async def begin(web: httpx.AsyncClient, length: int, **metadata: str) -> str:
    headers = TUS | {"Upload-Length": str(length), "Upload-Metadata": about(**metadata)}
    answer = await web.post("/v1/files", headers=headers)
    assert answer.status_code == 201, answer.text
    return answer.headers["location"]


async def go_on(web: httpx.AsyncClient, url: str, at: int, piece: bytes) -> httpx.Response:
    return await web.patch(url, headers=OCTETS | {"Upload-Offset": str(at)}, content=piece)


@pytest.fixture
async def broker() -> AsyncIterator[Native]:
    async with brokered() as running:
        yield running


async def test_a_file_comes_in_pieces_and_lies_in_the_threads_directory(broker: Native) -> None:
    async with client(broker, "desk", **AWARE) as desk, http(broker) as web:
        thread = await desk.start_thread(broker.home.work)
        digest = hashlib.sha256(BODY).hexdigest()
        url = await begin(
            web, len(BODY), filename="../screen.png", thread=thread, sha256=digest,
            filetype="image/png",
        )  # fmt: skip
        assert url.startswith("/v1/files/")
        answer = await go_on(web, url, 0, BODY[:100_000])
        assert (answer.status_code, answer.headers["upload-offset"]) == (204, "100000")
        assert "upload-expires" in answer.headers
        answer = await web.head(url, headers=TUS)
        assert answer.headers["upload-offset"] == "100000"
        assert answer.headers["upload-length"] == str(len(BODY))
        assert answer.headers["cache-control"] == "no-store"
        answer = await go_on(web, url, 90_000, b"x")
        assert answer.status_code == 409
        answer = await go_on(web, url, 100_000, BODY[100_000:])
        assert (answer.status_code, answer.headers["upload-offset"]) == (204, str(len(BODY)))
        told = await desk.wait_method("mux/files/added", threadId=thread)
        path = broker.home.work / "uploads" / "screen.png"
        assert told["params"]["path"] == str(path)
        assert read(path) == BODY
        assert mode(path) == 0o600
        assert read(path.parent / ".gitignore") == b"*\n"
        assert told["params"]["sha256"] == digest
        assert told["params"]["type"] == "image/png"
        assert (await web.get(url)).json()["path"] == str(path)
        await eventually(lambda: digest in audited(broker), "the audit log has it")


async def test_a_killed_broker_goes_on_where_it_was() -> None:
    async with brokered() as broker, http(broker) as web:
        url = await begin(web, len(BODY), filename="a.bin")
        await go_on(web, url, 0, BODY[:200_000])
        broker.process.send_signal(signal.SIGKILL)
        await broker.process.wait()
        home = broker.home
        async with brokered(home=home) as again, http(again) as more:
            at = int((await more.head(url, headers=TUS)).headers["upload-offset"])
            assert at == 200_000
            assert (await go_on(more, url, at, BODY[at:])).status_code == 204
            told = (await more.get(url)).json()
            assert read(told["path"]) == BODY
            assert told["sha256"] == hashlib.sha256(BODY).hexdigest()


async def test_checksums(broker: Native) -> None:
    async with http(broker) as web:
        url = await begin(web, 10, filename="a")
        right = base64.b64encode(hashlib.sha1(b"01234").digest()).decode()
        headers = OCTETS | {"Upload-Offset": "0"}
        wrong = await web.patch(
            url, headers=headers | {"Upload-Checksum": f"sha1 {right}"}, content=b"0123x"
        )
        assert wrong.status_code == 460
        assert (await web.head(url, headers=TUS)).headers["upload-offset"] == "0"
        for text in ("md5 AAAA", "sha1", "sha1 ???"):
            bad = await web.patch(url, headers=headers | {"Upload-Checksum": text}, content=b"0")
            assert bad.status_code == 400
        good = await web.patch(
            url, headers=headers | {"Upload-Checksum": f"sha1 {right}"}, content=b"01234"
        )
        assert good.status_code == 204
        url = await begin(web, 3, filename="b", sha256="0" * 64)
        assert (await go_on(web, url, 0, b"abc")).status_code == 460
        assert (await web.head(url, headers=TUS)).status_code == 404


async def test_whose_it_is_and_who_may() -> None:
    async with brokered(*DEVICES_ONLY) as broker:
        async with connect_unix(broker.socket) as operator:
            await operator.initialize("operator", **AWARE)
            drives = await pair(broker, operator, "drives", "observe", "drive")
            other = await pair(broker, operator, "other", "drive")
            sees = await pair(broker, operator, "sees", "observe", "approve")
        async with (
            http(broker, authorization=f"Bearer {drives}") as web,
            http(broker, authorization=f"Bearer {other}") as stranger,
            http(broker, authorization=f"Bearer {sees}") as watching,
            http(broker) as nobody,
        ):
            url = await begin(web, 5, filename="a")
            assert (await web.head(url, headers=TUS)).status_code == 200
            assert (await stranger.head(url, headers=TUS)).status_code == 404
            assert (await go_on(stranger, url, 0, b"12345")).status_code == 404
            headers = TUS | {"Upload-Length": "1"}
            assert (await watching.post("/v1/files", headers=headers)).status_code == 403
            assert (await nobody.post("/v1/files", headers=headers)).status_code == 401
            assert (await web.delete(url, headers=TUS)).status_code == 204
            assert (await web.head(url, headers=TUS)).status_code == 404


async def test_what_is_refused(broker: Native) -> None:
    async with http(broker) as web:
        assert (await web.post("/v1/files", headers={"Upload-Length": "1"})).status_code == 412
        assert (await web.post("/v1/files", headers=TUS)).status_code == 400
        huge = TUS | {"Upload-Length": str(2**40)}
        assert (await web.post("/v1/files", headers=huge)).status_code == 413
        bad = TUS | {"Upload-Length": "1", "Upload-Metadata": "filename ?"}
        assert (await web.post("/v1/files", headers=bad)).status_code == 400
        url = await begin(web, 5, filename="a")
        plain = TUS | {"Upload-Offset": "0", "Content-Type": "text/plain"}
        assert (await web.patch(url, headers=plain, content=b"1")).status_code == 415
        assert (await go_on(web, url, 0, b"123456")).status_code == 413
        assert (await web.get(url)).status_code == 409
        assert (await web.put(url, headers=TUS)).status_code == 405
        options = await web.options("/v1/files")
        assert options.headers["tus-extension"].split(",") == [
            "creation", "creation-with-upload", "checksum", "expiration", "termination",
        ]  # fmt: skip
        over = TUS | {"X-HTTP-Method-Override": "HEAD"}
        assert (await web.post(url, headers=over)).headers["upload-length"] == "5"


async def test_a_connection_that_breaks_loses_nothing_that_came(broker: Native) -> None:
    async with http(broker) as web:
        url = await begin(web, len(BODY), filename="a")
        stream = await trio.open_tcp_stream("127.0.0.1", int(broker.url.rpartition(":")[2]))
        peer = h11.Connection(h11.CLIENT)
        headers = [("Host", "x"), ("Content-Length", str(len(BODY))), ("Upload-Offset", "0")]
        request = h11.Request(method="PATCH", target=url, headers=[*headers, *OCTETS.items()])
        await stream.send_all(peer.send(request) or b"")
        await stream.send_all(BODY[:50_000])
        await stream.aclose()
        part = state_of(broker) / "uploads" / f"{url.rpartition('/')[2]}.part"
        await eventually(lambda: part.stat().st_size == 50_000, "what came is kept")
        assert (await web.head(url, headers=TUS)).headers["upload-offset"] == "50000"
        assert (await go_on(web, url, 50_000, BODY[50_000:])).status_code == 204


async def test_one_request_is_enough_for_a_small_file(broker: Native) -> None:
    async with http(broker) as web:
        headers = OCTETS | {"Upload-Length": "5", "Upload-Metadata": about(filename="n.txt")}
        answer = await web.post("/v1/files", headers=headers, content=b"hello")
        assert (answer.status_code, answer.headers["upload-offset"]) == (201, "5")
        told = (await web.get(answer.headers["location"])).json()
        assert read(told["path"]) == b"hello"
        assert Path(told["path"]).is_relative_to(state_of(broker) / "files")
        empty = await web.post("/v1/files", headers=TUS | {"Upload-Length": "0"})
        assert (empty.status_code, empty.headers["upload-offset"]) == (201, "0")
        assert json.loads((await web.get(empty.headers["location"])).text)["name"] == "upload"


async def test_a_picture_by_novascale_s_way_is_as_before(broker: Native) -> None:
    """In base64, in one message: its frame may have 16 MiB."""
    body = os.urandom(11 * 1024 * 1024)
    async with client(broker, "phone") as phone, http(broker) as web:
        path = broker.home.work / "photo.jpg"
        text = base64.b64encode(body).decode()
        await phone.request("fs/writeFile", {"path": str(path), "dataBase64": text})
        assert read(path) == body
        again = await phone.request("fs/readFile", {"path": str(path)})
        assert base64.b64decode(again["dataBase64"]) == body
        await begin(web, 1, filename="a")  # beside the new way


# --- Other people's clients -----------------------------------------------------------------------


async def test_tus_js_client_goes_on_where_it_was(broker: Native, tmp_path: Path) -> None:
    program = Path(__file__).parents[1] / "tus" / "upload.js"
    node = shutil.which("node")
    if node is None or not (program.parent / "node_modules").is_dir():
        pytest.skip("npm could not install tus-js-client, or there is no node: `make newest`")
    file = tmp_path / "from the phone.bin"
    file.write_bytes(BODY)
    async with client(broker, "desk", **AWARE) as desk:
        thread = await desk.start_thread(broker.home.work)
        endpoint = broker.url.replace("ws://", "http://") + "/v1/files"
        said = []
        for pause in (128 * 1024, len(BODY) + 1):
            command = [node, str(program), endpoint, str(file), thread, "", str(pause)]
            with trio.fail_after(PATIENCE):
                done = await trio.run_process(
                    command, capture_stdout=True, capture_stderr=True, check=False
                )
            said.append(done.stdout.decode())
            assert done.returncode == (3 if pause < len(BODY) else 0), done.stderr.decode()
        assert said[0].startswith("paused at 131072")
        assert said[1].startswith("resumes")
        await desk.wait_method("mux/files/added", threadId=thread, bytes=len(BODY))
    assert read(broker.home.work / "uploads" / "from the phone.bin") == BODY


def test_tuspy_in_pieces() -> None:
    """tuspy blocks, so it runs in a thread of its own."""
    trio.run(_by_tuspy)


async def _by_tuspy() -> None:
    async with brokered() as broker:
        base = broker.url.replace("ws://", "http://") + "/v1/files"

        def upload() -> str:
            tus: Any = tusclient.client.TusClient(base)
            metadata = {"filename": "by tuspy"}
            sending = tus.uploader(
                file_stream=io.BytesIO(BODY), chunk_size=100_000, metadata=metadata,
                upload_checksum=True,
            )  # fmt: skip
            sending.upload_chunk()
            again = tus.uploader(file_stream=io.BytesIO(BODY), url=sending.url, chunk_size=100_000)
            assert again.get_offset() == 100_000
            again.upload()
            return str(sending.url)

        url = await trio.to_thread.run_sync(upload)
        async with http(broker) as web:
            told = (await web.get(httpx.URL(url).path)).json()
        assert told["name"] == "by tuspy"
        assert read(told["path"]) == BODY
