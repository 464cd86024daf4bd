"""Stories of what a thread is run with, which the app-server's next life is given."""

from __future__ import annotations

from tests.core.lives import next_life, shared
from tests.core.stories import DELTA, Json, Story


def test_a_thread_is_loaded_with_what_it_was_started_with_whoever_joined_it_since() -> None:
    story = Story.begun()
    a, b = story.peer(), story.peer()
    given = {"cwd": "/srv", "model": "m", "approvalPolicy": "never", "sandbox": "read-only"}
    story.creates(a, **given, ephemeral=False, serviceName="x")
    story.begins_turn()
    story.ends_turn()
    # Natively such wishes for a thread that is loaded are ignored.
    story.follows(b, model="another", excludeTurns=True)
    for generation in (2, 3):
        story.exits()
        [resumed] = next_life(story, generation)
        assert resumed["params"] == given | {"threadId": "t", "excludeTurns": True}
        story.answers(resumed, {"thread": {"id": "t"}})


SETTINGS: Json = {
    "cwd": "/elsewhere",
    "model": "another",
    "modelProvider": "p",
    "approvalPolicy": "on-request",
    "sandboxPolicy": {"type": "readOnly", "networkAccess": False},
    "activePermissionProfile": None,
    "effort": "high",
    "serviceTier": None,
    "collaborationMode": {"mode": "default", "settings": {"developer_instructions": None}},
}


def test_what_was_changed_since_is_set_again_before_anything_else() -> None:
    story = Story.begun()
    [a] = shared(story, "a")
    story.notifies("thread/settings/updated", {"threadId": "t", "threadSettings": SETTINGS})
    a.heard()
    for generation in (2, 3):
        story.exits()
        asked = a.asks("turn/start", {"threadId": "t"})
        [resumed] = next_life(story, generation)
        story.answers(resumed, {"thread": {"id": "t"}})
        update = story.only()
        assert update["method"] == "thread/settings/update"
        unsaid = ("modelProvider", "activePermissionProfile", "serviceTier", "collaborationMode")
        wanted = {key: value for key, value in SETTINGS.items() if key not in unsaid}
        assert update["params"] == wanted | {"threadId": "t"}
        story.answers(update)
        story.answers(story.only("turn/start"))
        assert a.only()["id"] == asked


def test_a_profile_stands_for_its_sandbox() -> None:
    story = Story.begun()
    shared(story, "a")
    settings = SETTINGS | {"activePermissionProfile": {"id": ":workspace", "extends": None}}
    story.notifies("thread/settings/updated", {"threadId": "t", "threadSettings": settings})
    story.exits()
    [resumed] = next_life(story)
    story.answers(resumed, {"thread": {"id": "t"}})
    params = story.only("thread/settings/update")["params"]
    assert params["permissions"] == ":workspace"
    assert "sandboxPolicy" not in params


def test_another_mode_of_work_is_set_again_too() -> None:
    story = Story.begun()
    shared(story, "a")
    mode = {"mode": "plan", "settings": {"model": "m", "developer_instructions": None}}
    settings = SETTINGS | {"collaborationMode": mode}
    story.notifies("thread/settings/updated", {"threadId": "t", "threadSettings": settings})
    story.exits()
    [resumed] = next_life(story)
    story.answers(resumed, {"thread": {"id": "t"}})
    assert story.only("thread/settings/update")["params"]["collaborationMode"] == mode


def test_what_was_cleared_since_is_not_asked_for_again() -> None:
    story = Story.begun()
    a = story.peer()
    story.creates(a, model="m", serviceTier="fast")
    story.begins_turn()
    story.ends_turn()
    story.notifies("thread/settings/updated", {"threadId": "t", "threadSettings": SETTINGS})
    story.exits()
    [resumed] = next_life(story)
    assert resumed["params"] == {"threadId": "t", "excludeTurns": True, "model": "m"}


def test_settings_that_are_refused_cost_nobody_the_thread() -> None:
    story = Story.begun()
    [a] = shared(story, "a")
    story.notifies("thread/settings/updated", {"threadId": "t", "threadSettings": SETTINGS})
    a.heard()
    story.exits()
    [resumed] = next_life(story)
    story.answers(resumed, {"thread": {"id": "t"}})
    story.fails(story.only("thread/settings/update"), message="unknown model")
    a.asks("turn/start", {"threadId": "t"})
    assert len(story.written("turn/start")) == 1
    story.delta()
    assert a.heard_methods() == [DELTA]
