"""Who follows which thread: the register, its recipients, and what it reads off the wire."""

from __future__ import annotations

import json

import msgspec
import pytest

from mux.core.protocol.threads import thread_messages
from mux.core.state.clients.client import Client, InitializeParams
from mux.core.state.threads.threads import Threads
from tests.core.stories import DELTA, LOCAL, Json, dumps


def made(*names: str, **opted_out: list[str]) -> tuple[Threads, list[Client]]:
    """Ready clients, numbered from 1; by name, what each opted out of."""
    clients: dict[int, Client] = {}
    for id, name in enumerate(names, 1):
        client = clients[id] = Client(id, LOCAL, "ws", "", 0.0)
        capabilities = {"optOutNotificationMethods": opted_out.get(name, [])}
        params = {"clientInfo": {"name": name, "version": "1"}, "capabilities": capabilities}
        client.initialize(msgspec.convert(params, InitializeParams))
    return Threads(clients), list(clients.values())


def plain(of: Threads, thread: str | None, method: str = DELTA) -> tuple[int, ...]:
    return of.recipients(thread, method)[0]


def test_recipients_are_followers_that_did_not_opt_out() -> None:
    known, (a, b, c) = made("a", "b", "c", b=[DELTA])
    for client in (a, b):
        known.follow(client, "t")
    assert plain(known, "t") == (1,)
    assert plain(known, "t", "other") == (1, 2)
    assert plain(known, "unknown") == ()
    assert plain(known, None, "other") == (1, 2, 3)
    assert known.audience("t") == (1, 2)
    assert c.follows == {}


def test_recipients_change_with_every_coming_and_going() -> None:
    known, (a, b) = made("a", "b")
    seen = []
    for change in (
        lambda: known.follow(a, "t"),
        lambda: known.follow(b, "t"),
        lambda: known.unfollow(a, "t"),
        lambda: known.follow(a, "t"),
        lambda: known.leave(b),
        lambda: known.close("t"),
    ):
        change()
        seen.append(plain(known, "t"))
    assert seen == [(1,), (1, 2), (2,), (2, 1), (1,), ()]


def test_a_client_that_is_not_ready_is_nobody() -> None:
    known, (a, _) = made("a", "b")
    known.clients[3] = Client(3, LOCAL, "ws", "", 0.0)
    assert known.audience(None) == (1, 2)
    assert a.id == 1


def test_following_is_written_on_both_sides() -> None:
    known, (a, b) = made("a", "b")
    for thread in ("t", "u"):
        known.follow(a, thread)
    known.follow(b, "t")
    assert list(a.follows) == ["t", "u"]
    assert list(known.get("t").followers) == [1, 2]
    assert [thread.id for thread in known.leave(a)] == ["t", "u"]
    assert a.follows == {}
    assert list(known.get("t").followers) == [2]
    known.close("t")
    assert b.follows == {}
    assert "t" not in known.known
    known.close("t")


@pytest.mark.parametrize(
    ("result", "named"),
    [
        ({"thread": {"id": "t", "more": 1}}, ["t"]),
        ({"turn": {}, "reviewThreadId": "r"}, ["r"]),
        ({"thread": {"id": "t"}, "reviewThreadId": "r"}, ["r", "t"]),
        ({"thread": None}, []),
        ({}, []),
        (None, []),
        ([], []),
        ({"thread": {"id": 5}}, []),
        ({"thread": {}}, []),
    ],
)
def test_threads_named_by_an_answer(result: object, named: list[str]) -> None:
    assert thread_messages.threads_named(dumps({"id": 1, "result": result})) == named


@pytest.mark.parametrize(
    ("item", "children"),
    [
        ({"type": "collabAgentToolCall", "receiverThreadIds": ["c"]}, ["c"]),
        ({"type": "collabAgentToolCall", "receiverThreadIds": ["c", "d"]}, ["c", "d"]),
        ({"type": "collabAgentToolCall", "receiverThreadIds": []}, []),
        ({"type": "agentMessage", "text": '"receiverThreadIds":["x"]'}, []),
        ({"type": "agentMessage"}, []),
        ({"receiverThreadIds": [5]}, []),
    ],
)
def test_children_named_by_a_completed_item(item: Json, children: list[str]) -> None:
    line = dumps({"method": "item/completed", "params": {"item": item, "threadId": "p"}})
    assert thread_messages.spawned(line) == children


@pytest.mark.parametrize(
    ("result", "turn"),
    [
        ({"turn": {"id": "u", "status": "inProgress"}}, {"id": "u", "status": "inProgress"}),
        ({"turn": {"id": "u", "status": "completed"}}, None),
        ({"turn": None}, None),
        ({}, None),
        ([], None),
    ],
)
def test_the_turn_that_an_answer_begins(result: object, turn: Json | None) -> None:
    begun = thread_messages.turn_begun(dumps({"id": 1, "result": result}))
    assert (json.loads(begun) if begun is not None else None) == turn
