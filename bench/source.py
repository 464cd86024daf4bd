"""An app-server without a model: it replays a recorded turn as fast as its pipe takes it.

The real one writes about 11,000 messages a second and would hide what the broker can do. The lines
are those that it wrote in a recorded turn (`tests/core/recorded`), its deltas as often as wanted.

Run as a script in place of ``codex app-server``. ``turn/start`` whose text is a `Wanted` in JSON
replays the turn on so many threads at once; any other request is answered ``{}``.

Hands to: the broker under test or `bare`, by stdout. Hears from: its stdin, a line a request.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

RECORDED: Final = Path(__file__).parent.parent / "tests" / "core" / "recorded" / "text.jsonl"
USER_AGENT: Final = "bench/0.163.0 (Debian 12.0.0; x86_64) unknown (bench; 0.1)"

WRITE_BYTES: Final = 256 * 1024
"""Written at once: what the broker reads at once."""

STAMP_DIGITS: Final = 19
"""Of a moment on the monotonic clock, in nanoseconds."""

MARK: Final = "@"
"""Before each moment, so that it is found quickly in a long text."""

SETTLE_SECONDS: Final = 0.3
"""Between a turn's beginning on so many threads and the first moment: that burst isn't meant."""

STDOUT: Final = 1

_DELTA: Final = b'"method":"item/agentMessage/delta"'


def thread_id(number: int) -> str:
    """The id of one of the source's threads."""
    return f"0199f3a1-5c1e-7d43-9a51-2f7c1de0{number:04x}"


def wanted(
    messages: int, *, size: int | None = None, threads: int = 1, pace: float | None = None
) -> str:
    """What to say in a turn to have so many deltas replayed.

    ``size``: bytes of each line, else as recorded; ``pace``: lines a second, each with `MARK` and
    the moment at which it was written at its text's end, else as fast as the pipe takes them.
    """
    return json.dumps({"messages": messages, "size": size, "threads": threads, "pace": pace})


# --- The recording -------------------------------------------------------------------------------


def recorded() -> tuple[list[bytes], list[bytes], list[bytes]]:
    """The recorded turn's lines: up to its message's deltas, those, and from there on."""
    lines = RECORDED.read_bytes().splitlines(keepends=True)
    begins = max(at for at, line in enumerate(lines) if b'"method":"turn/started"' in line)
    ends = max(at for at, line in enumerate(lines) if b'"method":"turn/completed"' in line)
    turn = lines[begins : ends + 1]
    first = next(at for at, line in enumerate(turn) if _DELTA in line)
    deltas = [line for line in turn if _DELTA in line]
    return turn[:first], deltas, [line for line in turn[first:] if _DELTA not in line]


def _on_thread(lines: list[bytes], number: int) -> list[bytes]:
    """The same lines, of another thread."""
    of = json.loads(recorded()[1][0])["params"]["threadId"].encode()
    return [line.replace(of, thread_id(number).encode()) for line in lines]


def _with_text(line: bytes, text: str) -> bytes:
    message = json.loads(line)
    message["params"]["delta"] = text
    return json.dumps(message, separators=(",", ":")).encode() + b"\n"


def _sized(line: bytes, size: int) -> bytes:
    bare = len(_with_text(line, ""))
    return _with_text(line, "x" * max(1, size - bare))


def _marked(line: bytes, mark: str) -> bytes:
    """With a text that ends so, and as long as it was if it wasn't shorter."""
    text = json.loads(line)["params"]["delta"]
    return _with_text(line, text[: -len(mark)] + mark)


# --- The turn ------------------------------------------------------------------------------------


def _replay(messages: int, size: int | None, threads: int, pace: float | None) -> None:
    before, deltas, after = recorded()
    if size is not None:
        deltas = [_sized(line, size) for line in deltas[:1]]
    of_threads = [_on_thread(deltas, number) for number in range(threads)]
    _write(b"".join(line for number in range(threads) for line in _on_thread(before, number)))
    if pace is None:
        for piece in _pieces(of_threads, messages):
            _write(piece)
    else:
        _at_a_pace(of_threads, messages, pace)
    _write(b"".join(line for number in range(threads) for line in _on_thread(after, number)))


def _pieces(of_threads: list[list[bytes]], messages: int) -> Iterator[bytes]:
    """The deltas of all threads in turn, many at once: made beforehand, and then written."""
    round_of_all = [deltas[at % len(deltas)] for at in range(64) for deltas in of_threads]
    rounds = round_of_all * (messages // len(round_of_all))
    rounds += round_of_all[: messages - len(rounds)]
    whole = b"".join(rounds)
    return (whole[at : at + WRITE_BYTES] for at in range(0, len(whole), WRITE_BYTES))


def _at_a_pace(of_threads: list[list[bytes]], messages: int, pace: float) -> None:
    stamp = "0" * STAMP_DIGITS
    lines = [_marked(deltas[0], MARK + stamp).partition(stamp.encode()) for deltas in of_threads]
    time.sleep(SETTLE_SECONDS)
    began = time.monotonic_ns()
    step = 1e9 / pace
    for at in range(messages):
        due = began + int(at * step)
        wait = due - time.monotonic_ns()
        if wait > 0:
            time.sleep(wait / 1e9)
        head, _, tail = lines[at % len(lines)]
        _write(head + b"%019d" % time.monotonic_ns() + tail)


def _write(piece: bytes) -> None:
    while piece:
        piece = piece[os.write(STDOUT, piece) :]


# --- Answers -------------------------------------------------------------------------------------


def main() -> None:
    """Answer each line of stdin until its end."""
    for line in sys.stdin.buffer:
        message = json.loads(line)
        if message.get("id") is None or "method" not in message:
            continue
        params = message.get("params") or {}
        _say({"id": message["id"], "result": _result(message["method"], params)})
        if message["method"] == "turn/start":
            _replay(**json.loads(params["input"][0]["text"]))


def _result(method: str, params: dict[str, Any]) -> dict[str, Any]:
    match method:
        case "initialize":
            return {
                "userAgent": USER_AGENT,
                "codexHome": "/",
                "platformFamily": "unix",
                "platformOs": "linux",
            }
        case "thread/resume":
            return {"thread": {"id": params["threadId"], "status": {"type": "idle"}, "turns": []}}
        case "turn/start":
            turn = json.loads(recorded()[0][0])["params"]["turn"]
            return {"turn": {"id": turn["id"], "status": "inProgress", "items": []}}
        case _:
            return {}


def _say(message: dict[str, Any]) -> None:
    _write(json.dumps(message, separators=(",", ":")).encode() + b"\n")


if __name__ == "__main__":
    main()
