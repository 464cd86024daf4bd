"""Watching over the runtime: approvals from the command line, and who is here."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys

import pytest
import trio

from mux.demo.scripted_model import Patch, Run, Say, Scripted
from tests.end_to_end.brokered import brokered, client
from tests.end_to_end.lives import appmux
from tests.end_to_end.native import Native
from tests.end_to_end.peer import PATIENCE, Json, Peer, RpcError
from tests.end_to_end.scenes import (
    ACCEPT,
    APPROVAL,
    RESOLVED,
    TURN_COMPLETED,
    join,
    shared_thread,
)
from tests.end_to_end.test_audit import recorded

AWARE = {"extensions": {"appmux": {"version": 1}}}
PRESENCE = "mux/presence"


def scripted() -> Scripted:
    model = Scripted()
    model.on("run it", Run("echo approved > proof.txt", escalated=True), Say("Done."))
    model.on(
        "patch it",
        Patch("*** Begin Patch\n*** Add File: new.txt\n+new\n*** End Patch"),
        Say("Done."),
    )
    return model


async def pending(broker: Native) -> list[Json]:
    return json.loads((await appmux(broker, "approvals", "--json")).stdout)  # type: ignore[no-any-return]


# --- approvals from the command line --------------------------------------------------------------


async def test_approving_at_the_command_line_runs_the_command() -> None:
    async with brokered(model=scripted()) as broker, client(broker, "desk") as desk:
        nothing = await appmux(broker, "approvals")
        assert (nothing.returncode, nothing.stdout) == (3, "nothing waits for an answer\n")
        thread = await desk.start_thread(broker.home.work)
        await desk.start_turn(thread, "run it")
        offered = await desk.wait_method(APPROVAL)
        waits = await appmux(broker, "approvals")
        listed, ending = waits.stdout, str(offered["id"])[-3:]
        assert waits.returncode == 0
        assert str(offered["id"]) in listed
        assert f"→ appmux approve {ending}, or: appmux decline {ending}\n" in listed
        assert "echo approved > proof.txt" in listed
        assert f"directory: {broker.home.work}" in listed
        assert "desk #" in listed
        proof = broker.home.work / "proof.txt"
        assert not proof.exists()

        done = await appmux(broker, "approve", str(offered["id"]), "--yes")
        assert done.returncode == 0, done.stderr
        assert "echo approved > proof.txt" in done.stdout
        await desk.wait_method(RESOLVED)
        await desk.wait_method(TURN_COMPLETED, threadId=thread)
        assert proof.read_text() == "approved\n"
        answered = await recorded(broker, "approval/answered", approval=offered["id"])
        assert answered["by"]["principal"] == "local"
        assert answered["by"]["name"] == "appmux"

        again = await appmux(broker, "approve", str(offered["id"]), "--yes")
        assert again.returncode == 1
        assert "no approval" in again.stderr


async def test_declining_leaves_the_files_as_they_are() -> None:
    async with brokered(model=scripted()) as broker, client(broker, "desk") as desk:
        thread = await desk.start_thread(broker.home.work)
        await desk.start_turn(thread, "patch it")
        offered = await desk.wait_method("item/fileChange/requestApproval")
        listed = (await appmux(broker, "approvals")).stdout
        assert f"file: add {broker.home.work}/new.txt" in listed
        done = await appmux(broker, "decline", str(offered["id"]), "-y")
        assert done.returncode == 0, done.stderr
        await desk.wait_method(TURN_COMPLETED, threadId=thread)
        assert not (broker.home.work / "new.txt").exists()


def at_a_terminal(broker: Native, types: bytes, *arguments: str) -> tuple[int, str]:
    """A command of ours at a terminal where somebody types that; its status, and what it said."""
    person, terminal = pty.openpty()
    try:
        with subprocess.Popen(
            [sys.executable, "-m", "mux", *arguments],
            stdin=terminal,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=broker.home.environ(),
        ) as process:
            os.write(person, types)
            out, _ = process.communicate(timeout=PATIENCE)
            return process.returncode, out.decode()
    finally:
        os.close(person)
        os.close(terminal)


@pytest.mark.parametrize(("types", "status"), [(b"y\n", 0), (b"n\n", 1)])
async def test_a_person_is_asked_first(types: bytes, status: int) -> None:
    async with brokered(model=scripted()) as broker, client(broker, "desk") as desk:
        thread = await desk.start_thread(broker.home.work)
        await desk.start_turn(thread, "run it")
        offered = await desk.wait_method(APPROVAL)
        alone = await appmux(broker, "approve", str(offered["id"]))
        assert alone.returncode == 1
        assert "no terminal" in alone.stderr
        ending = str(offered["id"])[-3:]
        ended, said = await trio.to_thread.run_sync(at_a_terminal, broker, types, "approve", ending)
        assert ended == status, said
        assert said.index("echo approved > proof.txt") < said.index("Approve it?")
        assert len(await pending(broker)) == status
        if status == 0:
            await desk.wait_method(TURN_COMPLETED, threadId=thread)


@pytest.mark.parametrize("types", [b"y\n", b"n\n"])
async def test_without_an_id_the_only_one_is_shown_and_asked_about(types: bytes) -> None:
    async with brokered(model=scripted()) as broker, client(broker, "desk") as desk:
        none = await appmux(broker, "approve")
        assert (none.returncode, none.stdout) == (0, "nothing waits for an answer\n")
        thread = await desk.start_thread(broker.home.work)
        await desk.start_turn(thread, "run it")
        offered = await desk.wait_method(APPROVAL)
        unnamed = await appmux(broker, "approve", "--yes")
        assert unnamed.returncode == 2
        assert "with --yes an ID is needed" in unnamed.stderr
        alone = await appmux(broker, "approve")
        assert alone.returncode == 1
        assert f"appmux approve {offered['id']} --yes" in alone.stderr
        ended, said = await trio.to_thread.run_sync(at_a_terminal, broker, types, "decline")
        assert ended == (0 if types == b"y\n" else 1), said
        assert said.index("echo approved > proof.txt") < said.index("Decline it?")
        assert len(await pending(broker)) == ended


async def test_without_an_id_several_are_listed_each_with_its_command() -> None:
    async with brokered(model=scripted()) as broker, client(broker, "desk") as desk:
        ids = []
        for _ in range(2):
            thread = await desk.start_thread(broker.home.work)
            await desk.start_turn(thread, "run it")
            ids.append((await desk.wait_method(APPROVAL, threadId=thread))["id"])
        ended, said = await trio.to_thread.run_sync(at_a_terminal, broker, b"y\n", "decline")
        assert ended == 2
        for id in ids:
            assert f"→ appmux decline {str(id)[-3:]}\n" in said
        assert "2 approvals wait: say which" in said
        assert len(await pending(broker)) == 2
        told = await appmux(broker, "decline", str(ids[0]), "--yes", "--json")
        assert json.loads(told.stdout)["decided"] is True


async def test_the_first_valid_answer_wins_and_a_bad_one_is_refused_with_a_reason() -> None:
    async with (
        brokered(model=scripted()) as broker,
        client(broker, "desk") as desk,
        client(broker, "elsewhere") as elsewhere,
    ):
        thread = await desk.start_thread(broker.home.work)
        await desk.start_turn(thread, "run it")
        id = (await desk.wait_method(APPROVAL))["id"]
        (listed,) = (await elsewhere.request("mux/approvals/list"))["approvals"]
        assert (listed["id"], listed["threadId"]) == (id, thread)
        assert listed["params"]["command"].endswith("echo approved > proof.txt'")
        with pytest.raises(RpcError, match="doesn't answer"):
            await elsewhere.request("mux/approvals/answer", {"id": id, "result": {"decision": "?"}})
        with pytest.raises(RpcError, match="no such approval"):
            await elsewhere.request("mux/approvals/answer", {"id": id + 9, "result": ACCEPT})
        answered = await elsewhere.request("mux/approvals/answer", {"id": id, "result": ACCEPT})
        assert answered == {
            "id": id, "method": APPROVAL, "threadId": thread, "decided": True, "waitsFor": None,
        }  # fmt: skip
        await desk.respond(id, {"decision": "decline"})
        await desk.wait_method(TURN_COMPLETED, threadId=thread)
        assert (broker.home.work / "proof.txt").exists()
        with pytest.raises(RpcError, match="no such approval"):
            await elsewhere.request("mux/approvals/answer", {"id": id, "result": ACCEPT})


# --- presence -------------------------------------------------------------------------------------


def here(message: Json) -> dict[str, Json]:
    return {each["name"]: each for each in message["params"]["clients"]}


async def shows(peer: Peer, wanted: object, since: int = 0) -> dict[str, Json]:
    """Wait for a picture that fulfils `wanted`; it."""
    assert callable(wanted)

    def fits(message: Json) -> bool:
        return message.get("method") == PRESENCE and bool(wanted(here(message)))

    return here(await peer.wait(fits, since=since))


async def test_a_client_that_knows_the_broker_sees_who_is_here() -> None:
    async with (
        brokered(model=scripted()) as broker,
        client(broker, "watcher", **AWARE) as watcher,
    ):
        alone = await shows(watcher, lambda now: set(now) == {"watcher"})
        assert alone["watcher"]["lastDrove"] is None
        assert alone["watcher"]["id"] == watcher.hello["appmux"]["clientId"]
        async with client(broker, "desk") as desk:
            await shows(watcher, lambda now: set(now) == {"watcher", "desk"})
            thread = await desk.start_thread(broker.home.work)
            await shows(watcher, lambda now: now.get("desk", {}).get("threads") == [thread])
            await desk.run_turn(thread, "hello")
            drove = await shows(
                watcher, lambda now: now.get("desk", {}).get("lastDrove") is not None
            )
            assert drove["desk"]["lastDrove"] < PATIENCE
            assert drove["desk"]["transport"] == "ws"
            assert "device" not in drove["desk"]
            await join(watcher, thread)
            await shows(watcher, lambda now: now["watcher"]["threads"] == [thread])
            asked = await watcher.request("mux/presence/read")
            assert {each["name"] for each in asked["clients"]} == {"watcher", "desk"}
            assert "s ago" in (await appmux(broker, "status")).stdout
            mark = len(watcher.inbox)
            await desk.request("thread/unsubscribe", {"threadId": thread})
            await shows(watcher, lambda now: now["desk"]["threads"] == [], since=mark)
            mark = len(watcher.inbox)
            assert not desk.heard(PRESENCE)  # it never said that it knows the broker
        await shows(watcher, lambda now: set(now) == {"watcher"}, since=mark)


async def test_presence_comes_with_a_turn_that_streams() -> None:
    async with (
        brokered(model=scripted()) as broker,
        client(broker, "desk", **AWARE) as desk,
        client(broker, "phone", **AWARE) as phone,
    ):
        thread = await shared_thread(broker, desk, phone)
        await phone.run_turn(thread, "hello")
        for peer in (desk, phone):
            await shows(peer, lambda now: now.get("phone", {}).get("lastDrove") is not None)
