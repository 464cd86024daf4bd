"""Lines out of bytes: cut anywhere, too long, blank, broken."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mux.stdio.lines import KEPT_BYTES, LINE_BYTES, Lines

SMALL = 3 * KEPT_BYTES


def error(lines: Lines) -> Any:
    (told,) = lines.errors
    return json.loads(told)


@given(st.lists(st.sampled_from(["a", "bé", "", "c\r", "  ", "d" * 50])), st.integers(1, 9))
def test_however_it_is_cut_the_lines_are_the_same(texts: list[str], size: int) -> None:
    whole = "\n".join(texts).encode()
    lines = Lines()
    found: list[bytes] = []
    for start in range(0, len(whole), size):
        found += lines.feed(whole[start : start + size])
    found += lines.ends()
    assert found == [text.removesuffix("\r").encode() for text in texts if text.strip()]
    assert not lines.errors


def test_what_is_not_utf_8_is_told_and_left_out() -> None:
    lines = Lines()
    assert list(lines.feed(b'{"a":"\xed\xa0\x80"}\n{"b":1}\n')) == [b'{"b":1}']
    assert error(lines)["error"]["message"].startswith("not UTF-8, at byte 6 of the line")


@pytest.mark.parametrize(
    ("head", "tail", "id"),
    [
        ('{"id":7,"method":"m","params":"', '"}', 7),
        ('{ "jsonrpc" : "2.0", "method":"m" , "id" : "a\\"b", "params":"', '"}', 'a"b'),
        ('{"method":"m","params":"', '","id":-5}', -5),
        ('{"method":"m","params":{"id":3,"text":"', '"},"id":"last" } \r', "last"),
        ('{"method":"m","params":{"id":3,"text":"', '"}}', None),
        ('{"method":"m","params":{"text":"","id":3,"t":"', '","id":4}}', None),
        ('{"id":9,"result":"', '"}', None),
        ('{"result":"', '","id":9}', None),
        ("", "", None),
    ],
)
def test_a_line_that_is_too_long_has_an_error_under_its_id(head: str, tail: str, id: Any) -> None:
    lines = Lines(SMALL)
    line = head.encode() + b"x" * (SMALL + 1) + tail.encode()
    found: list[bytes] = []
    for start in range(0, len(line), 1000):
        found += lines.feed(line[start : start + 1000])
    assert [*found, *lines.feed(b"\nnext\n")] == [b"next"]
    told = error(lines)
    assert told["id"] == id
    assert f"of {len(line)} bytes; the broker takes {SMALL}" in told["error"]["message"]


def test_the_longest_line_passes() -> None:
    lines = Lines(SMALL)
    assert [len(each) for each in lines.feed(b"x" * SMALL + b"\r\n")] == [SMALL]
    assert not lines.errors
    assert LINE_BYTES == 64 * 2**20
