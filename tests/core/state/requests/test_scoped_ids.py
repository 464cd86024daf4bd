"""Ids that belong to one client: there and back, and what is remembered of them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mux.core.protocol.rules import OwnId
from mux.core.state.requests import scoped_ids
from mux.core.state.requests.scoped_ids import ScopedIds
from tests.core.stories import dumps

WATCH = OwnId("watchId", ended_by="fs/unwatch")
UNWATCH = OwnId("watchId", ends=True)
EXEC = OwnId("processId", ended_by="command/exec/terminate", made_up=True)
USE = OwnId("watchId")

own_ids = st.text(st.characters(exclude_categories=["Cs"]), max_size=10)


@given(own_ids, st.integers(1, 10**9), own_ids, st.integers(1, 10**9))
def test_an_id_goes_there_and_back_and_two_clients_never_meet(
    own: str, client: int, other_own: str, other: int
) -> None:
    ids = ScopedIds()
    params, _ = ids.rewrite(client, USE, dumps({"watchId": own, "x": [1]}))
    wire = json.loads(params)["watchId"]
    line = dumps({"method": "fs/changed", "params": {"watchId": wire, "y": 1}, "z": 2})
    found = scoped_ids.unscope(line, "watchId")
    assert found is not None
    assert found[:2] == (client, own)
    assert json.loads(found[2]) == {
        "method": "fs/changed",
        "params": {"watchId": own, "y": 1},
        "z": 2,
    }
    other_params, _ = ids.rewrite(other, USE, dumps({"watchId": other_own}))
    same = (client, own) == (other, other_own)
    assert (json.loads(other_params)["watchId"] == wire) is same


@pytest.mark.parametrize(
    "params", [b"null", b"[]", b"5", b"{}", b'{"watchId":5}', b'{"watchId":null}']
)
def test_params_of_another_shape_come_back_as_they_are(params: bytes) -> None:
    assert ScopedIds().rewrite(1, WATCH, params) == (params, None)


def test_the_bytes_of_other_params_are_kept() -> None:
    params, _ = ScopedIds().rewrite(1, WATCH, b'{"a":1.50,"watchId":"w","b":"\\u00e9"}')
    assert params.startswith(b'{"a":1.50,')
    assert params.endswith(b',"b":"\\u00e9"}')


def test_what_runs_is_known_from_its_beginning_to_its_release() -> None:
    ids = ScopedIds()
    params, claim = ids.rewrite(1, WATCH, b'{"watchId":"w"}')
    assert claim is not None
    assert (claim.origin, claim.wire, claim.ended_by) == ("w", "1:w", "fs/unwatch")
    assert json.loads(params) == {"watchId": "1:w"}
    assert [each.wire for each in ids.leave(1)] == ["1:w"]
    assert ids.leave(1) == []


def test_a_failed_beginning_is_released_but_not_the_first_ones_by_a_seconds_failure() -> None:
    ids = ScopedIds()
    _, first = ids.rewrite(1, WATCH, b'{"watchId":"w"}')
    _, second = ids.rewrite(1, WATCH, b'{"watchId":"w"}')
    if second is not None:
        ids.release(1, second)
    assert [each.wire for each in ids.leave(1)] == ["1:w"]
    _, first = ids.rewrite(1, WATCH, b'{"watchId":"w"}')
    assert first is not None
    ids.release(1, first)
    assert ids.leave(1) == []


def test_what_ended_by_itself_is_forgotten() -> None:
    ids = ScopedIds()
    ids.rewrite(1, WATCH, b'{"watchId":"w"}')
    ids.rewrite(2, WATCH, b'{"watchId":"w"}')
    ids.ended(1, "watchId", "w")
    ids.ended(3, "watchId", "w")
    assert ids.leave(1) == []
    assert len(ids.leave(2)) == 1


def test_a_made_up_id_is_unlike_all_others_so_far() -> None:
    ids = ScopedIds()
    wires = set()
    for params in (b"{}", b'{"processId":null}', b'{"command":[]}'):
        rewritten, claim = ids.rewrite(1, EXEC, params)
        wires.add(json.loads(rewritten)["processId"])
        assert claim is not None
    assert len(wires) == 3


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("watchId already exists: 3:w1", "watchId already exists: w1"),
        ('no process "3:w1"; 3:w1 is unknown', 'no process "w1"; w1 is unknown'),
        ("nothing to replace: w1", "nothing to replace: w1"),
    ],
)
def test_an_error_that_quotes_the_wire_id_quotes_the_clients(text: str, expected: str) -> None:
    line = dumps({"error": {"code": -1, "message": text}, "id": 3})
    assert (
        json.loads(scoped_ids.in_origin_terms(line, "3:w1", "w1"))["error"]["message"] == expected
    )


@given(own_ids)
def test_an_error_stays_json_whatever_the_id(own: str) -> None:
    wire = f"3:{own}"
    for quoted in (f"no such id: {wire}", f'no such id: "{wire}"'):
        line = dumps({"error": {"code": -1, "message": quoted}, "id": 12})
        told: dict[str, Any] = json.loads(scoped_ids.in_origin_terms(line, wire, own))
        assert told["id"] == 12
        assert told["error"]["code"] == -1
        assert own in told["error"]["message"]


@pytest.mark.parametrize(
    "line",
    [b"x", b"{}", b'{"params":5}', b'{"params":{}}', b'{"params":{"watchId":7}}',
     b'{"params":{"watchId":"w1"}}', b'{"params":{"watchId":"x:w1"}}',
     b'{"params":{"watchId":":w1"}}'],
)  # fmt: skip
def test_an_id_that_is_none_of_ours_is_told(line: bytes) -> None:
    assert scoped_ids.unscope(line, "watchId") is None


def test_what_a_client_was_ending_is_forgotten_with_it() -> None:
    scoped, watch = ScopedIds(), OwnId("watchId", ended_by="fs/unwatch")
    scoped.rewrite(1, watch, b'{"watchId":"w"}')
    scoped.rewrite(1, OwnId("watchId", ends=True), b'{"watchId":"w"}')
    assert scoped._ending
    scoped.leave(1)
    assert not scoped._ending
