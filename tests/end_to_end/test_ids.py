"""Ids: each client has a space of its own, and nothing in an envelope is lost on the way."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import trio

from tests.end_to_end.brokered import brokered, client
from tests.end_to_end.peer import Peer, answers
from tests.end_to_end.scenes import LIST, eventually, tapped

NUMBERS = [1, 0, -5, 2**53, 2**53 + 1, 2**63 - 1, -(2**63)]
IDS: list[int | str] = [*NUMBERS, "1", "0", "", "\u00fc\n", "x" * 300]


async def _read_one_file_for_each_id(peer: Peer, name: str, work: Path) -> None:
    """Ask under every id at once; each answer must be to that very question."""
    since = len(peer.inbox)
    for place, id in enumerate(IDS):
        (work / f"{name}-{place}").write_text(f"{name} {place}")
        await peer.ask("fs/readFile", {"path": str(work / f"{name}-{place}")}, id=id)
    for place, id in enumerate(IDS):
        read = await peer.result(id, since=since)
        assert base64.b64decode(read["dataBase64"]).decode() == f"{name} {place}"
    for id in IDS:
        assert len([each for each in peer.inbox[since:] if answers(id)(each)]) == 1


async def test_equal_ids_of_three_clients_at_once() -> None:
    async with (
        brokered() as broker,
        client(broker, "one") as one,
        client(broker, "two") as two,
        client(broker, "three") as three,
        trio.open_nursery() as nursery,
    ):
        for name, peer in (("one", one), ("two", two), ("three", three)):
            nursery.start_soon(_read_one_file_for_each_id, peer, name, broker.home.work)


async def test_an_id_used_twice_at_once_gets_two_answers() -> None:
    async with brokered() as broker, client(broker, "desk") as desk:
        for _ in range(5):
            await desk.ask(LIST, id="again")

        def heard() -> int:
            return len([each for each in desk.inbox if answers("again")(each)])

        await eventually(lambda: heard() >= 5, "five answers")
        await desk.request(LIST)
        assert heard() == 5


async def test_envelopes_pass_unchanged_both_ways(tmp_path: Path) -> None:
    params = '{"unknown" : [1.0, 1e999, 9007199254740993, "\\u00e9\\/", {"a":1,"a":2}] }'
    extra = '"jsonrpc": "2.0","trace":{"traceparent": "00-0af7"},"x-other" :[ 1.50 ]'
    async with tapped(tmp_path) as tap, client(tap.broker, "desk") as desk:
        since = len(desk.inbox)
        await desk.send_raw(f'{{"method":"{LIST}",{extra},"params":{params},"id":"mine"}}')
        await desk.wait(answers("mine"), since=since)
        line = await tap.find("stdin", b"traceparent")
        assert f'"params":{params}' in line
        for part in ('"jsonrpc":"2.0"', '"trace":{"traceparent": "00-0af7"}', '"x-other":[ 1.50 ]'):
            assert part in line
        wire = json.loads(line)["id"]
        assert type(wire) is int

        # What comes back differs from what the app-server wrote in the id alone.
        said = await tap.find("stdout", b'{"id":%d,' % wire)
        heard = next(raw for raw in desk.raw if str(raw).startswith('{"id":"mine"'))
        assert heard == said.replace(f'{{"id":{wire},', '{"id":"mine",', 1)

        # Of notifications the app-server knows one alone, which the broker has said.
        await desk.send_raw('{"method":"nobody/knows","params":{ "a":1.0 },"x":1}')
        await desk.request(LIST)
        assert not any(b"nobody/knows" in line for line in tap.sent)
