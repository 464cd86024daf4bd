"""Notices on the real app-server: who is told by push, who isn't, and an answer from a lock screen.

The push services are a stand of this test's on loopback, which speaks what ntfy and a webhook's
receiver do; that each service's protocol is spoken well is tested in `tests/push`.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from mux.demo.scripted_model import Hold, Patch, Run, Say, Scripted
from tests import knocks
from tests.end_to_end.brokered import brokered
from tests.end_to_end.devices import DEVICES_ONLY, operator_of, pair
from tests.end_to_end.lives import appmux
from tests.end_to_end.native import Native
from tests.end_to_end.peer import PATIENCE, Json, Peer, connect_unix, connect_ws
from tests.end_to_end.scenes import APPROVAL, LOOK_SECONDS, eventually
from tests.end_to_end.test_audit import recorded
from tests.end_to_end.tui import QUIET, tmux_is_missing, tui
from tests.ports import kept_port
from tests.push.sending import on_disk
from tests.push.stand import Heard, Stand, standing

SECRET = "0123456789abcdef0123456789abcdef"
PROMPT = "Ask Codex to do anything"
ASKS = "Would you like to run the following command?"
NOBODY: Json = {"threadId": None}


def scripted() -> Scripted:
    model = Scripted()
    model.on("run it", Run("echo ran > proof.txt", escalated=True), Say("It ran."))
    model.on(
        "change", Patch("*** Begin Patch\n*** Add File: new.txt\n+hi\n*** End Patch"), Say(".")
    )
    model.on("take long", (Hold("long"), Say("First.\nAll is done.")))
    return model


@attrs.define
class Bench:
    """A broker with an operator, and a stand for its pushes."""

    broker: Native
    operator: Peer
    stand: Stand

    async def phone(self, name: str, *topics: str, level: str = "full") -> None:
        """A paired device, which is gone again, with an ntfy topic or two."""
        token = await pair(self.broker, self.operator, name, "observe", "approve")
        async with connect_ws(self.broker.url, token) as phone:
            for topic in topics:
                address = {"server": self.stand.url, "topic": topic}
                told = {"service": "ntfy", "address": address, "level": level}
                made = await phone.request("mux/push/register", told)
                assert (made["device"], made["level"]) == (name, level)

    async def begun(self, says: str, *, seen: bool = False) -> str:
        """A thread on which a turn runs, begun by one that isn't attached any more.

        With `seen` the broker has heard that it began, which it measures the turn from.
        """
        async with connect_unix(self.broker.socket) as peer:
            await peer.initialize("desk")
            thread = await peer.start_thread(self.broker.home.work)
            await peer.start_turn(thread, says)
            if seen:
                await peer.wait_method("turn/started", threadId=thread)
        return thread

    async def notices(self) -> list[Json]:
        told = await self.operator.request("mux/notices/list", {"why": True})
        return list(told["notices"])

    async def notice(self, kind: str, *, sent: bool = False) -> Json:
        """The one of this kind, once it is raised; or sent, for which whoever looks has to go."""
        with trio.fail_after(PATIENCE):
            while True:
                for one in await self.notices():
                    if one["kind"] == kind and (one["sentTo"] or not sent):
                        return one
                await trio.sleep(LOOK_SECONDS)

    async def post(self, push: str, body: Json, bearer: str = "") -> tuple[int, Json]:
        """Answer from the lock screen; the status and the answer."""
        text = json.dumps(body)
        head = [f"content-length: {len(text)}"]
        head += [f"authorization: Bearer {bearer}"] if bearer else []
        host, _, port = self.broker.url.removeprefix("ws://").rpartition(":")
        async with await trio.open_tcp_stream(host, int(port)) as stream:
            line = f"POST /v1/approvals/{push}"
            reply = await knocks.ask(stream, knocks.request(line, *head, body=text))
        return reply.status, json.loads(reply.body)


def settings(stand: Stand, root: Path, more: str) -> Path:
    """The settings of a broker that pushes to the stand."""
    secret, file = root / "secret", root / "appmux.toml"
    secret.write_text(SECRET)
    secret.chmod(0o600)
    file.write_text(f"""
        {more}
        [push]
        url = "https://appmux.example"
        private_hosts = ["{stand.url.removeprefix("http://")}"]
        [push.webhook]
        url = "{stand.url}/hook"
        secret_file = "{secret}"
    """)
    return file


@asynccontextmanager
async def bench(
    root: Path, more: str = "", *, stand: Stand | None = None, **options: Any
) -> AsyncIterator[Bench]:
    """`more` are further settings, as TOML."""
    async with standing() as own:
        there = stand or own
        arguments = (*DEVICES_ONLY, "--config", str(settings(there, root, more)))
        async with (
            brokered(*arguments, **{"model": scripted(), **options}) as broker,
            operator_of(broker) as operator,
        ):
            yield Bench(broker, operator, there)


def by_topic(heard: list[Heard]) -> dict[str, Json]:
    """What each ntfy topic was sent, and the webhook under ``hook``."""
    return {each.json.get("topic", "hook"): each.json for each in heard if each.method == "POST"}


async def test_answered_from_one_lock_screen_it_runs_and_all_others_are_taken_back(
    tmp_path: Path,
) -> None:
    async with bench(tmp_path, "approvals.never_from_notice = []") as on:
        await on.phone("phone", "one", "two")
        await on.begun("run it")
        told = by_topic(await on.stand.until(3))
        assert told.keys() == {"one", "two", "hook"}
        assert told["one"]["message"] == "$ echo ran > proof.txt"
        assert told["one"]["priority"] == 4
        assert told["hook"]["kind"] == "approval"
        assert told["hook"].keys() & {"title", "body", "ticket"} == set()
        approve, decline = told["one"]["actions"]
        assert approve["label"] == "Approve"
        assert decline["label"] == "Decline"
        push = approve["url"].rpartition("/")[2]
        ticket = approve["headers"]["Authorization"].removeprefix("Bearer ")
        body = json.loads(approve["body"])

        status, answer = await on.post(push, body, ticket)
        assert (status, answer) == (200, {"decided": True, "waitsFor": None})
        proof = on.broker.home.work / "proof.txt"
        await eventually(proof.exists, "the command has run")
        heard = await on.stand.until(6)
        taken = [each for each in heard[3:] if each.method == "DELETE"]
        assert {each.path.split("/")[1] for each in taken} == {"one", "two"}
        (hook,) = [each.json for each in heard[3:] if each.method == "POST"]
        assert hook["withdraw"]
        assert hook["collapse"] == told["hook"]["collapse"]

        status, answer = await on.post(push, body, ticket)
        assert (status, answer["error"]) == (409, "used-ticket")
        status, answer = await on.post(push, {**body, "ticket": "amt_made-up"})
        assert (status, answer["error"]) == (401, "unknown-ticket")
        notice = await on.notice("approval")
        assert notice["overWhy"] == "answered by a notice (phone)"
        assert [step["what"] for step in notice["steps"]][-2:] == ["withdrawn", "answered"]
        assert len(notice["deliveries"]) == 6
        await audit_says(on)
        state = on.broker.home.home / ".local" / "state" / "appmux"
        assert on_disk(state, "proof.txt"), "the search finds what is there"
        assert not on_disk(state, ticket)


async def test_no_secret_stands_in_the_state_directory(tmp_path: Path) -> None:
    """Nor in what is deleted there, or in a log; while it runs, and after a kill."""
    async with bench(tmp_path) as on:
        begun = await on.operator.request("mux/pairing/begin", {"scopes": ["observe"]})
        added = await on.operator.request("mux/devices/add", {"scopes": ["observe"]})
        token = await pair(on.broker, on.operator, "phone", "observe", "approve")
        await on.operator.request("mux/devices/rename", {"name": "phone", "to": "telephone"})
        await on.phone("pad", "old-topic-of-the-pad")
        (made,) = (await on.operator.request("mux/push/list", {"all": True}))["endpoints"][1:]
        await on.operator.request("mux/push/unregister", {"id": made["id"]})
        state = on.broker.home.home / ".local" / "state" / "appmux"
        secrets = [begun["ticket"], added["token"], token, SECRET, "old-topic-of-the-pad"]
        assert all(len(secret) > 15 for secret in secrets)
        for secret in secrets:
            assert not on_disk(state, secret)
        on.broker.process.send_signal(signal.SIGKILL)
        await on.broker.process.wait()
        for secret in secrets:
            assert not on_disk(state, secret)


async def audit_says(on: Bench) -> None:
    """The answer stands in the audit log: which device, and that it came from a notice."""
    by = (await recorded(on.broker, "approval/answered"))["by"]
    assert (by["principal"], by["name"]) == ("phone", "from a notice")


async def test_what_is_risky_opens_the_app_which_reads_it_over_its_own_connection(
    tmp_path: Path,
) -> None:
    async with bench(tmp_path) as on:
        token = await pair(on.broker, on.operator, "phone", "observe", "approve")
        await on.operator.request("mux/focus", NOBODY)
        async with connect_ws(on.broker.url, token) as phone:
            address = {"server": on.stand.url, "topic": "t"}
            told = {"service": "ntfy", "address": address}
            await phone.request("mux/push/register", told)
            await on.begun("run it")
            message = by_topic(await on.stand.until(2))["t"]
            assert "actions" not in message
            whole = json.dumps(message)
            assert not any(word in whole for word in ("proof", "echo", str(on.broker.home.work)))
            hook = by_topic(on.stand.heard)["hook"]
            with pytest.raises(Exception, match="your device got no such notice"):
                await phone.request("mux/notices/read", {"id": hook["id"]})
            pushes = await on.operator.request("mux/notices/list", {"why": True})
            assert pushes["notices"][0]["sentTo"] == ["the host's settings", "phone"]


async def test_a_file_change_in_the_workspace_may_be_answered_at_a_glance(tmp_path: Path) -> None:
    async with bench(tmp_path) as on:
        await on.phone("phone", "t")
        await on.begun("change")
        message = by_topic(await on.stand.until(2))["t"]
        assert message["message"] == "change new.txt"
        decline = message["actions"][1]
        push = decline["url"].rpartition("/")[2]
        ticket = decline["headers"]["Authorization"].removeprefix("Bearer ")
        status, answer = await on.post("0" * 32, {"answer": "decline", "ticket": ticket})
        assert (status, answer["error"]) == (401, "wrong-notice")
        other = await pair(on.broker, on.operator, "tablet", "observe", "approve")
        status, answer = await on.post(push, {"answer": "decline", "ticket": ticket}, other)
        assert (status, answer["error"]) == (401, "wrong-device")
        waits = (await on.operator.request("mux/approvals/list"))["approvals"]
        assert len(waits) == 1  # none of these has changed anything
        status, _ = await on.post(push, {"answer": "decline", "ticket": ticket})
        assert status == 200
        assert not (on.broker.home.work / "new.txt").exists()


async def test_one_with_focus_is_not_disturbed_and_when_it_goes_it_is(tmp_path: Path) -> None:
    async with bench(tmp_path) as on, connect_unix(on.broker.socket) as desk:
        await on.phone("phone", "t")
        await desk.initialize("desk")
        thread = await desk.start_thread(on.broker.home.work)
        await desk.request("mux/focus", {"threadId": thread})
        await desk.start_turn(thread, "run it")
        await desk.wait_method(APPROVAL, threadId=thread)
        notice = await on.notice("approval")
        assert notice["sentTo"] == []
        assert notice["steps"][-1]["why"].endswith("looks at it")
        assert on.stand.heard == []
        await desk.request("mux/focus", NOBODY)
        await on.stand.until(2)


@pytest.mark.skipif(tmux_is_missing(), reason="tmux, in which the TUI runs, is not installed")
async def test_a_tui_at_which_somebody_has_just_typed_is_not_disturbed(tmp_path: Path) -> None:
    async with bench(tmp_path, config=QUIET) as on:
        await on.phone("phone", "t")
        async with tui(on.broker.home, "--remote", f"unix://{on.broker.socket}") as screen:
            await screen.see(PROMPT)
            await screen.say("run it")
            await screen.see(ASKS)
            notice = await on.notice("approval")
            assert notice["sentTo"] == []
            assert "codex-tui" in notice["steps"][-1]["why"]
            assert on.stand.heard == []
        await on.stand.until(2)  # it has left, and the approval waits


async def test_the_end_of_a_long_turn_is_told_with_its_last_line(tmp_path: Path) -> None:
    async with bench(tmp_path, "notices = { long_turn = 0.2, looking = 0.1 }") as on:
        await on.phone("phone", "t")
        thread = await on.begun("take long", seen=True)
        await trio.sleep(0.3)  # so long has the turn run, at least
        on.broker.model.release("long")
        message = by_topic(await on.stand.until(2))["t"]
        assert message["message"] == "All is done."
        async with connect_unix(on.broker.socket) as desk:
            await desk.initialize("desk")
            await desk.request("mux/focus", {"threadId": thread})
            heard = await on.stand.until(4)
        assert "DELETE" in {each.method for each in heard[2:]}


async def test_killed_between_raising_and_sending_it_is_told_once_what_is_true_then(
    tmp_path: Path,
) -> None:
    with kept_port() as port:
        nobody = Stand(f"http://127.0.0.1:{port}")
        async with bench(tmp_path, stand=nobody) as first:
            await first.phone("phone", "t")
            await first.begun("run it")
            notice = await first.notice("approval", sent=True)
            assert notice["sentTo"] == ["the host's settings", "phone"]
            os.kill(first.broker.process.pid, signal.SIGKILL)
            await first.broker.process.wait()
            again: Json = {"home": first.broker.home, "model": first.broker.model}
            async with (
                standing(port=port) as stand,
                bench(tmp_path, stand=stand, **again) as second,
            ):
                told = by_topic(await stand.until(2))
                assert told["hook"]["kind"] == "interrupted"
                assert "restarted while an approval waited" in told["t"]["message"]
                assert "actions" not in told["t"]
                lost = await second.notice("approval-lost")
                assert lost["sentTo"] == ["the host's settings", "phone"]
                approval = await second.notice("approval")
                assert approval["overWhy"] == "the app-server that asked has ended with the broker"
                shown = await appmux(second.broker, "notices", "--why")
                assert "sent phone: used last" in shown.stdout
                tried = await appmux(second.broker, "notices", "test", "--device", "phone")
                assert tried.returncode == 0, tried.stderr
                assert "phone, ntfy (full): delivered" in tried.stdout
                assert len(stand.heard) == 3  # the test, and nothing twice
