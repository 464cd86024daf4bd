"""The audit log over the real app-server: who asked, who approved, and that it can be trusted."""

from __future__ import annotations

import json
import signal
from hashlib import sha256
from pathlib import Path

import pytest
import trio

from mux.demo.scripted_model import Hold, Run, Say, Scripted
from mux.storage import audit_chain
from tests.end_to_end.brokered import brokered, client
from tests.end_to_end.devices import DEVICES_ONLY, pair
from tests.end_to_end.lives import appmux, kill_app_server, life
from tests.end_to_end.native import Native
from tests.end_to_end.peer import PATIENCE, Json, RpcError, connect_unix, connect_ws
from tests.end_to_end.scenes import (
    ACCEPT,
    APPROVAL,
    RESOLVED,
    TURN_COMPLETED,
    eventually,
    kill_at_once,
    shared_thread,
)

SECRET = "the-prompt-that-nobody-else-reads"


def directory(broker: Native) -> Path:
    return broker.home.home / ".local" / "state" / "appmux" / "audit"


def records(broker: Native, *kinds: str) -> list[Json]:
    """What is in the files, of these kinds or all."""
    found = [json.loads(line.text) for line in audit_chain.lines(directory(broker)) if line.whole]
    return [each for each in found if not kinds or each["kind"] in kinds]


async def recorded(broker: Native, kind: str, **fields: object) -> Json:
    """The first record of this kind with these fields, now or when it is written."""

    def there() -> list[Json]:
        found = records(broker, kind)
        return [each for each in found if all(each.get(k) == v for k, v in fields.items())]

    await eventually(there, f"{kind} {fields} in the audit log")
    return there()[0]


async def verified(broker: Native) -> None:
    done = await appmux(broker, "audit", "--verify")
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert "as they were written" in done.stdout


async def test_it_says_who_asked_what_and_who_approved_it() -> None:
    model = Scripted()
    model.on(SECRET, Run("echo yes > proof.txt", escalated=True), Say("Done."))
    async with (
        brokered(model=model) as broker,
        client(broker, "desk") as desk,
        client(broker, "phone") as phone,
    ):
        thread = await shared_thread(broker, desk, phone)
        mark = len(desk.inbox)
        turn = await desk.start_turn(thread, SECRET)
        offered = await phone.wait_method(APPROVAL)
        await phone.respond(offered["id"], ACCEPT)
        await desk.wait_method(TURN_COMPLETED, since=mark, threadId=thread)

        asked = await recorded(broker, "turn/answered", turn=turn)
        assert asked["method"] == "turn/start"
        assert asked["thread"] == thread
        assert asked["outcome"] == "done"
        assert asked["by"]["name"] == "desk"
        assert asked["by"]["from"].startswith("127.0.0.1:")

        raised = await recorded(broker, "approval/raised", approval=offered["id"])
        assert (raised["method"], raised["thread"], raised["turn"]) == (APPROVAL, thread, turn)
        assert raised["item"] == offered["params"]["itemId"]
        params = json.dumps(offered["params"], separators=(",", ":"), ensure_ascii=False)
        assert raised["digest"] == sha256(params.encode()).hexdigest()
        approved = await recorded(broker, "approval/answered", approval=offered["id"])
        assert (approved["decision"], approved["by"]["name"]) == ("accept", "phone")
        await recorded(broker, "approval/resolved", approval=offered["id"])

        whole = "".join(path.read_text() for path in audit_chain.files(directory(broker)))
        assert SECRET not in whole
        assert "proof.txt" not in whole

        shown = await appmux(broker, "audit", "--since", "1h")
        line = next(each for each in shown.stdout.splitlines() if "approval/answered" in each)
        assert "phone (" in line
        assert "decision accept" in line
        assert not (await appmux(broker, "audit", "--since", "2999-01-01")).stdout
        as_json = (await appmux(broker, "audit", "--json")).stdout.splitlines()
        assert [json.loads(each)["n"] for each in as_json] == list(range(1, len(as_json) + 1))
        await verified(broker)


async def test_a_client_with_admin_reads_it_and_no_other_does() -> None:
    async with (
        brokered(*DEVICES_ONLY) as broker,
        connect_unix(broker.socket) as operator,
    ):
        await operator.initialize("operator")
        token = await pair(broker, operator, "guest", "observe", "approve", "drive")
        await recorded(broker, "device/paired", device="guest")
        async with connect_ws(broker.url, token) as guest:
            await guest.initialize("guest")
            with pytest.raises(RpcError, match="admin"):
                await guest.request("mux/audit/list")
        await recorded(broker, "client/left")
        pages = [await operator.request("mux/audit/list", {"limit": 3})]
        while (cursor := pages[-1]["nextCursor"]) is not None:
            more = {"limit": 3, "cursor": cursor}
            pages.append(await operator.request("mux/audit/list", more))
        told = [each for page in pages for each in page["records"]]
        whole = records(broker)
        assert [(each["n"], each["kind"]) for each in told] == [
            (each["n"], each["kind"]) for each in reversed(whole)
        ]
        refused = next(each for each in told if each["kind"] == "request/refused")
        assert refused["by"]["principal"] == "guest"
        assert refused["fields"] == {"method": "mux/audit/list", "needs": "admin"}
        only = await operator.request("mux/audit/list", {"kinds": ["device"]})
        assert [each["fields"]["device"] for each in only["records"]] == ["guest"]
        with pytest.raises(RpcError, match="cursor"):
            await operator.request("mux/audit/list", {"cursor": "../devices.json:9"})


async def test_the_text_is_there_where_the_operator_wants_it() -> None:
    model = Scripted()
    async with (
        brokered(model=model, environ={"APPMUX_AUDIT_TEXT": "true"}) as broker,
        client(broker, "desk") as desk,
    ):
        thread = await desk.start_thread(broker.home.work)
        await desk.run_turn(thread, SECRET)
        asked = await recorded(broker, "turn/asked", thread=thread)
        assert SECRET in asked["text"]
        assert sha256(asked["text"].encode()).hexdigest() == asked["digest"]


async def test_comings_and_goings_lives_and_the_brokers_own() -> None:
    async with brokered() as broker:
        async with client(broker, "visitor") as visitor:
            there = await recorded(broker, "client/attached")
            assert (there["by"]["name"], there["version"]) == ("visitor", "0.1")
            await life(visitor, 1)
            await kill_app_server(visitor)
            await recorded(broker, "appserver/exited", generation=1)
            await recorded(broker, "appserver/started", generation=2)
            await visitor.request("config/value/write", CONFIG_CHANGE)
            asked = await recorded(broker, "admin/asked", method="config/value/write")
            assert asked["by"]["name"] == "visitor"
        left = await recorded(broker, "client/left")
        assert left["by"]["client"] == there["by"]["client"]
        broker.process.send_signal(signal.SIGHUP)
        await recorded(broker, "config/reloaded")
        broker.process.send_signal(signal.SIGTERM)
        with trio.fail_after(PATIENCE):
            await broker.process.wait()
        assert records(broker)[0]["kind"] == "broker/started"
        assert records(broker)[-1]["kind"] == "broker/stopped"
        await verified(broker)


CONFIG_CHANGE = {"keyPath": "model_verbosity", "value": "low", "mergeStrategy": "replace"}


async def test_after_kill_9_the_chain_is_whole_and_goes_on() -> None:
    model = Scripted()
    model.on("go on", Say("a long text", chunks=3), Hold("never"))
    async with brokered(model=model) as broker, client(broker, "desk") as desk:
        thread = await desk.start_thread(broker.home.work)
        await desk.start_turn(thread, "go on")
        await recorded(broker, "turn/answered", thread=thread)
        for number in range(200):
            await desk.ask("config/value/write", {"keyPath": f"x{number}", "value": 1})
        await recorded(broker, "admin/asked")
        await kill_at_once(broker)
        await verified(broker)
        count = len(records(broker))
        state = directory(broker).parent
        async with brokered("--state-dir", str(state)) as again, client(again, "desk"):
            await eventually(lambda: len(records(broker)) > count, "the chain goes on")
            await verified(broker)
        kinds = [each["kind"] for each in records(broker)]
        assert kinds[count] == "broker/started"
        assert "audit/broken" not in kinds


async def test_a_withdrawn_approval_is_no_approved_one() -> None:
    model = Scripted()
    model.on("run", Run("echo no", escalated=True), Say("Done."))
    async with brokered(model=model) as broker, client(broker, "desk") as desk:
        thread = await desk.start_thread(broker.home.work)
        turn = await desk.start_turn(thread, "run")
        offered = await desk.wait_method(APPROVAL)
        await desk.request("turn/interrupt", {"threadId": thread, "turnId": turn})
        await desk.wait_method(RESOLVED)
        await recorded(broker, "approval/withdrawn", approval=offered["id"])
        interrupted = await recorded(broker, "turn/asked", method="turn/interrupt")
        assert interrupted["turn"] == turn
        assert not records(broker, "approval/answered")


async def test_a_disk_that_takes_nothing_is_said_and_stops_nobody() -> None:
    async with brokered() as broker, client(broker, "desk") as desk:
        await recorded(broker, "client/attached")
        there = directory(broker)
        away = there.with_name("away")
        there.rename(away)
        there.write_text("in the way")
        thread = await desk.start_thread(broker.home.work)
        await desk.run_turn(thread, "hello")
        await broker.wait_log("the audit log .* can't be written")
        told = (await desk.request("mux/status"))["audit"]
        assert "make room" in told["trouble"]
        assert told["unwrittenRecords"] > 0
        assert (
            "TROUBLE with the audit log: the audit log" in (await appmux(broker, "status")).stdout
        )
        there.unlink()
        away.rename(there)
        await recorded(broker, "turn/answered", thread=thread)
        await broker.wait_log("the audit log is written again")
        await verified(broker)
