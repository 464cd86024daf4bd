"""The broker and who its clients are: what has ended, what was renamed, who came back."""

from __future__ import annotations

import pytest

from mux.core.events import ClientAccessEnded, ClientAttached, ClockMoved, DeviceRenamed
from mux.core.policy.principal import Principal
from mux.core.policy.scopes import ALL, NEED_NOTHING, SCOPES
from mux.core.protocol.scope import Scope
from tests.core.stories import Peer, Story

PHONE = Principal("phone", "device", None, ALL, "d1")
CLOSED = 4401


def test_access_that_has_ended_closes_this_client_alone() -> None:
    story = Story.begun()
    phone, other = story.peer(principal=PHONE), story.peer()
    story.tell(ClientAccessEnded(phone.id, "revoked"))
    assert (phone.closed, other.closed) == ([CLOSED], [])
    phone.leaves()
    story.tell(ClientAccessEnded(phone.id, "revoked"))  # it was quicker


def test_a_renamed_device_goes_on_under_its_new_name() -> None:
    story = Story.begun()
    phone = story.peer(principal=PHONE)
    renamed = Principal("Ada's phone", "device", None, ALL, "d1")
    story.tell(DeviceRenamed(phone.id, renamed))
    assert phone.closed == []
    assert story.broker.state.clients[phone.id].principal == renamed
    phone.leaves()
    story.tell(DeviceRenamed(phone.id, renamed))


def test_a_client_is_closed_at_the_moment_it_expires() -> None:
    story = Story.begun()
    id = 77
    phone = story.peers[id] = Peer(story, id)
    story.tell(ClientAttached(id, PHONE, "ws", "10.0.0.7:5", 60.0))
    story.waits(59.9)
    assert phone.closed == []
    story.waits(0.2)
    assert phone.closed == [CLOSED]
    story.waits(600)
    assert phone.closed == [CLOSED]  # said once


def test_a_client_is_closed_when_the_clock_jumps_past_its_end() -> None:
    """The broker's own stood still while the machine slept, or the wall's was set."""
    story = Story.begun()
    phone, other, local = (story.peers.setdefault(id, Peer(story, id)) for id in (77, 78, 79))
    for peer, seconds in ((phone, 60.0), (other, 600.0), (local, float("inf"))):
        story.tell(ClientAttached(peer.id, PHONE, "ws", "10.0.0.7:5", seconds))
    story.tell(ClockMoved(59.0))
    assert phone.closed == []
    story.tell(ClockMoved(1.5))
    assert (phone.closed, other.closed, local.closed) == ([CLOSED], [], [])
    story.waits(539)  # of the 600 there are 539.5 left
    assert other.closed == []
    story.waits(1)
    assert (other.closed, local.closed) == ([CLOSED], [])


def test_a_clock_that_is_set_back_leaves_more_time() -> None:
    story = Story.begun()
    phone = story.peers[77] = Peer(story, 77)
    story.tell(ClientAttached(77, PHONE, "ws", "10.0.0.7:5", 60.0))
    story.tell(ClockMoved(-3600.0))
    story.waits(3600)
    assert phone.closed == []
    story.waits(61)
    assert phone.closed == [CLOSED]


def test_one_whose_access_has_ended_is_not_heard() -> None:
    """What it said is read already, and its connection is still there."""
    story = Story.begun()
    phone = story.peer(principal=PHONE)
    story.tell(ClientAccessEnded(phone.id, "revoked"))
    phone.asks("thread/start")
    assert story.written() == []
    assert phone.heard() == []


def test_a_device_is_itself_under_another_name_and_with_a_newer_token() -> None:
    newer = Principal("Ada's phone", "device", 9.0, frozenset({"observe"}), "d1")
    another = Principal("phone", "device", None, ALL, "d2")
    namesake = Principal("phone", "jwt")
    assert PHONE.identity == newer.identity
    assert len({each.identity for each in (PHONE, another, namesake)}) == 3


def test_what_a_phone_sent_again_under_another_name_is_run_once() -> None:
    story = Story.begun()
    sent = {"threadId": "t", "input": [], "clientUserMessageId": "m1"}
    phone = story.peer(principal=PHONE)
    story.creates(phone)
    phone.asks("turn/start", sent)
    story.answers(story.only("turn/start"), {"turn": {"id": "u", "status": "inProgress"}})
    phone.leaves()
    renamed = Principal("Ada's phone", "device", None, ALL, "d1")
    phone = story.peer(principal=renamed)
    phone.asks("turn/start", sent)
    assert not story.written("turn/start")
    assert phone.only()["result"]["turn"]["id"] == "u"


@pytest.mark.parametrize("scopes", [(), *((each,) for each in sorted(ALL))])
def test_a_client_may_ask_of_its_own_session_with_any_scopes(scopes: tuple[Scope, ...]) -> None:
    story = Story.begun()
    phone = story.peer(principal=Principal("phone", "device", None, frozenset(scopes), "d1"))
    own = {"mux/session/prove", "mux/session/token", "mux/session/end"}
    for method in own:
        phone.asks(method, {})
        assert story.served[-1].method == method
    assert own | {"initialize"} == NEED_NOTHING
    assert phone.heard() == []
    for method in sorted(SCOPES.keys() - NEED_NOTHING):
        if SCOPES[method] not in scopes:
            phone.asks(method, {"threadId": "t"})
            assert phone.only()["error"]["code"] == -32003, method
