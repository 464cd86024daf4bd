"""What a turn is on the wire: its bytes and messages, plain, compressed and with deltas coalesced.

A turn of 2,000 deltas, 3 commands and a file change, at the pace at which a model speaks: what is
coalesced depends on that. All kinds of clients follow the same turn of one broker. Natively there
is one kind, and what it gets doesn't depend on the pace.

Hands to: `report`, the figures. Hears from: `wire_clients`.
"""

from __future__ import annotations

import json
import random
from bisect import bisect_left
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final

import trio

from bench.figures import Figure, Plan
from bench.load import percentiles
from bench.sides import SIDES, TOKEN, Driver, Load, broker, native, started
from bench.wire_clients import KINDS, WINDOW_MS
from mux.demo.scripted_model import Patch, Run, Say, Scripted

DELTAS: Final = 2000
PACE: Final = 60.0
COMMANDS: Final = ("ls -la", "git log --oneline | head -5", "wc -l *.py")
LINES: Final = 24
"""Of the file change."""

MOST_COMPRESSED: Final = 0.1
MOST_PLAIN: Final = 0.5

Json = dict[str, Any]


def turn(deltas: int, pace: float) -> Scripted:
    """A model for whom this is a turn: it says something, runs a command, and so on."""
    chance = random.Random(7)  # the same words each time
    syllables = [a + b for a in "bdfgklmnprstvw" for b in ("a", "e", "i", "o", "u", "en", "er")]
    words = ["".join(chance.choices(syllables, k=chance.randint(1, 3))) for _ in range(600)]
    said = tuple(f"{chance.choice(words)} " for _ in range(deltas))
    parts = len(COMMANDS) + 1
    pieces = [
        Say(chunks=said[at * deltas // parts : (at + 1) * deltas // parts], pace=pace)
        for at in range(parts)
    ]
    lines = "".join(f"+    {' '.join(chance.choices(words, k=6))}\n" for _ in range(LINES))
    change = Patch(f"*** Begin Patch\n*** Add File: made.py\n{lines}*** End Patch")
    model = Scripted()
    steps = [(piece, Run(command)) for piece, command in zip(pieces, COMMANDS, strict=False)]
    model.on("work", *steps, (pieces[-1], change), Say("done"))
    return model


async def followed(side: str, deltas: int) -> dict[str, Json]:
    """What each kind of client got of one turn."""
    kinds = ["native"] if side == "native" else [kind for kind in KINDS if kind != "native"]
    model = turn(deltas, 0.0 if side == "native" else 1 / PACE)
    always = {"APPMUX_COMPRESSION": "always"}  # it is measured on one machine
    serving = native(model) if side == "native" else broker(model, environ=always)
    async with serving as server:
        driver = Driver(server.url)
        free = {"approvalPolicy": "never", "sandbox": "danger-full-access"}
        thread = await driver.first_turn(server.home / "work", **free)
        async with following(server.url, thread, kinds) as clients:
            await driver.turn(thread, "work")
            found: dict[str, Json] = await clients.result()
        driver.close()
    if len({each["text"] for each in found.values()}) != 1:
        raise RuntimeError("not everybody got the same text")
    return found


@asynccontextmanager
async def following(url: str, thread: str, kinds: list[str]) -> AsyncIterator[Load]:
    """Clients of these kinds, one each, that follow a thread until its turn's end."""
    spec = {"url": url, "token": TOKEN, "thread": thread, "kinds": kinds}
    async with started("bench.wire_clients", json.dumps(spec)) as each:
        if await each.line() != "ready":
            raise RuntimeError("the clients could not attach")
        yield each


def added(plain: Sequence[tuple[int, float]], late: Sequence[tuple[int, float]]) -> list[float]:
    """Seconds by which each delta came later to one client than to the other."""
    ends = [text for text, _ in late]
    return [late[bisect_left(ends, text)][1] - moment for text, moment in plain]


def measure(plan: Plan) -> list[Figure]:
    """One turn on each side: its bytes differ by little from one to the next."""
    deltas = DELTAS if plan.repeat > 1 else DELTAS // 4
    found: dict[str, Json] = {}
    for side in SIDES:
        found |= trio.run(partial(followed, side, deltas))
    name = f"a turn of {deltas:,} deltas, {len(COMMANDS)} commands and a file change"
    sizes = {kind: [each["bytes"] / 1000] for kind, each in found.items()}
    messages = {kind: [float(each["messages"])] for kind, each in found.items()}
    figures = [
        Figure(f"{name}: on the wire", "KB", sizes),
        Figure(f"{name}: messages", "", messages),
    ]
    for kind, most in (
        ("coalesced, zstd", MOST_COMPRESSED),
        ("coalesced, deflate", MOST_COMPRESSED),
        ("coalesced", MOST_PLAIN),
    ):
        share = found[kind]["bytes"] / found["plain"]["bytes"]
        told = {kind: [share]}
        figures.append(
            Figure(f"the same, {kind} / plain", "", told, f"≤ {most:g}", share, share <= most)
        )
    later = percentiles(added(found["plain"]["moments"], found["coalesced"]["moments"]))
    worst = later["p99"] * 1000
    told = {share: [later[share] * 1000] for share in ("p50", "p99")}
    figures.append(
        Figure(
            "the same: what coalescing adds to a delta's way", "ms", told, f"≤ {WINDOW_MS} ms",
            worst, worst <= WINDOW_MS,
        )
    )  # fmt: skip
    return figures
