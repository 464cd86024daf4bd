"""Our end of a WebSocket, against wsproto's server: what each says, the other understands."""

from __future__ import annotations

import pytest
import wsproto
from hypothesis import given
from hypothesis import strategies as st
from wsproto.events import AcceptConnection, BytesMessage, CloseConnection, Ping, Pong, TextMessage
from wsproto.events import Request as Upgrade

from mux.stdio.websocket import FRAME_BYTES, ClientWebSocket, WebSocketError


def met() -> tuple[ClientWebSocket, wsproto.WSConnection]:
    """The two ends, past the upgrade."""
    wire, server = ClientWebSocket(), wsproto.WSConnection(wsproto.ConnectionType.SERVER)
    server.receive_data(wire.hello())
    (asked,) = server.events()
    assert isinstance(asked, Upgrade)
    assert asked.target == "/rpc"
    answer = server.send(AcceptConnection())
    assert wire.feed(answer[:20]) == []
    assert wire.feed(answer[20:]) == []
    assert wire.open
    return wire, server


def heard(server: wsproto.WSConnection) -> str:
    pieces = [event.data for event in server.events() if isinstance(event, TextMessage)]
    return "".join(pieces)


@given(st.sampled_from([0, 1, 125, 126, 65535, 65536, FRAME_BYTES, FRAME_BYTES + 5]))
def test_a_message_each_way(size: int) -> None:
    wire, server = met()
    text = ("aé" * size)[:size].encode()
    for frame in wire.message(text):
        server.receive_data(frame)
    assert heard(server) == text.decode()
    sent = server.send(TextMessage(text.decode()))
    assert wire.feed(sent) == [text]


@given(st.lists(st.text(max_size=300), max_size=5), st.integers(1, 50))
def test_however_it_is_cut(texts: list[str], size: int) -> None:
    wire, server = met()
    sent = b"".join(
        server.send(TextMessage(text, message_finished=last)) + server.send(Ping(b"?"))
        for text in texts
        for last in (False, True)
    )
    found: list[bytes] = []
    for start in range(0, len(sent), size):
        found += wire.feed(sent[start : start + size])
    assert found == [text.encode() * 2 for text in texts]
    server.receive_data(b"".join(wire.replies))
    assert [type(event) for event in server.events()] == [Pong] * 2 * len(texts)


def test_a_close_is_answered_once_and_its_reason_kept() -> None:
    wire, server = met()
    sent = server.send(TextMessage("last")) + server.send(CloseConnection(1013, "too far behind"))
    assert wire.feed(sent) == [b"last"]
    assert wire.closed == (1013, "too far behind")
    server.receive_data(wire.replies.pop())
    assert [type(event) for event in server.events()] == [CloseConnection]

    wire, server = met()
    server.receive_data(wire.goodbye())
    (closing,) = server.events()
    assert isinstance(closing, CloseConnection)
    wire.feed(server.send(closing.response()))
    assert wire.closed == (1000, "")
    assert not wire.replies


@pytest.mark.parametrize(
    ("received", "why"),
    [
        (b"HTTP/1.1 403 Forbidden\r\n\r\n", "it answered 'HTTP/1.1 403 Forbidden'"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", "it answered 'SSH-2.0-OpenSSH'"),
        (b"HTTP/1.1 101 x\r\nSec-WebSocket-Accept: AAAA\r\n\r\n", "answers another request"),
        (b"x" * 20000, "isn't HTTP"),
    ],
)
def test_what_is_no_upgrade(received: bytes, why: str) -> None:
    with pytest.raises(WebSocketError, match=why):
        ClientWebSocket().feed(received)


@pytest.mark.parametrize(
    "frames",
    [
        b"\xc1\x01x",  # a reserved bit
        b"\x81\x81\0\0\0\0x",  # masked by a server
        b"\x80\x01x",  # goes on with nothing
        b"\x01\x01x\x81\x01x",  # begins amid another
        b"\x83\x01x",  # no such opcode
        b"\x09\x01x",  # a ping in pieces
    ],
)
def test_frames_that_a_server_does_not_send(frames: bytes) -> None:
    wire, _ = met()
    with pytest.raises(WebSocketError):
        wire.feed(frames)


def test_binary_is_taken_as_it_is() -> None:
    wire, server = met()
    assert wire.feed(server.send(BytesMessage(b"\xff"))) == [b"\xff"]
