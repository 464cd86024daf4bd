"""What becomes of lines for which stderr has no room, no reader, or no descriptor."""

from __future__ import annotations

import contextlib
import fcntl
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mux.server.observability.stderr import (
    CLOSED,
    LAST_LINES_DEADLINE,
    QUEUED_BYTES,
    STALLED,
    Stderr,
)

PATIENCE = 20.0
DRAINS = 8
"""So many that waiting once, on a machine that is busy, is told from waiting each time."""
LINE = "x" * 99 + "\n"


def until(condition: Callable[[], object]) -> None:
    """Wait for what the writing thread does."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def settled(stream: Stderr) -> None:
    stream.drain()
    assert not stream._bytes


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reader, writer = os.pipe()
    yield reader, writer
    for descriptor in (reader, writer):
        with contextlib.suppress(OSError):
            os.close(descriptor)


def test_what_is_said_is_written_in_order(pipe: tuple[int, int]) -> None:
    stream = Stderr(pipe[1])
    print("one", file=stream)
    print("two", "thrée", file=stream, end="")
    stream.flush()
    settled(stream)
    assert os.read(pipe[0], 100).decode() == "one\ntwo thrée"
    assert (stream.dropped, stream.trouble) == (0, None)
    with pytest.raises(TypeError):
        stream.write(b"bytes")  # type: ignore[arg-type]


def test_what_cannot_be_encoded_is_written_out(pipe: tuple[int, int]) -> None:
    stream = Stderr(pipe[1], "ascii")
    stream.write("é \ud800\n")
    settled(stream)
    assert os.read(pipe[0], 100) == b"\\xe9 \\ud800\n"


def test_a_reader_that_has_gone_costs_lines_and_nothing_else(pipe: tuple[int, int]) -> None:
    stream = Stderr(pipe[1])
    os.close(pipe[0])
    stream.write("a\nb\n")
    settled(stream)
    assert (stream.dropped, stream.trouble) == (2, "Broken pipe")
    stream.write("c\n")
    settled(stream)
    assert stream.dropped == 3


def test_a_full_disk_costs_lines_until_it_has_room(tmp_path: Path) -> None:
    told: list[int] = []
    descriptor = os.open("/dev/full", os.O_WRONLY)
    stream = Stderr(descriptor)
    stream.missed = told.append
    stream.write("lost\n" * 3)
    settled(stream)
    assert (stream.dropped, stream.trouble) == (3, "No space left on device")
    there = os.open(tmp_path / "log", os.O_WRONLY | os.O_CREAT)
    os.dup2(there, descriptor)
    stream.write("kept\n")
    settled(stream)
    until(lambda: told)
    assert (tmp_path / "log").read_text() == "kept\n"
    assert (told, stream.dropped, stream.trouble) == ([3], 3, None)
    os.close(there)
    os.close(descriptor)


def test_a_line_that_was_cut_off_is_not_gone_on_with(tmp_path: Path) -> None:
    """In a process of its own, whose files may be so long and no longer: then they are "full"."""
    program = """if True:
        import resource, signal, sys
        from mux.server.observability.stderr import Stderr
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        log = open(sys.argv[1], "wb", buffering=0)
        stream = Stderr(log.fileno())
        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        resource.setrlimit(resource.RLIMIT_FSIZE, (10, hard))
        stream.write("whole\\ntorn apart\\n")
        stream.drain()
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        stream.write("whole again\\n")
        stream.drain()
        print(stream.dropped)
    """
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "log")],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert (tmp_path / "log").read_text() == "whole\ntorn\nwhole again\n"
    assert done.stdout == "1\n"


def test_a_reader_that_stands_still_is_not_waited_for(pipe: tuple[int, int]) -> None:
    told: list[int] = []
    stream = Stderr(pipe[1])
    stream.missed = told.append
    said = 2 * QUEUED_BYTES // len(LINE)
    for _ in range(said):
        stream.write(LINE)
    assert stream.status()["trouble"] == STALLED
    dropped = stream.dropped
    assert said // 3 < dropped < said
    # Its end isn't waited for either, once it has stood still for as long as the last lines have.
    began = time.monotonic()
    for _ in range(DRAINS):
        stream.drain()
    assert time.monotonic() - began < DRAINS * LAST_LINES_DEADLINE / 2
    heard = b""
    while heard.count(b"\n") < said - dropped:
        heard += os.read(pipe[0], 65536)
    settled(stream)
    assert heard == LINE.encode() * (said - dropped)
    until(lambda: told)
    assert (sum(told), stream.dropped, stream.trouble) == (dropped, dropped, None)


def test_one_that_somebody_made_non_blocking_is_waited_for_by_the_thread_alone(
    pipe: tuple[int, int],
) -> None:
    fcntl.fcntl(pipe[1], fcntl.F_SETFL, fcntl.fcntl(pipe[1], fcntl.F_GETFL) | os.O_NONBLOCK)
    stream = Stderr(pipe[1])
    text = LINE * 2000
    stream.write(text)
    heard = b""
    while len(heard) < len(text):
        heard += os.read(pipe[0], 65536)
    settled(stream)
    assert (heard.decode(), stream.dropped) == (text, 0)


def test_without_a_descriptor_all_is_lost_and_counted() -> None:
    stream = Stderr(None)
    stream.write("a\nb\n")
    stream.drain()
    assert (stream.dropped, stream.trouble, stream.isatty()) == (2, CLOSED, False)
    with pytest.raises(OSError, match=CLOSED):
        stream.fileno()


SAYS_ALL = """if True:
    import os, sys, threading, warnings
    from mux.posix import standard_streams
    standard_streams.complete()
    from mux.server.observability import stderr
    stderr.install()
    import click
    print("printed", file=sys.stderr)
    warnings.warn("warned", stacklevel=1)
    click.echo("echoed", err=True)
    thread = threading.Thread(target=lambda: 1 / 0)
    thread.start()
    thread.join()
    first = os.open(os.devnull, os.O_RDONLY)
    print(first > 2, stderr.status()["droppedLines"] > 0)
    sys.stdout.flush()
    raise KeyError("at the end")
"""


def test_everything_that_is_said_on_stderr_goes_this_way() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SAYS_ALL], capture_output=True, text=True, check=False
    )
    said = ["printed", "UserWarning: warned", "echoed", "ZeroDivisionError", "KeyError: 'at the"]
    places = [done.stderr.index(each) for each in said]
    assert places == sorted(places)
    assert (done.returncode, done.stdout) == (1, "True False\n")


@pytest.mark.parametrize("closed", ["2>&-", "2>/dev/full", "<&- 2>&-"])
def test_nothing_that_is_said_on_stderr_is_an_error(closed: str) -> None:
    """And a file that is opened doesn't get the number of one that is closed."""
    done = subprocess.run(
        ["/bin/sh", "-c", f'exec "$0" "$@" {closed}', sys.executable, "-c", SAYS_ALL],
        stdout=subprocess.PIPE, text=True, check=False, timeout=PATIENCE,
    )  # fmt: skip
    assert done.returncode == 1  # of the error at its end, as ever
    assert done.stdout in ("True True\n", "True False\n")
    if "&-" in closed:
        assert done.stdout == "True True\n"


def test_a_full_pipe_keeps_no_process_from_ending(pipe: tuple[int, int]) -> None:
    os.set_blocking(pipe[1], False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            while True:
                os.write(pipe[1], b"x" * 65536)
        except BlockingIOError:
            os.set_blocking(pipe[1], True)
    done = subprocess.run(
        [sys.executable, "-c", SAYS_ALL],
        stdout=subprocess.PIPE, stderr=pipe[1], text=True, check=False, timeout=PATIENCE,
    )  # fmt: skip
    assert done.returncode == 1
