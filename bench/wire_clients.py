"""Clients that read what they get: some compressed, some with deltas coalesced, all of one thread.

Run as ``python -m bench.wire_clients JSON`` with a URL, a token, a thread and a list of kinds:
names of ``KINDS``. Prints ``ready`` once all follow, and at the end of the thread's turn, as one
line of JSON, what each kind got: bytes (frames and all, as they stood on the socket), messages, and
when which part of the agent's message was there.

Hands to: `wire`. Hears from: both sides' listeners.
"""

from __future__ import annotations

import json
import selectors
import socket
import sys
import time
import zlib
from collections.abc import Iterator
from typing import Any, Final, Protocol

import attrs

from bench import load

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

WINDOW_MS: Final = 50
"""What paired devices have without asking for it."""

_APPMUX: Final = {"appmux": {"version": 1}}
_COALESCING: Final = {"appmux": {"version": 1, "coalesce": WINDOW_MS}}

DEFLATE: Final = "Sec-WebSocket-Extensions: permessage-deflate"
ZSTD: Final = "X-Codex-App-Server-Compression: zstd-stream-v1"

KINDS: Final[dict[str, tuple[str | None, dict[str, Any]]]] = {
    "native": (None, {}),
    "plain": (None, _APPMUX),
    "deflate": (DEFLATE, _APPMUX),
    "zstd": (ZSTD, _APPMUX),
    "coalesced": (None, _COALESCING),
    "coalesced, deflate": (DEFLATE, _COALESCING),
    "coalesced, zstd": (ZSTD, _COALESCING),
}
"""What each says in its upgrade, and which extensions it declares."""

DELTA: Final = "item/agentMessage/delta"
BINARY: Final = 0x82
TAIL: Final = b"\x00\x00\xff\xff"
"""The end of a flushed block, which RFC 7692 leaves out of a message."""


class _Codec(Protocol):
    def packed(self, text: bytes) -> bytes:
        """One message as a frame."""

    def unpacked(self, payload: bytes) -> bytes: ...


class _Plain:
    def packed(self, text: bytes) -> bytes:
        return load.frame(0x81, text)

    def unpacked(self, payload: bytes) -> bytes:
        return payload


class _Deflate(_Plain):
    """What it says itself isn't compressed, which the protocol leaves to it."""

    def __init__(self) -> None:
        self._stream = zlib.decompressobj(wbits=-zlib.MAX_WBITS)

    def unpacked(self, payload: bytes) -> bytes:
        return self._stream.decompress(payload + TAIL)


class _Zstd:
    def __init__(self) -> None:
        self._stream = zstd.ZstdDecompressor()

    def packed(self, text: bytes) -> bytes:
        return load.frame(BINARY, zstd.compress(text))

    def unpacked(self, payload: bytes) -> bytes:
        text = b""
        while payload:
            if self._stream.eof:
                self._stream = zstd.ZstdDecompressor()
            text += self._stream.decompress(payload)
            payload = self._stream.unused_data if self._stream.eof else b""
        return text


CODECS: Final[dict[str | None, type[_Codec]]] = {None: _Plain, DEFLATE: _Deflate, ZSTD: _Zstd}


@attrs.define
class Reader:
    """One client."""

    connection: socket.socket
    codec: _Codec
    size: int = 0
    """Bytes."""
    messages: int = 0
    text: int = 0
    """Characters of the agent's message so far."""
    moments: list[tuple[int, float]] = attrs.field(factory=list)
    """So much text was there at this moment."""
    over: bool = False
    _rest: bytearray = attrs.field(factory=bytearray)

    def ask(self, id: int, method: str, params: Any) -> None:
        """Ask, and wait for the answer."""
        request = json.dumps({"id": id, "method": method, "params": params}).encode()
        self.connection.sendall(self.codec.packed(request))
        while not any(message.get("id") == id for message in self.read()):
            pass

    def begin(self) -> None:
        """Count from here on."""
        self.size = self.messages = 0

    def read(self) -> list[Any]:
        """Take what is there, and return its messages."""
        piece = self.connection.recv(load.RECEIVE_BYTES)
        if not piece:
            raise EOFError("cut before the turn's end")
        now = time.monotonic()
        self.size += len(piece)
        self._rest += piece
        messages = [json.loads(self.codec.unpacked(payload)) for payload in self._payloads()]
        self.messages += len(messages)
        for message in messages:
            if message.get("method") == DELTA:
                self.text += len(message["params"]["delta"])
                self.moments.append((self.text, now))
            self.over |= message.get("method") == "turn/completed"
        return messages

    def _payloads(self) -> Iterator[bytes]:
        """Of all whole frames; the server sends each message in one, and pings rarely."""
        while len(self._rest) >= 2:
            start, size = 2, self._rest[1]
            if size >= load.SHORT:
                start += 2 if size == load.SHORT else 8
                size = int.from_bytes(self._rest[2:start])
            if len(self._rest) < start + size:
                return
            first, payload = self._rest[0], bytes(self._rest[start : start + size])
            del self._rest[: start + size]
            if first & 0x0F in (1, 2):
                yield payload


def attach(url: str, token: str, thread: str, kind: str) -> Reader:
    """A client of this kind that follows the thread."""
    header, extensions = KINDS[kind]
    connection = load.connect(url, token, *([header] if header is not None else []))
    reader = Reader(connection, CODECS[header]())
    client = {"name": f"bench, {kind}", "title": None, "version": "0.1"}
    declared = {"experimentalApi": True, "extensions": extensions}
    reader.ask(1, "initialize", {"clientInfo": client, "capabilities": declared})
    reader.ask(2, "thread/resume", {"threadId": thread, "excludeTurns": True})
    return reader


def main(spec: str) -> None:
    """Follow one turn."""
    wanted = json.loads(spec)
    readers = {
        kind: attach(wanted["url"], wanted["token"], wanted["thread"], kind)
        for kind in wanted["kinds"]
    }
    for reader in readers.values():
        reader.begin()
    print("ready", flush=True)
    with selectors.DefaultSelector() as selector:
        selector.register(sys.stdin.fileno(), selectors.EVENT_READ)
        for reader in readers.values():
            selector.register(reader.connection, selectors.EVENT_READ, reader)
        while not all(reader.over for reader in readers.values()):
            for key, _ in selector.select():
                if key.data is None:
                    raise EOFError("stopped: nobody waits for this any more")
                key.data.read()
    result = {
        kind: {
            "bytes": reader.size,
            "messages": reader.messages,
            "text": reader.text,
            "moments": reader.moments,
        }
        for kind, reader in readers.items()
    }
    print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
