"""How soon one may speak to it: from the process's start until it listens, and until it answers.

The client connects as soon as the listener says where it is, and is answered its ``initialize``.
*Cold*: what is read from files is read from the disk, as after the machine's start, as far as
nobody else has it in use. *Warm*: it was read before.

Hands to: `report`, the figures. Hears from: both sides' words on stderr.
"""

from __future__ import annotations

import os
import sys
import sysconfig
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Final

import attrs
import trio

from bench import load
from bench.attaching import start
from bench.figures import Figure, Plan, alternately
from bench.sides import HERE, SIDES, TOKEN, broker, median, native
from tests.end_to_end.native import codex_bin

MOST_LATER: Final = {"listening": 100.0, "answered": 150.0}
"""Milliseconds after native."""

KINDS: Final = ("warm", "cold")


@attrs.frozen
class First:
    """Milliseconds from the process's start."""

    listening: float
    answered: float


async def first_answer(kind: str, side: str, tree: Path = HERE) -> First:
    """One start of a side, and its first client."""
    if kind == "cold":
        await trio.to_thread.run_sync(_forget, tree)
    began = time.monotonic()
    # With its binary named, the broker is there when it listens, whatever its app-server does.
    named = broker(codex=str(codex_bin()), tree=tree)
    async with native() if side == "native" else named as server:
        listening = time.monotonic()
        connection = await trio.to_thread.run_sync(load.attach, server.url, TOKEN)
        answered = time.monotonic()
        connection.close()
    return First((listening - began) * 1000, (answered - began) * 1000)


def _forget(tree: Path) -> None:
    """Have the kernel drop the pages of all files that a start reads, if nobody uses them."""
    for path in _read_at_a_start(tree):
        try:
            descriptor = os.open(path, os.O_RDONLY)
        except OSError:  # a link to nowhere, or another's
            continue
        try:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)


def _read_at_a_start(tree: Path) -> Iterator[Path]:
    yield codex_bin().resolve()
    yield Path(sys.executable).resolve()
    paths = sysconfig.get_paths()
    for root in {Path(paths["stdlib"]), Path(paths["purelib"]), tree / "mux"}:
        for path in root.rglob("*"):
            if path.suffix in {".pyc", ".so", ".py"}:
                yield path


def measure(plan: Plan) -> list[Figure]:
    """Both moments, warm and cold, natively and brokered alternately."""
    alternately(SIDES, 1, start)  # leaves the bytecode there
    figures = []
    for kind in KINDS:
        repeat = 2 * plan.repeat + 1
        runs = alternately(SIDES, repeat, partial(first_answer, kind))
        for moment, name in (
            ("listening", "start until listening"),
            ("answered", "start until the first `initialize` is answered"),
        ):
            values = {side: [getattr(each, moment) for each in runs[side]] for side in SIDES}
            figures.append(_later(f"{name}, {kind}", values, MOST_LATER[moment]))
    return figures


def _later(name: str, values: dict[str, list[float]], most: float) -> Figure:
    later = median(values["broker"]) - median(values["native"])
    return Figure(name, "ms", values, f"≤ native + {most:g} ms", later, later <= most)
