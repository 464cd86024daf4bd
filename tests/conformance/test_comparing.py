"""The comparison itself: what it takes for the same, and what it doesn't."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from tests.conformance.comparing import MISSING, Difference, differences
from tests.conformance.intended import sort_out
from tests.conformance.stage import Player, Stage, Story
from tests.conformance.transcript import Transcript, transcript
from tests.end_to_end.peer import Json, Peer
from tests.end_to_end.scenes import DELTA

THREAD = "01a20e2e-d0bc-73e2-9c0d-e76c5cbaeb0a"
OTHER = "01a20e31-5ea9-7c52-8fb2-35630f095859"


class _NoLink:
    async def send(self, message: str | bytes) -> None:
        raise NotImplementedError

    async def close(self) -> None:
        raise NotImplementedError

    def receive(self) -> Any:
        raise NotImplementedError


def heard(*inbox: Json, asked: tuple[str, ...] = (), home: str = "/home/a") -> Transcript:
    """The transcript of one client that asked `asked` (ids from 1) and has this in its inbox."""
    stage: Any = None
    player = Player(stage, "a", Peer(_NoLink(), list(inbox)), list(enumerate(asked, 1)))
    return transcript([player], {home: "<home>"}, lambda thread: thread == OTHER)


def said(method: str, **params: Any) -> Json:
    return {"method": method, "params": params, "emittedAtMs": 1}


def delta(text: str, thread: str = THREAD, item: str = "msg_1") -> Json:
    return said(DELTA, threadId=thread, turnId="u", itemId=item, delta=text)


def compared(native: Transcript, broker: Transcript) -> list[Difference]:
    return differences(native, broker)


def test_ids_times_and_paths_of_their_own_are_no_difference() -> None:
    def side(thread: str, time: int, home: str) -> Transcript:
        made = {"id": thread, "createdAt": time, "cwd": f"{home}/work"}
        started = said("thread/started", thread=made) | {"emittedAtMs": time}
        return heard({"id": 1, "result": {"thread": made}}, started, asked=("x",), home=home)

    other = THREAD.replace("0a", "ff")
    assert compared(side(THREAD, 5, "/home/a"), side(other, 77, "/home/b")) == []


def test_another_thread_where_it_was_the_same_is_one() -> None:
    one = heard(said("x", threadId=THREAD), said("x", threadId=THREAD))
    two = heard(said("x", threadId=THREAD), said("x", threadId=THREAD.replace("0a", "ff")))
    assert compared(one, two)


def test_how_a_text_is_cut_up_is_none_and_what_it_says_is_one() -> None:
    whole, cut = heard(delta("Hello")), heard(delta("He"), delta("llo"))
    assert compared(whole, cut) == []
    (found,) = compared(whole, heard(delta("He")))
    assert (found.path, found.native, found.broker) == ("params.delta", "Hello", "He")


def test_the_order_within_a_turn_matters() -> None:
    begun, done = said("turn/started", threadId=THREAD), said("turn/completed", threadId=THREAD)
    assert {each.path for each in compared(heard(begun, done), heard(done, begun))} == {""}


def test_the_order_of_a_threads_state_among_them_does_not() -> None:
    begun, state = (
        said("turn/started", threadId=THREAD),
        said("thread/status/changed", threadId=THREAD, status={"type": "active"}),
    )
    assert compared(heard(begun, state), heard(state, begun)) == []
    (found,) = compared(heard(begun, state), heard(begun))
    assert (found.method, found.broker) == ("thread/status/changed", MISSING)


def test_answers_are_matched_by_their_requests() -> None:
    one, two = {"id": 1, "result": {"x": 1}}, {"id": 2, "error": {"code": -1, "message": "no"}}
    asked = ("first", "second")
    assert compared(heard(one, two, asked=asked), heard(two, one, asked=asked)) == []
    (found,) = compared(heard(one, two, asked=asked), heard(one, asked=asked))
    assert (found.channel, found.broker) == ("answer 2 second", MISSING)
    worded = {"id": 2, "error": {"code": -1, "message": "No!"}}
    (found,) = compared(heard(one, two, asked=asked), heard(one, worded, asked=asked))
    assert (found.path, found.native, found.broker) == ("error.message", "no", "No!")


def test_an_answer_too_many_is_stray() -> None:
    answer = {"id": 1, "result": {}}
    (found,) = compared(heard(answer, asked=("x",)), heard(answer, answer, asked=("x",)))
    assert found.channel == "stray"


@pytest.mark.parametrize(("one", "other"), [(1, True), (1, 1.0), ("", None), ([], {}), (0, None)])
def test_types_are_compared(one: Any, other: Any) -> None:
    assert compared(heard(said("x", y=one)), heard(said("x", y=other)))
    assert compared(heard(said("x", y=one)), heard(said("x")))


def test_server_requests_and_their_resolutions_go_by_one_name() -> None:
    def side(id: int, resolved: int) -> Transcript:
        offer = said("item/tool/call", threadId=THREAD) | {"id": id}
        return heard(offer, said("serverRequest/resolved", threadId=THREAD, requestId=resolved))

    assert compared(side(0, 0), side(7001, 7001)) == []
    assert compared(side(0, 0), side(7001, 7002))


def test_other_stories_threads_are_left_out() -> None:
    assert compared(heard(delta("x")), heard(delta("x"), delta("y", thread=OTHER))) == []


def test_a_key_covers_only_where_a_story_names_it() -> None:
    error = {"id": None, "error": {"code": -32600, "message": "why"}}
    found = compared(heard(), heard(error))

    async def play(stage: Stage) -> None:
        await trio.lowlevel.checkpoint()

    assert sort_out(found, Story(play)) == (set(), found)
    named = Story(play, shows=("invalid-messages",))
    assert sort_out(found, named) == ({"invalid-messages"}, [])
    assert sort_out(compared(heard(error), heard()), named)[1], "natively more is another thing"


ONE, TWO = (f"019f0000-0000-7000-8000-0000000000b{n}" for n in (1, 2))


def states(*threads: str, first: str = ONE, second: str = TWO) -> Json:
    """An answer with what is known of threads in a map, written in this order."""
    of = {THREAD: {"token": first, "unread": True}, OTHER: {"token": second, "unread": False}}
    return {"id": 1, "result": {"states": {thread: of[thread] for thread in threads}}}


def test_the_order_in_which_a_map_is_written_is_chance() -> None:
    changed = said("thread/x", thread={"id": THREAD}, revision=ONE)
    known = {"id": 1, "result": {"thread": {"id": THREAD}}}
    one, other = (
        heard(known, changed, states(*order) | {"id": 2}, asked=("x", "y"))
        for order in ((THREAD, OTHER), (OTHER, THREAD))
    )
    assert compared(one, other) == []
    # Also where none of them was named before: what they hold tells them apart.
    one, other = (
        heard(states(*order), asked=("x",)) for order in ((THREAD, OTHER), (OTHER, THREAD))
    )
    assert compared(one, other) == []


def test_what_a_map_holds_of_which_is_no_chance() -> None:
    known = {"id": 1, "result": {"threads": [{"id": THREAD}, {"id": OTHER}]}}
    said_twice = (known, {**states(THREAD, OTHER), "id": 2}, {**states(THREAD, OTHER), "id": 3})
    swapped = (*said_twice[:2], {**states(OTHER, THREAD, first=TWO, second=ONE), "id": 3})
    asked = ("x", "y", "z")
    found = compared(heard(*said_twice, asked=asked), heard(*swapped, asked=asked))
    assert {each.path.rpartition(".")[2] for each in found} == {"token"}
    assert len(found) == 2


def test_a_search_that_is_through_twice_is_through() -> None:
    def found(*files: str) -> Json:
        return said("fuzzyFileSearch/sessionUpdated", sessionId="s", query="q", files=list(files))

    through = said("fuzzyFileSearch/sessionCompleted", sessionId="s")
    once = heard(found(), found("a"), through)
    assert compared(once, heard(found(), found("a"), through, found("a"), through)) == []
    assert compared(once, heard(found(), found("a"))) != []
    assert compared(once, heard(found(), found("b"), through)) != []
    twice = heard(said("turn/x", threadId=THREAD), said("turn/x", threadId=THREAD))
    assert compared(heard(said("turn/x", threadId=THREAD)), twice) != []
