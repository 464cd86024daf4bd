"""The limit that the broker is held against: a bare loop that writes the same frames with sendall.

It reads the same source's pipe, splits the lines, puts a frame's head before each, and writes what
one read brought to every subscriber with one ``sendall``: no parse, no journal, no auth, no choice
of recipients, one blocking thread. ``--one`` writes each frame by itself instead.

Run as ``python -m bench.bare SUBSCRIBERS [--one]``. Prints its URL; stdin says what to replay.

Hands to: `load`, as a server would. Hears from: `source`, which it starts.
"""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
from typing import Final

from bench import source
from mux.dispatch.outbox import text_frame
from mux.downstream.websocket.websocket import accepted
from mux.upstream.lines import Lines
from mux.upstream.process import CHUNK_BYTES

RECEIVE_BYTES: Final = 64 * 1024
KEY: Final = re.compile(rb"Sec-WebSocket-Key: (\S+)\r\n")
ID: Final = re.compile(rb'"id": (\d+)')


def main(subscribers: int, *, one: bool) -> None:
    """Let the subscribers in, then write them a turn."""
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listener:
        print(f"ws://127.0.0.1:{listener.getsockname()[1]}", flush=True)
        connections = [_let_in(listener) for _ in range(subscribers)]
    wanted = sys.stdin.readline().strip()
    replaying = subprocess.Popen(
        [sys.executable, source.__file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
    )
    assert replaying.stdin is not None
    assert replaying.stdout is not None
    turn = {"id": 1, "method": "turn/start", "params": {"input": [{"text": wanted}]}}
    replaying.stdin.write(json.dumps(turn).encode() + b"\n")
    replaying.stdin.close()
    lines = Lines()
    while chunk := replaying.stdout.read(CHUNK_BYTES):
        frames = [text_frame(line) for line in lines.split(chunk)]
        for piece in frames if one else [b"".join(frames)]:
            for connection in connections:
                connection.sendall(piece)
    replaying.wait()
    sys.stdin.readline()  # the connections stay until everything is counted


def _let_in(listener: socket.socket) -> socket.socket:
    """One client, past what a server would do for it until it has subscribed."""
    connection, _ = listener.accept()
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    key = KEY.search(connection.recv(RECEIVE_BYTES))
    assert key is not None
    connection.sendall(accepted(key[1]))
    answered = 0
    while answered < 2:  # `initialize` and one `thread/resume`
        for id in ID.findall(connection.recv(RECEIVE_BYTES)):
            connection.sendall(text_frame(b'{"id":%s,"result":{}}' % id))
            answered += 1
    return connection


if __name__ == "__main__":
    main(int(sys.argv[1]), one="--one" in sys.argv)
