"""A stream's text, short or long: what a joiner gets of it, and its end."""

from __future__ import annotations

import json

import pytest

from mux.core.protocol.envelope.rope import PIECE_BYTES, Rope
from mux.core.state.turns.delta_stream import DeltaStream
from tests.core.stories import DELTA, dumps

WORDS = 'a "word" \u00e9\n'


def stream() -> DeltaStream:
    params = {"threadId": "t", "itemId": "m", "delta": "first", "n": [1]}
    return DeltaStream(DELTA, None, dumps({"method": DELTA, "params": params, "at": 7}))


@pytest.mark.parametrize("times", [0, 1, 100, 3 * PIECE_BYTES // len(dumps(WORDS))])
def test_a_joiner_gets_all_of_it_in_one_delta(times: int) -> None:
    long = stream()
    for _ in range(times):
        long.add(dumps(WORDS))
    line = long.line()
    told = json.loads(line.whole() if isinstance(line, Rope) else line)
    params = {"threadId": "t", "itemId": "m", "delta": WORDS * times, "n": [1]}
    assert told == {"method": DELTA, "params": params, "at": 7}
    assert dumps(WORDS * times)[1:-1][-10:] == long.end(10)


def test_a_long_one_is_not_copied_for_a_joiner() -> None:
    """But for what has come since its last full piece."""
    long = stream()
    for _ in range(40):
        long.add(b'"%b"' % (b"x" * (PIECE_BYTES // 4)))
    lines = [long.line(), long.line()]
    assert all(isinstance(line, Rope) for line in lines)
    first, second = (line.pieces[1:11] for line in lines if isinstance(line, Rope))
    assert len(first) == 10
    assert all(mine is yours for mine, yours in zip(first, second, strict=True))


def test_the_end_of_it_reaches_back_into_what_was_put_away() -> None:
    long = stream()
    long.add(b'"%b"' % (b"x" * PIECE_BYTES))
    assert long.end(4) == b"xxxx"
    long.add(b'"yz"')
    assert long.end(4) == b"xxyz"
    assert long.end(1) == b"z"
