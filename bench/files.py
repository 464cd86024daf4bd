"""A file of a gibibyte, up and down by curl: to nginx, which only keeps it, and to the broker.

nginx (``dav_methods PUT``) writes what comes to a file, and gives that its name: no digest, no
offsets, nobody beside it. The same disk holds both. What the broker holds in memory meanwhile, and
what a neighbour notices of an upload at a pace, is measured beside; and how much is sent twice
where the broker is killed ten times.

Hands to: `report`, the figures. Hears from: `load.upload`, `load.paced`, curl, nginx.
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import socket
from base64 import b64encode
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Final

import attrs
import trio

from bench.asking import CHEAP
from bench.fairness import ALONE, PAUSE
from bench.figures import Figure, Plan, alternately, at_least, at_most
from bench.sides import (
    MIB,
    PATIENCE,
    TOKEN,
    Driver,
    Server,
    broker,
    loading,
    peak_bytes,
    peak_forgotten,
)
from tests.end_to_end.native import private_home
from tests.ports import kept_port

LEAST: Final = 0.5
MOST_MEMORY: Final = 16.0
MOST_SLOWER: Final = 1.5

PLAIN: Final = "nginx"
BROKER: Final = "broker"
KILLS: Final = 10
CHUNK: Final = 4 * MIB

GIB: Final = 1024 * MIB
KILLED: Final = (
    ("without checksums", 0, 1.1),
    ("with checksums of 4 MiB", CHUNK, 1 + KILLS * CHUNK / GIB),
)
"""Bytes with one checksum, and what may be sent. What is in the sockets at a kill is lost: a few
megabytes over loopback."""

BESIDE: Final = "beside an upload"
UPLOAD_RATE: Final = 50_000_000
"""Bytes a second: a gigabit's half."""

BEGIN: Final = f"Authorization: Bearer {TOKEN}", "Tus-Resumable: 1.0.0"
GO_ON: Final = *BEGIN, "Upload-Offset: 0", "Content-Type: application/offset+octet-stream"

TELL: Final = "--silent", "--show-error", "--write-out", "%{json}"

NGINX: Final = """
daemon off; master_process off; worker_processes 1; pid {place}/pid;
error_log stderr error;
events {{}}
http {{
  access_log off; sendfile on; client_max_body_size 0;
  client_body_temp_path {place}/body; proxy_temp_path {place}/p; fastcgi_temp_path {place}/f;
  uwsgi_temp_path {place}/u; scgi_temp_path {place}/s;
  server {{ listen 127.0.0.1:{port}; root {place}/files; dav_methods PUT; }}
}}
"""


@attrs.frozen
class Moved:
    """One file, moved once. Rates in MiB/s, memory in MiB."""

    up: float
    down: float
    up_memory: float = 0.0
    down_memory: float = 0.0


# --- Both ways, once -----------------------------------------------------------------------------


async def _moved(size: int, side: str) -> Moved:
    with private_home("http://127.0.0.1:1") as home:
        file = home.root / "file"
        await trio.to_thread.run_sync(_fill, file, size)
        if side == PLAIN:
            async with _nginx(home.root) as url:
                up = await _curl(url, "--upload-file", str(file))
                return Moved(up, await _curl(url))
        async with broker() as server:
            return await _through(server, file, home.work, size)


async def _through(server: Server, file: Path, work: Path, size: int) -> Moved:
    """Bring the file to a thread, and fetch it from there."""
    base = server.url.replace("ws://", "http://")
    driver = Driver(server.url)
    try:
        thread = (await driver.ask("thread/start", {"cwd": str(work)}))["thread"]["id"]
        await _begin(base, 0, thread)  # the web's libraries are loaded
        url = await _begin(base, size, thread)
        before = peak_forgotten(server.pid)
        up = await _curl(url, "--request", "PATCH", *_headers(*GO_ON), "--upload-file", str(file))
        up_memory = (peak_bytes(server.pid) - before) / MIB
        (placed,) = (each for each in (work / "uploads").iterdir() if each.stat().st_size == size)
        opened = await driver.ask("mux/files/open", {"threadId": thread, "path": str(placed)})
        before = peak_forgotten(server.pid)
        down = await _curl(base + opened["url"])
        return Moved(up, down, up_memory, (peak_bytes(server.pid) - before) / MIB)
    finally:
        driver.close()


async def _begin(base: str, size: int, thread: str) -> str:
    """Announce an upload, and return its URL."""
    about = f"Upload-Metadata: thread {b64encode(thread.encode()).decode()}"
    headers = _headers(*BEGIN, f"Upload-Length: {size}", about)
    told = await _run("curl", "--request", "POST", "--include", *headers, f"{base}/v1/files")
    found = re.search(r"(?im)^location: (\S+)", told)
    assert found is not None, told
    return base + found[1]


async def _curl(url: str, *arguments: str) -> float:
    """Have curl do it, and return MiB/s."""
    told = json.loads(await _run("curl", "--fail", "--output", "/dev/null", *TELL, *arguments, url))
    return float(told["size_upload"] + told["size_download"]) / MIB / float(told["time_total"])


def _headers(*lines: str) -> list[str]:
    return [word for line in lines for word in ("--header", line)]


async def _run(*command: str) -> str:
    with trio.fail_after(PATIENCE):
        done = await trio.run_process(command, capture_stdout=True)
    return done.stdout.decode()


def _fill(file: Path, size: int) -> None:
    block = os.urandom(MIB)
    with file.open("wb") as filled:
        for _ in range(size // MIB):
            filled.write(block)


@asynccontextmanager
async def _nginx(place: Path) -> AsyncIterator[str]:
    """Run nginx; yield the URL of a file."""
    (place / "files").mkdir()
    with kept_port() as port:
        settings = place / "nginx.conf"
        settings.write_text(NGINX.format(place=place, port=port))
        process: trio.Process = await trio.lowlevel.open_process(["nginx", "-c", str(settings)])
        try:
            await _until(partial(_accepts, port))
            yield f"http://127.0.0.1:{port}/file"
        finally:
            process.kill()
            with trio.CancelScope(shield=True):
                await process.wait()


def _accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


# --- A neighbour ---------------------------------------------------------------------------------


@attrs.frozen
class Noticed:
    """A client's 99th percentile in µs, and the upload's rate meanwhile in MB/s."""

    p99: float
    rate: float = 0.0


async def _noticed(seconds: float, what: str) -> Noticed:
    asks = {"seconds": seconds, "pause": PAUSE, **CHEAP}
    async with broker() as server, loading("paced", server.url, **asks) as asking:
        if what == ALONE:
            await asking.say()
            return Noticed(float((await asking.result())["p99"]) * 1e6)
        async with loading("upload", server.url, rate=UPLOAD_RATE) as uploading:
            await asking.say()
            p99 = float((await asking.result())["p99"]) * 1e6
            await uploading.say()
            return Noticed(p99, float((await uploading.result())["rate"]) / 1e6)


# --- A broker that is killed ---------------------------------------------------------------------


async def _sent_again(size: int, chunk: int) -> float:
    """Bytes that a client sent of a file, over those that it has, with ten kills meanwhile."""
    drawn = random.Random(KILLS)
    moments = sorted(drawn.randrange(size // 20, size - size // 10) for _ in range(KILLS))
    async with (
        # However often it dies, the next one is started at once.
        broker(module="tests.end_to_end.killed_at") as server,
        loading("resume", server.url, size=size, chunk=chunk) as sending,
    ):
        (state,) = server.home.glob("**/appmux/broker.lock")
        for moment in moments:
            await _until(partial(_has_come, state.parent, moment))
            pid = state.read_text()
            os.kill(int(pid), signal.SIGKILL)
            await _until(partial(_is_another, state, pid))
        return float((await sending.result())["sent"]) / size


def _has_come(state: Path, least: int) -> bool:
    return sum(each.stat().st_size for each in state.glob("uploads/*.part")) >= least


def _is_another(lock: Path, pid: str) -> bool:
    return lock.read_text() not in {"", pid}


async def _until(condition: Callable[[], bool]) -> None:
    with trio.fail_after(PATIENCE):
        while not condition():  # noqa: ASYNC110 (it isn't told)
            await trio.sleep(0.001)


# --- The figures ---------------------------------------------------------------------------------


def measure(plan: Plan) -> list[Figure]:
    """Both ways, the memory meanwhile, and the neighbour."""
    sides = (PLAIN, BROKER) if shutil.which("nginx") else (BROKER,)
    moved = alternately(sides, plan.repeat, partial(_moved, plan.file_bytes))
    figures = []
    for name, way in (("up", "up"), ("down", "down")):
        values = {side: [getattr(each, way) for each in moved[side]] for side in sides}
        title = f"{plan.file_bytes / MIB:,.0f} MiB {name}, by curl"
        figures.append(
            at_least(title, "MiB/s", values, over=PLAIN, least=LEAST)
            if PLAIN in sides
            else Figure(title, "MiB/s", values, note="there is no nginx to hold it against")
        )
    for name, way in (("up", "up_memory"), ("down", "down_memory")):
        values = {BROKER: [getattr(each, way) for each in moved[BROKER]]}
        title = f"the broker's memory while it goes {name}"
        figures.append(at_most(title, "MiB", values, MOST_MEMORY))
    noticed = alternately((ALONE, BESIDE), plan.repeat, partial(_noticed, plan.paced_seconds))
    found = {side: [each.p99 for each in rounds] for side, rounds in noticed.items()}
    slower = [a / b for a, b in zip(found[BESIDE], found[ALONE], strict=True)]
    title = f"a client's p99 beside an upload of {UPLOAD_RATE / 1e6:g} MB/s, / alone"
    for name, chunk, most in KILLED:
        times = [trio.run(_sent_again, GIB, chunk) for _ in range(plan.repeat)]
        sent = f"sent of a gibibyte with ten kills, {name}"
        figures.append(at_most(sent, "×", {BROKER: times}, most))
    return [
        *figures,
        at_most(title, "", {BROKER: slower}, MOST_SLOWER),
        Figure("a client's p99", "µs", found),
        Figure("that upload's rate", "MB/s", {BROKER: [each.rate for each in noticed[BESIDE]]}),
    ]
