"""``appmux`` that looks at itself, for `profile`. Not for use.

Each time its process has used so much CPU the kernel sends SIGPROF, and the function is noted that
the event loop's thread is in, with the CPU time of that thread since the last look. What a function
calls in C, and the kernel for it, is its own. Waiting isn't seen, nor what other programs or the
disk's thread use: a look from outside (py-spy) is possible when a busy machine has stopped the
process, which is most often in a ``write``, and a third of its looks were there.

Python takes a signal between two steps, often as the next function begins: that look is its
caller's. So a module's share is true to a few hundredths, a function's less so.

Run as ``python -m bench.profiled serve …`` with the file for what was seen in ``BENCH_PROFILE``: it
is written on SIGUSR2, a JSON array a look: the moment in ns, CPU in ns, file, function.

Hands to: that file. Hears from: the kernel, `profile`.
"""

from __future__ import annotations

import dis
import json
import os
import signal
import time
from pathlib import Path
from types import FrameType
from typing import Final

from mux.cli.main import main

FILE: Final = "BENCH_PROFILE"

EVERY: Final = 0.002
"""Seconds of CPU; the kernel rounds it up to its own tick, of 1 to 4 ms."""

BEGIN: Final = dis.opmap["RESUME"]
"""Each function's first instruction, with the argument 0."""


class Looks:
    """All that was seen."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, int, str, str]] = []
        self.used = time.thread_time_ns()

    def look(self, _signal: int, frame: FrameType | None) -> None:
        """Note where the loop's thread is."""
        used = time.thread_time_ns()
        if frame is not None and frame.f_back is not None and _begins(frame):
            frame = frame.f_back
        if frame is not None:
            code = frame.f_code
            moment = time.monotonic_ns()
            self.seen.append((moment, used - self.used, code.co_filename, code.co_qualname))
        self.used = used

    def write(self, _signal: int, _frame: FrameType | None) -> None:
        """All at once, so that whoever finds the file finds it whole."""
        path = Path(os.environ[FILE])
        begun = path.with_suffix(".begun")
        begun.write_text("".join(json.dumps(each) + "\n" for each in self.seen))
        begun.rename(path)


def _begins(frame: FrameType) -> bool:
    """Whether nothing of its function was done yet."""
    code = frame.f_code.co_code
    return code[frame.f_lasti] == BEGIN and code[frame.f_lasti + 1] == 0


if __name__ == "__main__":
    looks = Looks()
    signal.signal(signal.SIGPROF, looks.look)
    signal.signal(signal.SIGUSR2, looks.write)
    signal.setitimer(signal.ITIMER_PROF, EVERY, EVERY)
    main()
