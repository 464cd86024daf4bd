"""The fuzz of the parser of clients' frames: right ones and wrong ones, in pieces of any size.

What must hold: nothing raises; what is right comes out as it went in, whatever the pieces were;
after the end nothing more does; and what is kept is no more than what isn't complete yet.

Hands to: the fuzz, as its second target.
"""

from __future__ import annotations

import random
from typing import Final

from mux.downstream.websocket.websocket import FrameReader
from tests.fuzz.oracle import FaultError

LIMIT: Final = 4096
SIZES: Final = (0, 1, 5, 125, 126, 127, 200, 2000)
TEXT: Final = "aé\U0001f4a5{}"
CONTROL: Final = (0x9, 0xA)
OPCODES: Final = (0x0, 0x1, 0x1, 0x1, 0x1, 0x2, 0x3, 0x8, 0x9, 0xA, 0xB)
MASKED: Final = 0x80
FINAL: Final = 0x80
IN_2_BYTES: Final = 126
IN_8_BYTES: Final = 127


def frame(rng: random.Random, opcode: int, payload: bytes, *, final: bool = True) -> bytes:
    """One client's frame."""
    mask = rng.randbytes(4)
    size = len(payload)
    if size < IN_2_BYTES:
        length = bytes([MASKED | size])
    else:
        length = bytes([MASKED | IN_2_BYTES]) + size.to_bytes(2)
    hidden = bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))
    return bytes([FINAL * final | opcode]) + length + mask + hidden


def _right(rng: random.Random) -> tuple[bytes, list[bytes | None]]:
    """Frames that a client may send, and the messages that they are."""
    text = "".join(rng.choices(TEXT, k=rng.choice(SIZES) // 4))
    payload = text.encode()
    match rng.randrange(5):
        case 0:
            return frame(rng, rng.choice(CONTROL), payload[:100]), []
        case 1:
            return frame(rng, 0x2, payload), [None]
        case 2:
            cuts = sorted(rng.randrange(len(payload) + 1) for _ in range(rng.randrange(1, 4)))
            parts = [payload[a:b] for a, b in zip([0, *cuts], [*cuts, len(payload)], strict=True)]
            sent = b""
            for place, part in enumerate(parts):
                last = place == len(parts) - 1
                sent += frame(rng, 0x0 if place else 0x1, part, final=last)
                if not last and rng.random() < 0.3:
                    sent += frame(rng, 0x9, b"between")
            return sent, [payload]
        case _:
            return frame(rng, 0x1, payload), [payload]


def _wrong(rng: random.Random) -> bytes:
    """Bytes that a client may not send, or hardly."""
    payload = rng.randbytes(rng.choice(SIZES))
    match rng.randrange(4):
        case 0:
            return rng.randbytes(rng.randrange(40))
        case 1:
            return frame(rng, rng.choice(OPCODES), payload, final=rng.random() < 0.5)
        case 2:
            size = rng.choice((LIMIT + 1, 2**31, 2**63, 2**64 - 1))
            return bytes([0x81, MASKED | IN_8_BYTES]) + size.to_bytes(8) + rng.randbytes(4)
        case _:
            sent = bytearray(frame(rng, 0x1, payload))
            sent[rng.randrange(min(len(sent), 14))] ^= 1 << rng.randrange(8)
            return bytes(sent)


def connection(rng: random.Random) -> int:
    """One connection, mostly of right frames; raises `FaultError`. Returns how many were sent."""
    frames, sent = FrameReader(LIMIT), b""
    expected: list[bytes | None] = []
    count = rng.randrange(1, 12)
    for _ in range(count):
        made, messages = _right(rng)
        sent += made
        expected += messages
    is_right = rng.random() < 0.5
    if not is_right:
        sent += _wrong(rng) + _right(rng)[0]
    taken: list[bytes | None] = []
    while sent:
        size = rng.choice((1, 2, 7, 100, 5000))
        received, sent = sent[:size], sent[size:]
        most = rng.choice((1, 4, 1000))
        while True:
            was_over = frames.ended
            taken_now = frames.feed(received, most)
            if was_over and taken_now:
                raise FaultError(f"messages behind the end: {taken_now!r:.300}")
            taken += taken_now
            received = b""
            if not frames.more:
                break
    if taken[: len(expected)] != expected or (is_right and len(taken) != len(expected)):
        raise FaultError(f"sent {expected!r:.300}, taken {taken!r:.300}")
    if is_right and (frames.ended or frames._buffer):
        raise FaultError("right frames ended it, or are left over")
    return count


def played(seed: int, frames: int) -> None:
    """Connections of so many frames in all; raises `FaultError`, which tells the connection."""
    number = 0
    while frames > 0:
        rng = random.Random(f"frames/{seed}/{number}")
        try:
            frames -= connection(rng)
        except Exception as error:
            raise FaultError(f"connection {number} of seed {seed}: {error!r}") from error
        number += 1
