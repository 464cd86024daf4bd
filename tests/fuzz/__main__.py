"""The fuzz of the core, and of the parser of clients' frames: so many lines, by seed.

    python -m tests.fuzz --lines 1000000 --seed 1
    python -m tests.fuzz --seed 1 --round 17      one round alone

Ends at the first fault with status 1, telling how to have it again.
Hears from: the command line.
"""

from __future__ import annotations

import argparse
import sys
import time
from typing import Final

from tests.fuzz import frames
from tests.fuzz import round as rounds
from tests.fuzz.corpus import corpus
from tests.fuzz.oracle import FaultError

PROGRESS: Final = 50
"""Rounds between two words of how far it is."""
FRAMES: Final = 20
"""Lines, for each of which the parser of frames is sent one frame."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("--lines", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--round", type=int)
    options = parser.parse_args()
    numbers = range(max(1, options.lines // rounds.LINES))
    if options.round is not None:
        numbers = range(options.round, options.round + 1)
    began, said = time.monotonic(), corpus()
    try:
        for number in numbers:
            rounds.played(options.seed, number, said)
            if number % PROGRESS == PROGRESS - 1:
                done = (number + 1) * rounds.LINES
                _say(f"{done:,} lines in {time.monotonic() - began:.0f} s")
        if options.round is None:
            frames.played(options.seed, options.lines // FRAMES)
    except FaultError as error:
        _say(str(error))
        return 1
    _say(f"no fault in {len(numbers) * rounds.LINES:,} lines, seed {options.seed}")
    return 0


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
