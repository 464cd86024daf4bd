"""One that asks for something long, and its neighbour, who asks for little and looks at the clock.

Run as ``python -m bench.long_clients JSON``: with ``url`` and ``token`` both are clients of a
listener; with ``command`` both speak over the one pipe of an app-server that is started for them:
nothing between, so that is what its one connection costs, whoever reads it. Prints ``ready``. Then
for each line of JSON it asks, and prints what came of it.

Hands to: `longs`. Hears from: the app-server's listener, the broker, the app-server's pipe.
"""

from __future__ import annotations

import fcntl
import itertools
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

import attrs

from bench import load

PAUSE: Final = 0.002
SETTLE: Final = 0.2
"""Seconds for which the neighbour asks before and after."""
PATIENCE: Final = 300.0
PIPE_BYTES: Final = 1024 * 1024
READ_BYTES: Final = 256 * 1024
"""The pipe, and a read of it: as the broker has them."""
HEAD_BYTES: Final = 200
"""Of a message that tell what it is."""
CHEAP: Final = "thread/loaded/list"

_THREAD: Final = re.compile(rb'"thread":\{"id":"([^"]+)"')

Json = dict[str, Any]


class Heard:
    """What came: of each message the head, the size, and the moment of its last byte."""

    def __init__(self) -> None:
        self.news = threading.Condition()
        self.answers: dict[int, tuple[float, int]] = {}
        self.ends: list[float] = []
        """When turns ended."""
        self.thread = ""
        """The thread that the latest answer named."""
        self._head = b""
        self._size = 0

    def takes(self, piece: memoryview) -> None:
        """Take a piece of a message."""
        if len(self._head) < HEAD_BYTES:
            self._head += bytes(piece[:HEAD_BYTES])
        self._size += len(piece)

    def is_over(self) -> None:
        """End the message."""
        now, head, size = time.perf_counter(), self._head, self._size
        self._head, self._size = b"", 0
        with self.news:
            if head.startswith(b'{"id":'):
                named = _THREAD.search(head)
                self.thread = named[1].decode() if named else self.thread
                self.answers[int(head[6 : head.index(b",")])] = now, size
            elif load.COMPLETED in head:
                self.ends.append(now)
            self.news.notify_all()

    def wait(self, done: Callable[[], bool]) -> None:
        """Wait until something is so."""
        with self.news:
            if not self.news.wait_for(done, PATIENCE):
                raise RuntimeError(f"no answer within {PATIENCE:g} s")


@attrs.define(eq=False)
class Client:
    """One that asks, while a thread of its own reads."""

    send: Callable[[Json], None]
    heard: Heard
    ids: Iterator[int] = attrs.field(factory=lambda: itertools.count(10))

    def ask(self, method: str, params: Json) -> tuple[float, int]:
        """Ask, and wait for the answer: its latency in seconds, and its size."""
        id, began = next(self.ids), time.perf_counter()
        self.send({"id": id, "method": method, "params": params})
        self.heard.wait(lambda: id in self.heard.answers)
        moment, size = self.heard.answers.pop(id)
        return moment - began, size


def by_socket(url: str, token: str) -> Client:
    """A client of a listener."""
    connection = load.attach(url, token)
    connection.settimeout(None)
    heard = Heard()
    threading.Thread(target=_read_frames, args=(connection, heard), daemon=True).start()
    return Client(
        lambda message: connection.sendall(load.frame(0x81, json.dumps(message).encode())), heard
    )


def _read_frames(connection: Any, heard: Heard) -> None:
    buffer = memoryview(bytearray(load.RECEIVE_BYTES))
    header, left = b"", 0
    while size := connection.recv_into(buffer):
        at = 0
        while at < size:
            if left:
                took = min(left, size - at)
                heard.takes(buffer[at : at + took])
                at, left = at + took, left - took
            else:
                header += bytes(buffer[at : at + 1])
                at += 1
                left = _length(header)
                if not left:
                    continue
                header = b""
            if not left:
                heard.is_over()


def _length(header: bytes) -> int:
    """The length of a frame's message by its header; 0 as long as that isn't whole."""
    if len(header) < 2:
        return 0
    short = header[1] & 127
    more = {126: 2, 127: 8}.get(short, 0)
    if len(header) < 2 + more:
        return 0
    return int.from_bytes(header[2:], "big") if more else short


def by_pipe(command: list[str], environ: dict[str, str]) -> Client:
    """A client of an app-server of its own."""
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        bufsize=0,
        env=environ,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    if sys.platform == "linux":
        fcntl.fcntl(process.stdout, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    stdin, heard = process.stdin, Heard()
    threading.Thread(target=_read_lines, args=(process.stdout, heard), daemon=True).start()
    client = Client(lambda message: _write(stdin, json.dumps(message).encode() + b"\n"), heard)
    introduced = {"clientInfo": {"name": "bench", "title": None, "version": "0.1"}}
    client.ask("initialize", {**introduced, "capabilities": {"experimentalApi": True}})
    client.send({"method": "initialized"})
    return client


def _write(stdin: Any, line: bytes) -> None:
    while line:
        line = line[stdin.write(line) :]


def _read_lines(stdout: Any, heard: Heard) -> None:
    while chunk := os.read(stdout.fileno(), READ_BYTES):
        view, at = memoryview(chunk), 0
        while (end := chunk.find(b"\n", at)) >= 0:
            heard.takes(view[at:end])
            heard.is_over()
            at = end + 1
        if at < len(chunk):
            heard.takes(view[at:])


# --- The two -------------------------------------------------------------------------------------


def beside(asker: Client, neighbour: Client, asked: Json) -> Json:
    """What is asked for, while the neighbour asks all the time; in seconds and bytes.

    ``turn``: until a turn has ended, not only the answer come.
    """
    waits: list[float] = []
    over = threading.Event()

    def ask_on() -> None:
        while not over.is_set():
            waits.append(neighbour.ask(CHEAP, {})[0])
            time.sleep(PAUSE)

    other = threading.Thread(target=ask_on)
    other.start()
    time.sleep(SETTLE)
    waits.clear()
    began, ended = time.perf_counter(), len(asker.heard.ends)
    last, size = asker.ask(asked["method"], asked["params"])
    if asked.get("turn"):
        asker.heard.wait(lambda: len(asker.heard.ends) > ended)
        last = asker.heard.ends[-1] - began
    time.sleep(SETTLE)
    over.set()
    other.join()
    waits.sort()
    return {
        "last": last, "bytes": size, "longest": waits[-1], "p99": waits[int(len(waits) * 0.99)]
    }  # fmt: skip


def main(spec: Json) -> None:
    """See the module's first words."""
    if "command" in spec:
        asker = neighbour = by_pipe(spec["command"], spec["environ"])
    else:
        asker, neighbour = (by_socket(spec["url"], spec["token"]) for _ in range(2))
    print("ready", flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        done = beside(asker, neighbour, asked) if asked.get("measured") else {}
        if not done:
            asker.heard.thread = ""
            done = {"last": asker.ask(asked["method"], asked["params"])[0]}
            done["thread"] = asker.heard.thread
        print(json.dumps(done), flush=True)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
