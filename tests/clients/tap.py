"""Stands in for `codex`: what a program says to its app-server and hears is written to a file.

`TAP_CODEX` is the executable that it starts in its place, `TAP_DIRECTORY` where it writes: one file
for each connection, a JSON list for each line, `["client" or "server", message]`. An app-server
that is to listen on a unix socket listens beside it, and the tap on the socket itself. Other
commands pass.

`tap.py --socket PATH TARGET` is the tap alone: it listens on PATH, in front of the socket TARGET.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO, Final, NoReturn

from mux.downstream.websocket.websocket import FrameReader
from mux.stdio.websocket import ClientWebSocket

UNIX: Final = "unix://"
MESSAGE_BYTES: Final = 64 * 1024 * 1024
READ_BYTES: Final = 64 * 1024
LOOK_SECONDS: Final = 0.01
"""How often to try whether the app-server listens: it doesn't say so in one way."""


class Recording:
    """The file of one connection."""

    def __init__(self) -> None:
        self._file = Path(os.environ["TAP_DIRECTORY"]) / f"{time.time_ns()}.jsonl"
        self._lock = threading.Lock()

    def add(self, who: str, messages: Iterable[bytes]) -> None:
        with self._lock, self._file.open("a") as out:
            for message in messages:
                out.write(json.dumps([who, message.decode()]) + "\n")


def main() -> None:
    arguments = sys.argv[1:]
    if arguments[:1] == ["--socket"]:
        listen(Path(arguments[1]), Path(arguments[2]))
    codex = os.environ["TAP_CODEX"]
    command = [codex, *arguments]
    socket_at = next((n for n, each in enumerate(command) if each.startswith(UNIX)), None)
    if "app-server" not in command or "proxy" in command:
        os.execv(codex, command)
    elif socket_at is None:
        pipes(command)
    else:
        path = Path(command[socket_at].removeprefix(UNIX))
        command[socket_at] = f"{UNIX}{path}_"  # (a path of 107 bytes is as long as one may be)
        beside(command, path, Path(f"{path}_"))


# ── pipes ─────────────────────────────────────────────────────────────────────────────────────


def pipes(command: list[str]) -> NoReturn:
    recording = Recording()
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdin is not None
    assert child.stdout is not None

    def copy(who: str, source: IO[bytes], target: IO[bytes]) -> None:
        with contextlib.suppress(BrokenPipeError):
            for line in iter(source.readline, b""):
                recording.add(who, [line])
                target.write(line)
                target.flush()
        with contextlib.suppress(BrokenPipeError):
            target.close()

    _in_background(copy, "client", sys.stdin.buffer, child.stdin)
    copy("server", child.stdout, sys.stdout.buffer)
    os._exit(child.wait())


# ── a socket ──────────────────────────────────────────────────────────────────────────────────


def beside(command: list[str], path: Path, target: Path) -> NoReturn:
    """Run the app-server on another socket, and listen on the one that it was to have."""
    child = subprocess.Popen(command, stdin=sys.stdin)

    def leave(*_: object) -> NoReturn:
        path.unlink(missing_ok=True)
        child.terminate()
        os._exit(child.wait())

    signal.signal(signal.SIGTERM, leave)
    signal.signal(signal.SIGINT, leave)
    while child.poll() is None and not target.exists():
        time.sleep(LOOK_SECONDS)
    _in_background(listen, path, target)
    os._exit(child.wait())


def listen(path: Path, target: Path) -> NoReturn:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()
    while True:
        client = listener.accept()[0]
        server = socket.socket(socket.AF_UNIX)
        server.connect(str(target))
        _in_background(serve, client, server)


def serve(client: socket.socket, server: socket.socket) -> None:
    """Copy one connection. No compression is offered, so that its messages can be read."""
    recording, heard = Recording(), ClientWebSocket()
    said = FrameReader(MESSAGE_BYTES)
    head, rest = _head(client)
    lines = head.split(b"\r\n")
    plain = [each for each in lines if b"extensions" not in each.lower()]
    server.sendall(b"\r\n".join(plain) + b"\r\n\r\n")
    answer, more = _head(server)
    client.sendall(answer + b"\r\n\r\n")
    heard.open = b" 101 " in answer.split(b"\r\n")[0]

    def read_said(received: bytes) -> None:
        recording.add("client", [each for each in said.feed(received) if each is not None])

    def read_heard(received: bytes) -> None:
        recording.add("server", heard.feed(received))

    _in_background(_copy, client, server, rest, read_said)
    _copy(server, client, more, read_heard)


def _head(source: socket.socket) -> tuple[bytes, bytes]:
    received = b""
    while b"\r\n\r\n" not in received and (more := source.recv(READ_BYTES)):
        received += more
    head, _, rest = received.partition(b"\r\n\r\n")
    return head, rest


def _copy(
    source: socket.socket, target: socket.socket, received: bytes, read: Callable[[bytes], None]
) -> None:
    with contextlib.suppress(OSError):
        while True:
            if received:
                read(received)
                target.sendall(received)
            received = source.recv(READ_BYTES)
            if not received:
                break
    for end in (source, target):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


def _in_background(work: Callable[..., object], *arguments: object) -> None:
    threading.Thread(target=work, args=arguments, daemon=True).start()


if __name__ == "__main__":
    main()
