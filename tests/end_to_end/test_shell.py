"""Threads from the shell: `appmux threads`, `watch`, `say`, and what a shell completes."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import attrs

from mux.demo.scripted_model import Patch, Run, Say, Scripted
from tests.end_to_end.brokered import brokered, client
from tests.end_to_end.devices import appmux, operator_of, piped, terminal
from tests.end_to_end.native import Native
from tests.end_to_end.peer import Peer
from tests.end_to_end.scenes import ACCEPT, APPROVAL, TURN_COMPLETED


@attrs.frozen
class Scene:
    """A broker, a client that has begun a thread, and the thread."""

    broker: Native
    desk: Peer
    thread: str

    @property
    def short(self) -> str:
        return self.thread[-8:]


@asynccontextmanager
async def scene() -> AsyncIterator[Scene]:
    model = Scripted()
    model.on("run it", Run("printf 'one\\ntwo\\n'; exit 3", escalated=True), Say("It failed."))
    model.on(
        "patch it",
        Patch("*** Begin Patch\n*** Add File: new.txt\n+a new line\n*** End Patch"),
        Say("Patched."),
    )
    async with brokered(model=model) as broker, client(broker, "desk") as desk:
        thread = await desk.start_thread(broker.home.work)
        await desk.request("thread/name/set", {"threadId": thread, "name": "Fix the parser"})
        await desk.run_turn(thread, "hello")
        yield Scene(broker, desk, thread)


async def test_threads_are_listed_with_what_they_do() -> None:
    async with scene() as on:
        listed = await appmux(on.broker, "threads")
        assert listed.returncode == 0, listed.stderr
        head, line = listed.stdout.splitlines()
        assert head.split()[:4] == ["thread", "title", "directory", "state"]
        assert line.startswith(f"{on.short}  Fix the parser")
        assert "idle" in line
        await on.desk.start_turn(on.thread, "run it")
        await on.desk.wait_method(APPROVAL)
        assert "waits for you" in (await appmux(on.broker, "threads")).stdout
        (card,) = json.loads((await appmux(on.broker, "threads", "--json")).stdout)
        assert (card["id"], card["title"], card["needs"]) == (on.thread, "Fix the parser", 1)
        assert (await appmux(on.broker, "threads", "--archived")).stdout == "no thread\n"


async def test_a_thread_is_watched_while_it_waits_runs_and_ends() -> None:
    async with scene() as on:
        async with piped(on.broker, "watch", on.short, "--once", "--turns", "1") as watching:
            # Nothing runs: it shows the last turn, and that is all.
            assert await watching.end() == 0
        assert "> hello\n" in watching.shown
        assert "= the turn is over after" in watching.shown
        await on.desk.start_turn(on.thread, "run it")
        asked = await on.desk.wait_method(APPROVAL)
        async with piped(on.broker, "watch", "--once") as watching:  # the only one that runs
            await watching.see(rf"→ appmux approve {str(asked['id'])[-3:]}\n")
            await on.desk.respond(asked["id"], ACCEPT)
            assert await watching.end() == 0
        for line in (
            f"~ Fix the parser ({on.thread})",
            "> run it", "$ printf 'one\\ntwo\\n'; exit 3", "  one", "  two", "It failed.",
        ):  # fmt: skip
            assert f"{line}\n" in watching.shown, line
        assert "  exit 3 after" in watching.shown
        assert "\x1b" not in watching.shown, "no colours where no terminal is"


async def test_a_change_is_shown_with_its_diff_in_colours_before_it_is_allowed() -> None:
    async with scene() as on:
        await on.desk.start_turn(on.thread, "patch it")
        asked = await on.desk.wait_method("item/fileChange/requestApproval")
        async with terminal(on.broker, "watch", "Fix the", "--once") as watching:
            await watching.see(r"\(\+1 -0\)")
            await watching.see(r"\x1b\[32m  \+a new line\x1b\[0m")
            await watching.see("→ appmux approve")
            await on.desk.respond(asked["id"], ACCEPT)
            assert await watching.end() == 0
        assert "Patched." in watching.shown


async def test_watching_for_programs_is_codexs_own_messages() -> None:
    async with scene() as on:
        async with piped(on.broker, "watch", on.thread, "--json", "--once") as first:
            assert await first.end() == 0
        assert first.shown == ""
        await on.desk.start_turn(on.thread, "run it")
        asked = await on.desk.wait_method(APPROVAL)
        async with piped(on.broker, "watch", on.thread, "--json", "--once") as watching:
            await watching.see(APPROVAL)
            await on.desk.respond(asked["id"], ACCEPT)
            assert await watching.end() == 0
        messages = [json.loads(line) for line in watching.shown.splitlines()]
        assert messages[-1]["method"] == TURN_COMPLETED
        assert all(each["params"]["threadId"] == on.thread for each in messages)


async def test_a_message_is_said_and_its_turn_is_shown() -> None:
    async with scene() as on:
        done = await appmux(on.broker, "say", "fix the parser", "--wait", "how", "are", "you?")
        assert done.returncode == 0, done.stderr
        assert "> how are you?\n" in done.stdout
        assert "= the turn is over" in done.stdout
        await on.desk.wait_method(TURN_COMPLETED, threadId=on.thread)


async def test_while_a_turn_runs_one_says_what_is_meant() -> None:
    async with scene() as on:
        await on.desk.start_turn(on.thread, "run it")
        asked = await on.desk.wait_method(APPROVAL)
        busy = await appmux(on.broker, "say", on.short, "and?")
        assert (busy.returncode, busy.stdout) == (1, "")
        assert "--steer says it into that turn, --queue after it" in busy.stderr
        steered = await appmux(on.broker, "say", on.short, "--steer", "quickly", "--json")
        told = json.loads(steered.stdout)
        assert (told["threadId"], told["steered"], told["queued"]) == (on.thread, True, None)
        async with piped(on.broker, "say", on.short, "--queue", "--wait", "and then") as queued:
            await queued.see(f"queued as number 1 on {on.short}")
            await on.desk.respond(asked["id"], ACCEPT)
            assert await queued.end() == 0
        shown = queued.shown
        assert shown.count("= the turn is over") == 2
        assert "> and then\n" in shown


async def test_a_thread_is_begun_in_a_directory() -> None:
    async with scene() as on:
        where = on.broker.home.work / "below"
        where.mkdir()
        done = await appmux(on.broker, "say", "--new", "below", "--json", "hello", "there")
        assert done.returncode == 0, done.stderr
        thread = json.loads(done.stdout)["threadId"]
        cards = json.loads((await appmux(on.broker, "threads", "--json")).stdout)
        (card,) = [each for each in cards if each["id"] == thread]
        assert (Path(card["directory"]), card["preview"]) == (where, "hello there")
        gone = await appmux(on.broker, "say", "--new", "nowhere", "hello")
        assert gone.returncode == 1
        assert "there is no directory" in gone.stderr
        nobody = await appmux(on.broker, "say", "no such thread", "hello")
        assert nobody.returncode == 1
        assert "`appmux threads` lists them" in nobody.stderr


async def test_a_shell_completes_ids_and_names() -> None:
    async with scene() as on, operator_of(on.broker) as operator:
        await operator.request("mux/devices/add", {"name": "Ada's phone", "scopes": ["observe"]})
        await on.desk.start_turn(on.thread, "run it")
        asked = await on.desk.wait_method(APPROVAL)
        for typed, completed in (
            ("appmux watch ", [on.short, "Fix the parser"]),
            (f"appmux say {on.thread[:6]}", [on.thread, "Fix the parser"]),
            ("appmux approve ", [str(asked["id"]), "run printf 'one\\ntwo\\n'; exit 3"]),
            ("appmux devices revoke ", ["Ada's phone", "observe"]),
        ):
            done = await completing(on.broker, typed)
            assert done == ["plain", *completed], typed


async def completing(broker: Native, typed: str) -> list[str]:
    words = typed.split(" ")
    environ = {
        "_APPMUX_COMPLETE": "zsh_complete",
        "COMP_WORDS": typed.replace("'", "\\'"),
        "COMP_CWORD": str(len(words) - 1),
    }
    return (await appmux(broker, **environ)).stdout.splitlines()
