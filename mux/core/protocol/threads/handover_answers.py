"""Reads the app-server's answers to what a broker asks that takes it over from another one.

Used by ``features.handover``.
"""

from __future__ import annotations

import msgspec

from mux.core.protocol.envelope import jsonrpc


class _Loaded(msgspec.Struct):
    data: list[str]


class _LoadedAnswer(msgspec.Struct):
    result: _Loaded


def threads_loaded(line: bytes) -> set[str] | None:
    """Return the threads that an answer to ``thread/loaded/list`` names; None if it names none."""
    try:
        return set(_loaded_decoder.decode(line).result.data)
    except msgspec.DecodeError:
        return None


class _Turns(msgspec.Struct):
    data: list[msgspec.Raw]


class _TurnsAnswer(msgspec.Struct):
    result: _Turns


def turns(line: bytes) -> list[dict[str, bytes]]:
    """Return the turns in an answer to ``thread/turns/list``, as their fields."""
    try:
        data = _turns_decoder.decode(line).result.data
    except msgspec.DecodeError:
        return []
    return [jsonrpc.read_fields(bytes(turn)) or {} for turn in data]


class _Item(msgspec.Struct):
    clientId: str | None = None


def has_message(turn: dict[str, bytes], message: str) -> bool:
    """Return whether the message that a client sent with this id stands in a turn."""
    try:
        items = _items_decoder.decode(turn.get("items", b"[]"))
    except msgspec.DecodeError:
        return False
    return bool(message) and any(item.clientId == message for item in items)


_loaded_decoder = msgspec.json.Decoder(_LoadedAnswer)
_turns_decoder = msgspec.json.Decoder(_TurnsAnswer)
_items_decoder = msgspec.json.Decoder(list[_Item])
