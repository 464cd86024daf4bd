"""Cheap clients: raw sockets, many in one process, that look for a few bytes and parse nothing.

A client that decodes 20,000 messages costs more than what is to be measured. So one here shakes
hands, and from then on looks for strings in the bytes that come: what stands in every delta, what
ends a turn. They stand within one message, and no server here fragments one; if one did, the count
would come out short, and be seen.

Run as ``python -m bench.load JSON`` with a job of `JOBS` and its keywords. Prints ``readiness``
once all are attached, and at the end its result as one line of JSON. Ends early with its stdin.

Hands to: `sides.loading`, the result. Hears from: the app-server's listener, the broker, `bare`.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import math
import os
import re
import select
import selectors
import socket
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, Final
from urllib.parse import urlsplit

DELTA: Final = b'"method":"item/agentMessage/delta"'
COMPLETED: Final = b'"method":"turn/completed"'
STAMP: Final = re.compile(rb"@(\d{19})")  # at the end of a text, short or long

# What is kept of one piece for the next: a DELTA may be cut between them, but never stands whole in
# what is kept, so none is counted twice. COMPLETED is shorter.
TAIL: Final = len(DELTA) - 1
# A stamp but for its last digit, which may come later; and as many as COMPLETED may lack.
STAMP_TAIL: Final = 24
# Read at once, into a buffer that stays. The broker writes up to 256 KiB at a time, the app-server
# one message.
RECEIVE_BYTES: Final = 1024 * 1024
# Read at once where each read makes a new object: above some 100 KiB the C library fetches its
# memory from the kernel and gives it back, which costs ten times what the read does.
ANSWER_BYTES: Final = 64 * 1024
# Of many subscribers, whose moments are looked at: what that costs would come before the others'.
LOOKED_AT: Final = 32
# Payload lengths from which a frame's header must spend two bytes more (RFC 6455, 5.2).
SHORT: Final = 126
MEDIUM: Final = 1 << 16
# For one step of the way to `ready`, with every other client's traffic still to come.
SETUP_PATIENCE: Final = 60.0
# Requests before those that count: caches are warm then, on every side.
WARM_UP: Final = 200
# Of a client that floods: as many as one pipelining client may have queued at the broker.
FLOOD: Final = 1000
# On Linux the kernel drops what is received and counts it: the cheapest of all readers.
DROP: Final = getattr(socket, "MSG_TRUNC", 0) if sys.platform == "linux" else 0


# --- One client ----------------------------------------------------------------------------------


def attach(url: str, token: str | None, **capabilities: Any) -> socket.socket:
    """A socket past its handshakes. Raises RuntimeError if refused."""
    connection = connect(url, token)
    introduce(connection, **capabilities)
    return connection


def connect(url: str, token: str | None, *headers: str) -> socket.socket:
    """A socket past the WebSocket's handshake, for which ``headers`` are said, too.

    Raises RuntimeError if refused.
    """
    address = urlsplit(url)
    assert address.hostname is not None
    assert address.port is not None
    connection = socket.create_connection((address.hostname, address.port), SETUP_PATIENCE)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.sendall(_upgrade(address.netloc, token, headers))
    _wait(connection, b"\r\n\r\n", b" 101 ")
    return connection


def introduce(connection: socket.socket, **capabilities: Any) -> bytes:
    """Shake hands; what was received with the answer. Raises RuntimeError if refused."""
    client = {"name": "bench", "title": None, "version": "0.1"}
    declared = {"experimentalApi": True, **capabilities}
    answer = ask(connection, 1, "initialize", {"clientInfo": client, "capabilities": declared})
    send(connection, None, "initialized", {})
    return answer


def subscribe(
    url: str, token: str | None, threads: list[str], **capabilities: Any
) -> socket.socket:
    """A socket past its handshakes that follows these threads. Raises RuntimeError if refused."""
    connection = attach(url, token, **capabilities)
    for id, thread in enumerate(threads, 2):
        ask(connection, id, "thread/resume", {"threadId": thread, "excludeTurns": True})
    return connection


def ask(connection: socket.socket, id: int, method: str, params: Any) -> bytes:
    """Ask, and wait for the answer: what was received with it. Raises RuntimeError if refused."""
    send(connection, id, method, params)
    return _wait(connection, b'"id":%d,' % id, b'"id":%d,"result"' % id)


def send(connection: socket.socket, id: int | None, method: str, params: Any) -> None:
    """Say one message. ``id`` None: a notification."""
    connection.sendall(framed(id, method, params))


def framed(id: int | None, method: str, params: Any) -> bytes:
    """One message as a client's frame, under the mask 0, which leaves the text as it is."""
    fields = {"method": method, "params": params} | ({} if id is None else {"id": id})
    return frame(0x81, json.dumps(fields).encode())


def frame(first: int, payload: bytes) -> bytes:
    """One frame of a client; ``first``: its first byte."""
    size = len(payload)
    if size < SHORT:
        length = bytes([0x80 | size])
    elif size < MEDIUM:
        length = b"\xfe" + size.to_bytes(2, "big")
    else:
        length = b"\xff" + size.to_bytes(8, "big")
    return bytes([first]) + length + bytes(4) + payload


def _upgrade(host: str, token: str | None, headers: tuple[str, ...] = ()) -> bytes:
    key = base64.b64encode(os.urandom(16)).decode()
    bearer = f"Authorization: Bearer {token}\r\n" if token is not None else ""
    more = "".join(f"{header}\r\n" for header in headers)
    return (
        f"GET / HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"{bearer}{more}"
        f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n"
    ).encode()


def _wait(connection: socket.socket, end: bytes, wanted: bytes) -> bytes:
    """Read until ``end`` was seen. Raises RuntimeError if ``wanted`` wasn't."""
    received = b""
    while end not in received:
        piece = connection.recv(ANSWER_BYTES)
        if not piece:
            raise RuntimeError(f"closed before {end!r} came; received: {received[-500:]!r}")
        received += piece
    if wanted not in received:
        raise RuntimeError(f"expected {wanted!r}; received: {received[-500:]!r}")
    return received


# --- Waiting for many ----------------------------------------------------------------------------


def _readable(connections: list[socket.socket], done: set[int]) -> Iterator[int]:
    """The places of those that have something, until all are done or stdin is closed."""
    with selectors.DefaultSelector() as selector:
        selector.register(sys.stdin.fileno(), selectors.EVENT_READ)
        for place, connection in enumerate(connections):
            connection.setblocking(False)
            selector.register(connection, selectors.EVENT_READ, place)
        gone: set[int] = set()
        while len(done) < len(connections):
            for key, _ in selector.select():
                if key.data is None:
                    raise EOFError("stopped: nobody waits for this any more")
                yield key.data
            for place in done - gone:
                selector.unregister(connections[place])
                gone.add(place)


def percentiles(values: list[float]) -> dict[str, float]:
    """Of latencies, in seconds."""
    values.sort()
    last = len(values) - 1
    return {name: values[min(last, int(len(values) * share))] for name, share in SHARES.items()}


SHARES: Final = {"p50": 0.50, "p99": 0.99, "p999": 0.999, "max": 1.0}


# --- Subscribers that count ----------------------------------------------------------------------


def count(
    url: str,
    token: str | None,
    threads: list[str],
    subscribers: int,
    *,
    exact: bool = True,
    capabilities: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """So many subscribers read until each has seen every thread's turn end.

    Not ``exact``: only the first one's deltas are counted, of the others the bytes, which must be
    as many. Times on the machine's monotonic clock: ``began`` when the first delta came, ``first``
    and ``last`` when the first and the last subscriber were done.
    """
    declared = capabilities or {}
    connections = [subscribe(url, token, threads, **declared) for _ in range(subscribers)]
    print("ready", flush=True)
    counted = range(subscribers if exact or not DROP else 1)
    buffer = bytearray(TAIL + RECEIVE_BYTES)
    space = memoryview(buffer)[TAIL:]
    tails = [bytes(TAIL)] * subscribers
    deltas, completed, sizes = [0] * subscribers, [0] * subscribers, [0] * subscribers
    ends: list[float] = []
    done: set[int] = set()
    began, reads, all_bytes = 0.0, 0, 0
    cpu = time.process_time()
    for place in _readable(connections, done):
        if place in done:
            continue
        if place not in counted:
            sizes[place] += connections[place].recv_into(space, RECEIVE_BYTES, DROP)
        else:
            size = connections[place].recv_into(space)
            if not size:
                raise EOFError(f"subscriber {place} was cut after {deltas[place]} deltas")
            sizes[place] += size
            buffer[:TAIL] = tails[place]
            deltas[place] += buffer.count(DELTA, 0, TAIL + size)
            if buffer.find(COMPLETED, 0, TAIL + size) >= 0:
                completed[place] += _new(buffer, COMPLETED, size)
            tails[place] = bytes(buffer[size : TAIL + size])
        now = time.monotonic()
        reads += 1
        if not began and deltas[place]:
            began = now
        if completed[place] == len(threads):
            all_bytes = sizes[place]
            ends.append(now)
            done.add(place)
        if all_bytes and len(done) < subscribers:
            late = [at for at, size in enumerate(sizes) if size >= all_bytes and at not in counted]
            ends += [now] * len(set(late) - done)
            done.update(late)
    return {
        "deltas": min(deltas[place] for place in counted),
        "deliveries": sum(deltas[place] for place in counted) * subscribers // len(counted),
        "same": len(set(sizes)) == 1,
        "bytes": sum(sizes),
        "reads": reads,
        "began": began,
        "first": ends[0],
        "last": ends[-1],
        "cpu": time.process_time() - cpu,
    }


def _new(buffer: bytearray, what: bytes, size: int) -> int:
    """How often it stands in a piece, not counting what stood whole in the tail kept before."""
    return buffer.count(what, 0, TAIL + size) - buffer.count(what, 0, TAIL)


# --- Clients with a turn each ---------------------------------------------------------------------


def crowd(url: str, token: str | None, clients: int, work: str, text: str) -> dict[str, Any]:
    """So many clients, each with a thread, on which it begins a turn when stdin says a word.

    ``deltas``: how many each has got when its turn ended.
    """
    connections = [attach(url, token) for _ in range(clients)]
    threads = [_begun(connection, work) for connection in connections]
    print("ready", flush=True)
    sys.stdin.readline()
    for connection, thread in zip(connections, threads, strict=True):
        said = [{"type": "text", "text": text}]
        send(connection, 3, "turn/start", {"threadId": thread, "input": said})
    buffer = bytearray(TAIL + RECEIVE_BYTES)
    space = memoryview(buffer)[TAIL:]
    tails, deltas = [bytes(TAIL)] * clients, [0] * clients
    done: set[int] = set()
    for place in _readable(connections, done):
        if place in done:
            continue
        size = connections[place].recv_into(space)
        if not size:
            raise EOFError(f"client {place} was cut after {deltas[place]} deltas")
        buffer[:TAIL] = tails[place]
        deltas[place] += buffer.count(DELTA, 0, TAIL + size)
        if buffer.find(COMPLETED, 0, TAIL + size) >= 0:
            done.add(place)
        tails[place] = bytes(buffer[size : TAIL + size])
    return {"deltas": deltas}


def _begun(connection: socket.socket, work: str) -> str:
    """The id of a thread that this client begins."""
    answer = ask(connection, 2, "thread/start", {"cwd": work})
    found = re.search(rb'"id":2,"result":\{"thread":\{"id":"([^"]+)"', answer)
    if found is None:
        raise RuntimeError(f"no thread in {answer[:500]!r}")
    return found[1].decode()


# --- Subscribers that look at the clock ----------------------------------------------------------


def latency(
    url: str, token: str | None, threads: list[str], subscribers: int, stalled: int = 0
) -> dict[str, Any]:
    """How long stamped deltas were on their way to these subscribers, in seconds.

    To `LOOKED_AT` of them, evenly spread, if they are more; what the others get is dropped.
    ``cpu``: what that took here. ``stalled`` more subscribe and read nothing until the others are
    done; ``caught_up`` says whether they get all stamps after it, merged or not.
    """
    still = [subscribe(url, token, threads) for _ in range(stalled)]
    connections = [subscribe(url, token, threads) for _ in range(subscribers)]
    print("ready", flush=True)
    tails, completed = [b""] * subscribers, [0] * subscribers
    done: set[int] = set()
    taken: list[float] = []
    stamps = 0
    cpu = time.process_time()
    buffer = bytearray(RECEIVE_BYTES)
    view = memoryview(buffer)
    looked_at = set(range(0, subscribers, max(1, subscribers // LOOKED_AT) if DROP else 1))
    for place in _readable(connections, done):
        if place not in looked_at:
            connections[place].recv_into(buffer, RECEIVE_BYTES, DROP)
            continue
        size = connections[place].recv_into(buffer)
        now = time.monotonic_ns()
        if not size:
            raise EOFError(f"subscriber {place} was cut after {stamps} stamps")
        text = tails[place] + view[:size]
        at = 0
        for found in STAMP.finditer(text):
            taken.append((now - int(found[1])) / 1e9)
            at = found.end()
        stamps = len(taken)
        completed[place] += text.count(COMPLETED) - tails[place].count(COMPLETED)
        tails[place] = text[max(at, len(text) - STAMP_TAIL) :]
        if completed[place] >= len(threads):
            done.add(place)
        if len(done) == len(looked_at):
            break
    cpu = time.process_time() - cpu
    print("done", flush=True)
    stamps //= len(looked_at)
    result: dict[str, Any] = {"stamps": stamps, "cpu": cpu, **percentiles(taken)}
    if still:
        sys.stdin.readline()  # until the server's memory has been looked at
        result["caught_up"] = [_stamps_behind(each) for each in still]
    return result


def _stamps_behind(connection: socket.socket) -> int:
    """How many stamps come, in deltas merged or not, until the turn's end."""
    connection.settimeout(SETUP_PATIENCE)
    got = bytearray()
    while COMPLETED not in got[-2 * RECEIVE_BYTES :]:
        piece = connection.recv(ANSWER_BYTES)
        if not piece:
            return 0
        got += piece
    return len(STAMP.findall(got))


# --- Clients that ask ----------------------------------------------------------------------------


def requests(
    url: str, token: str | None, *, clients: int, number: int, method: str, params: Any
) -> dict[str, Any]:
    """So many clients, each with one request under way at a time; ``number`` of them in all."""
    connections = [attach(url, token) for _ in range(clients)]
    _ask_in_turn(connections, WARM_UP, method, params)
    print("ready", flush=True)
    sys.stdin.readline()
    began, cpu = time.monotonic(), time.process_time()
    taken = _ask_in_turn(connections, number, method, params)
    seconds = time.monotonic() - began
    used = time.process_time() - cpu
    return {"rate": len(taken) / seconds, "cpu": used, **percentiles(taken)}


def _ask_in_turn(
    connections: list[socket.socket], number: int, method: str, params: Any
) -> list[float]:
    """Latencies. An answer is told by the id that all requests share."""
    frame, answer = framed(7, method, params), b'{"id":7,'
    if len(connections) == 1:
        return [_ask_once(connections[0], frame, answer) for _ in range(number)]
    sent, taken = [0.0] * len(connections), list[float]()
    asked = len(connections)
    for place, connection in enumerate(connections):
        sent[place] = time.perf_counter()
        connection.sendall(frame)
    done: set[int] = set()
    for place in _readable(connections, done):
        if answer not in connections[place].recv(ANSWER_BYTES):
            continue  # something else, or the rest of an answer
        now = time.perf_counter()
        taken.append(now - sent[place])
        if asked < number:
            asked += 1
            sent[place] = now
            connections[place].sendall(frame)
        else:
            done.add(place)
    for connection in connections:
        connection.setblocking(True)
    return taken


def _ask_once(connection: socket.socket, frame: bytes, answer: bytes) -> float:
    began = time.perf_counter()
    connection.sendall(frame)
    while answer not in connection.recv(ANSWER_BYTES):
        pass
    return time.perf_counter() - began


def paced(
    url: str, token: str | None, *, seconds: float | None, pause: float, method: str, params: Any
) -> dict[str, Any]:
    """One client that asks, waits for the answer, and pauses, as a person's program does.

    ``seconds`` None: until stdin says a second word.
    """
    connection = attach(url, token)
    _ask_in_turn([connection], WARM_UP, method, params)
    print("ready", flush=True)
    sys.stdin.readline()
    frame, answer, taken = framed(7, method, params), b'{"id":7,', list[float]()
    end = math.inf if seconds is None else time.monotonic() + seconds
    while time.monotonic() < end:
        taken.append(_ask_once(connection, frame, answer))
        if seconds is not None:
            time.sleep(pause)
        elif select.select([sys.stdin], [], [], pause)[0]:
            break
    return {"asked": len(taken), **percentiles(taken)}


def flood(url: str, token: str | None, method: str, params: Any, ahead: int) -> dict[str, Any]:
    """One client that has ``ahead`` requests under way all the time, until stdin says a word."""
    connection = attach(url, token)
    print("ready", flush=True)
    frame, answer = framed(7, method, params), b'{"id":7,'
    began, answered, tail = time.monotonic(), 0, b""
    connection.sendall(frame * ahead)
    with selectors.DefaultSelector() as selector:
        selector.register(sys.stdin.fileno(), selectors.EVENT_READ)
        selector.register(connection, selectors.EVENT_READ, "answers")
        while True:
            ready = [key.data for key, _ in selector.select()]
            if None in ready:
                return {"rate": answered / (time.monotonic() - began)}
            text = tail + connection.recv(ANSWER_BYTES)
            new = text.count(answer)
            tail = text[-len(answer) + 1 :]
            answered += new
            connection.sendall(frame * new)


# --- Clients that only make work -----------------------------------------------------------------

STEP: Final = 0.02


def attacks() -> dict[str, tuple[bytes, bytes]]:
    """What a client can send that only costs: what comes first, and what comes again and again."""
    text = {"type": "text", "text": "x"}
    nested = json.loads("[" * 100 + "]" * 100)
    replayed = [f"0199f3a1-5c1e-7d43-9a51-{n:012}" for n in range(20_000)]
    after = {"epoch": "", "seq": 0}
    return {
        "pings": (b"", frame(0x89, b"") * 100),
        "pongs": (b"", frame(0x8A, b"") * 100),
        "empty fragments": (frame(0x01, b""), frame(0x00, b"") * 100),
        "{}": (b"", frame(0x81, b"{}") * 100),
        "answers to nothing": (b"", frame(0x81, b'{"id":1,"result":1}') * 100),
        "notifications": (b"", frame(0x81, b'{"method":"initialized"}') * 100),
        "400,000 keys": (b"", framed(9, "thread/list", {str(n): 1 for n in range(400_000)})),
        "65,000 keys": (b"", framed(9, "thread/list", {str(n): 1 for n in range(65_000)})),
        "a turn of 300,000 parts": (b"", framed(9, "turn/start", {"input": [text] * 300_000})),
        "250 keys": (b"", framed(9, "thread/list", {str(n): 1 for n in range(250)})),
        "a turn of 400 parts": (b"", framed(9, "turn/start", {"input": [text] * 400})),
        "a text that looks like many parts": (
            b"",
            framed(9, "turn/start", {"input": [text | {"text": ',["\\{' * 200_000}]}),
        ),
        "lists in lists": (b"", framed(9, "thread/list", {"x": [nested] * 5_000})),
        "a turn of 2,000 parts": (b"", framed(9, "turn/start", {"input": [text] * 2_000})),
        "a replay of 20,000 threads": (
            b"",
            framed(9, "mux/replay", {"after": after, "threadIds": replayed}),
        ),
    }


def attack(url: str, token: str | None, what: str, rate: float) -> dict[str, Any]:
    """One client that sends this, ``rate`` bytes a second, until stdin says a word.

    One that is cut comes back. ``sent``: bytes that it got rid of; ``cut``: how often it was cut.
    """
    first, again = attacks()[what]
    connection = _attacking(url, token, first)
    print("ready", flush=True)
    began, sent, cut, rest = time.monotonic(), 0, 0, memoryview(b"")
    with selectors.DefaultSelector() as selector:
        selector.register(sys.stdin.fileno(), selectors.EVENT_READ)
        while not selector.select(STEP):
            allowed = int((time.monotonic() - began) * rate) - sent
            try:
                while allowed > 0:
                    rest = rest or memoryview(again)
                    size = connection.send(rest[:allowed])
                    rest, sent, allowed = rest[size:], sent + size, allowed - size
            except BlockingIOError:
                began = time.monotonic() - sent / rate  # it isn't to catch up
            except OSError:
                cut, rest = cut + 1, memoryview(b"")
                connection = _attacking(url, token, first)
            with contextlib.suppress(OSError):
                while connection.recv(ANSWER_BYTES):
                    pass
    return {"sent": sent, "cut": cut, "rate": sent / (time.monotonic() - began)}


def _attacking(url: str, token: str | None, first: bytes) -> socket.socket:
    connection = attach(url, token, extensions={"appmux": {"version": 1}})
    connection.sendall(first)
    connection.setblocking(False)
    return connection


# --- Clients that bring files --------------------------------------------------------------------

UPLOAD_STEP: Final = 0.002
UPLOADED: Final = 2 * 1024 * 1024 * 1024
"""Bytes that are announced: as many as a file may have."""


def _announced(url: str, token: str | None, size: int) -> tuple[socket.socket, str, str]:
    """A connection by which a file was announced, its path, and the head of requests about it."""
    address = urlsplit(url)
    head = f"HTTP/1.1\r\nHost: {address.netloc}\r\nAuthorization: Bearer {token}\r\n"
    head += "Tus-Resumable: 1.0.0\r\n"
    connection = socket.create_connection((address.hostname, address.port), SETUP_PATIENCE)
    begin = f"POST /v1/files {head}Upload-Length: {size}\r\nContent-Length: 0\r\n\r\n"
    connection.sendall(begin.encode())
    return connection, _header(_wait(connection, b"\r\n\r\n", b" 201 "), "location"), head


def _header(answer: bytes, name: str) -> str:
    found = re.search(rf"(?im)^{name}: (\S+)", answer.decode())
    if found is None:
        raise RuntimeError(f"no {name} in {answer!r}")
    return found[1]


def _bring(path: str, head: str, at: int, size: int, *more: str) -> bytes:
    """The head of a request that brings so many bytes of a file."""
    lines = [f"PATCH {path} {head}Upload-Offset: {at}", f"Content-Length: {size}", *more]
    return "\r\n".join([*lines, "Content-Type: application/offset+octet-stream\r\n\r\n"]).encode()


def upload(url: str, token: str | None, rate: float) -> dict[str, Any]:
    """One client that uploads a file, ``rate`` bytes a second, until stdin says a word."""
    connection, path, head = _announced(url, token, UPLOADED)
    connection.sendall(_bring(path, head, 0, UPLOADED))
    print("ready", flush=True)
    piece = memoryview(os.urandom(1024 * 1024))
    began, sent = time.monotonic(), 0
    with selectors.DefaultSelector() as selector:
        selector.register(sys.stdin.fileno(), selectors.EVENT_READ)
        while not selector.select(UPLOAD_STEP):
            allowed = int((time.monotonic() - began) * rate) - sent
            while allowed > 0:
                size = connection.send(piece[:allowed])
                sent, allowed = sent + size, allowed - size
    return {"sent": sent, "rate": sent / (time.monotonic() - began)}


def resume(url: str, token: str | None, size: int, chunk: int) -> dict[str, Any]:
    """One client that uploads a file as fast as it can, and goes on wherever it was broken off.

    ``chunk``: bytes of one request, each with its checksum; 0: all by one, without. ``sent``: bytes
    of bodies that it got rid of.
    """
    connection, path, head = _announced(url, token, size)
    connection.close()
    print("ready", flush=True)
    address = urlsplit(url)
    piece, at, sent = memoryview(os.urandom(1024 * 1024)), 0, 0
    while at < size:
        end = min(size, at + chunk) if chunk else size
        parts = [piece[: min(len(piece), end - each)] for each in range(at, end, len(piece))]
        checksum = []
        if chunk:
            digest = hashlib.sha1(b"".join(parts)).digest()
            checksum = [f"Upload-Checksum: sha1 {base64.b64encode(digest).decode()}"]
        try:
            target = (address.hostname, address.port)
            with socket.create_connection(target, SETUP_PATIENCE) as connection:
                if sent:
                    connection.sendall(f"HEAD {path} {head}\r\n".encode())
                    answer = _wait(connection, b"\r\n\r\n", b" 200 ")
                    if (there := int(_header(answer, "upload-offset"))) != at:
                        at = there
                        continue
                connection.sendall(_bring(path, head, at, end - at, *checksum))
                for part in parts:
                    connection.sendall(part)
                    sent += len(part)
                _wait(connection, b"\r\n\r\n", b" 204 ")
                at = end
        except (OSError, RuntimeError):
            time.sleep(UPLOAD_STEP)
    return {"sent": sent}


# --- Clients that only are there -----------------------------------------------------------------


def idle(url: str, token: str | None, clients: int) -> dict[str, Any]:
    """Attach so many, one after the other; they stay until stdin says a word."""
    began = time.monotonic()
    connections = [attach(url, token) for _ in range(clients)]
    seconds = time.monotonic() - began
    print("ready", flush=True)
    sys.stdin.readline()
    return {"seconds": seconds, "clients": len(connections)}


JOBS: Final[dict[str, Callable[..., dict[str, Any]]]] = {
    job.__name__: job
    for job in (count, crowd, latency, requests, paced, flood, attack, upload, resume, idle)
}


def main(spec: str) -> None:
    """Do a job and tell its result."""
    keywords = json.loads(spec)
    result = JOBS[keywords.pop("job")](**keywords)
    print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
