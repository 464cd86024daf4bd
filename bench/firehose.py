"""An app-server without a model: it writes the deltas of a turn as fast as its pipe takes them.

Run as a script in place of ``codex app-server``. It knows one thread. ``turn/start`` with the text
``N`` runs a turn of N deltas of one item, about 230 bytes each, as the real one writes them; any
other request is answered ``{}``.

Hands to: the broker under test, by stdout. Hears from: `journal`, by way of the broker.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any, Final

THREAD: Final = "0199f3a1-5c1e-7d43-9a51-2f7c1de0b6aa"
TURN: Final = "0199f3a1-5c2b-7b02-8f6e-90a3e2d45c11"
WORD: Final = "word "
USER_AGENT: Final = "bench/0.163.0 (Debian 12.0.0; x86_64) unknown (bench; 0.1)"

# Written at once: what the broker reads at once, so that this process costs the machine little.
LINES_AT_ONCE: Final = 1000


def main() -> None:
    """Answer each line of stdin until its end."""
    for line in sys.stdin.buffer:
        message = json.loads(line)
        id, method = message.get("id"), message["method"]
        if id is None:
            continue
        _say({"id": id, "result": _result(method)})
        if method == "turn/start":
            deltas = int(message["params"]["input"][0]["text"])
            for piece in _turn(deltas):
                sys.stdout.buffer.write(piece)
            sys.stdout.buffer.flush()


def _result(method: str) -> dict[str, Any]:
    match method:
        case "initialize":
            return {
                "userAgent": USER_AGENT,
                "codexHome": "/",
                "platformFamily": "unix",
                "platformOs": "linux",
            }
        case "thread/resume":
            return {"thread": {"id": THREAD, "status": {"type": "idle"}, "turns": []}}
        case "turn/start":
            return {"turn": {"id": TURN, "status": "inProgress", "items": []}}
        case _:
            return {}


def _turn(deltas: int) -> Iterator[bytes]:
    """The lines of one turn, many at once."""
    item: dict[str, Any] = {"type": "agentMessage", "id": "msg_5", "text": ""}
    delta = _notification(
        "item/agentMessage/delta", {"turnId": TURN, "itemId": "msg_5", "delta": WORD}
    )
    yield _notification("turn/started", {"turn": {"id": TURN, "status": "inProgress", "items": []}})
    yield _notification("item/started", {"turnId": TURN, "item": item})
    for _ in range(deltas // LINES_AT_ONCE):
        yield delta * LINES_AT_ONCE
    yield delta * (deltas % LINES_AT_ONCE)
    yield _notification("item/completed", {"turnId": TURN, "item": {**item, "text": WORD * deltas}})
    completed = {"id": TURN, "status": "completed", "items": []}
    yield _notification("turn/completed", {"turn": completed})


def _notification(method: str, params: dict[str, Any]) -> bytes:
    return _line(
        {
            "method": method,
            "params": {"threadId": THREAD, **params},
            "emittedAtMs": 1795398334245,
        }
    )


def _line(message: dict[str, Any]) -> bytes:
    return json.dumps(message, separators=(",", ":")).encode() + b"\n"


def _say(message: dict[str, Any]) -> None:
    sys.stdout.buffer.write(_line(message))
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
