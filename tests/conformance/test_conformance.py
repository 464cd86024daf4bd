"""A client can't tell the broker from the real thing, except where `docs/protocol.md` says so.

Each story is played against the native listener and against the broker at once, and what its
clients heard is compared (`transcript` says in what form). How to add one: `docs/contributing.md`.
"""

from __future__ import annotations

import fcntl
import pickle
from pathlib import Path
from typing import Final

import pytest
import trio

from tests.conformance import (
    stories_approvals,
    stories_handshake,
    stories_joining,
    stories_questions,
    stories_things,
    stories_threads,
    stories_tui,
    stories_turns,
)
from tests.conformance.comparing import differences
from tests.conformance.intended import INTENDED, is_there, keys_in_docs, sort_out
from tests.conformance.playing import Outcome, natively, perform
from tests.conformance.stage import Story
from tests.end_to_end.native import codex_bin
from tests.newest import VERSION, newest_codex, version_of

STORIES: Final = (
    *stories_handshake.STORIES,
    *stories_threads.STORIES,
    *stories_turns.STORIES,
    *stories_approvals.STORIES,
    *stories_joining.STORIES,
    *stories_questions.STORIES,
    *stories_things.STORIES,
    *stories_tui.STORIES,
)
# How often a story that differs is played natively once more, to see whether it is chance there.
MORE_PLAYS: Final = 6


CODEX: Final = ("installed", "newest")


@pytest.fixture(scope="session", params=CODEX)
def codex(request: pytest.FixtureRequest) -> Path:
    """The codex that the stories are played with: the one that is installed, and the newest."""
    installed = codex_bin()
    if request.param == "installed":
        return installed
    newest = newest_codex()
    if newest is None:
        pytest.skip(f"npm could not install the newest codex ({VERSION}): `make newest`")
    if version_of(installed) == VERSION:
        pytest.skip(f"the stories were played with {VERSION} already: it is the one installed")
    return newest


@pytest.fixture(scope="session")
def outcomes(
    request: pytest.FixtureRequest, codex: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Outcome]:
    """All stories that were chosen, played: several at a time, so not one test after the other.

    Workers of one run share them: the first one plays, and another that comes waits for it.
    """
    named = {
        item.callspec.params["story"].name
        for item in request.session.items
        if isinstance(item, pytest.Function)
        and item.function is test_both_sides_tell_it_alike
        and isinstance(item.callspec.params["story"], Story)
    }
    chosen = [story for story in STORIES if story.name in named]
    shared = tmp_path_factory.getbasetemp()
    if hasattr(request.config, "workerinput"):
        shared = shared.parent
    file = shared / f"conformance-{version_of(codex)}"
    with file.open("ab+") as played:
        fcntl.flock(played, fcntl.LOCK_EX)
        played.seek(0)
        if kept := played.read():
            return dict(pickle.loads(kept))
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("APPMUX_CODEX_BIN", str(codex))
            found = trio.run(perform, chosen)
        played.write(pickle.dumps(found))
    return found


@pytest.mark.parametrize("story", [pytest.param(story, id=story.name) for story in STORIES])
def test_both_sides_tell_it_alike(
    story: Story, codex: Path, outcomes: dict[str, Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("APPMUX_CODEX_BIN", str(codex))
    outcome = outcomes[story.name]
    for side, failure in outcome.failures.items():
        pytest.fail(f"the story broke off on the {side} side:\n{failure}", pytrace=False)
    shown, uncovered = sort_out(differences(outcome.native, outcome.broker), story)
    for _ in range(MORE_PLAYS):
        if not uncovered:
            break
        # What native plays differ in, the broker may do either way: channel by channel.
        native = trio.run(natively, story)
        also = sort_out(differences(native, outcome.broker), story)[1]
        places = {(each.client, each.channel) for each in also}
        uncovered = [each for each in uncovered if (each.client, each.channel) in places]
    if uncovered:
        told = "\n".join(map(str, uncovered))
        pytest.fail(f"differences that no key of the story covers:\n{told}", pytrace=False)
    assert shown == set(story.shows), "the story doesn't show what it names"


def test_names_of_stories_are_their_own() -> None:
    names = [story.name for story in STORIES]
    assert len(set(names)) == len(names)


def test_each_intended_difference_stands_in_the_docs_and_is_shown() -> None:
    assert list(INTENDED) == keys_in_docs()
    by_stories = {key for story in STORIES for key in story.shows}
    for key, intended in INTENDED.items():
        if intended.elsewhere:
            assert is_there(intended.elsewhere), key
        else:
            assert intended.anywhere or key in by_stories, f"no story shows `{key}` any more"
