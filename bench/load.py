"""Cheap subscribers: raw sockets in one process, which count what they are sent and parse nothing.

A client that decodes 20,000 messages costs more than what is to be measured. So a subscriber here
shakes hands and resumes the thread, and from then on looks for two strings in the bytes that come:
one that stands in every delta, one that ends the turn. Both stand within one message, and neither
server fragments a message this small; if one did, the count would come out short, and be seen.

Run as ``python -m bench.load URL THREAD SUBSCRIBERS``. Prints ``ready`` once all have resumed, and
at the end a ``Tally`` as one line of JSON. Ends with the turn, or when its stdin is closed.

Hands to: `fanout` and `journal`, the tally.
Hears from: the app-server's own listener, or the broker.
"""

from __future__ import annotations

import base64
import json
import os
import selectors
import socket
import sys
import time
from typing import Any, Final
from urllib.parse import urlsplit

import attrs

DELTA: Final = b'"method":"item/agentMessage/delta"'
COMPLETED: Final = b'"method":"turn/completed"'

# What is kept of one piece for the next: a DELTA may be cut between them, but never stands whole in
# what is kept, so none is counted twice. COMPLETED is shorter, and ends the counting when seen.
TAIL: Final = len(DELTA) - 1

# Read at once. The broker writes up to 256 KiB at a time, the app-server one message.
RECEIVE_BYTES: Final = 1024 * 1024
# Payload lengths from which a frame's header must spend two bytes more (RFC 6455, 5.2).
SHORT: Final = 126
# For one step of the way to `ready`, with every other subscriber's turn traffic still to come.
SETUP_PATIENCE: Final = 30.0


@attrs.frozen
class Tally:
    """What the subscribers got. Times on the machine's monotonic clock, in seconds.

    ``deltas``: how many each of them received; ``gaps``: the longest that each waited for more of
    them; ``first``, ``last``: when the first and the last of them saw the turn's end; ``cpu``: what
    all of them together cost, from ``ready`` on.
    """

    deltas: list[int]
    gaps: list[float]
    bytes: int
    reads: int
    first: float
    last: float
    cpu: float


# --- One subscriber ------------------------------------------------------------------------------


def subscribe(url: str, thread: str) -> socket.socket:
    """A socket past its handshakes that follows the thread. Raises RuntimeError if refused."""
    connection = attach(url, {})
    send(connection, 2, "thread/resume", {"threadId": thread, "excludeTurns": True})
    _wait(connection, b'"id":2', b'{"id":2,"result"')
    return connection


def attach(url: str, capabilities: dict[str, Any]) -> socket.socket:
    """A socket past its handshakes. Raises RuntimeError if refused."""
    address = urlsplit(url)
    assert address.hostname is not None
    assert address.port is not None
    connection = socket.create_connection((address.hostname, address.port), SETUP_PATIENCE)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.sendall(_upgrade(address.netloc))
    _wait(connection, b"\r\n\r\n", b" 101 ")
    client = {"name": "bench", "title": None, "version": "0.1"}
    declared = {"experimentalApi": True, **capabilities}
    send(connection, 1, "initialize", {"clientInfo": client, "capabilities": declared})
    _wait(connection, b'"id":1', b'{"id":1,"result"')
    send(connection, None, "initialized", {})
    return connection


def _upgrade(host: str) -> bytes:
    key = base64.b64encode(os.urandom(16)).decode()
    return (
        f"GET / HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n"
    ).encode()


def send(connection: socket.socket, id: int | None, method: str, params: Any) -> None:
    """Say one message. ``id`` None: a notification."""
    fields = {"method": method, "params": params} | ({} if id is None else {"id": id})
    connection.sendall(_text_frame(json.dumps(fields).encode()))


def _text_frame(text: bytes) -> bytes:
    """One text frame under the mask 0, which leaves the text as it is."""
    size = len(text)
    length = bytes([0x80 | size]) if size < SHORT else b"\xfe" + size.to_bytes(2, "big")
    return b"\x81" + length + bytes(4) + text


def _wait(connection: socket.socket, end: bytes, wanted: bytes) -> None:
    """Read until ``end`` was seen. Raises RuntimeError if ``wanted`` wasn't."""
    received = b""
    while end not in received:
        piece = connection.recv(RECEIVE_BYTES)
        if not piece:
            raise RuntimeError(f"closed before {end!r} came; received: {received[-500:]!r}")
        received += piece
    if wanted not in received:
        raise RuntimeError(f"expected {wanted!r}; received: {received[-500:]!r}")


# --- All of them ---------------------------------------------------------------------------------


def count(connections: list[socket.socket], stop: int) -> Tally:
    """Read until every connection has seen the turn's end. Raises EOFError if one closes first.

    ``stop``: a file descriptor whose end means that nobody waits for the tally any more.
    """
    buffer = bytearray(TAIL + RECEIVE_BYTES)
    space = memoryview(buffer)[TAIL:]
    tails = [bytes(TAIL)] * len(connections)
    deltas = [0] * len(connections)
    gaps = [0.0] * len(connections)
    heard = [0.0] * len(connections)
    ends: list[float] = []
    total = reads = 0
    cpu = time.process_time()
    with selectors.DefaultSelector() as selector:
        selector.register(stop, selectors.EVENT_READ)
        for place, connection in enumerate(connections):
            connection.setblocking(False)
            selector.register(connection, selectors.EVENT_READ, place)
        while len(ends) < len(connections):
            for key, _ in selector.select():
                place = key.data
                if place is None:
                    raise EOFError("stopped: the turn isn't waited for any more")
                connection = connections[place]
                size = connection.recv_into(space)
                if not size:
                    raise EOFError(f"subscriber {place} was cut after {deltas[place]} deltas")
                total += size
                reads += 1
                buffer[:TAIL] = tails[place]
                new = buffer.count(DELTA, 0, TAIL + size)
                now = time.monotonic()
                if new and deltas[place]:
                    gaps[place] = max(gaps[place], now - heard[place])
                if new:
                    heard[place] = now
                deltas[place] += new
                if buffer.find(COMPLETED, 0, TAIL + size) >= 0:
                    ends.append(now)
                    selector.unregister(connection)
                tails[place] = bytes(buffer[size : TAIL + size])
    return Tally(deltas, gaps, total, reads, ends[0], ends[-1], time.process_time() - cpu)


def main(url: str, thread: str, subscribers: str) -> None:
    """Subscribe, say so, count, tell."""
    connections = [subscribe(url, thread) for _ in range(int(subscribers))]
    print("ready", flush=True)
    tally = count(connections, sys.stdin.fileno())
    print(json.dumps(attrs.asdict(tally)), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
