"""A handover where more than the broker fails: the app-server, the supervisor, the saved state."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
import sys
from pathlib import Path

import pytest
import trio
from trio_websocket import ConnectionClosed, HandshakeError

from mux.demo.scripted_model import Hold, Run, Say, Scripted
from tests.end_to_end import killed_at
from tests.end_to_end.brokered import brokered, client
from tests.end_to_end.lives import appmux
from tests.end_to_end.native import Native
from tests.end_to_end.peer import PATIENCE, GoneError, Json, connect_unix
from tests.end_to_end.scenes import (
    ACCEPT,
    APPROVAL,
    DELTA,
    TURN_COMPLETED,
    app_server_pid,
    ended,
    eventually,
    join,
    shared_thread,
    status,
    status_shows,
)
from tests.end_to_end.test_handover import (
    AWARE,
    LISTENING,
    kill_broker,
    next_broker,
    same_app_server,
    words,
)


def scripted() -> Scripted:
    model = Scripted()
    model.on("tell", Say(chunks=("one ", Hold("gate"), "two")))
    return model


def state_file(broker: Native) -> Path:
    [file] = broker.home.home.glob(".local/state/appmux/broker-state")
    return file


async def audited(broker: Native, kind: str) -> list[Json]:
    """The audit log's records of a kind, once there is one."""
    found: list[Json] = []
    with trio.fail_after(PATIENCE):
        while not found:
            lines = (await appmux(broker, "audit", "--json")).stdout.splitlines()
            found = [each for each in map(json.loads, lines) if each["kind"] == kind]
    return found


async def test_the_app_server_dies_with_the_broker() -> None:
    """It is a crash of the app-server for everybody, and the queue is held."""
    async with brokered(model=scripted()) as broker, client(broker, "before", **AWARE) as before:
        thread = await shared_thread(broker, before)
        cursor = before.hello["appmux"]
        turn = await before.start_turn(thread, "tell")
        await before.wait_method(DELTA, threadId=thread, turnId=turn)
        asked = {"threadId": thread, "input": words("later"), "ifBusy": "queue"}
        await before.request("turn/start", asked)
        app_server = await app_server_pid(before)
        # Together: the next broker, which comes in a tenth of a second, is to find it dead.
        os.kill(broker.broker_pid, signal.SIGKILL)
        os.kill(app_server, signal.SIGKILL)
        async with client(broker, "before", **AWARE) as after:
            after_ = {"epoch": cursor["epoch"], "seq": cursor["seq"]}
            await after.request("mux/replay", {"after": after_, "threadIds": [thread]})
            done = await after.wait(
                lambda m: m.get("method") == TURN_COMPLETED and m["params"]["turn"]["id"] == turn
            )
            assert done["params"]["turn"]["status"] == "interrupted"
            [queue] = (await after.request("mux/queue/list"))["queues"]
            assert (queue["held"], [each["text"] for each in queue["turns"]]) == (
                "appServerEnded",
                ["later"],
            )
            await join(after, thread)
            assert (await after.run_turn(thread, "hello"))["status"] == "completed"
            assert (await status(after))["appServer"]["generation"] == 2


@pytest.mark.parametrize("both", [False, True])
async def test_the_app_server_dies_before_it_says_that_a_turn_began(both: bool) -> None:
    """Its answer has come, and nothing of the turn. One behind it in the queue doesn't begin."""
    async with brokered(model=scripted()) as broker, client(broker, "before", **AWARE) as before:
        thread = await shared_thread(broker, before)
        cursor, app_server = before.hello["appmux"], await app_server_pid(before)
        pids = [broker.broker_pid, app_server] if both else [app_server]
        since = len(before.inbox)
        await before.ask("turn/start", {"threadId": thread, "input": words("tell")})
        later = {"threadId": thread, "input": words("later"), "ifBusy": "queue"}
        await before.ask("turn/start", later)
        await before.wait(lambda m: "queued" in m.get("result", {}).get("appmux", {}), since=since)
        answer = await before.wait(lambda m: "turn" in m.get("result", {}), since=since)
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        turn = answer["result"]["turn"]["id"]
        async with client(broker, "before", **AWARE) as after:
            after_ = {"epoch": cursor["epoch"], "seq": cursor["seq"]}
            await after.request("mux/replay", {"after": after_, "threadIds": [thread]})
            done = await after.wait(
                lambda m: m.get("method") == TURN_COMPLETED and m["params"]["turn"]["id"] == turn
            )
            assert done["params"]["turn"]["status"] == "interrupted"
            [queue] = (await after.request("mux/queue/list"))["queues"]
            assert (queue["held"], [each["text"] for each in queue["turns"]]) == (
                "appServerEnded",
                ["later"],
            )


async def test_the_supervisor_dies_and_takes_all_with_it() -> None:
    async with brokered() as broker, client(broker, "one") as one:
        app_server, pid = await app_server_pid(one), broker.broker_pid
        broker.process.kill()
        await one.wait_gone()
        await eventually(lambda: ended(pid) and ended(app_server), "the end of both")
        async with (
            brokered(home=broker.home, model=broker.model) as again,
            client(again, "two") as two,
        ):
            await two.request("thread/loaded/list")


async def test_a_stop_while_there_is_no_broker() -> None:
    """SIGTERM comes between the end of one broker and the beginning of the next."""
    async with brokered() as broker, client(broker, "one") as one:
        app_server = await app_server_pid(one)
        os.kill(broker.broker_pid, signal.SIGKILL)
        broker.process.send_signal(signal.SIGTERM)
        with trio.fail_after(60):
            assert await broker.process.wait() in (0, 128 + signal.SIGKILL)
        assert ended(app_server)


async def test_ctrl_c_is_for_the_supervisor_alone() -> None:
    """A terminal sends it to the whole group; the broker isn't in it, or it would end at once."""
    async with brokered() as broker, client(broker, "one") as one:
        app_server = await app_server_pid(one)
        assert os.getpgid(broker.broker_pid) != os.getpgid(broker.process.pid)
        broker.process.send_signal(signal.SIGINT)
        with trio.fail_after(60):
            assert await broker.process.wait() == 0
        assert ended(app_server)
        assert "ending at once" not in broker.shown()


@pytest.mark.parametrize("fault", ["gone", "torn", "newer", "of another"])
async def test_state_that_cant_be_used(fault: str) -> None:
    """Another app-server is started, as if there were no handover, and it is said."""
    async with brokered() as broker, client(broker, "one") as one:
        before = await app_server_pid(one)
        thread = await shared_thread(broker, one)
        file = state_file(broker)
        os.kill(broker.broker_pid, signal.SIGSTOP)
        content = file.read_bytes()
        match fault:
            case "gone":
                file.unlink()
            case "torn":
                file.write_bytes(content[:40] + b"\xff" * 40 + content[80:])
            case "newer":
                file.write_bytes(content.replace(b"state 1\n", b"state 2\n"))
            case _:
                other = b"/%d" % before
                file.write_bytes(content.replace(other, b"/" + b"9" * (len(other) - 1)))
        await next_broker(broker)
        async with client(broker, "two") as two:
            assert await app_server_pid(two) != before
            assert ended(before)
            await join(two, thread)
            assert (await two.run_turn(thread, "hello"))["status"] == "completed"
            assert "can't be used" in (await status(two))["broker"]["handoverTrouble"]
            [record] = await audited(broker, "appserver/notKept")
            assert "can't be used" in record["why"]


async def test_an_app_server_that_says_nothing_to_the_next_broker() -> None:
    """It is given up after a while, and another one started; its turn is told to be interrupted."""
    async with brokered(model=scripted()) as broker, client(broker, "one", **AWARE) as one:
        thread, cursor = await shared_thread(broker, one), one.hello["appmux"]
        turn = await one.start_turn(thread, "tell")
        await one.wait_method(DELTA, threadId=thread, turnId=turn)
        before = await app_server_pid(one)
        os.kill(before, signal.SIGSTOP)
        await next_broker(broker)
        async with client(broker, "two", **AWARE) as two:
            [record] = await audited(broker, "appserver/exited")
            assert "no answer to `thread/loaded/list`" in record["why"]
            assert ended(before)
            after = {"epoch": cursor["epoch"], "seq": cursor["seq"]}
            await two.request("mux/replay", {"after": after, "threadIds": [thread]})
            done = await two.wait(
                lambda m: m.get("method") == TURN_COMPLETED and m["params"]["turn"]["id"] == turn
            )
            assert done["params"]["turn"]["status"] == "interrupted"
            assert (await two.run_turn(thread, "hello"))["status"] == "completed"


async def test_the_app_server_ends_while_the_broker_is_renewed() -> None:
    """The broker knows that it is gone, but not how it ended, when it is told to go itself."""
    async with brokered() as broker, client(broker, "one") as one:
        before, supervisor = await app_server_pid(one), broker.process.pid
        os.kill(supervisor, signal.SIGSTOP)  # who tells how it ended
        try:
            os.kill(before, signal.SIGKILL)
            await eventually(lambda: ended(before), "its end")
            await one.ask("mux/restart", {"broker": True})
            await one.request("mux/status")  # the broker has heard both
        except GoneError:
            pass
        finally:
            os.kill(supervisor, signal.SIGCONT)
        await one.wait_gone()
        async with client(broker, "two") as two:
            await status_shows(two, lambda r: r["appServer"]["pid"] not in (None, before))
            thread = await shared_thread(broker, two)
            assert (await two.run_turn(thread, "hello"))["status"] == "completed"


async def test_a_broker_that_cant_start_is_tried_again_with_no_app_server_either() -> None:
    """As in the middle of an upgrade; once it can, it serves."""
    async with brokered() as broker, client(broker, "one") as one:
        app_server, pid = await app_server_pid(one), broker.broker_pid
        lock = broker.home.home / ".local/state/appmux/broker.lock"
        lock.unlink()
        lock.mkdir()
        serving = broker.shown().count(LISTENING)
        for each in (pid, app_server):
            os.kill(each, signal.SIGKILL)
        await eventually(lambda: "unexpectedly: exit status 1" in broker.shown(), "a vain start")
        lock.rmdir()
        await eventually(lambda: broker.shown().count(LISTENING) > serving, "the next broker")
        async with client(broker, "two") as two:
            await status_shows(two, lambda r: r["appServer"]["pid"] not in (None, app_server))


async def test_brokers_that_fail_after_they_listened_leave_the_sockets_to_the_next() -> None:
    """As after a step back to an older version, until the newer one is installed again."""
    async with (
        brokered() as broker,
        client(broker, "one") as one,
        same_app_server(broker, one),
    ):
        ledger = broker.home.home / ".local/state/appmux/notices.sqlite3"
        with contextlib.closing(sqlite3.connect(ledger)) as database:
            [known] = database.execute("PRAGMA user_version").fetchone()
            database.execute(f"PRAGMA user_version = {known + 1}")
        serving = broker.shown().count(LISTENING)
        await kill_broker(broker)
        vain = "unexpectedly: exit status 1"
        await eventually(lambda: broker.shown().count(vain) == 2, "two vain starts")
        with contextlib.closing(sqlite3.connect(ledger)) as database:
            database.execute(f"PRAGMA user_version = {known}")
        await eventually(lambda: broker.shown().count(LISTENING) > serving, "the next broker")
        async with connect_unix(broker.socket) as two:
            await two.initialize("two")
            thread = await shared_thread(broker, two)
            assert (await two.run_turn(thread, "hello"))["status"] == "completed"


async def test_a_socket_whose_path_was_removed_is_made_anew() -> None:
    """As by a cleaner of temporary files."""
    async with brokered() as broker, client(broker, "one") as one, same_app_server(broker, one):
        broker.socket.unlink()
        await next_broker(broker)
        async with connect_unix(broker.socket) as two:
            await two.initialize("two")


async def test_a_broker_that_crashes_is_followed_like_one_that_is_killed(tmp_path: Path) -> None:
    """By a fault of its own, that is; the next one goes on with app-server and sockets."""
    [point] = [each for each in killed_at.POINTS if each.endswith("Handover.begin")]
    model, file = scripted(), tmp_path / "point"
    environ = {killed_at.VARIABLE: str(file), "PYTHONPATH": str(Path(__file__).parents[2])}
    program = (sys.executable, "-m", "tests.end_to_end.killed_at")
    async with (
        brokered(model=model, environ=environ, program=program) as broker,
        client(broker, "before", **AWARE) as before,
        same_app_server(broker, before),
    ):
        thread = await shared_thread(broker, before)
        turn = await before.start_turn(thread, "tell")
        await before.wait_method(DELTA, threadId=thread, turnId=turn)
        serving = broker.shown().count(LISTENING)
        file.write_text(f"{killed_at.CRASH}{point} 2")
        await kill_broker(broker)
        await eventually(lambda: file.read_text().endswith(" 0"), "two crashes")
        model.release("gate")
        await eventually(lambda: broker.shown().count(LISTENING) > serving, "the next broker")
        async with connect_unix(broker.socket) as after:
            await after.initialize("after")
            await join(after, thread)
            await status_shows(after, lambda report: report["threads"][0]["turn"] is None)
            read = await after.request("thread/read", {"threadId": thread, "includeTurns": True})
            assert [each["status"] for each in read["thread"]["turns"]][-1] == "completed"


async def test_with_no_broker_for_long_the_app_server_is_ended() -> None:
    environ = {"APPMUX_UPSTREAM_ORPHAN_WAIT": "1"}
    async with brokered(environ=environ) as broker, client(broker, "one") as one:
        app_server, lock = await app_server_pid(one), broker.home.home / ".local/state/appmux"
        os.kill(broker.broker_pid, signal.SIGSTOP)
        pid = broker.broker_pid
        (lock / "broker.lock").unlink()
        (lock / "broker.lock").mkdir()  # no broker can start
        os.kill(pid, signal.SIGKILL)
        with trio.fail_after(60):
            assert await broker.process.wait() != 0
        assert ended(app_server)
        assert "no broker served for 1 s" in broker.shown()


async def test_brokers_that_die_young_come_more_and_more_rarely() -> None:
    async with brokered() as broker, client(broker, "one") as one:
        before = await app_server_pid(one)
        for _ in range(4):
            await next_broker(broker)
        async with client(broker, "two") as two:
            assert await app_server_pid(two) == before
            assert (await status(two))["broker"]["handovers"] == 4


A_TEST = 4
"""Points in one test: each takes three brokers after one another, and tests run side by side."""


async def _comes_back(broker: Native, thread: str) -> Json:
    """Join the thread; once more if that broker was about to be killed. What is offered then."""
    while True:
        with contextlib.suppress(GoneError, ConnectionClosed, HandshakeError, OSError):
            async with client(broker, "after") as after:
                await join(after, thread)
                return await after.wait_method(APPROVAL, threadId=thread)  # type: ignore[no-any-return]
        await trio.sleep(0.02)


@pytest.mark.parametrize("first", range(0, len(killed_at.POINTS), A_TEST))
async def test_killed_at_any_point_of_the_taking_over(tmp_path: Path, first: int) -> None:
    """The one after that goes on as if there had been none in between, or two."""
    model = Scripted()
    model.on("do it", (Run("echo done", escalated=True),), Say("I did."))
    file = tmp_path / "point"
    environ = {killed_at.VARIABLE: str(file), "PYTHONPATH": str(Path(__file__).parents[2])}
    program = (sys.executable, "-m", "tests.end_to_end.killed_at")
    async with (
        brokered(model=model, environ=environ, program=program) as broker,
        client(broker, "before") as before,
        same_app_server(broker, before),
    ):
        thread = await shared_thread(broker, before)
        await before.start_turn(thread, "do it")
        offered = await before.wait_method(APPROVAL, threadId=thread)
        for point in killed_at.POINTS[first : first + A_TEST]:
            file.write_text(f"{point} {2 if point.endswith('Handover.begin') else 1}")
            await kill_broker(broker)
            await eventually(lambda: file.read_text().endswith(" 0"), "that they were killed")
            assert await _comes_back(broker, thread) == offered, point
        async with client(broker, "last") as last:
            await join(last, thread)
            await last.respond(offered["id"], ACCEPT)
            done = await last.wait_method(TURN_COMPLETED, threadId=thread)
            assert done["params"]["turn"]["status"] == "completed"
