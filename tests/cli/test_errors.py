"""What a person reads of an answer that is an error."""

from __future__ import annotations

from mux.cli.common import broker
from mux.core.protocol.envelope import jsonrpc


def test_a_missing_scope_is_told_without_the_method() -> None:
    assert broker.FORBIDDEN == jsonrpc.FORBIDDEN
    data = {"method": "mux/devices/list", "needs": "admin", "has": ["drive", "observe"]}
    message = "`mux/devices/list` needs the scope `admin`; you have: drive, observe"
    error = {"code": jsonrpc.FORBIDDEN, "message": message, "data": data}
    said = broker._for_people(error)
    assert said == "that needs the scope `admin`; you have: drive, observe"
    assert broker._for_people(error | {"data": {"needs": "admin"}}).endswith("you have: none")
    assert broker._for_people({"code": -32600, "message": "thread not found"}) == "thread not found"
    assert broker._for_people(error | {"data": None}) == message
