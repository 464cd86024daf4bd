"""Who hears what of a thread: its followers its turns, everybody that it is there."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from mux.demo.scripted_model import CallTool, Hold, Run, Say, Scripted
from tests.end_to_end.brokered import brokered, client
from tests.end_to_end.native import Native
from tests.end_to_end.peer import PATIENCE, Peer, RpcError
from tests.end_to_end.scenes import (
    ACCEPT,
    APPROVAL,
    DELTA,
    LIST,
    RESOLVED,
    TURN_COMPLETED,
    TURN_STARTED,
    Tapped,
    about,
    eventually,
    join,
    shared_thread,
    status,
    status_shows,
    tapped,
)

BROADCAST = {
    "thread/status/changed",
    "thread/goal/cleared",
    "thread/name/updated",
    "thread/readState/changed",
    "thread/archived",
    "thread/unarchived",
    "thread/closed",
}


async def _a_turn_heard_by(thread: str, asker: Peer, *hearers: Peer) -> None:
    marks = [len(peer.inbox) for peer in hearers]
    await asker.start_turn(thread, "say it")
    for peer, since in zip(hearers, marks, strict=True):
        await peer.wait_method(TURN_COMPLETED, since=since, threadId=thread)
        assert len(peer.heard(TURN_STARTED, since=since)) == 1
        deltas = [each["params"]["delta"] for each in peer.heard(DELTA, since=since)]
        assert deltas == ["Hel", "lo", "!"]


async def test_turns_reach_followers_and_threads_everybody() -> None:
    model = Scripted()
    model.on("say it", Say(chunks=("Hel", "lo", "!")))
    async with (
        brokered(model=model) as broker,
        client(broker, "starter") as starter,
        client(broker, "joiner") as joiner,
        client(broker, "stranger") as stranger,
    ):
        thread = await shared_thread(broker, starter, joiner)
        await _a_turn_heard_by(thread, starter, starter, joiner)
        # A turn that a stranger starts is heard by the followers, and makes it none of them.
        await _a_turn_heard_by(thread, stranger, starter, joiner)
        await starter.request("thread/name/set", {"threadId": thread, "name": "Named"})
        for peer in (starter, joiner, stranger):
            await peer.wait_method("thread/name/updated", threadId=thread)
            await peer.wait(lambda m: m.get("method") == "thread/started")
        assert {each["method"] for each in about(stranger, thread)} <= BROADCAST

        # A fork is followed by the one that forked.
        forked = await joiner.request("thread/fork", {"threadId": thread})
        await _a_turn_heard_by(forked["thread"]["id"], joiner, joiner)
        for peer in (starter, stranger):
            assert {each["method"] for each in about(peer, forked["thread"]["id"])} <= BROADCAST


async def test_all_that_is_said_of_a_new_thread_reaches_its_creator(tmp_path: Path) -> None:
    model = Scripted()
    model.on("say it", Say("Hello"))
    async with (
        tapped(tmp_path, model=model) as tap,
        client(tap.broker, "creator") as creator,
        client(tap.broker, "stranger") as stranger,
    ):
        parent = await shared_thread(tap.broker, creator, historyMode="legacy")
        forked = (await creator.request("thread/fork", {"threadId": parent}))["thread"]["id"]
        review: dict[str, Any] = {"threadId": parent, "target": {"type": "custom"}}
        review["target"]["instructions"] = "say it"
        reviews = await _reviewed_apart(creator, review)
        several = [await creator.start_thread(tap.broker.home.work) for _ in range(8)]
        await creator.request(LIST)
        await stranger.request(LIST)
        for thread in (parent, forked, *reviews, *several):
            same = partial(_heard_all, tap, creator, thread)
            await eventually(same, f"all that is said of {thread}")
            assert {each["method"] for each in about(stranger, thread)} <= BROADCAST
        assert parent not in reviews


async def _reviewed_apart(creator: Peer, review: dict[str, Any]) -> list[str]:
    """Have a review made on a thread of its own; none where codex has no such reviews any more."""
    try:
        reviewed = await creator.request("review/start", review | {"delivery": "detached"})
    except RpcError as refused:
        if "unknown variant `detached`" in refused.message:  # since 0.169
            return []
        raise
    await creator.wait_method(TURN_COMPLETED, threadId=reviewed["reviewThreadId"])
    return [reviewed["reviewThreadId"]]


def _heard_all(tap: Tapped, peer: Peer, thread: str) -> bool:
    """Whether the peer has heard what the app-server has said of the thread, and nothing else."""
    return about(peer, thread) == tap.about(thread)


async def test_unsubscribing_is_counted_per_client(tmp_path: Path) -> None:
    model = Scripted()
    model.on("hold it", Say(chunks=("one", Hold("gate"), "two")))
    async with (
        tapped(tmp_path, model=model) as tap,
        client(tap.broker, "one") as one,
        client(tap.broker, "two") as two,
    ):
        thread = await shared_thread(tap.broker, one, two)
        named = {"threadId": thread}
        assert await one.request("thread/unsubscribe", named) == {"status": "unsubscribed"}
        assert await one.request("thread/unsubscribe", named) == {"status": "notSubscribed"}
        since = len(one.inbox)
        await two.start_turn(thread, "hold it")
        await two.wait_method(DELTA, delta="one")
        # The last follower leaves in the middle of a turn: the app-server goes on telling us.
        assert await two.request("thread/unsubscribe", named) == {"status": "unsubscribed"}
        await two.request(LIST)  # behind which nothing is on its way to the app-server
        assert tap.asked("thread/unsubscribe") == []
        model.release("gate")
        await eventually(lambda: tap.asked("thread/unsubscribe") == [named], "the last one's")
        await status_shows(one, lambda report: report["threads"] == [])
        assert {each["method"] for each in about(one, thread, since)} <= BROADCAST
        # And it can be followed again.
        await join(two, thread)
        mark = len(two.inbox)
        await two.run_turn(thread, "again")
        assert two.heard(DELTA, since=mark)
        with pytest.raises(RpcError, match="-32600"):
            await one.request("thread/unsubscribe", {"threadId": "no-such-thread"})


async def test_a_follower_that_leaves_is_counted_off(tmp_path: Path) -> None:
    async with tapped(tmp_path) as tap, client(tap.broker, "stays") as stays:
        async with client(tap.broker, "one") as one, client(tap.broker, "two") as two:
            thread = await shared_thread(tap.broker, one, two)
            [shown] = (await status(stays))["threads"]
            assert len(shown["followers"]) == 2
        await eventually(
            lambda: tap.asked("thread/unsubscribe") == [{"threadId": thread}], "given back once"
        )


async def _spawn(broker: Native, parent: Peer, *followers: Peer) -> tuple[str, str]:
    """A turn in which the model starts a sub-agent that asks for an approval; both thread ids."""
    thread = await shared_thread(broker, parent, *followers)
    await parent.start_turn(thread, "spawn")
    asked = await parent.wait_method(APPROVAL)
    return thread, asked["params"]["threadId"]


async def test_a_sub_agent_is_its_parents_followers_business() -> None:
    model = Scripted()
    agent = {"message": "child work", "task_name": "child"}
    model.on("spawn", CallTool("spawn_agent", agent, namespace="multi_agent_v1"), Say("Spawned."))
    model.on("child work", Run("echo child", escalated=True), Say("Child done."))
    # However long its parent's item, which names it, is under way.
    limits = {"APPMUX_LIMITS_PARENT_WAIT": "30"}
    async with (
        brokered(model=model, environ=limits) as broker,
        client(broker, "one") as one,
        client(broker, "two") as two,
        client(broker, "stranger") as stranger,
    ):
        with trio.fail_after(PATIENCE):
            parent, child = await _spawn(broker, one, two)
        assert child != parent
        asked = await two.wait_method(APPROVAL, threadId=child)
        await two.respond(asked["id"], ACCEPT)
        for peer in (one, two):
            await peer.wait_method(RESOLVED, threadId=child)
            await peer.wait_method(TURN_COMPLETED, threadId=child)
            assert [each["params"]["delta"] for each in peer.heard(DELTA, threadId=child)] == [
                "Child done."
            ]
            assert len(peer.heard(TURN_STARTED, threadId=child)) == 1
        await stranger.request(LIST)
        assert {each["method"] for each in about(stranger, child)} <= BROADCAST
        assert stranger.heard(APPROVAL) == []


async def test_who_joins_the_parent_late_is_offered_what_the_sub_agent_asks() -> None:
    model = Scripted()
    agent = {"message": "child work", "task_name": "child"}
    model.on("spawn", CallTool("spawn_agent", agent, namespace="multi_agent_v1"), Say("Spawned."))
    model.on("child work", Run("echo child", escalated=True), Say("Child done."))
    async with (
        brokered(model=model) as broker,
        client(broker, "desk") as desk,
        client(broker, "late") as late,
        client(broker, "stranger") as stranger,
    ):
        with trio.fail_after(PATIENCE):
            parent, child = await _spawn(broker, desk)
        await join(late, parent)
        asked = await late.wait_method(APPROVAL, threadId=child)
        assert late.heard("item/started", threadId=child)
        await late.respond(asked["id"], ACCEPT)
        for peer in (desk, late):
            await peer.wait_method(RESOLVED, threadId=child)
            await peer.wait_method(TURN_COMPLETED, threadId=child)
            assert len(peer.heard(APPROVAL)) == 1
        await stranger.request(LIST)
        assert stranger.heard(APPROVAL) == []


async def test_a_sub_agent_that_was_let_go_of_is_there_again_for_who_joins_its_parent() -> None:
    model = Scripted()
    agent = {"message": "child work", "task_name": "child"}
    model.on("spawn", CallTool("spawn_agent", agent, namespace="multi_agent_v1"), Say("Spawned."))
    model.on("child work", Say("Child done."))
    model.on("more work", Run("echo child", escalated=True), Say("Done again."))
    async with brokered(model=model) as broker, client(broker, "late") as late:
        async with client(broker, "desk") as desk:
            parent = await shared_thread(broker, desk)
            await desk.start_turn(parent, "spawn")
            ended = await desk.wait(
                lambda each: (
                    each.get("method") == TURN_COMPLETED and each["params"]["threadId"] != parent
                ),
                since=len(desk.inbox),
            )
            child = ended["params"]["threadId"]
        call = {"target": child, "message": "more work"}
        model.on("go on", CallTool("send_input", call, namespace="multi_agent_v1"), Say("Sent."))
        await join(late, parent)
        await late.start_turn(parent, "go on")
        asked = await late.wait_method(APPROVAL, threadId=child)
        await late.respond(asked["id"], ACCEPT)
        await late.wait_method(TURN_COMPLETED, threadId=child)
