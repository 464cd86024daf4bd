"""The real TUI beside another client of the broker, by each of the three ways to attach it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import attrs
import pytest
import trio

from mux.core.features.approvals.voting import AT_ONCE
from mux.demo.scripted_model import CallTool, Hold, Run, Say, Scripted
from tests.end_to_end.brokered import brokered, client
from tests.end_to_end.lives import kill_app_server
from tests.end_to_end.native import Native
from tests.end_to_end.peer import PATIENCE, Json, Peer, connect_ws
from tests.end_to_end.tui import LOOK_SECONDS, QUIET, Tui, cable, tmux_is_missing, tui

pytestmark = pytest.mark.skipif(
    tmux_is_missing(), reason="tmux, in which the TUI runs, is not installed"
)
each_way = pytest.mark.parametrize("way", ["ws", "unix", "plain"])

# What the TUI shows.
PROMPT = "Ask Codex to do anything"
ASKS = "Would you like to run the following command?"
RECONNECTING = "Reconnecting"
WORKING = "Working"
INTERRUPTED = "Conversation interrupted"

DELTA = "item/agentMessage/delta"
APPROVAL = "item/commandExecution/requestApproval"
RESOLVED = "serverRequest/resolved"
STATUS = "thread/status/changed"
ACTIVE = {"type": "active", "activeFlags": []}
ACCEPT = {"decision": "accept"}


def scripted() -> Scripted:
    model = Scripted()
    model.on("greet", Say("Hello from the one runtime"))
    model.on("think", (Hold("thought"), Say("Thought.")))
    model.on("tell", Say(chunks=("The first half, ", Hold("middle"), "the second half.")))
    run = Run("echo approved >> proof.txt", escalated=True)
    model.on("run it", run, Say("It ran."))
    model.on("later run it", (Hold("later"), run), Say("It ran."))
    return model


def way_in(broker: Native, way: str) -> list[str]:
    """The arguments that attach the TUI; without any it looks for the control socket itself."""
    return {
        "ws": ["--remote", broker.url],
        "unix": ["--remote", f"unix://{broker.socket}"],
        "plain": [],
    }[way]


@attrs.frozen
class Shared:
    """A thread which the TUI and another client, the phone, both follow."""

    model: Scripted
    broker: Native
    phone: Peer
    tui: Tui
    thread: str

    async def ask_approval(self) -> Any:
        """Have the phone say what takes an approval; the id under which the phone is asked."""
        await self.phone.start_turn(self.thread, "run it")
        asked = await self.phone.wait_method(APPROVAL, threadId=self.thread)
        return asked["id"]

    def proof(self) -> str:
        """What the approved command has written: a line for each time that it ran."""
        proof = self.broker.home.work / "proof.txt"
        return proof.read_text() if proof.exists() else ""


@asynccontextmanager
async def shared(way: str) -> AsyncIterator[Shared]:
    """The phone's thread, on which it has had one turn, resumed by the TUI."""
    model = scripted()
    async with brokered(model=model, config=QUIET) as broker, client(broker, "phone") as phone:
        thread = await phone.start_thread(broker.home.work)
        await phone.run_turn(thread, "greet")
        async with tui(broker.home, "resume", thread, *way_in(broker, way)) as screen:
            await screen.see(PROMPT, "› greet", "• Hello from the one runtime")
            yield Shared(model, broker, phone, screen, thread)


async def attached(peer: Peer, name: str) -> list[Json]:
    """The clients of that name, as the broker reports them."""
    report = await peer.request("mux/status")
    return [each for each in report["clients"] if each["name"] == name]


@each_way
async def test_it_starts_through_the_broker_and_its_thread_can_be_joined(way: str) -> None:
    async with (
        brokered(model=scripted(), config=QUIET) as broker,
        client(broker, "phone") as phone,
        tui(broker.home, *way_in(broker, way)) as screen,
    ):
        await screen.see(PROMPT)
        await screen.say("greet")
        await screen.see("• Hello from the one runtime")
        [of_tui] = await attached(phone, "codex-tui")
        assert of_tui["transport"] == ("ws" if way == "ws" else "unix")
        started = await phone.wait_method("thread/started")
        thread = started["params"]["thread"]["id"]
        assert thread in of_tui["threads"]
        # What it said is on the screen before its turn is over.
        active = await phone.wait_method(STATUS, threadId=thread, status=ACTIVE)
        since = phone.inbox.index(active)
        await phone.wait_method(STATUS, since=since, threadId=thread, status={"type": "idle"})

        resumed = await phone.request("thread/resume", {"threadId": thread})
        assert resumed["thread"]["turns"][0]["items"][0]["content"][0]["text"] == "greet"
        await phone.start_turn(thread, "tell")
        await screen.see("› tell", "• The first half,")


@each_way
async def test_it_shows_another_clients_turn_live(way: str) -> None:
    async with shared(way) as on:
        await on.phone.start_turn(on.thread, "tell")
        held = await on.tui.see("› tell", "• The first half,")
        assert "the second half" not in held
        on.model.release("middle")
        await on.tui.see("• The first half, the second half.")


@each_way
async def test_another_client_sees_live_what_it_says(way: str) -> None:
    async with shared(way) as on:
        since = len(on.phone.inbox)
        await on.tui.say("tell")
        delta = await on.phone.wait_method(DELTA, since=since, threadId=on.thread)
        assert delta["params"]["delta"] == "The first half, "
        item = on.phone.heard("item/started", since=since)[0]["params"]["item"]
        assert (item["type"], item["content"][0]["text"]) == ("userMessage", "tell")
        on.model.release("middle")
        await on.phone.wait_method("turn/completed", since=since, threadId=on.thread)
        deltas = on.phone.heard(DELTA, since=since, threadId=on.thread)
        said = "".join(each["params"]["delta"] for each in deltas)
        assert said == "The first half, the second half."
        await on.tui.see("• The first half, the second half.")


@each_way
async def test_its_approval_vanishes_when_another_client_answers(way: str) -> None:
    async with shared(way) as on:
        asked = await on.ask_approval()
        await on.tui.see(ASKS, "$ echo approved >> proof.txt")
        await trio.sleep(AT_ONCE)  # as a person does: a quicker yes would be a machine's
        await on.phone.respond(asked, ACCEPT)
        await on.tui.gone(ASKS)
        await on.tui.see("• Ran echo approved >> proof.txt", "• It ran.", PROMPT)
        assert on.proof() == "approved\n"


@each_way
async def test_it_decides_an_approval_for_another_client(way: str) -> None:
    async with shared(way) as on:
        asked = await on.ask_approval()
        await on.tui.see(ASKS)
        await on.tui.answer(ASKS, "y")
        resolved = await on.phone.wait_method(RESOLVED)
        assert resolved["params"] == {"threadId": on.thread, "requestId": asked}
        await on.phone.respond(asked, {"decision": "cancel"})  # too late to change anything
        done = await on.phone.wait_method(
            "turn/completed", since=on.phone.inbox.index(resolved), threadId=on.thread
        )
        assert done["params"]["turn"]["status"] == "completed"
        await on.tui.see("✔ You approved codex to run", "• It ran.")
        assert on.proof() == "approved\n"


@each_way
async def test_it_shows_an_approval_that_was_raised_with_nobody_attached(way: str) -> None:
    async with brokered(model=(model := scripted()), config=QUIET) as broker:
        async with client(broker, "phone") as phone:
            thread = await phone.start_thread(broker.home.work)
            await phone.run_turn(thread, "greet")
            await phone.start_turn(thread, "later run it")
        await broker.wait_log('"client left"')
        model.release("later")
        pending = await raised(broker)
        assert (pending["method"], pending["offeredTo"]) == (APPROVAL, [])
        async with tui(broker.home, "resume", thread, *way_in(broker, way)) as screen:
            await screen.see(ASKS, "$ echo approved >> proof.txt")
            await screen.answer(ASKS, "y")
            await screen.see("• It ran.", PROMPT)
            assert (broker.home.work / "proof.txt").read_text() == "approved\n"


async def raised(broker: Native) -> Json:
    """Wait until a server request is pending, without attaching a client to answer it."""
    async with connect_ws(broker.url) as onlooker:
        with trio.fail_after(PATIENCE):
            while True:
                report = await onlooker.request("mux/status")
                for pending in report["serverRequests"]:
                    return dict(pending)
                await trio.sleep(LOOK_SECONDS)


async def test_it_reconnects_by_itself_and_shows_the_approval_raised_meanwhile() -> None:
    model = scripted()
    async with (
        brokered(model=model, config=QUIET) as broker,
        client(broker, "phone") as phone,
        cable(broker.url) as link,
    ):
        thread = await phone.start_thread(broker.home.work)
        await phone.run_turn(thread, "greet")
        async with tui(broker.home, "resume", thread, "--remote", link.url) as screen:
            await screen.see(PROMPT, "• Hello from the one runtime")
            link.cut()
            await screen.see(RECONNECTING)
            since = len(phone.inbox)
            await phone.start_turn(thread, "run it")
            asked = await phone.wait_method(APPROVAL)
            link.mend()
            await screen.see("› run it", ASKS)
            await screen.gone(RECONNECTING)
            await screen.answer(ASKS, "y")
            await phone.wait_method(RESOLVED, requestId=asked["id"])
            await screen.see("• It ran.")
            await phone.wait_method("turn/completed", since=since, threadId=thread)
            since = len(phone.inbox)
            await screen.say("greet")
            await phone.wait_method("turn/completed", since=since, threadId=thread)


# --- The app-server dies -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("way", "text", "shown"),
    [
        ("ws", "think", WORKING),
        ("unix", "think", WORKING),
        ("plain", "think", WORKING),
        ("plain", "tell", "• The first half,"),
    ],
)
async def test_its_turn_ends_when_the_app_server_is_killed(way: str, text: str, shown: str) -> None:
    async with shared(way) as on:
        since = len(on.phone.inbox)
        await on.phone.start_turn(on.thread, text)
        await on.tui.see(f"› {text}", shown)
        await kill_app_server(on.phone)
        await on.phone.wait_method("turn/completed", since=since, threadId=on.thread)
        await on.tui.see(INTERRUPTED)
        await on.tui.gone(WORKING)
        # It goes on, without another look at the thread.
        since = len(on.phone.inbox)
        await on.tui.say("greet")
        await on.phone.wait_method("turn/completed", since=since, threadId=on.thread)
        assert RECONNECTING not in await on.tui.gone(WORKING)


async def test_its_approval_vanishes_when_the_app_server_is_killed() -> None:
    async with shared("plain") as on:
        await on.ask_approval()
        await on.tui.see(ASKS)
        await kill_app_server(on.phone)
        await on.tui.gone(ASKS)
        await on.tui.see(PROMPT)
        await on.tui.gone(WORKING)
        assert on.proof() == ""


@pytest.mark.parametrize("how", ["turn/interrupt", "thread/archive"])
async def test_its_prompt_vanishes_when_another_client_makes_it_obsolete(how: str) -> None:
    async with shared("plain") as on:
        since = len(on.phone.inbox)
        turn = await on.phone.start_turn(on.thread, "run it")
        asked = await on.phone.wait_method(APPROVAL, threadId=on.thread)
        await on.tui.see(ASKS)
        params = {"threadId": on.thread} | ({"turnId": turn} if how == "turn/interrupt" else {})
        await on.phone.request(how, params)
        await on.tui.gone(ASKS)
        await on.phone.wait_method(RESOLVED, since=since)
        # What comes later would have been behind the app-server's own word.
        await on.phone.request("thread/loaded/list")
        assert len(on.phone.heard(RESOLVED, since=since, requestId=asked["id"])) == 1
        assert on.proof() == ""


async def test_its_question_vanishes_when_another_client_interrupts_the_turn() -> None:
    model = scripted()
    which = {"id": "q", "header": "h", "question": "Which one?", "options": [
        {"label": "this", "description": "one"}, {"label": "that", "description": "other"},
    ]}  # fmt: skip
    model.on("ask me", CallTool("request_user_input", {"questions": [which]}), Say("So be it."))
    config = QUIET | {"features": {"default_mode_request_user_input": True}}
    async with brokered(model=model, config=config) as broker, client(broker, "phone") as phone:
        thread = await phone.start_thread(broker.home.work)
        await phone.run_turn(thread, "greet")
        async with tui(broker.home, "resume", thread) as screen:
            await screen.see(PROMPT)
            since = len(phone.inbox)
            turn = await phone.start_turn(thread, "ask me")
            await screen.see("Which one?", "1. this")
            await phone.request("turn/interrupt", {"threadId": thread, "turnId": turn})
            await screen.gone("1. this")
            await phone.wait_method(RESOLVED, since=since)
            await phone.request("thread/loaded/list")
            assert len(phone.heard(RESOLVED, since=since)) == 1


async def test_a_planned_restart_is_nothing_to_see() -> None:
    async with shared("plain") as on:
        before = await on.tui.see(PROMPT)
        since = len(on.phone.inbox)
        await on.phone.request("mux/restart")
        await on.tui.say("think")
        after = await on.tui.see("› think", WORKING)
        talk = before[: before.index(f"› {PROMPT}")].rstrip()
        assert after.startswith(talk)
        assert RECONNECTING not in after
        on.model.release("thought")
        await on.phone.wait_method("turn/completed", since=since, threadId=on.thread)
