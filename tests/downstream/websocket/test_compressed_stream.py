"""Compressed connections, against another implementation of each compression."""

from __future__ import annotations

import secrets
import socket
import zlib
from collections.abc import Iterator
from itertools import pairwise

import pytest
import trio
import trio.testing
from backports import zstd
from hypothesis import given, settings
from hypothesis import strategies as st
from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage, TextMessage
from wsproto.extensions import PerMessageDeflate

from mux.dispatch.outbox import Outbox, WriteScheduler, text_frame
from mux.downstream.websocket import deflate, offers
from mux.downstream.websocket.compressed_stream import CompressedStream, FrameUnpacker
from mux.downstream.websocket.websocket import FrameReader

ZSTD = {b"zstd-stream-v1"}
LIMIT = 64 * 1024

DEFLATE = deflate.taken(b"permessage-deflate; client_max_window_bits")
assert DEFLATE is not None
ZSTD_STREAM = offers.ZstdStream()

words = st.text(max_size=300) | st.text("ab", min_size=1000, max_size=5000)


def _deflate_client() -> Connection:
    extension = PerMessageDeflate()
    extension.finalize("permessage-deflate; client_no_context_takeover")
    return Connection(ConnectionType.CLIENT, [extension])


def _stream(
    offer: offers.Offer, near: trio.abc.HalfCloseableStream, plain: int = 0
) -> CompressedStream:
    unpacker = FrameUnpacker(offers.unpacking(offer), FrameReader(LIMIT))
    return CompressedStream(near, offers.packer(offer), unpacker, plain)


async def _sent(offer: offers.Offer, pieces: list[bytes], plain: int = 0) -> bytes:
    """Return what a client gets of pieces that an outbox writes."""
    near, far = trio.testing.memory_stream_pair()
    stream = _stream(offer, near, plain)
    for piece in pieces:
        await stream.send_all(piece)
    await stream.send_eof()
    return b"".join([part async for part in far])


# --- What is offered ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("offer", "answer", "bits", "forgets"),
    [
        (b"permessage-deflate", b"", 13, False),
        (b"permessage-deflate; client_max_window_bits", b"; client_max_window_bits=12", 13, False),
        (
            b"permessage-deflate;client_max_window_bits=10",
            b"; client_max_window_bits=10",
            13,
            False,
        ),
        (
            b'permessage-deflate; server_max_window_bits="11"',
            b"; server_max_window_bits=11",
            11,
            False,
        ),
        (
            b"permessage-deflate; server_max_window_bits=15",
            b"; server_max_window_bits=15",
            13,
            False,
        ),
        (
            b"permessage-deflate; server_no_context_takeover",
            b"; server_no_context_takeover",
            13,
            True,
        ),
        (b"permessage-deflate; client_no_context_takeover", b"", 13, False),
    ],
)
def test_an_offer_that_is_taken(offer: bytes, answer: bytes, bits: int, forgets: bool) -> None:
    taken = deflate.taken(offer)
    head = b"Sec-WebSocket-Extensions: permessage-deflate; client_no_context_takeover"
    assert taken == deflate.Deflate(head + answer, bits, forgets)


@pytest.mark.parametrize(
    "offer",
    [
        b"",
        b"x-webkit-deflate-frame",
        b"permessage-deflate=1",
        b"permessage-deflate; unknown",
        b"permessage-deflate; server_max_window_bits",
        b"permessage-deflate; server_max_window_bits=8",
        b"permessage-deflate; server_max_window_bits=16",
        b"permessage-deflate; client_max_window_bits=7",
        b"permessage-deflate; server_no_context_takeover=1",
        b"permessage-deflate; client_max_window_bits; client_max_window_bits",
        b"permessage-deflate; \xff",
    ],
)
def test_an_offer_that_is_not_taken(offer: bytes) -> None:
    assert deflate.taken(offer) is None
    assert offers.offered([offer], []) is None


def test_the_first_offer_that_can_be_taken_is() -> None:
    several = [
        b"permessage-deflate; unknown, x",
        b"y, permessage-deflate; server_max_window_bits=9",
    ]
    taken = offers.offered(several, [])
    assert isinstance(taken, deflate.Deflate)
    assert taken.window_bits == 9
    assert offers.offered(several, ZSTD) == ZSTD_STREAM
    assert offers.offered([], [b"zstd-stream-v2"]) is None
    assert offers.offered([], [b"zstd-stream-v1", b"zstd-stream-v1"]) is None


# --- To the client --------------------------------------------------------------------------------


@given(st.lists(st.lists(words, max_size=4), max_size=4))
@settings(max_examples=50)
def test_a_client_inflates_what_was_sent(pieces: list[list[str]]) -> None:
    client = _deflate_client()
    frames = [b"".join(text_frame(word.encode()) for word in piece) for piece in pieces]
    assert isinstance(DEFLATE, deflate.Deflate)
    client.receive_data(trio.run(_sent, DEFLATE, frames))
    texts = [event.data for event in client.events() if isinstance(event, TextMessage)]
    assert "".join(texts) == "".join(word for piece in pieces for word in piece)


@given(st.lists(st.lists(words, max_size=4), max_size=4))
@settings(max_examples=50)
def test_a_client_reads_the_zstd_stream(pieces: list[list[str]]) -> None:
    client, stream = Connection(ConnectionType.CLIENT), zstd.ZstdDecompressor()
    frames = [b"".join(text_frame(word.encode()) for word in piece) for piece in pieces]
    client.receive_data(trio.run(_sent, ZSTD_STREAM, frames))
    messages: list[bytes] = [b""]
    for event in client.events():
        assert isinstance(event, BytesMessage)
        messages[-1] += event.data
        if event.message_finished:
            messages.append(b"")
    texts = [stream.decompress(message).decode() for message in messages[:-1]]
    assert texts == [word for piece in pieces for word in piece]


async def test_the_response_and_other_frames_pass() -> None:
    response, ping, close = b"HTTP/1.1 101 Sw\r\n\r\n", b"\x89\x01x", b"\x88\x02\x03\xe8"
    assert isinstance(DEFLATE, deflate.Deflate)
    whole = await _sent(
        DEFLATE, [response + ping + text_frame(b"a" * 500), close], plain=len(response)
    )
    assert whole.startswith(response + ping + b"\xc1")
    assert whole.endswith(close)
    assert len(whole) < 100


async def test_a_turn_is_a_fraction_of_its_bytes() -> None:
    deltas = [
        text_frame(
            b'{"method":"item/agentMessage/delta","params":{"threadId":"0199-7a","turnId":"0199-8b",'
            b'"itemId":"msg_%d","delta":"%b "}}' % (number // 500, secrets.token_hex(3).encode())
        )
        for number in range(2000)
    ]
    plain = sum(map(len, deltas))
    assert isinstance(DEFLATE, deflate.Deflate)
    for offer in (DEFLATE, ZSTD_STREAM):
        assert len(await _sent(offer, deltas)) < plain * 0.3


@pytest.mark.parametrize("offer", [DEFLATE, ZSTD_STREAM])
async def test_what_the_socket_does_not_take_at_once_is_not_lost(offer: offers.Offer) -> None:
    near, far = socket.socketpair()
    near.setblocking(False)
    near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    response, texts = b"HTTP/1.1 101 Sw\r\n\r\n", [_noise(size) for size in SIZES]
    stream = _stream(offer, trio.SocketStream(trio.socket.from_stdlib_socket(near)), len(response))
    stream.descriptor = near.fileno
    scheduler, written = WriteScheduler(), trio.Event()
    outbox = Outbox(descriptor=near.fileno, writes=scheduler, compressed=stream.send_now)
    received = bytearray()
    trio.lowlevel.add_instrument(scheduler)
    async with trio.open_nursery() as nursery:

        async def write() -> None:
            await outbox.write_to(stream)
            await stream.aclose()
            written.set()

        async def read() -> None:
            async with trio.SocketStream(trio.socket.from_stdlib_socket(far)) as client:
                async for part in client:
                    received.extend(part)
                    await trio.testing.wait_all_tasks_blocked()

        outbox.wake_writer = lambda: nursery.start_soon(write)
        outbox.append(response)
        for text in texts:
            outbox.append(text_frame(text.encode()))
            await trio.lowlevel.checkpoint()
        nursery.start_soon(read)
        outbox.finish()
        await written.wait()
    trio.lowlevel.remove_instrument(scheduler)
    assert received.startswith(response)
    assert _read_back(offer, bytes(received[len(response) :])) == texts
    assert outbox.owed == 0


SIZES = [0, 1, 50, 200, 3000] * 40 + [30_000, 0, 50]


def _noise(size: int) -> str:
    return secrets.token_hex(size)[:size]


def _read_back(offer: offers.Offer, received: bytes) -> list[str]:
    """The texts that a client reads."""
    is_zstd, stream = offer == ZSTD_STREAM, zstd.ZstdDecompressor()
    client = Connection(ConnectionType.CLIENT) if is_zstd else _deflate_client()
    client.receive_data(received)
    texts, part = [], b""
    for event in client.events():
        assert isinstance(event, BytesMessage | TextMessage)
        part += event.data.encode() if isinstance(event.data, str) else event.data
        if event.message_finished:
            texts.append((stream.decompress(part) if is_zstd else part).decode())
            part = b""
    return texts


# --- From the client ------------------------------------------------------------------------------


def _fed(
    offer: offers.Offer, reader: FrameReader, whole: bytes, cuts: list[int]
) -> Iterator[bytes]:
    """Feed bytes in pieces; yield the plain frames."""
    unpacker = FrameUnpacker(offers.unpacking(offer), reader)
    places = sorted({0, len(whole), *(cut % (len(whole) + 1) for cut in cuts)})
    for start, end in pairwise(places):
        yield unpacker.feed(whole[start:end])


def _read(
    offer: offers.Offer, whole: bytes, cuts: list[int]
) -> tuple[list[bytes | None], FrameReader]:
    reader = FrameReader(LIMIT)
    messages = [text for part in _fed(offer, reader, whole, cuts) for text in reader.feed(part)]
    return messages, reader


def _masked(first: int, payload: bytes) -> bytes:
    mask = secrets.token_bytes(4)
    size = len(payload)
    head = bytes((first, 0x80 | size)) if size < 126 else bytes((first, 0xFE)) + size.to_bytes(2)
    return head + mask + bytes(a ^ mask[at % 4] for at, a in enumerate(payload))


cut = st.lists(st.integers(0, 10**6), max_size=8)


@given(st.lists(st.tuples(words, st.booleans()), max_size=5), cut)
@settings(max_examples=100)
def test_messages_of_a_browser(messages: list[tuple[str, bool]], cuts: list[int]) -> None:
    packed, plain = _deflate_client(), Connection(ConnectionType.CLIENT)
    whole = b"".join(
        (packed if compressed else plain).send(TextMessage(word)) for word, compressed in messages
    )
    assert isinstance(DEFLATE, deflate.Deflate)
    texts, reader = _read(DEFLATE, whole, cuts)
    assert texts == [word.encode() for word, _ in messages]
    assert not reader.ended


def _zstd(window_log: int) -> zstd.ZstdCompressor:
    return zstd.ZstdCompressor(options={zstd.CompressionParameter.window_log: window_log})


@given(st.lists(st.tuples(words, st.booleans()), max_size=5), cut)
@settings(max_examples=100)
def test_messages_of_codex(messages: list[tuple[str, bool]], cuts: list[int]) -> None:
    stream, whole = _zstd(20), b""
    for word, ends in messages:
        packed = stream.compress(word.encode())
        packed += stream.flush(stream.FLUSH_FRAME if ends else stream.FLUSH_BLOCK)
        whole += _masked(0x82, packed)
        if ends:
            stream = _zstd(20)
    texts, reader = _read(ZSTD_STREAM, whole, cuts)
    assert texts == [word.encode() for word, _ in messages]
    assert not reader.ended


def _deflated(text: bytes) -> bytes:
    stream = zlib.compressobj(wbits=-12)
    return (stream.compress(text) + stream.flush(zlib.Z_SYNC_FLUSH))[:-4]


def test_a_compressed_message_in_fragments_with_a_ping_between() -> None:
    packed = _deflated(b"hello" * 100)
    whole = (
        _masked(0x41, packed[:3])
        + _masked(0x89, b"ping")
        + _masked(0x00, packed[3:5])
        + _masked(0x80, packed[5:])
    )
    assert isinstance(DEFLATE, deflate.Deflate)
    texts, reader = _read(DEFLATE, whole, [])
    assert texts == [b"hello" * 100]
    assert len(reader.owed) == 1
    assert reader.idle == 4  # the ping, and three small fragments


@pytest.mark.parametrize(
    ("whole", "code"),
    [
        (_masked(0xC1, b"\xff\xff\xff"), 1002),  # not deflated
        (_masked(0xC1, _deflated(b"\xff\xfe")), 1007),  # not UTF-8
        (_masked(0xC1, _deflated(b"a" * (LIMIT + 1))), 1009),
        (_masked(0x41, b"x") + _masked(0xC1, b"y"), 1002),  # begins within another
        (_masked(0x01, b"x") + _masked(0xC1, _deflated(b"y")), 1002),
        (_masked(0x41, b"x") + _masked(0xC0, b"y"), 1002),  # RSV1 on a continuation
        (_masked(0xA1, b"x"), 1002),  # another reserved bit
        (_masked(0xC9, b"x"), 1002),  # a compressed ping
    ],
    ids=range(8),
)
def test_what_is_no_compressed_message(whole: bytes, code: int) -> None:
    assert isinstance(DEFLATE, deflate.Deflate)
    texts, reader = _read(DEFLATE, whole + _masked(0x81, b"after"), [])
    assert texts == []
    assert reader.ended
    assert int.from_bytes(reader.owed[-1][2:4]) == code


@pytest.mark.parametrize(
    ("whole", "code"),
    [
        (_masked(0x81, b"text"), 1002),
        (_masked(0x82, b"no zstd"), 1002),
        (_masked(0x82, zstd.compress(bytes(LIMIT + 1))), 1009),
        (_masked(0x82, _zstd(21).compress(b"x", zstd.ZstdCompressor.FLUSH_BLOCK)), 1002),
        (_masked(0x80, b"x"), 1002),
    ],
    ids=range(5),
)
def test_what_is_no_message_of_a_zstd_stream(whole: bytes, code: int) -> None:
    texts, reader = _read(ZSTD_STREAM, whole, [])
    assert texts == []
    assert reader.ended
    assert int.from_bytes(reader.owed[-1][2:4]) == code


def test_a_small_message_that_unpacks_to_gigabytes_costs_no_more_than_the_limit() -> None:
    bomb = _deflated(bytes(2**24))
    assert len(bomb) < LIMIT
    assert isinstance(DEFLATE, deflate.Deflate)
    texts, reader = _read(DEFLATE, _masked(0xC1, bomb), [])
    assert (texts, reader.ended) == ([], True)


async def test_it_is_a_stream() -> None:
    near, far = trio.testing.memory_stream_pair()
    assert isinstance(DEFLATE, deflate.Deflate)
    stream = _stream(DEFLATE, near)
    whole = _masked(0xC1, _deflated(b"hello"))
    await far.send_all(whole[:3])
    await far.send_all(whole[3:])
    reader = FrameReader(LIMIT)
    assert reader.feed(await stream.receive_some()) == [b"hello"]
    await far.send_eof()
    assert await stream.receive_some() == b""
