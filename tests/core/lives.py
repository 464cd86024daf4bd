"""The app-server's lives in a story: an end, the next beginning, and what they are asked.

Hands to: the stories of recovery, outages, planned restarts and of messages sent twice.
"""

from __future__ import annotations

from mux.core.commands import StartUpstream, StopUpstream
from tests.core.stories import Json, Peer, Story


def next_life(story: Story, generation: int = 2) -> list[Json]:
    """The next process starts and is initialized; what it is then asked, beside the handshake."""
    story.starts(generation)
    story.initialized()
    return [each for each in story.written() if each["method"] != "initialized"]


def ready_again(story: Story, generation: int = 2) -> None:
    """The next process starts, and does all that it is asked to begin with."""
    for asked in next_life(story, generation):
        story.answers(asked, {"thread": {"id": asked["params"].get("threadId", "")}})


def shared(story: Story, *names: str) -> list[Peer]:
    """Clients that follow the thread ``t``, on which a turn has been."""
    first, *others = peers = [story.peer(name) for name in names]
    story.creates(first)
    story.begins_turn()
    story.ends_turn()
    for peer in others:
        story.follows(peer)
    for peer in peers:
        peer.heard()
    return peers


def starts(story: Story) -> list[float]:
    """How long the broker waited before each start that it asked for since the last look."""
    lives, story.lives = story.lives, []
    assert all(isinstance(each, StartUpstream) for each in lives)
    return [each.after for each in lives if isinstance(each, StartUpstream)]


def stops(story: Story) -> bool:
    """Whether the broker has let the app-server end in order since the last look."""
    lives, story.lives = story.lives, []
    assert all(isinstance(each, StopUpstream) for each in lives)
    return bool(lives)


def die(story: Story, times: int) -> None:
    """So many lives, each ended as soon as it is ready."""
    generation = story.broker.state.appserver.generation
    for life in range(times):
        if life:
            ready_again(story, generation + life)
        story.exits(f"end {life + 1}")


def answered_probe(story: Story) -> None:
    """The app-server gives the signs of life that it was asked for."""
    for probe in story.written("thread/loaded/list"):
        story.answers(probe, {"data": []})


def reasons(story: Story) -> list[str]:
    """What a planned restart waits for, in words."""
    return story.broker.recovery.waits_for()
