"""Join equals having been there: at every position of turns that the real app-server wrote.

One that joins sees what the veteran sees, from its answer on, after every single line. With
`excludeTurns` it sees no more of the past than that names it, and of the rest the same.
"""

from __future__ import annotations

from collections import defaultdict

import attrs
import pytest

from mux.core.protocol.envelope import long_line
from tests.core.recordings import NAMES, Playback, Viewer, recording
from tests.core.stories import Json, Story
from tests.view import View


@attrs.define(eq=False)
class Joiner:
    """One that joined at ``since``, where ``past`` was over (and so isn't told without turns)."""

    viewer: Viewer
    since: int
    turns: bool
    past: frozenset[str]

    def differs(self, veteran: View) -> str:
        """In what its view isn't the veteran's; empty if in nothing."""
        view = self.viewer.look()
        items, turns = veteran.items, veteran.turns
        if not self.turns:
            items = {id: item for id, item in items.items() if id not in self.past}
            turns = {id: turns[id] for id in view.turns}
        differences = {
            "items": view.items != items,
            "turns": view.turns != turns,
            "turn_of": view.turn_of.items() != {(id, veteran.turn_of[id]) for id in items},
            "streamed": view.streamed != veteran.streamed,
            "asked": view.asked != veteran.asked,
            "status": view.status != veteran.status,
            "latest": not view.latest.items() <= veteran.latest.items(),
            f"faults {view.faults}": bool(view.faults),
        }
        return ", ".join(name for name, differ in differences.items() if differ)


def past(veteran: View) -> frozenset[str]:
    """The items of the veteran's view that are complete."""
    return frozenset(veteran.items.keys() - veteran.streamed.keys())


def cut_small(story: Story, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have answers come in pieces, and in some ways no turn short enough to be read whole."""
    if way.startswith("in pieces"):
        story.pieces = 100
        monkeypatch.setattr(long_line, "END_BYTES", 16 * 1024)
    if way.endswith("turns too"):
        monkeypatch.setattr(long_line, "WHOLE_TURN_BYTES", 0)
        monkeypatch.setattr(long_line, "END_BYTES", 4 * 1024)


@pytest.mark.parametrize("way", ["kept", "ephemeral", "in pieces", "in pieces, turns too"])
@pytest.mark.parametrize("name", NAMES)
def test_one_that_joins_anywhere_sees_what_the_veteran_sees(
    name: str, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    story = Story.begun()
    cut_small(story, way, monkeypatch)
    playback = Playback(story, recording(name), way == "ephemeral")
    joiners: list[Joiner] = []
    for position in playback:
        veteran = playback.veteran.look()
        for turns in (True, False):
            viewer = playback.join(f"{position}", turns=turns)
            joiners.append(Joiner(viewer, position, turns, past(veteran)))
        for joiner in joiners:
            differs = joiner.differs(veteran)
            assert not differs, f"joined at {joiner.since}, {joiner.turns=}, {position=}: {differs}"
    veteran = playback.veteran.look()
    assert set(veteran.turns.values()) == {"completed"}
    assert veteran.faults == []
    assert veteran.streamed == {}
    assert len(joiners) == 2 * (len(playback.recording.lines) + 1)


@pytest.mark.parametrize("way", ["kept", "in pieces, turns too"])
@pytest.mark.parametrize("late", [1, 2, 3, 7])
@pytest.mark.parametrize("name", NAMES)
def test_what_happens_between_the_snapshot_and_its_answer_is_not_lost(
    name: str, late: int, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    story = Story.begun()
    cut_small(story, way, monkeypatch)
    playback = Playback(story, recording(name))
    asked: dict[int, list[tuple[Viewer, bool, Json]]] = defaultdict(list)
    joiners: list[Joiner] = []
    for position in playback:
        veteran = playback.veteran.look()
        for viewer, turns, answer in asked.pop(position, []):
            playback.answer(answer)
            joiners.append(Joiner(viewer, position - late, turns, past(veteran)))
        for joiner in joiners:
            differs = joiner.differs(veteran)
            assert not differs, f"joined at {joiner.since}, {joiner.turns=}, {position=}: {differs}"
        for turns in (True, False):
            peer = playback.story.peer(f"{position}")
            viewer = Viewer(peer, View(playback.recording.thread))
            asked[position + late].append(
                (viewer, turns, playback.ask_to_join(viewer, turns=turns))
            )
    assert len(joiners) > len(playback.recording.lines)


@pytest.mark.parametrize("later", [0, 1, 3])
@pytest.mark.parametrize("name", NAMES)
def test_joining_again_on_one_connection_doubles_nothing(name: str, later: int) -> None:
    playback = Playback(Story.begun(), recording(name))
    again: dict[int, Joiner] = {}
    joiners: list[Joiner] = []
    for position in playback:
        veteran = playback.veteran.look()
        joiner = Joiner(playback.join(f"{position}"), position, True, past(veteran))
        joiners.append(joiner)
        again[position + later] = joiner
        if position in again:
            viewer = again[position].viewer
            playback.answer(playback.ask_to_join(viewer))
        for joiner in joiners:
            differs = joiner.differs(veteran)
            assert not differs, f"joined at {joiner.since}, {position=}: {differs}"
