"""Turn messages that the broker writes itself: the end of a turn that ended with its app-server.

Nobody else can send that ``turn/completed`` any more. Used by ``running_turn``, and by the stdio
bridge, whose broker may be gone with the app-server.
"""

from __future__ import annotations

import msgspec

from mux.core.protocol.envelope import jsonrpc


def started_turn(thread: str, turn: bytes) -> bytes:
    """Return ``turn/started`` of a turn (its JSON text) that is known from an answer alone."""
    params = {"threadId": thread, "turn": msgspec.Raw(turn)}
    return jsonrpc.notification("turn/started", params)


def ended_by_death(started: bytes, also: str | None, unix_time: float) -> list[bytes]:
    """Return ``turn/completed`` in its native shape, made of the turn's ``turn/started``.

    The list has one message for each id. ``also`` is the second id of a review, by which natively
    the review's end is reported.
    """
    ids = [also] if also is not None else []
    return [_interrupted(started, unix_time, id) for id in (None, *ids)]


def _interrupted(started: bytes, unix_time: float, id: str | None) -> bytes:
    fields = jsonrpc.read_fields(started) or {}
    params = jsonrpc.read_fields(fields.get("params", b"{}")) or {}
    turn = jsonrpc.read_fields(params.get("turn", b"{}")) or {}
    if id is not None:
        turn["id"] = msgspec.json.encode(id)
    turn["status"] = b'"interrupted"'
    turn["completedAt"] = b"%d" % int(unix_time)
    began = turn.get("startedAt", b"null")
    if began.isdigit():
        turn["durationMs"] = b"%d" % max(0, int(unix_time - int(began)) * 1000)
    params["turn"] = jsonrpc.write(turn)
    fields |= {"method": b'"turn/completed"', "params": jsonrpc.write(params)}
    if "emittedAtMs" in fields:
        fields["emittedAtMs"] = b"%d" % int(unix_time * 1000)
    return jsonrpc.write(fields)
