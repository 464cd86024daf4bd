"""Devices in use: what each may do, and how each is shut out without touching the others."""

from __future__ import annotations

import base64
import json
import shutil
import signal
import time
from pathlib import Path

import pytest
import trio
from trio_websocket import ConnectionRejected

from mux.demo import scripted_model
from mux.demo.scripted_model import Run, Say, Scripted
from tests import jwts
from tests.end_to_end.brokered import brokered, client, logged
from tests.end_to_end.devices import (
    DEVICES_ONLY,
    appmux,
    closed,
    listed,
    operator_of,
    pair,
)
from tests.end_to_end.native import Native, private_home
from tests.end_to_end.peer import PATIENCE, Peer, RpcError, connect_ws
from tests.end_to_end.scenes import ACCEPT, APPROVAL, TURN_COMPLETED, kill_at_once, status_shows

FORBIDDEN = -32003
ACCESS_ENDED = 4401


async def refused(broker: Native, token: str | None) -> int:
    """The status with which a token is turned away."""
    with pytest.raises(ConnectionRejected) as rejected:
        async with connect_ws(broker.url, token):
            pass
    return int(rejected.value.status_code)


async def turned_away(peer: Peer, method: str, scope: str, **params: object) -> None:
    with pytest.raises(RpcError, match=f"needs the scope `{scope}`") as error:
        await peer.request(method, params)
    assert error.value.code == FORBIDDEN
    assert error.value.data["needs"] == scope


async def test_who_may_only_watch_sees_everything_and_changes_nothing() -> None:
    model = Scripted()
    model.on("run it", Run("echo ran >> ran.txt", escalated=True), Say("Over."))
    async with (
        brokered(*DEVICES_ONLY, model=model) as broker,
        operator_of(broker) as operator,
    ):
        watching = await pair(broker, operator, "guest", "observe")
        driving = await pair(broker, operator, "desk", "observe", "drive", "approve")
        async with (
            connect_ws(broker.url, watching) as guest,
            connect_ws(broker.url, driving) as desk,
        ):
            await guest.initialize("guest")
            await desk.initialize("desk")
            thread = await desk.start_thread(broker.home.work)
            await guest.request("thread/resume", {"threadId": thread})
            await desk.start_turn(thread, "run it")
            seen = await guest.wait_method(APPROVAL)

            text = [{"type": "text", "text": "stop", "text_elements": []}]
            await turned_away(guest, "turn/start", "drive", threadId=thread, input=text)
            await turned_away(guest, "turn/interrupt", "drive", threadId=thread, turnId="x")
            await turned_away(guest, "thread/start", "drive", cwd=str(broker.home.work))
            await turned_away(guest, "thread/resume", "drive", threadId=thread, model="other")
            await turned_away(guest, "command/exec", "admin", command=["true"])
            await turned_away(guest, "mux/restart", "admin")
            await turned_away(desk, "fs/readFile", "admin", path="/etc/passwd")
            await turned_away(
                desk, "turn/start", "admin", threadId=thread, input=text, approvalPolicy="never"
            )
            await guest.respond(seen["id"], ACCEPT)
            told = await guest.wait_method("mux/refused")
            assert told["params"]["needs"] == "approve"
            assert not (broker.home.work / "ran.txt").exists()

            approval = await desk.wait_method(APPROVAL)
            await desk.respond(approval["id"], ACCEPT)
            await guest.wait_method(TURN_COMPLETED)
            assert (broker.home.work / "ran.txt").read_text() == "ran\n"


async def test_who_administers_writes_and_runs_what_the_host_can(tmp_path: Path) -> None:
    """Outside of any sandbox, and with the broker's own socket in reach."""
    async with brokered(*DEVICES_ONLY) as broker, operator_of(broker) as operator:
        token = await pair(broker, operator, "admin", "admin")
        async with connect_ws(broker.url, token) as admin:
            await admin.initialize("admin")
            text = base64.b64encode(b"written").decode()
            path = tmp_path / "file"
            await admin.request("fs/writeFile", {"path": str(path), "dataBase64": text})
            assert path.read_text() == "written"
            run = f"echo ran >> {path}; test -w {broker.socket}"
            freely = {"sandboxPolicy": {"type": "dangerFullAccess"}}
            asked = {"command": ["/bin/sh", "-c", run], **freely}
            assert (await admin.request("command/exec", asked))["exitCode"] == 0
            assert path.read_text() == "writtenran\n"


async def test_revoked_while_attached() -> None:
    async with brokered(*DEVICES_ONLY) as broker, operator_of(broker) as operator:
        lost = await pair(broker, operator, "lost phone", "observe", "drive")
        kept = await pair(broker, operator, "tablet", "observe", "drive")
        async with (
            connect_ws(broker.url, lost) as one,
            connect_ws(broker.url, lost) as two,
            connect_ws(broker.url, kept) as other,
        ):
            await one.initialize("one")
            await other.initialize("other")
            thread = await one.start_thread(broker.home.work)
            await other.request("thread/resume", {"threadId": thread})
            await one.start_turn(thread, "hello")
            done = await appmux(broker, "devices", "revoke", "Lost Phone")
            assert (done.returncode, done.stderr) == (0, "")
            assert done.stdout == 'revoked "lost phone"; its 2 connections are closed\n'
            await one.wait_gone()
            await two.wait_gone()
            assert closed(one) == closed(two) == (ACCESS_ENDED, "this device was revoked")
            assert await refused(broker, lost) == 401
            # The turn that it started and the other device go on.
            await other.wait_method(TURN_COMPLETED)
            await other.run_turn(thread, "again")
        listing = await appmux(broker, "devices", "--json")
        assert [each["name"] for each in json.loads(listing.stdout)] == ["tablet"]
        again = await appmux(broker, "devices", "revoke", "lost phone")
        assert again.returncode == 1
        assert "no device is named 'lost phone'" in again.stderr


async def test_an_open_listener_is_no_way_around_a_revocation() -> None:
    async with brokered() as broker, operator_of(broker) as operator:
        token = await pair(broker, operator, "phone", "observe")
        async with connect_ws(broker.url, token) as phone:
            await phone.initialize("phone")
            await turned_away(phone, "thread/start", "drive")
        await operator.request("mux/devices/revoke", {"name": "phone"})
        assert await refused(broker, token) == 401
        async with client(broker, "anybody") as anybody:  # as natively
            await anybody.start_thread(broker.home.work)


async def test_other_scopes_count_at_once() -> None:
    async with brokered(*DEVICES_ONLY) as broker, operator_of(broker) as operator:
        token = await pair(broker, operator, "phone", "observe", "drive")
        async with connect_ws(broker.url, token) as phone:
            await phone.initialize("phone")
            await phone.start_thread(broker.home.work)
            done = await appmux(broker, "devices", "scope", "phone", "observe")
            assert done.stdout == '"phone" may observe; its connection is closed\n'
            await phone.wait_gone()
            assert closed(phone)[0] == ACCESS_ENDED
        async with connect_ws(broker.url, token) as phone:
            await phone.initialize("phone")
            await turned_away(phone, "thread/start", "drive")
            done = await appmux(broker, "devices", "scope", "phone", "observe")  # the same again
            assert done.stdout == '"phone" may observe; it wasn\'t attached\n'
            await phone.request("thread/list")
        done = await appmux(broker, "devices", "scope", "phone", "observe,drive", "approve")
        assert done.stdout == '"phone" may approve, drive, observe; it wasn\'t attached\n'
        async with connect_ws(broker.url, token) as phone:
            await phone.initialize("phone")
            await phone.start_thread(broker.home.work)


async def test_a_renamed_device_stays() -> None:
    async with brokered(*DEVICES_ONLY) as broker, operator_of(broker) as operator:
        token = await pair(broker, operator, "phone", "observe", "drive")
        async with connect_ws(broker.url, token) as phone:
            await phone.initialize("phone")
            done = await appmux(broker, "devices", "rename", "phone", "Ada's phone")
            assert done.stdout == '"phone" is now "Ada\'s phone"\n'
            clients = (await operator.request("mux/status"))["clients"]
            assert "Ada's phone" in [each["principal"] for each in clients]
            await phone.start_thread(broker.home.work)
            taken = await appmux(broker, "devices", "rename", "Ada's phone", "local")
            assert taken.returncode == 1
            device = listed(await operator.request("mux/devices/list"))["Ada's phone"]
            assert device["attached"] == 1


async def test_a_device_expires_while_it_is_attached() -> None:
    async with brokered(*DEVICES_ONLY) as broker, operator_of(broker) as operator:
        kept = await pair(broker, operator, "desk", "observe")
        async with connect_ws(broker.url, kept) as desk:
            await desk.initialize("desk")
            short = await pair(broker, operator, "guest", "observe", lifetimeSeconds=3.0)
            async with connect_ws(broker.url, short) as guest:
                await guest.initialize("guest")
                await guest.wait_gone()
                assert closed(guest)[0] == ACCESS_ENDED
            await desk.request("thread/list")
        assert await refused(broker, short) == 401
        devices = listed(await operator.request("mux/devices/list"))
        assert [devices[name]["expired"] for name in ("guest", "desk")] == [True, False]


CLOCK = """
import os, pathlib, time

real, ahead = time.time, pathlib.Path(os.environ["TEST_CLOCK_AHEAD"])
time.time = lambda: real() + float(ahead.read_text())
"""


async def test_a_device_expires_while_the_machine_sleeps(tmp_path: Path) -> None:
    """What it says on waking isn't heard. The wall's clock is ahead by what stands in a file."""
    (tmp_path / "sitecustomize.py").write_text(CLOCK)
    ahead = tmp_path / "ahead"
    ahead.write_text("0")
    environ = {"PYTHONPATH": str(tmp_path), "TEST_CLOCK_AHEAD": str(ahead)}
    async with (
        brokered(*DEVICES_ONLY, environ=environ) as broker,
        operator_of(broker) as operator,
    ):
        kept = await pair(broker, operator, "desk", "observe")
        short = await pair(broker, operator, "guest", "observe", "drive", lifetimeSeconds=3600.0)
        async with connect_ws(broker.url, kept) as desk, connect_ws(broker.url, short) as guest:
            await desk.initialize("desk")
            await guest.initialize("guest")
            await guest.start_thread(broker.home.work)
            later = tmp_path / "later"
            later.write_text("3601")
            later.replace(ahead)  # at once: the broker reads it all the time
            id = await guest.ask("thread/start", {})
            await guest.wait_gone()
            assert closed(guest)[0] == ACCESS_ENDED
            assert not [each for each in guest.inbox if each.get("id") == id]
            await desk.request("thread/list")
        assert await refused(broker, short) == 401


async def test_a_jwt_expires_while_it_is_attached(tmp_path: Path) -> None:
    """And until then it may do what its scope claim says."""
    secret = tmp_path / "secret"
    secret.write_bytes(jwts.SECRET)
    flags = ("--ws-auth", "signed-bearer-token", "--ws-shared-secret-file", str(secret))
    async with brokered(*flags, "--ws-max-clock-skew-seconds", "2") as broker:
        lasting = {"exp": int(time.time()) + 3600, "scope": "observe", "sub": "Eve"}
        async with connect_ws(broker.url, jwts.signed(lasting)) as peer:
            await peer.initialize("first")  # waits for the app-server, which takes its time
        claims = {"exp": int(time.time()) + 6, "scope": "observe", "sub": "Ada"}
        async with connect_ws(broker.url, jwts.signed(claims)) as peer:
            await peer.initialize("app")
            await turned_away(peer, "thread/start", "drive")
            await peer.wait_gone()
            assert closed(peer)[0] == ACCESS_ENDED


async def test_devices_outlive_the_broker() -> None:
    async with brokered(*DEVICES_ONLY) as first:
        async with operator_of(first) as operator:
            token = await pair(first, operator, "phone", "observe")
            gone = await pair(first, operator, "old phone", "observe")
            async with connect_ws(first.url, token) as phone:
                await phone.initialize("phone")
            await operator.request("mux/devices/revoke", {"name": "old phone"})
        await kill_at_once(first)
        async with brokered(*DEVICES_ONLY, home=first.home, model=first.model) as second:
            async with connect_ws(second.url, token) as phone:
                await phone.initialize("phone")
            assert await refused(second, gone) == 401
            listing = await appmux(second, "devices")
            assert listing.returncode == 0
            (row,) = [line for line in listing.stdout.splitlines() if "phone" in line]
            for cell in ("paired", "observe", "never", "127.0.0.1", time.strftime("%Y-")):
                assert cell in row


async def test_a_book_that_is_damaged_lets_nobody_in() -> None:
    async with brokered(*DEVICES_ONLY) as first:
        async with operator_of(first) as operator:
            await pair(first, operator, "phone", "observe")
        (book,) = first.home.root.rglob("devices.json")
        first.process.terminate()
        await first.process.wait()
        for each in (book, book.with_name("devices.copy.json")):
            each.write_text(each.read_text().replace("observe", "root"))
        done = await appmux(first, "serve", "--listen", "ws://127.0.0.1:0")
        assert done.returncode == 1
        assert "can't read the device book" in done.stderr
        assert "Its copy is of no use, too" in done.stderr
        assert "remove it" in done.stderr


async def test_the_listing_without_devices_and_without_a_broker() -> None:
    async with brokered() as broker:
        done = await appmux(broker, "devices")
        assert done.stdout == "no device is paired; `appmux pair` pairs one\n"
        assert json.loads((await appmux(broker, "devices", "--json")).stdout) == []
        done = await appmux(broker, "devices", "--state-dir", "elsewhere", "revoke", "x")
        assert done.returncode == 1
        assert "no appmux runs" in done.stderr


async def test_a_device_that_is_revoked_on_its_way_in() -> None:
    """Let in at the door, shut out before it is attached: whatever comes first, it isn't in."""
    async with brokered(*DEVICES_ONLY) as broker, operator_of(broker) as operator:
        for attempt in range(8):
            token = await pair(broker, operator, f"phone {attempt}", "observe")
            ended: list[bool] = []

            async def come(token: str = token, ended: list[bool] = ended) -> None:
                try:
                    async with connect_ws(broker.url, token) as phone:
                        await phone.wait_gone()
                        ended.append(closed(phone)[0] == ACCESS_ENDED)
                except ConnectionRejected as rejected:
                    ended.append(rejected.status_code == 401)

            with trio.fail_after(PATIENCE):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(come)
                    await trio.lowlevel.checkpoint()
                    await operator.request("mux/devices/revoke", {"name": f"phone {attempt}"})
            assert ended == [True]


async def test_revoked_while_the_disk_is_full_and_killed_after_it() -> None:
    """It counts at once, is said until it is written, is written by itself, and stays so."""
    model = Scripted()
    async with trio.open_nursery() as nursery:
        await nursery.start(scripted_model.serve, model)
        with private_home(model.base_url) as home:
            state = home.home / ".local" / "state" / "appmux"
            in_the_way = [
                state / f"{name}.{ending}"
                for name in ("devices.json", "devices.copy.json")
                for ending in ("new", "next")
            ]
            async with brokered(*DEVICES_ONLY, model=model, home=home) as broker:
                async with operator_of(broker) as operator:
                    token = await pair(broker, operator, "lost phone", "observe")
                    for each in in_the_way:
                        (each / "full").mkdir(parents=True)
                    done = await appmux(broker, "devices", "revoke", "lost phone")
                    assert done.returncode == 1
                    assert "'lost phone' is shut out, but the device book" in done.stderr
                    assert await refused(broker, token) == 401
                    shown = await appmux(broker, "status")
                    said = "a restart would let in again who was revoked: 'lost phone'"
                    assert said in " ".join(shown.stdout.split())
                    assert [each for each in logged(broker) if each.event.endswith(said)]
                    for each in in_the_way:
                        shutil.rmtree(each)
                    await status_shows(operator, lambda report: not report["devices"]["trouble"])
                broker.process.send_signal(signal.SIGKILL)
                await broker.process.wait()
            async with brokered(*DEVICES_ONLY, model=model, home=home) as broker:
                assert await refused(broker, token) == 401
        nursery.cancel_scope.cancel()
