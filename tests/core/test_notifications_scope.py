"""Who may not observe is told nothing of what goes on: answers, and what it is asked, alone."""

from __future__ import annotations

import pytest

from mux.core.events import ClientLags
from mux.core.policy.principal import Principal
from mux.core.protocol.methods import NOTIFICATIONS
from mux.core.protocol.rules import Audience
from mux.core.protocol.scope import Scope
from tests.core.paced import AWARE, PacedStory
from tests.core.stories import APPROVAL, RESOLVED, Peer, Story, offered

ALONE: list[frozenset[Scope]] = [
    frozenset({"approve"}),
    frozenset({"drive"}),
    frozenset({"admin"}),
    frozenset({"approve", "drive", "admin"}),
]


def holder(scopes: frozenset[Scope]) -> Principal:
    return Principal("x", "device", None, scopes, "d1")


def said_of(story: Story) -> None:
    """Every notification of the table that isn't for somebody in particular; the last ends it."""
    ends = ("thread/archived", "thread/closed", "thread/deleted")
    for method in sorted(NOTIFICATIONS, key=lambda method: method in ends):
        rule = NOTIFICATIONS[method]
        if rule.audience not in (Audience.OWNER, Audience.NAMED) and method != RESOLVED:
            story.notifies(method, {"threadId": "t", "name": "a title"})
            story.notifies(method, {"message": "of the host"})


@pytest.mark.parametrize("scopes", ALONE, ids=lambda scopes: "+".join(sorted(scopes)))
def test_nothing_is_told_to_one_that_may_not_observe(scopes: frozenset[Scope]) -> None:
    story = Story.begun()
    desk, other = story.peer("desk"), story.peer("other", holder(scopes), **AWARE)
    story.follows(desk)
    if "drive" in scopes:  # so one follows without `observe`: by starting a thread
        story.creates(other, "t")
    for peer in (desk, other):
        peer.heard()
    said_of(story)
    assert desk.heard()
    assert other.heard() == []


def test_greetings_are_for_those_that_observe() -> None:
    story = Story.begun()
    story.notifies("configWarning", {"summary": "a path of the host"})
    watcher = story.attach()
    watcher.initializes()
    assert "configWarning" in watcher.heard_methods()
    driver = story.attach(holder(frozenset({"drive"})))
    driver.initializes()
    assert driver.heard_methods() == ["1"]


def driven(*scopes: Scope) -> tuple[Story, Peer]:
    """A thread that a client has started that may not observe, with a running turn of its own."""
    story = Story.begun()
    driver = story.peer("driver", holder(frozenset(scopes)))
    story.creates(driver)
    id = driver.asks("turn/start", {"threadId": "t", "input": []})
    story.answers(story.written("turn/start")[-1], {"turn": {"id": "u", "status": "inProgress"}})
    assert driver.only()["id"] == id
    return story, driver


def test_a_driver_has_its_answers_and_hears_nothing() -> None:
    story, driver = driven("drive")
    story.begins_turn("t", "u")
    story.delta()
    story.asks(5, threadId="t")
    story.resolves(5)
    story.ends_turn("t", "u")
    assert driver.heard() == []
    id = driver.asks("thread/name/set", {"threadId": "t", "name": "n"})
    story.answers(story.only("thread/name/set"))
    assert driver.only() == {"id": id, "result": {}}


def test_one_that_drives_and_approves_is_asked_and_told_that_it_is_decided() -> None:
    story, driver = driven("drive", "approve")
    story.begins_turn("t", "u")
    story.asks(5, threadId="t")
    asked = offered(driver)
    driver.answers(asked["id"], {"decision": "accept"})
    assert story.only()["id"] == 5
    story.resolves(5)
    assert driver.only()["method"] == RESOLVED


def test_nor_is_it_told_when_it_has_fallen_behind() -> None:
    story = PacedStory.with_disk()
    driver = story.peer("driver", holder(frozenset({"drive", "approve"})))
    watcher = story.peer("watcher")
    story.creates(driver)
    story.follows(watcher)
    for peer in (driver, watcher):
        story.tell(ClientLags(peer.id))
    for method in ("thread/name/updated", "item/started", "thread/settings/updated"):
        story.notifies(method, {"threadId": "t"})
        story.notifies(method, {"threadId": "another"})
    story.asks(5, threadId="t")
    story.delta()
    story.settles()
    heard = [each.get("method") for each in driver.heard()]
    assert heard == [APPROVAL]
    assert len(watcher.heard()) > 4


def test_what_is_a_clients_own_comes_to_it() -> None:
    story = Story.begun()
    admin = story.peer("admin", holder(frozenset({"admin"})))
    admin.asks("fs/watch", {"watchId": "w", "path": "/x"})
    asked = story.only()
    story.answers(asked)
    admin.heard()
    story.notifies("fs/changed", {"watchId": asked["params"]["watchId"]})
    assert admin.only()["params"] == {"watchId": "w"}


@pytest.mark.parametrize("scopes", ALONE, ids=lambda scopes: "+".join(sorted(scopes)))
def test_what_is_before_a_person_is_said_by_those_that_observe(scopes: frozenset[Scope]) -> None:
    """By saying so a client would keep others from being told by push."""
    story = Story.begun()
    other = story.peer("other", holder(scopes))
    other.notifies("mux/focus", {"threadId": "t"})
    assert story.broker.state.clients[other.id].focus is None
    watcher = story.peer("watcher", holder(frozenset({"observe"})))
    watcher.notifies("mux/focus", {"threadId": "t"})
    assert story.broker.state.clients[watcher.id].focus is not None
