"""Reads of the app-server's messages what they say of threads: which, their status, their turns.

A message of a shape that this version doesn't know says nothing; followers get it all the same.
"""

from __future__ import annotations

import msgspec

from mux.core.protocol.envelope import jsonrpc


class Status(msgspec.Struct):
    """``thread/status/changed``: ``active``, ``idle``, ``notLoaded``, ``systemError``…"""

    type: str


class _StateParams(msgspec.Struct):
    status: Status | None = None


class _StateNotification(msgspec.Struct):
    params: _StateParams


class _Named(msgspec.Struct):
    id: str
    status: Status | None = None


class _FollowResult(msgspec.Struct):
    thread: _Named | None = None
    reviewThreadId: str | None = None


class _FollowAnswer(msgspec.Struct):
    result: _FollowResult


def new_status(line: bytes) -> str | None:
    """Return the status in a ``thread/status/changed``."""
    try:
        status = _state_decoder.decode(line).params.status
    except msgspec.DecodeError:
        return None
    return status.type if status is not None else None


def status_named(answer: bytes) -> str:
    """Return the status of the thread in the answer to a following request."""
    try:
        thread = _follow_decoder.decode(answer).result.thread
    except msgspec.DecodeError:
        thread = None
    return thread.status.type if thread is not None and thread.status is not None else "unknown"


def turn_begun(answer: bytes) -> bytes | None:
    """Return the running turn in the answer to ``turn/start`` and its like, as JSON text."""
    try:
        turn = _begun_decoder.decode(answer).result.turn
    except msgspec.DecodeError:
        return None
    if turn is None or turn.status != "inProgress":
        return None
    result = jsonrpc.read_fields((jsonrpc.read_fields(answer) or {})["result"]) or {}
    return result["turn"]


class _BegunTurn(msgspec.Struct):
    status: str


class _BegunResult(msgspec.Struct):
    turn: _BegunTurn | None = None


class _BegunAnswer(msgspec.Struct):
    result: _BegunResult


def spawned(line: bytes) -> list[str]:
    """Return the sub-agents' threads that an ``item/completed`` of their parent's thread names."""
    if _SPAWNS not in line:
        return []
    try:
        return _spawn_decoder.decode(line).params.item.receiverThreadIds
    except msgspec.DecodeError:
        return []


class _SpawnItem(msgspec.Struct):
    receiverThreadIds: list[str]


class _SpawnParams(msgspec.Struct):
    item: _SpawnItem


class _Spawn(msgspec.Struct):
    params: _SpawnParams


_SPAWNS = b'"receiverThreadIds":["'
_spawn_decoder = msgspec.json.Decoder(_Spawn)


def threads_named(answer: bytes) -> list[str]:
    """Return the threads in the answer to a following request, the asker's main one last."""
    try:
        result = _follow_decoder.decode(answer).result
    except msgspec.DecodeError:
        return []
    named = [result.reviewThreadId, result.thread.id if result.thread else None]
    return [id for id in named if id]


_begun_decoder = msgspec.json.Decoder(_BegunAnswer)
_state_decoder = msgspec.json.Decoder(_StateNotification)
_follow_decoder = msgspec.json.Decoder(_FollowAnswer)
