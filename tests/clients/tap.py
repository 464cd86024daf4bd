"""Stands in for `codex`: what a program says to its app-server and hears is written to a file.

A program of its own (standard library alone). `TAP_CODEX` is the executable that it starts in its
place, `TAP_DIRECTORY` where it writes: one file for each app-server, a JSON list for each line,
`["client" or "server", line]`. Other commands pass, as does an app-server that listens.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import IO


def main() -> None:
    codex, arguments = os.environ["TAP_CODEX"], sys.argv[1:]
    listens = any(each.startswith("--listen") for each in arguments)
    if "app-server" not in arguments or (listens and "stdio://" not in " ".join(arguments)):
        os.execv(codex, [codex, *arguments])
    file = Path(os.environ["TAP_DIRECTORY"]) / f"{time.time_ns()}.jsonl"
    lock = threading.Lock()
    child = subprocess.Popen([codex, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdin is not None
    assert child.stdout is not None

    def copy(who: str, source: IO[bytes], target: IO[bytes]) -> None:
        for line in iter(source.readline, b""):
            with lock, file.open("a") as out:
                out.write(json.dumps([who, line.decode()]) + "\n")
            try:
                target.write(line)
                target.flush()
            except BrokenPipeError:
                break
        with contextlib.suppress(BrokenPipeError):
            target.close()

    back = threading.Thread(target=copy, args=("server", child.stdout, sys.stdout.buffer))
    back.start()
    there = threading.Thread(target=copy, args=("client", sys.stdin.buffer, child.stdin))
    there.daemon = True
    there.start()
    back.join()
    os._exit(child.wait())


main()
