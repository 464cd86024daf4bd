"""What a broker says that the supervisor can't act on: it goes on, and so does the app-server."""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack

import attrs
import pytest

from mux.supervisor.broker_messages import LONGEST_WAIT
from mux.supervisor.channel import MOST_BYTES, MOST_LISTENERS, Channel, Message
from mux.supervisor.lives import NEVER, Broker
from mux.supervisor.supervisor import Supervisor

CAT = {"say": "start", "command": ["cat"], "environ": dict(os.environ)}


@attrs.define
class Desk:
    """A supervisor whose broker is the test, and whose app-server is `cat`."""

    supervisor: Supervisor
    channel: Channel
    """The broker's end."""
    pid: int

    def hears(self, sent: bytes = b"") -> None:
        """Let the supervisor read until nothing more is there."""
        self.channel.socket.sendall(sent)
        broker = self.supervisor.broker
        assert broker is not None
        broker.channel.socket.setblocking(False)
        while not broker.deaf and is_readable(broker.channel.socket):
            self.supervisor._receive(broker)

    def says(self, message: Message, *descriptors: int) -> None:
        self.channel.send(message, descriptors)
        self.hears()

    def is_sound(self) -> None:
        """Have the supervisor show that it and its app-server go on."""
        assert self.supervisor.apps.running is not None
        assert self.supervisor.apps.running.pid == self.pid
        os.kill(self.pid, 0)
        self.supervisor._milliseconds()


def is_readable(connection: socket.socket) -> bool:
    try:
        return connection.recv(1, socket.MSG_PEEK) is not None
    except BlockingIOError:
        return False


@pytest.fixture
def desk() -> Iterator[Desk]:
    ours, theirs = socket.socketpair()
    supervisor = Supervisor()
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as process:
        supervisor.broker = Broker(process.pid, Channel(ours), time.monotonic())
        desk = Desk(supervisor, Channel(theirs), 0)
        desk.says(CAT)
        assert supervisor.apps.running is not None
        desk.pid = supervisor.apps.running.pid
        [(started, pipes)] = desk.channel.receive() or []
        assert started["say"] == "started"
        for descriptor in pipes:
            os.close(descriptor)
        yield desk
        process.kill()
    os.kill(desk.pid, signal.SIGKILL)
    os.waitpid(desk.pid, 0)
    supervisor.apps.running.close()
    for end in (supervisor.signals, supervisor._wakes):
        os.close(end)
    ours.close()
    desk.channel.close()


def framed(body: bytes) -> bytes:
    return len(body).to_bytes(4, "big") + body


@pytest.mark.parametrize(
    "garbage",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        (MOST_BYTES + 1).to_bytes(4, "big"),
        framed(b""),
        framed(b"\xff"),
        framed(b"{"),
        framed(b"[1]"),
        framed(b"null"),
        framed(b'"say"'),
        framed(b"[" * 60_000),
        framed(b'{"say":"taken","descriptors":"one"}'),
        framed(b'{"say":"taken","descriptors":-1}'),
        framed(b'{"say":"taken","descriptors":1e3}'),
        framed(b'{"say":"signal","number":' + b"9" * 5000 + b"}"),
    ],
)
def test_what_cannot_be_read_ends_that_broker_alone(desk: Desk, garbage: bytes) -> None:
    desk.hears(garbage)
    desk.is_sound()
    assert desk.supervisor.broker is not None
    assert desk.supervisor.broker.deaf
    assert desk.channel.receive() is None, "the broker sees that it isn't heard"


FLAWED: list[Message] = [
    {},
    {"say": None},
    {"say": ["signal"]},
    {"say": "sing"},
    {"say": "signal"},
    {"say": "signal", "number": "9"},
    {"say": "signal", "number": 9.0},
    {"say": "signal", "number": True},
    {"say": "signal", "number": 9999},
    {"say": "signal", "number": -9},
    {"say": "listeners"},
    {"say": "listeners", "asked": 5},
    {"say": "listeners", "asked": [5]},
    {"say": "listeners", "asked": ["unix://a"]},
    {"say": "serving"},
    {"say": "serving", "orphanWait": "300"},
    {"say": "serving", "orphanWait": True},
    {"say": "serving", "orphanWait": -1},
    {"say": "serving", "orphanWait": float("nan")},
    {"say": "serving", "orphanWait": float("inf")},
    {"say": "serving", "orphanWait": LONGEST_WAIT + 1},
    {"say": "notify"},
    {"say": "notify", "state": 5},
]


@pytest.mark.parametrize("message", FLAWED, ids=json.dumps)
def test_a_message_that_cannot_be_acted_on_is_dropped(desk: Desk, message: Message) -> None:
    desk.says(message)
    desk.is_sound()
    assert desk.supervisor.orphan_wait > 0
    desk.says({"say": "serving", "orphanWait": 7})
    assert desk.supervisor.orphan_wait == 7, "the next one is heard"


START = CAT | {"command": []}, CAT | {"command": [5]}, CAT | {"environ": {"A": 5}}, {"say": "start"}


@pytest.mark.parametrize("start", START, ids=["no command", "a number", "a variable", "nothing"])
def test_a_start_that_cannot_be_done_has_failed(desk: Desk, start: Message) -> None:
    desk.says(start)
    [(told, _)] = desk.channel.receive() or []
    assert (told["say"], told["errno"]) == ("failed", errno.EINVAL)
    desk.is_sound()


def test_the_listeners_that_are_held_stay_if_the_next_cannot_be(desk: Desk) -> None:
    here, there = socket.socketpair()
    with here, there:
        desk.says({"say": "listeners", "asked": ["a"]}, here.fileno())
        [(url, held)] = desk.supervisor.listeners
        desk.says({"say": "listeners", "asked": ["b", "c"]}, here.fileno())
        assert desk.supervisor.listeners == [(url, held)]
        os.fstat(held)
        desk.says({"say": "listeners", "asked": []})
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(held)


@pytest.mark.parametrize("beyond", [0, 1])
def test_as_many_listeners_are_held_as_the_next_broker_can_be_sent(desk: Desk, beyond: int) -> None:
    number = MOST_LISTENERS + beyond
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        urls = [str(at) for at in range(number)]
        desk.says({"say": "listeners", "asked": urls}, *[each.fileno() for each in sockets])
        held = [url for url, _ in desk.supervisor.listeners]
        assert held == ([] if beyond else urls)
        ours, theirs = socket.socketpair()
        before = desk.supervisor.broker
        assert before is not None
        desk.supervisor._began(before.pid, ours, theirs.dup())
        with ours, theirs:
            [(hello, descriptors)] = Channel(theirs).receive() or []
        assert hello["listeners"] == held
        assert len(descriptors) == len(held) + 3
        for descriptor in descriptors:
            os.close(descriptor)
        desk.supervisor.broker = before
        desk.says({"say": "listeners", "asked": []})


def test_descriptors_that_belong_to_no_message_are_closed_with_the_channel(desk: Desk) -> None:
    read, write = os.pipe()
    socket.send_fds(desk.channel.socket, [framed(b'{"say":"taken"}')], [write])
    os.close(write)
    desk.hears()
    os.set_blocking(read, False)
    with pytest.raises(BlockingIOError):
        os.read(read, 1)  # the supervisor has the other end
    desk.hears(framed(b"5"))
    assert os.read(read, 1) == b""
    os.close(read)


def test_half_a_message_is_waited_for_and_is_none_at_the_end(desk: Desk) -> None:
    message = framed(b'{"say":"serving","orphanWait":7}')
    for at in range(len(message)):
        desk.hears(message[at : at + 1])
        assert (desk.supervisor.orphan_wait == 7) == (at == len(message) - 1)
    desk.hears(message[:-1])
    broker = desk.supervisor.broker
    assert broker is not None
    desk.channel.socket.shutdown(socket.SHUT_WR)
    desk.supervisor._last_words(broker)
    desk.is_sound()


def test_the_last_words_of_a_broker_count_up_to_what_cannot_be_read(desk: Desk) -> None:
    said = [framed(b'{"say":"serving","orphanWait":7}'), framed(b'{"say":"signal"}')]
    desk.channel.socket.sendall(b"".join(said))
    broker = desk.supervisor.broker
    assert broker is not None
    desk.supervisor._last_words(broker)
    assert broker.served
    desk.channel.socket.sendall(framed(b'{"say":"end"}'))
    desk.supervisor._last_words(broker)
    assert broker.ends
    desk.channel.socket.sendall(framed(b"null"))
    desk.supervisor._last_words(broker)
    desk.is_sound()


def test_a_broker_that_lacks_descriptors_is_started_later(monkeypatch: pytest.MonkeyPatch) -> None:
    def full() -> tuple[socket.socket, socket.socket]:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    supervisor = Supervisor()
    monkeypatch.setattr(socket, "socketpair", full)
    supervisor._start_next()
    assert supervisor.broker is None
    assert time.monotonic() < supervisor.next_broker < NEVER
