"""Threads that the app-server can't be asked for: fresh ones (no turn yet) and ephemeral ones.

``thread/resume`` of such a thread fails natively ("no rollout found"), even while it is loaded and
runs. The broker has seen its ``thread/start`` answer and everything since, and answers from that.

Heard from: ``threads`` (what happens on the thread) and ``broker`` (who asks for it).
"""

from __future__ import annotations

import attrs
import msgspec

from mux.core import jsonrpc
from mux.core.running import Running

HISTORY_BYTES = 16 * 1024 * 1024
"""Of an ephemeral thread's turns; past it the oldest are forgotten."""


@attrs.define(eq=False)
class Birth:
    """How a thread began. ``result``: the result of its ``thread/start`` or ``fork``, as fields."""

    result: dict[str, bytes]
    thread: dict[str, bytes]
    ephemeral: bool
    turns: list[bytes]
    fresh: bool = True

    @property
    def only_here(self) -> bool:
        """Whether nobody but the broker can tell of it."""
        return self.fresh or self.ephemeral

    def completed(self, line: bytes, running: Running) -> None:
        """A turn is over. ``line``: its ``turn/completed``; ``running``: as before that."""
        if not self.ephemeral:
            return
        fields = jsonrpc.read_fields(line) or {}
        params = jsonrpc.read_fields(fields.get("params", b"{}")) or {}
        turn = jsonrpc.read_fields(params.get("turn", b"{}")) or {}
        self.turns.append(_with_items(turn, running))
        while len(self.turns) > 1 and sum(map(len, self.turns)) > HISTORY_BYTES:
            del self.turns[0]

    def resumed(self, status: str, running: Running, *, turns: bool) -> bytes:
        """The result of a ``thread/resume``: that of its start, brought up to date."""
        known: list[bytes] = []
        if turns:
            known = list(self.turns)
            if running.turn is not None:
                known.append(_with_items(_started_turn(running), running))
        state: dict[str, object] = {"type": status}
        if status == "active":
            state["activeFlags"] = []
        thread = self.thread | {
            "turns": b"[" + b",".join(known) + b"]",
            "status": msgspec.json.encode(state),
        }
        return jsonrpc.write(self.result | {"thread": jsonrpc.write(thread)})


def read_birth(answer: bytes) -> Birth | None:
    """The birth in an answer to ``thread/start`` or ``thread/fork``; None if there is none."""
    fields = jsonrpc.read_fields(answer) or {}
    result = jsonrpc.read_fields(fields.get("result", b"null"))
    thread = jsonrpc.read_fields((result or {}).get("thread", b"null"))
    if result is None or thread is None:
        return None
    try:
        turns = [bytes(raw) for raw in _turns_decoder.decode(thread.get("turns", b"[]"))]
    except msgspec.DecodeError:
        turns = []
    return Birth(result, thread, thread.get("ephemeral") == b"true", turns, fresh=not turns)


def _started_turn(running: Running) -> dict[str, bytes]:
    fields = jsonrpc.read_fields(running.started) or {}
    params = jsonrpc.read_fields(fields.get("params", b"{}")) or {}
    return jsonrpc.read_fields(params.get("turn", b"{}")) or {}


def _with_items(turn: dict[str, bytes], running: Running) -> bytes:
    items = b"[" + b",".join(running.completed_items()) + b"]"
    return jsonrpc.write(turn | {"items": items, "itemsView": b'"full"'})


_turns_decoder = msgspec.json.Decoder(list[msgspec.Raw])
