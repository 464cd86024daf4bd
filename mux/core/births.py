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


@attrs.define(eq=False, repr=False)
class Birth:
    """How a thread began. ``result``: the result of its ``thread/start`` or ``fork``, as fields.

    ``turns``: by id, as JSON. ``fresh``: until its first turn begins; ``young``: until that ends.
    """

    result: dict[str, bytes]
    thread: dict[str, bytes]
    ephemeral: bool
    turns: dict[str, bytes]
    fresh: bool = True
    young: bool = True

    @property
    def only_here(self) -> bool:
        """Whether nobody but the broker can tell of it."""
        return self.fresh or self.ephemeral

    @property
    def for_title(self) -> bool:
        """Whether a TUI made it to have a title made (see ``titles``)."""
        return self.ephemeral and self.thread.get("threadSource") == b'"thread_title"'

    @property
    def tells_all(self) -> bool:
        """Whether all that there is of it is known here."""
        return self.young or self.ephemeral

    def note(self, method: str, line: bytes, running: Running) -> None:
        """A notification of the thread; ``running``: as before that."""
        if method == "turn/started":
            self.fresh = False
        elif method == "turn/completed":
            self.young = False
            if self.ephemeral and running.turn is not None:
                self._ended(running.turn, line, running)
        elif method == "item/completed" and self.turns:
            self._outlived(line)

    def _ended(self, id: str, line: bytes, running: Running) -> None:
        self.turns[id] = jsonrpc.write(running.shown_ended(line))
        while len(self.turns) > 1 and sum(map(len, self.turns.values())) > HISTORY_BYTES:
            del self.turns[next(iter(self.turns))]

    def _outlived(self, line: bytes) -> None:
        """An item (a command in the background) is complete whose turn was over before."""
        fields = jsonrpc.read_fields(line) or {}
        params = jsonrpc.read_fields(fields.get("params", b"{}")) or {}
        id = jsonrpc.read_text(params.get("turnId")) or ""
        turn = jsonrpc.read_fields(self.turns.get(id, b"null"))
        if turn is not None:
            items = turn["items"][1:-1], params["item"]
            turn["items"] = b"[" + b",".join(filter(None, items)) + b"]"
            self.turns[id] = jsonrpc.write(turn)

    def resumed(self, status: bytes, running: Running, *, turns: bool) -> bytes:
        """The result of a ``thread/resume``: that of its start, brought up to date."""
        known: list[bytes] = []
        if turns:
            known = list(self.turns.values())
            if running.turn is not None and running.announced:
                known.append(jsonrpc.write(running.shown()))
        thread = self.thread | {"turns": b"[" + b",".join(known) + b"]", "status": status}
        return jsonrpc.write(self.result | {"thread": jsonrpc.write(thread)})


def read_birth(answer: bytes) -> Birth | None:
    """The birth in an answer to ``thread/start`` or ``thread/fork``; None if there is none."""
    fields = jsonrpc.read_fields(answer) or {}
    result = jsonrpc.read_fields(fields.get("result", b"null"))
    thread = jsonrpc.read_fields((result or {}).get("thread", b"null"))
    if result is None or thread is None:
        return None
    turns: dict[str, bytes] = {}
    try:
        for raw in _turns_decoder.decode(thread.get("turns", b"[]")):
            id = jsonrpc.read_text((jsonrpc.read_fields(bytes(raw)) or {}).get("id"))
            turns[id or ""] = bytes(raw)
    except msgspec.DecodeError:
        pass  # of a shape that this version doesn't know
    new = not turns
    return Birth(result, thread, thread.get("ephemeral") == b"true", turns, fresh=new, young=new)


_turns_decoder = msgspec.json.Decoder(list[msgspec.Raw])
