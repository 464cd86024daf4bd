"""Plays stories against the native listener and against the broker, several at a time.

Hands to: the test. Hears from: `stage`, `native` and `brokered`.
"""

from __future__ import annotations

import traceback
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import attrs
import trio

from tests.conformance.stage import Player, Stage, Story
from tests.conformance.transcript import Transcript, paths_of, transcript
from tests.end_to_end.brokered import brokered
from tests.end_to_end.native import Native, native_ws
from tests.end_to_end.peer import plainly
from tests.end_to_end.scenes import gated

# How many stories are played at a time: more don't help on two cores.
AT_A_TIME: Final = 4
# A story takes about a second; one that hangs shall fail alone.
STORY_PATIENCE: Final = 120.0


@attrs.define
class Play:
    """One story, played against one side. `failure` is what went wrong, as a traceback."""

    story: Story
    home: Path
    players: list[Player] = attrs.field(factory=list)
    failure: str = ""


@attrs.define
class Side:
    """A running app-server or broker, and what was played against it."""

    running: Native
    plays: list[Play] = attrs.field(factory=list)

    async def play(self, story: Story) -> Play:
        """Play a story to its end, or until it fails."""
        played = Play(story, self.running.home.root)
        self.plays.append(played)
        try:
            with plainly(), trio.fail_after(STORY_PATIENCE):
                async with trio.open_nursery() as nursery:
                    stage = Stage(story.name, self.running, nursery)
                    played.players = stage.players
                    await story.play(stage)
                    await stage.end()
        except Exception:  # noqa: BLE001 (it is the story's outcome, shown by its test)
            played.failure = traceback.format_exc()
        return played

    def told(self, play: Play) -> Transcript:
        """The transcript of a play, once all plays of this side are over."""
        owners = {thread: each.story for each in self.plays for thread in _made_by(each)}

        def is_foreign(thread: str) -> bool:
            return owners.get(thread, play.story) is not play.story

        return transcript(play.players, paths_of(play.home, play.story.name), is_foreign)


def _made_by(play: Play) -> set[str]:
    """The threads that came to be in the story's own directory."""
    own = play.home / "work" / play.story.name  # another's name may only begin like this
    found = set()
    for player in play.players:
        for message in player.peer.inbox:
            if not isinstance(message, dict):
                continue
            for holder in (message.get("params"), message.get("result")):
                thread = holder.get("thread") if isinstance(holder, dict) else None
                if isinstance(thread, dict) and Path(thread.get("cwd", "")).is_relative_to(own):
                    found.add(str(thread["id"]))
    return found


@attrs.frozen
class Outcome:
    """A story on both sides: what each heard, and how it failed if it did."""

    story: Story
    native: Transcript
    broker: Transcript
    failures: Mapping[str, str]


@asynccontextmanager
async def both_sides(config: Mapping[str, Any]) -> AsyncIterator[tuple[Side, Side]]:
    """A native listener and a broker, side by side."""
    config = dict(config)
    async with native_ws(config=config) as native, brokered(config=config) as broker:
        await gated(broker)
        yield Side(native), Side(broker)


async def perform(stories: Sequence[Story]) -> dict[str, Outcome]:
    """Play all stories on both sides; outcomes by the story's name."""
    outcomes: dict[str, Outcome] = {}
    turn = trio.CapacityLimiter(AT_A_TIME)
    own = [story for story in stories if story.has_own]
    alone = [story for story in stories if story.alone and not story.has_own]
    shared = [story for story in stories if not story.alone and not story.has_own]
    with plainly():
        async with trio.open_nursery() as nursery:
            for group, at_a_time in ((shared, AT_A_TIME), (alone, 1), *(([s], 1) for s in own)):
                if group:
                    nursery.start_soon(_on_own_sides, group, at_a_time, turn, outcomes)
    return outcomes


async def natively(story: Story) -> Transcript:
    """Play a story against a native listener of its own: what is chance there is seen by that."""
    async with native_ws(config=dict(story.config)) as native:
        side = Side(native)
        return side.told(await side.play(story))


async def _on_own_sides(
    stories: Sequence[Story],
    at_a_time: int,
    turn: trio.CapacityLimiter,
    outcomes: dict[str, Outcome],
) -> None:
    """Play these on a pair of processes; `turn` is shared with the other pairs."""
    plays: dict[str, list[Play]] = {}
    here = trio.CapacityLimiter(at_a_time)

    async def play(story: Story, sides: Sequence[Side]) -> None:
        async with here, turn:
            await _on_both(story, sides, plays)

    async with turn:
        pass  # processes are started when it is their turn
    async with both_sides(stories[0].config) as sides:
        async with trio.open_nursery() as nursery:
            for story in stories:
                nursery.start_soon(play, story, sides)
        _note(stories, sides, plays, outcomes)


async def _on_both(story: Story, sides: Sequence[Side], plays: dict[str, list[Play]]) -> None:
    found: dict[int, Play] = {}

    async def on(at: int, side: Side) -> None:
        found[at] = await side.play(story)

    async with trio.open_nursery() as nursery:
        for at, side in enumerate(sides):
            nursery.start_soon(on, at, side)
    plays[story.name] = [found[at] for at in range(len(sides))]


def _note(
    stories: Sequence[Story],
    sides: Sequence[Side],
    plays: Mapping[str, list[Play]],
    outcomes: dict[str, Outcome],
) -> None:
    for story in stories:
        native, broker = (
            side.told(play) for side, play in zip(sides, plays[story.name], strict=True)
        )
        failures = {
            name: play.failure
            for name, play in zip(("native", "broker"), plays[story.name], strict=True)
            if play.failure
        }
        outcomes[story.name] = Outcome(story, native, broker, failures)
