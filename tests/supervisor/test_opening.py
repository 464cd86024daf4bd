"""A broker's first words: where there is no app-server it asks for one at once."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import trio

from mux.supervisor.channel import VARIABLE, VERSION, Channel, Message
from mux.supervisor.opening import Opening, SupervisorError
from mux.upstream.supervised import Supervision

HELLO: Message = {
    "say": "hello", "version": VERSION, "generation": 0, "appServer": None, "exited": None,
    "lives": 0, "token": "t", "listeners": [],
}  # fmt: skip
COMMAND = ("/usr/bin/codex", "app-server")


@pytest.fixture
def supervisor() -> Iterator[Channel]:
    """The other end of a channel whose broker's end stands in the environment."""
    ours, theirs = socket.socketpair()
    os.environ[VARIABLE] = str(theirs.detach())
    yield Channel(ours)
    os.environ.pop(VARIABLE, None)
    ours.close()


@contextmanager
def opened() -> Iterator[Opening]:
    opening = Opening.of(os.environ)
    assert opening is not None
    try:
        yield opening
    finally:
        opening.channel.close()


def test_where_there_is_none_an_app_server_is_asked_for_at_once(supervisor: Channel) -> None:
    supervisor.send(HELLO)
    with opened() as opening:
        assert VARIABLE not in os.environ
        opening.request_early(COMMAND, {"A": "b"})
    [(message, _)] = supervisor.receive() or []
    assert message["say"] == "start"
    assert message["command"] == list(COMMAND)
    assert message["environ"] == {"A": "b"}


@pytest.mark.parametrize("exited", [None, 1])
def test_one_that_was_left_an_app_server_looks_at_that_first(
    supervisor: Channel, exited: int | None
) -> None:
    supervisor.send(HELLO | {"lives": 1, "appServer": 7, "generation": 1, "exited": exited})
    with opened() as opening:
        opening.request_early(COMMAND, {})
        assert not opening.requested_early
    assert supervisor.receive() is None


def test_without_a_supervisor_there_is_nobody_to_ask() -> None:
    assert Opening.of({}) is None


def test_a_supervisor_that_is_gone_is_not_waited_for(supervisor: Channel) -> None:
    supervisor.close()
    with pytest.raises(SupervisorError, match="says nothing: it is gone"):
        Opening.of(os.environ)


def test_another_version_is_said_plainly(supervisor: Channel) -> None:
    supervisor.send(HELLO | {"version": VERSION + 1})
    with pytest.raises(SupervisorError, match="restart the service"):
        Opening.of(os.environ)


@pytest.mark.parametrize("early", [True, False])
async def test_what_was_asked_early_is_not_asked_again(supervisor: Channel, early: bool) -> None:
    supervisor.send(HELLO)
    pipes = [descriptor for _ in range(3) for descriptor in os.pipe()]
    with opened() as opening:
        if early:
            opening.request_early(COMMAND, {})
        supervision = Supervision.open(opening)
        assert supervision is not None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(supervision.run)
            supervisor.send({"say": "started", "pid": os.getpid(), "generation": 1}, pipes[::2])
            process = await supervision.start(COMMAND, {})
            assert process.pid == os.getpid()
            await process.let_go()
            process.ended(0)
            nursery.cancel_scope.cancel()
    said = [message["say"] for message, _ in supervisor.receive() or []]
    assert said.count("start") == 1
    for each in pipes:
        os.close(each)
