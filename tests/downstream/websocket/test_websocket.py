"""`websocket.websocket`: the same messages, however the bytes come, and what is said back."""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wsproto.connection import Connection, ConnectionType
from wsproto.events import CloseConnection, Pong

from mux.downstream.websocket.websocket import (
    HEAD_BYTES,
    IN_2_BYTES,
    SHORT_TEXT,
    SMALL_FRAGMENT,
    FrameReader,
    accepted,
)
from tests.end_to_end.frames import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, frame

LIMIT = 100_000


def masked(opcode: int, payload: bytes | bytearray, *, final: bool = True) -> bytes:
    """A client's frame under a mask that hides something."""
    plain = frame(opcode, bytes(payload), final=final)
    mask = os.urandom(4)
    head = len(plain) - len(payload) - 4
    hidden = bytes(byte ^ mask[place % 4] for place, byte in enumerate(payload))
    return plain[:head] + mask + hidden


def taken(frames: FrameReader, pieces: Sequence[bytes | bytearray]) -> list[bytes | None]:
    return [message for piece in pieces for message in frames.feed(piece)]


def cut(whole: bytes, places: list[int]) -> list[bytearray]:
    """Its pieces, each an object of its own."""
    return [bytearray(whole[a:b]) for a, b in pairwise([0, *sorted(places), len(whole)])]


def said(frames: FrameReader) -> list[object]:
    """What is owed, as a client reads it."""
    library = Connection(ConnectionType.CLIENT)
    library.receive_data(b"".join(frames.owed))
    return list(library.events())


SIZES = st.sampled_from([0, 1, 3, 4, 125, 126, 127, SHORT_TEXT, SHORT_TEXT + 1, 65535, 65536])
TEXTS = st.text(max_size=40) | SIZES.map("x".__mul__) | SIZES.map(lambda size: "ü" * (size // 2))


@given(data=st.data(), texts=st.lists(TEXTS, max_size=6))
def test_messages_are_the_same_however_their_bytes_come(
    data: st.DataObject, texts: list[str]
) -> None:
    sent = b""
    for text in texts:
        parts = cut(text.encode(), data.draw(st.lists(st.integers(0, len(text)), max_size=2)))
        sent += masked(TEXT, parts[0], final=len(parts) == 1)
        for part in parts[1:]:  # control frames may stand in between
            sent += masked(PING, b"p")
            sent += masked(CONTINUATION, part, final=part is parts[-1])
    frames = FrameReader(LIMIT)
    pieces = cut(sent, data.draw(st.lists(st.integers(0, len(sent)), max_size=5)))
    assert taken(frames, pieces) == [text.encode() for text in texts]
    assert all(event == Pong(payload=b"p") for event in said(frames))
    assert not frames.ended


def test_byte_by_byte_too() -> None:
    sent = masked(TEXT, b"x" * 300) + masked(BINARY, b"\xff") + masked(TEXT, b"")
    frames = FrameReader(LIMIT)
    assert taken(frames, [bytes([byte]) for byte in sent]) == [b"x" * 300, None, b""]


def test_a_long_message_is_read_as_it_comes() -> None:
    """Not in one long step at its end: of what has come nothing waits."""
    frames, text = FrameReader(300_000), "xü" * 90_000
    sent = masked(TEXT, text.encode()) + masked(PING, b"p") + masked(TEXT, b"next")
    found: list[bytes | None] = []
    for at in range(0, len(sent), 16_384):
        found += frames.feed(sent[at : at + 16_384])
        assert not frames._buffer or len(sent) - at < 16_384
    assert found == [text.encode(), b"next"]
    assert len(said(frames)) == frames.idle == 1


def test_a_long_text_that_isnt_utf8_ends_it_in_its_midst() -> None:
    frames, sent = FrameReader(LIMIT), masked(TEXT, b"\xff" * 70_000) + masked(TEXT, b"late")
    assert frames.feed(sent[:40_000]) == []
    assert frames.ended
    assert frames.feed(sent[40_000:]) == []
    (close,) = said(frames)
    assert isinstance(close, CloseConnection)
    assert close.code == 1007


@given(texts=st.lists(TEXTS, max_size=6), most=st.integers(1, 3))
def test_a_few_frames_at_a_time_are_the_same_messages(texts: list[str], most: int) -> None:
    frames = FrameReader(LIMIT)
    sent = b"".join(masked(PING, b"p") + masked(TEXT, text.encode()) for text in texts)
    found = frames.feed(sent, most)
    while frames.more:
        some = frames.feed(b"", most)
        assert len(some) <= most
        found += some
    assert found == [text.encode() for text in texts]
    assert len(said(frames)) == frames.idle == len(texts)


def test_what_carries_nothing_is_counted_as_idle() -> None:
    frames = FrameReader(LIMIT)
    frames.feed(masked(PING, b"") + masked(PONG, b"late") + masked(TEXT, b"") + masked(TEXT, b"x"))
    assert frames.idle == 2
    frames.feed(masked(TEXT, b"x" * SMALL_FRAGMENT, final=False))
    frames.feed(masked(CONTINUATION, b"x" * SMALL_FRAGMENT))
    assert frames.idle == 2
    frames.feed(masked(TEXT, b"x", final=False))
    frames.feed(masked(CONTINUATION, b"", final=False) + masked(CONTINUATION, b""))
    assert frames.idle == 5
    frames.feed(masked(BINARY, b"x") + masked(CLOSE, b""))
    assert frames.idle == 6


@pytest.mark.parametrize("size", [10, SHORT_TEXT + 1])
def test_text_that_isnt_utf8_ends_it(size: int) -> None:
    frames = FrameReader(LIMIT)
    sent = masked(TEXT, b"good") + masked(TEXT, b"\xff" * size) + masked(TEXT, b"late")
    assert frames.feed(sent) == [b"good"]
    assert frames.ended
    (close,) = said(frames)
    assert isinstance(close, CloseConnection)
    assert close.code == 1007


def test_a_frame_without_a_mask_ends_it() -> None:
    frames = FrameReader(LIMIT)
    assert frames.feed(bytes([0x81, 1]) + b"x") == []
    (close,) = said(frames)
    assert isinstance(close, CloseConnection)
    assert close.code == 1002


def test_the_limit_is_a_messages_and_told_before_its_end() -> None:
    parted = FrameReader(1000)
    assert parted.feed(masked(TEXT, b"x" * 1000)) == [b"x" * 1000]
    parts = [masked(TEXT, b"x" * 500, final=False), masked(PING, b"y" * 100)]
    parts += [masked(CONTINUATION, b"x" * 500)]
    assert taken(parted, parts) == [b"x" * 1000]
    assert not parted.ended
    frames = FrameReader(1000)
    assert frames.feed(masked(TEXT, b"x" * 1001)[: HEAD_BYTES[IN_2_BYTES]]) == []
    assert frames.ended
    (close,) = said(frames)
    assert isinstance(close, CloseConnection)
    assert close.code == 1009


def test_the_client_closes() -> None:
    frames = FrameReader(LIMIT)
    assert frames.feed(masked(CLOSE, (1001).to_bytes(2) + b"bye")) == []
    assert frames.ended
    assert said(frames) == [CloseConnection(code=1001, reason="bye")]


def test_we_close() -> None:
    frames = FrameReader(LIMIT)
    ours = frames.close(4401, "x" * 200)
    library = Connection(ConnectionType.CLIENT)
    library.receive_data(ours)
    assert list(library.events()) == [CloseConnection(code=4401, reason="x" * 123)]
    late = masked(PING, b"") + masked(TEXT, b"late"), masked(CLOSE, (4401).to_bytes(2))
    assert taken(frames, late) == [b"late"]
    assert frames.ended
    assert frames.owed == []


def test_the_answer_to_an_upgrade_is_the_standards() -> None:
    answer = accepted(b"dGhlIHNhbXBsZSBub25jZQ==")  # RFC 6455, 1.3
    assert b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n" in answer
