"""Bad input: its sender is told what is wrong, and nobody else notices."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

import attrs
import pytest

from tests.end_to_end.brokered import brokered, client
from tests.end_to_end.frames import (
    BINARY,
    CLOSE,
    CONTINUATION,
    FINAL,
    PING,
    TEXT,
    Framer,
    frame,
    framer,
    padded,
    random_mask_text,
)
from tests.end_to_end.native import Native
from tests.end_to_end.peer import Json, RpcError
from tests.end_to_end.scenes import LIST, app_server_pid, tapped

MIB = 1024 * 1024
PARSE, INVALID = -32700, -32600
MANY = "members and list elements"
LISTED: Final[Json] = {"data": [], "nextCursor": None}
NEXT = f'{{"id":"next","method":"{LIST}","params":{{}}}}'


def _deep(levels: int, id: str = '"id":7,') -> str:
    return f'{{{id}"method":"{LIST}","params":{{"x":{"[" * levels}{"]" * levels}}}}}'


def _with_id(id: str) -> str:
    return f'{{"id":{id},"method":"{LIST}","params":{{}}}}'


def _with_param(value: str) -> str:
    return f'{{"id":7,"method":"{LIST}","params":{{"x":{value}}}}}'


@attrs.frozen
class Refused:
    """What is sent in a frame, and the error that answers it."""

    sent: str | bytes
    code: int
    text: str = ""
    id: int | str | None = None
    opcode: int = TEXT


REFUSED: Final[dict[str, Refused]] = {
    "nothing": Refused("", PARSE),
    "no JSON": Refused("hello", PARSE),
    "half a JSON": Refused('{"id":7,"method":"thread', PARSE),
    "a batch": Refused(f"[{_with_id('7')}]", INVALID, "batch"),
    "an empty batch": Refused("[]", INVALID, "batch"),
    "a number": Refused("5", INVALID),
    "a string": Refused('"hello"', INVALID),
    "null": Refused("null", INVALID),
    "two documents": Refused(_with_id("7") + _with_id("8"), PARSE),
    "two documents on lines": Refused(_with_id("7") + "\n" + _with_id("8"), PARSE),
    "a smuggled line": Refused(_with_id("7") + '\r\n{"method":"initialized"}\r\n', PARSE),
    "an empty object": Refused("{}", INVALID),
    "an id alone": Refused('{"id":1}', INVALID, id=1),
    "result and error": Refused('{"id":1,"result":1,"error":{}}', INVALID, id=1),
    "id null": Refused(_with_id("null"), INVALID, "`id`"),
    "id 1.0": Refused(_with_id("1.0"), INVALID, "`id`"),
    "id 1e2": Refused(_with_id("1e2"), INVALID, "`id`"),
    "id true": Refused(_with_id("true"), INVALID, "`id`"),
    "id a list": Refused(_with_id("[1]"), INVALID, "`id`"),
    "id an object": Refused(_with_id('{"a":1}'), INVALID, "`id`"),
    "id 2^63": Refused(_with_id(str(2**63)), INVALID, "`id`"),
    "id -2^63-1": Refused(_with_id(str(-(2**63) - 1)), INVALID, "`id`"),
    "id of 5,000 digits": Refused(_with_id("9" * 5000), INVALID, "`id`"),
    "an id of 2,000 characters": Refused(_with_id(f'"{"x" * 2000}"'), INVALID, "`id` is longer"),
    "a method of 300": Refused(f'{{"id":7,"method":"{"x" * 300}"}}', INVALID, "`method` is", 7),
    "id a lone surrogate": Refused(_with_id('"\\ud800"'), PARSE),
    "method a number": Refused('{"id":7,"method":5,"params":{}}', INVALID, "`method`", 7),
    "method null": Refused('{"id":7,"method":null,"params":{}}', INVALID, "`method`", 7),
    "method a lone surrogate": Refused('{"id":7,"method":"\\udc00"}', PARSE),
    "a doubled id": Refused(f'{{"id":7,"id":8,"method":"{LIST}","params":{{}}}}', INVALID, "twice"),
    "a doubled method": Refused(
        f'{{"id":7,"method":"{LIST}","m\\u0065thod":"turn/start","params":{{}}}}', INVALID, "twice"
    ),
    "doubled params": Refused(
        f'{{"id":7,"method":"{LIST}","params":{{}},"params":{{"a":1}}}}', INVALID, "twice"
    ),
    "NaN": Refused(_with_param("NaN"), PARSE),
    "Infinity": Refused(_with_param("-Infinity"), PARSE),
    "a leading zero": Refused(_with_param("01"), PARSE),
    "a trailing comma": Refused(_with_param('1,"y":[1,]'), PARSE),
    "a raw tab in a string": Refused(_with_param('"a\tb"'), PARSE),
    "a raw newline in a string": Refused(_with_param('"a\nb"'), PARSE),
    "a lone surrogate": Refused(_with_param('"\\ud800"'), PARSE),
    "surrogates reversed": Refused(_with_param('"\\udc00\\ud800"'), PARSE),
    "a lone surrogate as key": Refused(_with_param('{"\\ud800":1}'), PARSE),
    "a byte order mark": Refused("\ufeff" + _with_id("7"), PARSE),
    "a trace of another shape": Refused(
        f'{{"id":7,"method":"{LIST}","params":{{}},"trace":5}}', INVALID, "`trace`", 7
    ),
    "a trace with a number": Refused(
        f'{{"id":7,"method":"{LIST}","params":{{}},"trace":{{"traceparent":5}}}}',
        INVALID,
        "`trace.traceparent` must be a string",
        7,
    ),
    "126 deep": Refused(_deep(126), INVALID, "nested deeper", 7),
    "1,000 deep": Refused(_deep(1000), PARSE, "nested deeper"),
    "100,000 deep": Refused(_deep(100_000), INVALID, MANY),
    "100,000 deep, never closed": Refused('{"x":' * 100_000, INVALID, MANY),
    "a binary frame": Refused(_with_id("7"), INVALID, "binary", opcode=BINARY),
    "a binary frame of no text": Refused(b"\x00\xff", INVALID, "binary", opcode=BINARY),
}


async def _still_well(broker: Native, pid: int) -> None:
    async with client(broker, "other") as other:
        assert await other.request(LIST) == LISTED
        assert await app_server_pid(other) == pid


async def _refusal(sender: Framer, case: Refused) -> None:
    payload = case.sent.encode() if isinstance(case.sent, str) else case.sent
    await sender.send(frame(case.opcode, payload))
    answer = await sender.answer()
    assert answer["id"] == case.id
    assert answer["error"]["code"] == case.code
    assert case.text in answer["error"]["message"]
    # The connection goes on, and nothing else came of it.
    await sender.send_text(NEXT)
    assert await sender.answer() == {"id": "next", "result": LISTED}


async def test_what_is_refused_with_an_error() -> None:
    failed = {}
    async with brokered() as broker, framer(broker.url) as sender, client(broker, "b") as other:
        pid = await app_server_pid(other)
        await sender.initialize("sender")
        for name, case in REFUSED.items():
            try:
                await _refusal(sender, case)
            except AssertionError as error:
                failed[name] = str(error)
            assert await other.request(LIST) == LISTED
        assert await app_server_pid(other) == pid
        assert "Failed to deserialize" not in broker.shown()
    assert failed == {}


@attrs.frozen
class Cut:
    """What is sent on the wire, and the code that it closes the connection with."""

    sent: bytes
    code: int


SMALL_LIMIT = 64 * 1024
CUTS: Final[dict[str, Cut]] = {
    "invalid UTF-8": Cut(frame(TEXT, b'{"id":7,"method":"\xff"}'), 1007),
    "an overlong UTF-8": Cut(frame(TEXT, b'{"id":7,"method":"\xc0\x80"}'), 1007),
    "UTF-8 of a surrogate": Cut(frame(TEXT, b'{"id":7,"method":"\xed\xa0\x80"}'), 1007),
    "UTF-8 cut off": Cut(frame(TEXT, b'{"id":7,"method":"\xe2\x82'), 1007),
    "a frame past the limit": Cut(frame(TEXT, padded(SMALL_LIMIT + 1)), 1009),
    "a frame past any memory": Cut(frame(TEXT, padded(SMALL_LIMIT + 1), length=2**40), 1009),
    "fragments past the limit": Cut(
        frame(TEXT, padded(SMALL_LIMIT)[:-1], final=False) + frame(CONTINUATION, b" " * 100), 1009
    ),
    "an unknown opcode": Cut(frame(0x3, b"x"), 1002),
    "a reserved bit": Cut(frame(TEXT | 0x40, b"x"), 1002),
    "an unmasked frame": Cut(bytes([TEXT | FINAL, 1]) + b"x", 1002),
    "a continuation of nothing": Cut(frame(CONTINUATION, b"x"), 1002),
    "a ping past its limit": Cut(frame(PING, b"x" * 126), 1002),
    "a ping in pieces": Cut(frame(PING, b"x", final=False), 1002),
}


async def test_what_closes_the_connection() -> None:
    environ = {"APPMUX_LIMITS_MESSAGE_BYTES": str(SMALL_LIMIT)}
    codes = {}
    async with brokered(environ=environ) as broker, client(broker, "other") as other:
        pid = await app_server_pid(other)
        for name, cut in CUTS.items():
            async with framer(broker.url) as sender:
                await sender.initialize("sender")
                await sender.send(cut.sent)
                codes[name] = (await sender.closed()).code
            await _still_well(broker, pid)
        async with framer(broker.url) as sender:
            await sender.initialize("sender")
            await sender.send_text(padded(SMALL_LIMIT))  # just what may pass
            assert await sender.answer() == {"id": "big", "result": LISTED}
            await sender.send(frame(CLOSE, (1000).to_bytes(2, "big")))
            assert (await sender.closed()).code == 1000
        assert await other.request(LIST) == LISTED
    assert codes == {name: cut.code for name, cut in CUTS.items()}


async def test_before_the_handshake_too() -> None:
    async with brokered() as broker, client(broker, "other") as other:
        pid = await app_server_pid(other)
        async with framer(broker.url) as sender:
            await sender.send_text("{")
            assert (await sender.answer())["error"]["code"] == PARSE
            await sender.send_text(NEXT)
            assert (await sender.answer())["error"]["message"] == "Not initialized"
            await sender.send_text('{"id":1,"result":{}}')  # an answer to nothing
            await sender.send_text('{"method":"turn/start","params":{}}')
            assert "result" in await sender.initialize("late")
        await _still_well(broker, pid)


async def test_what_is_legal_passes_on_one_line(tmp_path: Path) -> None:
    pretty = json.dumps({"id": 7, "method": LIST, "params": {"x": [1, {"y": 2}]}}, indent=2)
    legal = {
        "pretty-printed": pretty,
        "with CRLF": pretty.replace("\n", "\r\n"),
        "blanks around it": f"\n\r\t {pretty} \n\n",
        "a newline escaped": _with_param('"a\\nb\\u000a"'),
        "U+2028 and U+2029": _with_param('"\u2028\u2029"'),
        "125 deep": _deep(125),
        "brackets in strings": _with_param(f'"{"[" * 200_000}"'),
        "a pair of surrogates": _with_param('"\\ud83d\\ude00"'),
        "a doubled key in params": _with_param('1,"x":2'),
        "an escaped method": '{"id":7,"m\\u0065thod":"thread\\/loaded\\u002flist","params":{}}',
        "an unknown field": f'{{"id":7,"method":"{LIST}","params":{{}},"a\\nb\\"":[\n1]}}',
    }
    async with (
        tapped(tmp_path) as tap,
        framer(tap.broker.url) as sender,
        client(tap.broker, "other") as other,
    ):
        await sender.initialize("sender")
        for name, text in legal.items():
            await sender.send_text(text)
            assert await sender.answer() == {"id": 7, "result": LISTED}, name
        await sender.send(random_mask_text(_with_id("7").encode()))
        assert await sender.answer() == {"id": 7, "result": LISTED}
        assert await other.request(LIST) == LISTED
        for line in tap.sent:  # a line is a message, and has no other line end in it
            assert b"\r" not in line
            assert line == b'{"method":"initialized"}' or type(json.loads(line)["id"]) is int
        assert len(tap.sent) == len(legal) + 4


@pytest.mark.parametrize(("size", "pieces"), [(14 * MIB, 1), (20 * MIB, 320), (40 * MIB, 3)])
async def test_large_messages_pass(size: int, pieces: int) -> None:
    message = padded(size)
    step = -(-len(message) // pieces)
    parts = [message[at : at + step] for at in range(0, len(message), step)]
    async with (
        brokered() as broker,
        framer(broker.url) as sender,
        client(broker, "other") as other,
    ):
        pid = await app_server_pid(other)
        await sender.initialize("sender")
        for number, part in enumerate(parts, 1):
            opcode = TEXT if number == 1 else CONTINUATION
            await sender.send(frame(opcode, part, final=number == len(parts)))
            if number == 2:  # control frames may stand in between
                await sender.send(frame(PING, b"still there?"))
        answers = [await sender.answer()]
        assert answers == [{"id": "big", "result": LISTED}]
        with pytest.raises(RpcError):
            await other.request("no/such/method")
        assert await app_server_pid(other) == pid
