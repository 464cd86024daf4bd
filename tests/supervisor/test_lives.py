"""The processes that the supervisor has: an app-server that ends, a broker that hangs or not."""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import suppress

import pytest

from mux.supervisor import processes
from mux.supervisor.channel import Channel
from mux.supervisor.lives import EOF_DEADLINE, NEVER, TERMINATE_DEADLINE, AppServer, Broker
from mux.supervisor.processes import Pipes

READS_TO_THE_END = "import sys; print('up', flush=True); sys.stdin.read(); print('eof', flush=True)"

STUBBORN = """
import signal, sys
signal.signal(signal.SIGTERM, lambda *_: print("term", flush=True))
print("up", flush=True)
sys.stdin.read()
print("eof", flush=True)
while True:
    signal.pause()
"""


@pytest.fixture
def app(request: pytest.FixtureRequest) -> Iterator[AppServer]:
    """A program in the app-server's place, which is up."""
    pipes = Pipes.made()
    command = [sys.executable, "-c", request.param]
    app = AppServer(processes.start_app_server(command, os.environ, pipes), pipes)
    try:
        assert said(app) == b"up\n"
        yield app
    finally:
        with suppress(ChildProcessError):  # it has been waited for
            if os.waitpid(app.pid, os.WNOHANG)[0] == 0:
                os.kill(app.pid, signal.SIGKILL)
                os.waitpid(app.pid, 0)
        pipes.close()


def said(app: AppServer) -> bytes:
    """The line that it says next; waits for that."""
    line = b""
    while not line.endswith(b"\n"):
        more = os.read(app.pipes.stdout, 1)
        assert more, "it has ended"
        line += more
    return line


def status(app: AppServer) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(app.pid, 0)[1])


@pytest.mark.parametrize("app", [READS_TO_THE_END], indirect=True)
def test_the_end_of_its_stdin_is_enough(app: AppServer) -> None:
    assert app.next_step == NEVER
    app.end()
    assert said(app) == b"eof\n"
    app.send_due(app.next_step - EOF_DEADLINE / 2)  # nothing is due: a signal would show
    assert status(app) == 0


@pytest.mark.parametrize("app", [STUBBORN], indirect=True)
def test_one_that_goes_on_is_asked_and_then_killed(app: AppServer) -> None:
    app.end()
    assert said(app) == b"eof\n"
    asked = app.next_step
    app.end()  # twice is once
    assert app.next_step == asked
    app.send_due(asked)
    assert said(app) == b"term\n"
    assert app.next_step == asked + TERMINATE_DEADLINE
    app.send_due(app.next_step)
    assert status(app) == -signal.SIGKILL
    assert app.next_step == NEVER


@pytest.mark.parametrize("app", [READS_TO_THE_END], indirect=True)
def test_one_whose_stdin_is_closed_can_be_handed_on(app: AppServer) -> None:
    app.pipes.close_stdin()
    app.pipes.close_stdin()  # by its broker, and by a signal to the supervisor
    assert said(app) == b"eof\n"
    here, there = socket.socketpair()
    with here, there:
        Channel(here).send({"say": "hello"}, app.pipes.ours)
        [(_, descriptors)] = Channel(there).receive() or []
    assert len(descriptors) == 3
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.write(descriptors[0], b"anything")
    for descriptor in descriptors:
        os.close(descriptor)
    assert status(app) == 0


def test_a_broker_is_excused_for_what_the_supervisor_slept() -> None:
    here, there = socket.socketpair()
    with here, there:
        broker = Broker(1, Channel(here), 0.0)
        assert broker.hangs_at(60.0) == NEVER  # it never spoke: systemd doesn't ask
        broker.alive_at = 100.0
        assert broker.hangs_at(60.0) == 145.0
        assert not broker.extend(151.0, 60.0)
        assert broker.hangs_at(60.0) == 145.0
        assert broker.extend(151.1, 60.0)
        assert broker.hangs_at(60.0) == 151.1 + 45.0
