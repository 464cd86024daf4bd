"""Pushes on their way: what is lost (nothing), what is doubled (as little as can be), who waits."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
import trio

from mux.config import model
from mux.push import queue_writer, sender
from mux.push.message import PushError
from mux.push.queue import Row
from mux.push.queue_file import FILE, QueueFile
from mux.push.sender import SLOTS, Pushes
from mux.storage import write_behind
from mux.storage.sqlite import StoreError
from tests.certificates import issue
from tests.end_to_end.scenes import eventually
from tests.ports import kept_port
from tests.push.browser import Browser
from tests.push.sending import Clock, on_disk, running, settled, webhook
from tests.push.stand import Heard, Said, Stand, standing
from tests.push.told import NOW, push


def ids(stand: Stand) -> list[str]:
    """What the webhook was told, in order; a withdrawal with a minus before it."""
    return [("-" if each.json.get("withdraw") else "") + each.json["id"] for each in stand.heard]


async def test_each_endpoint_of_the_device_is_told_at_its_level(tmp_path: Path) -> None:
    async with standing() as stand:
        pushes = Pushes.open(tmp_path, webhook(tmp_path, stand.url), clock=Clock())
        for topic, level in (("a", "full"), ("b", "opaque")):
            address = {"server": stand.url, "topic": topic}
            pushes.register("phone", "ntfy", address, level)  # type: ignore[arg-type]
        async with running(pushes):
            assert pushes.send("phone", push()) == 2
            assert pushes.send("nobody", push()) == 0
            await settled(pushes)
        bodies = {each.json["topic"]: each.json["message"] for each in stand.heard}
        assert bodies == {"a": "rm -r jam/", "b": "2 things wait"}
        assert [each["state"] for each in pushes.history()] == ["sent", "sent"]
        assert pushes.status()["endpoints"] == {"webhook": 1, "ntfy": 2}
        assert pushes.status()["pushes"] == {"sent": 2}
        assert all(each.said for each in pushes.endpoints.of("phone"))


async def test_what_waited_at_the_end_of_a_life_is_sent_once_in_the_next(tmp_path: Path) -> None:
    async with standing() as stand:
        pushes = Pushes.open(tmp_path, webhook(tmp_path, stand.url), clock=Clock())
        pushes.send("host", push())
        pushes.send("host", push(id="p-2", collapse="b"))
        await pushes.keeper.flush()
        pushes.keeper.file.close()
        for _life in range(2):
            pushes = Pushes.open(tmp_path, webhook(tmp_path, stand.url), clock=Clock())
            async with running(pushes):
                await settled(pushes)
        assert ids(stand) == ["p-1", "p-2"]
        assert [each["state"] for each in pushes.history()] == ["sent", "sent"]


async def test_a_host_that_is_offline_for_an_hour_loses_and_doubles_nothing(tmp_path: Path) -> None:
    clock = Clock()
    with kept_port() as port:
        url = f"http://127.0.0.1:{port}"
        pushes = Pushes.open(tmp_path, webhook(tmp_path, url), clock=clock)
        async with running(pushes):
            for minute in range(60):
                lasts = 600 if minute % 2 else 7200
                told = push(id=f"p-{minute}", collapse=f"c-{minute}", expires_at=clock.now + lasts)
                pushes.send("host", told)
                clock.now += 60
                pushes.refresh()
                if minute % 20 == 0:
                    await eventually(
                        lambda: pushes.queue.waiting()[0].attempts > 0, "the first was tried"
                    )
            pushes.withdraw("host", "c-58")
            async with standing(port=port) as stand:
                for _ in range(5):
                    clock.now += 121
                    pushes.refresh()
                    await eventually(
                        lambda: not [row for row in pushes.queue.waiting() if row.due <= clock.now],
                        "all that is due was tried",
                    )
                await settled(pushes)
                told_ids = Counter(ids(stand))
    live = {f"p-{minute}" for minute in range(0, 58, 2)} | {"p-53", "p-55", "p-57", "p-59"}
    assert live - {"p-53"} <= set(told_ids) <= live | {"-p-58"}
    assert set(told_ids.values()) == {1}


@pytest.mark.parametrize("status", [500, 503, 429, 408])
async def test_what_a_service_refuses_for_now_is_sent_again_and_arrives_once(
    tmp_path: Path, status: int
) -> None:
    clock = Clock()
    async with standing() as stand:
        stand.answers = [Said(status, headers={"retry-after": "90"})]
        pushes = Pushes.open(tmp_path, webhook(tmp_path, stand.url), clock=clock)
        async with running(pushes):
            pushes.send("host", push())
            await eventually(lambda: pushes.queue.waiting()[0].due > NOW, "it was put off")
            clock.now += 89
            pushes.refresh()
            await trio.testing.wait_all_tasks_blocked()
            assert len(stand.heard) == 1
            clock.now += 2
            pushes.refresh()
            (row,) = await settled(pushes)
        assert (row.state, row.attempts) == ("sent", 2)
        first, second = stand.heard
        assert first.headers["webhook-id"] == second.headers["webhook-id"]


async def test_an_endpoint_that_is_gone_is_dropped_for_good(tmp_path: Path) -> None:
    async with standing() as stand:
        stand.otherwise = lambda _heard: Said(410)
        pushes = Pushes.open(tmp_path, webhook(tmp_path, stand.url), clock=Clock())
        address = {"endpoint": f"{stand.url}/up/secret-path"}
        pushes.register("phone", "unifiedpush", address)
        async with running(pushes):
            pushes.send("phone", push())
            await settled(pushes)
            assert pushes.send("phone", push()) == 0
        again = Pushes.open(tmp_path, webhook(tmp_path, stand.url), clock=Clock())
        assert not again.endpoints.of("phone")
        assert "secret-path" not in str(pushes.history())


async def test_a_slow_service_delays_no_other_and_one_endpoint_no_other(tmp_path: Path) -> None:
    async with standing() as stand, standing() as quick:
        release = trio.Event()

        async def slow(_heard: Heard) -> Said:
            await release.wait()
            return Said()

        stand.otherwise = slow
        clock = Clock()
        pushes = Pushes.open(tmp_path, webhook(tmp_path, quick.url), clock=clock)
        for number in range(SLOTS + 4):
            device = f"phone-{number % 3}"
            pushes.register(device, "ntfy", {"server": stand.url, "topic": f"t{number}"})
        async with running(pushes):
            for number in range(3):
                pushes.send(f"phone-{number}", push())
            await stand.until(SLOTS)
            pushes.send("host", push())
            await quick.until(1)
            pushes.send("host", push(id="p-2", collapse="b"))
            await quick.until(2)
            assert len(stand.heard) == SLOTS
            assert pushes.oldest == 0
            clock.now += 7
            assert pushes.oldest == pushes.status()["oldestQueuedSeconds"] == 7
            release.set()
            await settled(pushes)
        assert len(stand.heard) == SLOTS + 4
        assert pushes.queue.ended == {"sent": SLOTS + 6}
        assert (pushes.oldest, pushes.faulty) == (0, 0)


async def test_a_withdrawal_follows_what_is_on_its_way(tmp_path: Path) -> None:
    async with standing() as stand:
        release = trio.Event()

        async def slow(_heard: Heard) -> Said:
            await release.wait()
            return Said()

        stand.otherwise = slow
        pushes = Pushes.open(tmp_path, webhook(tmp_path, stand.url), clock=Clock())
        async with running(pushes):
            pushes.send("host", push())
            await stand.until(1)
            pushes.send("host", push(id="p-2", collapse="b"))
            for collapse in ("thread-a", "b"):
                pushes.withdraw("host", collapse)
            release.set()
            await settled(pushes)
        assert ids(stand) == ["p-1", "-p-1"]
        assert [each["state"] for each in pushes.history()] == ["sent", "withdrawn", "withdrawn"]


async def test_what_is_withdrawn_while_the_disk_is_waited_for_is_not_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with standing() as stand:
        pushes = Pushes.open(tmp_path, webhook(tmp_path, stand.url), clock=Clock())

        async def kept(_keeper: queue_writer.QueueWriter, row: Row) -> None:
            if not row.push.withdraw:
                pushes.withdraw("host", "thread-a")

        monkeypatch.setattr(queue_writer.QueueWriter, "kept", kept)
        async with running(pushes):
            pushes.send("host", push())
            await settled(pushes)
        assert "p-1" not in ids(stand)


async def test_that_it_is_tried_is_on_disk_before_the_service_hears_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So the next life knows that the service may have it, and withdraws it there too."""
    monkeypatch.setattr(sender, "DISK_SECONDS", 60.0)  # however slow the disk is here
    async with standing() as stand:
        tried: list[object] = []

        def look(_heard: Heard) -> Said:
            with sqlite3.connect(tmp_path / FILE) as connection:
                tried.extend(connection.execute("SELECT state, attempts FROM push").fetchall())
            return Said(500)

        stand.otherwise = look
        settings = webhook(tmp_path, stand.url)
        pushes = Pushes.open(tmp_path, settings, clock=Clock())
        async with running(pushes):
            pushes.send("host", push())
            await stand.until(1)
        assert tried == [("queued", 1)]
        stand.otherwise = lambda _heard: Said()
        again = Pushes.open(tmp_path, settings, clock=Clock())
        again.withdraw("host", "thread-a")
        async with running(again):
            await settled(again)
        assert ids(stand) == ["p-1", "-p-1"]


async def test_a_device_that_is_revoked_gets_nothing_more(tmp_path: Path) -> None:
    async with standing() as stand:
        pushes = Pushes.open(tmp_path, webhook(tmp_path, stand.url), clock=Clock())
        there = [
            pushes.register("phone", "ntfy", {"server": stand.url, "topic": topic})
            for topic in ("a", "b")
        ]
        pushes.send("phone", push())
        assert not pushes.unregister("tablet", there[0].id)
        assert pushes.unregister("phone", there[0].id)
        pushes.forget("phone")
        async with running(pushes):
            rows = await settled(pushes)
        assert {row.said for row in rows} == {"no longer registered"}
        assert not stand.heard


async def test_a_fault_of_the_settings_is_told_until_it_is_mended(tmp_path: Path) -> None:
    clock = Clock()
    async with standing() as stand:
        settings = webhook(tmp_path, stand.url)
        secret = tmp_path / "secret"
        secret.chmod(0o644)
        pushes = Pushes.open(tmp_path, settings, clock=clock)
        async with running(pushes):
            pushes.send("host", push())
            await eventually(lambda: pushes.trouble, "the trouble is told")
            told = f"push.webhook.secret_file: others may read {secret}: `chmod 600 {secret}`"
            assert pushes.status()["trouble"] == f"webhook: {told}"
            secret.chmod(0o600)
            clock.now += 31
            pushes.refresh()
            await settled(pushes)
            assert pushes.trouble is None
        assert ids(stand) == ["p-1"]


async def test_trying_says_what_each_service_answered(tmp_path: Path) -> None:
    async with standing() as stand:
        pushes = Pushes.open(tmp_path, webhook(tmp_path, stand.url), clock=Clock())
        made = pushes.register("phone", "ntfy", {"server": stand.url, "topic": "secret-topic"})
        stand.otherwise = lambda heard: Said(403, f"no {heard.body.decode()} {heard.path}".encode())
        async with running(pushes):
            for where in ("phone", made.id):
                ((there, words),) = await pushes.try_now(where, push(kind="test"))
                assert there.id == made.id
                assert words.startswith("failed: 403 no ")
                assert "secret-topic" not in words
            with pytest.raises(PushError, match="nothing is registered for 'nobody'"):
                await pushes.try_now("nobody", push())
            assert not pushes.queue.rows


# -- the disk --------------------------------------------------------------------------------------


def broken(path: Path) -> None:
    path.write_bytes(b"SQLite format 3\0" + b"garbage " * 500)


def foreign(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE push (n)")
        connection.execute("INSERT INTO push VALUES (1)")


def aside(state_dir: Path) -> list[Path]:
    return list(state_dir.glob(f"{FILE}.broken-*"))


@pytest.mark.parametrize("damage", [broken, foreign])
async def test_a_damaged_queue_is_moved_aside(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    damage(tmp_path / FILE)
    async with standing() as stand:
        pushes = Pushes.open(tmp_path, webhook(tmp_path, stand.url), clock=Clock())
        async with running(pushes):
            pushes.send("host", push())
            await settled(pushes)
        assert ids(stand) == ["p-1"]
    assert len(aside(tmp_path)) == 1
    assert (tmp_path / FILE).stat().st_mode & 0o777 == 0o600


async def test_a_disk_that_takes_nothing_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = sqlite3.OperationalError("database or disk is full")
    full.sqlite_errorcode = sqlite3.SQLITE_FULL

    async with standing() as stand:
        pushes = Pushes.open(tmp_path, webhook(tmp_path, stand.url), clock=Clock())

        def fail(*_given: object) -> None:
            raise full

        monkeypatch.setattr(QueueFile, "write", fail)
        async with running(pushes):
            pushes.send("host", push())
            await settled(pushes)
            assert "free some space" in str(pushes.trouble)
            monkeypatch.undo()
            await eventually(lambda: pushes.trouble is None, "it is written again")
        again = Pushes.open(tmp_path, webhook(tmp_path, stand.url), clock=Clock())
        assert [each["state"] for each in again.history()] == ["sent"]


async def test_a_disk_that_hangs_holds_up_neither_a_push_nor_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = threading.Event()
    monkeypatch.setattr(sender, "DISK_SECONDS", 0.1)
    monkeypatch.setattr(write_behind, "LAST_SECONDS", 0.1)
    monkeypatch.setattr(QueueFile, "write", lambda *_given: release.wait(60))
    async with standing() as stand:
        pushes = Pushes.open(tmp_path, webhook(tmp_path, stand.url), clock=Clock())
        with trio.fail_after(30):
            async with running(pushes):
                pushes.send("host", push())
                await settled(pushes)
        release.set()
        assert ids(stand) == ["p-1"]


async def test_a_queue_that_can_only_be_read_later_is_sent_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sender, "LONGEST_NAP", 0.01)
    async with standing() as stand:
        settings = webhook(tmp_path, stand.url)
        pushes = Pushes.open(tmp_path, settings, clock=Clock())
        pushes.send("host", push())
        await pushes.keeper.flush()
        pushes.keeper.file.close()

        def fail(_file: QueueFile) -> None:
            raise OSError(13, "Permission denied")

        with monkeypatch.context() as patched:
            patched.setattr(QueueFile, "load", fail)
            pushes = Pushes.open(tmp_path, settings, clock=Clock(NOW + 60))
        assert "make its directory one that this user can write in" in str(pushes.trouble)
        pushes.send("host", push(id="p-2", collapse="b"))
        async with running(pushes):
            await stand.until(2)
            await settled(pushes)
        assert sorted(ids(stand)) == ["p-1", "p-2"]


def test_a_queue_of_a_newer_appmux_is_left_alone(tmp_path: Path) -> None:
    settings = webhook(tmp_path, "http://127.0.0.1:9")
    Pushes.open(tmp_path, settings).keeper.file.close()
    with sqlite3.connect(tmp_path / FILE) as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(StoreError, match="made by a newer appmux: its format is 99"):
        Pushes.open(tmp_path, settings)


async def test_a_queue_that_is_removed_is_written_anew(tmp_path: Path) -> None:
    async with standing() as stand:
        pushes = Pushes.open(tmp_path, webhook(tmp_path, stand.url), clock=Clock())
        async with running(pushes):
            pushes.send("host", push())
            await settled(pushes)
            # While it is written, the file's parts come and go.
            await eventually(
                lambda: not (pushes.queue.changed or pushes.keeper._writing), "all is on disk"
            )
            for suffix in ("", "-wal", "-shm"):
                (tmp_path / f"{FILE}{suffix}").unlink()
            pushes.send("host", push(id="p-2", collapse="b"))
            await settled(pushes)
            await eventually(lambda: pushes.trouble is None, "it is written again")
        again = Pushes.open(tmp_path, webhook(tmp_path, stand.url), clock=Clock())
        assert [each["id"] for each in again.history()] == ["p-2", "p-1"]


async def test_what_a_row_tells_leaves_the_disk_with_it(tmp_path: Path) -> None:
    told = push(body="jam " * 5000)  # some pages of it
    pushes = Pushes.open(tmp_path, webhook(tmp_path, "http://127.0.0.1:9"), clock=Clock())
    pushes.send("host", told)
    await pushes.keeper.flush()
    assert on_disk(tmp_path, "jam jam"), "else it would be lost with the broker"
    assert not on_disk(tmp_path, "ticket-0123")
    pushes.withdraw("host", told.collapse)
    await pushes.keeper.flush()
    assert pushes.queue.status() == {"withdrawn": 1}
    assert not on_disk(tmp_path, "jam jam")
    pushes.keeper.file.close()


async def test_a_push_that_is_sent_is_nowhere_on_the_disk(tmp_path: Path) -> None:
    async with standing() as stand:
        pushes = Pushes.open(tmp_path, webhook(tmp_path, stand.url), clock=Clock())
        async with running(pushes):
            pushes.send("host", push())
            await settled(pushes)
            (heard,) = stand.heard
            assert heard.json["ticket"] == push().ticket
            await eventually(lambda: not on_disk(tmp_path, "jam"), "what it told has gone")
            assert not on_disk(tmp_path, "ticket-0123")


async def test_who_reads_along_delays_that_only(tmp_path: Path) -> None:
    pushes = Pushes.open(tmp_path, webhook(tmp_path, "http://127.0.0.1:9"), clock=Clock())
    pushes.send("host", push())
    await pushes.keeper.flush()
    with closing(sqlite3.connect(tmp_path / FILE, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM push").fetchall()
        pushes.withdraw("host", push().collapse)
        await pushes.keeper.flush()
        assert pushes.trouble is None
        assert on_disk(tmp_path, "jam")
    pushes.send("host", push(id="p-2", body="cheese", title="cheese"))
    await pushes.keeper.flush()
    assert not on_disk(tmp_path, "jam")
    pushes.keeper.file.close()


async def test_what_a_kill_left_in_the_log_goes_at_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = webhook(tmp_path, "http://127.0.0.1:9")
    pushes = Pushes.open(tmp_path, settings, clock=Clock())
    monkeypatch.setattr(QueueFile, "_forget", lambda *_given: None)
    for _ in range(2):
        pushes.send("host", push())
        await pushes.keeper.flush()
    pushes.withdraw("host", push().collapse)
    await pushes.keeper.flush()
    killed = tmp_path / "killed"
    shutil.copytree(tmp_path, killed, ignore=shutil.ignore_patterns("killed"))
    assert on_disk(killed, "jam")
    monkeypatch.undo()
    again = Pushes.open(killed, settings, clock=Clock())
    assert [each["state"] for each in again.history()] == ["withdrawn", "replaced"]
    assert not on_disk(killed, "jam")
    for each in (pushes, again):
        each.keeper.file.close()


# -- kill -9 ---------------------------------------------------------------------------------------


def live(tmp_path: Path, url: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.push.sending", str(tmp_path), url],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        bufsize=1,
    )


async def raised(process: subprocess.Popen[str], *words: str) -> None:
    """Have it raise pushes, and wait until they are on its disk."""
    assert process.stdin
    assert process.stdout
    for word in words:
        process.stdin.write(f"{word}\n")
        process.stdin.flush()
        with trio.fail_after(60):
            said = await trio.to_thread.run_sync(process.stdout.readline, abandon_on_cancel=True)
        assert said == f"{word}\n"


def kill(process: subprocess.Popen[str]) -> None:
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    for pipe in (process.stdin, process.stdout):
        assert pipe
        pipe.close()


async def test_killed_between_the_answer_and_the_note_it_is_sent_twice_as_the_same(
    tmp_path: Path,
) -> None:
    """The one place where a double can come from; the receiver knows it by its id."""
    async with standing() as stand:
        asked, never = trio.Event(), trio.Event()

        async def hold(_heard: Heard) -> Said:
            asked.set()
            await never.wait()
            return Said()

        stand.otherwise = hold
        process = live(tmp_path, stand.url)
        await raised(process, "p-1")
        await asked.wait()
        kill(process)
        stand.otherwise = lambda _heard: Said()
        process = live(tmp_path, stand.url)
        await stand.until(2)
        await raised(process, "p-2")
        await stand.until(3)
        kill(process)
    first, second, third = stand.heard
    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    # The same, but for the ticket: it is of no use any more, and stood on no disk.
    ticket = {"ticket": push().ticket, "actions": list(push().actions)}
    assert first.json == second.json | ticket
    assert not second.json.keys() & ticket.keys()
    assert third.json["id"] == "p-2"


async def test_killed_at_any_moment_nothing_is_lost_and_little_is_doubled(tmp_path: Path) -> None:
    chance = random.Random(6)
    lives, each = 4, 5
    async with standing() as stand:

        async def answer(_heard: Heard) -> Said:
            await trio.sleep(chance.uniform(0, 0.02))
            return Said()

        stand.otherwise = answer
        for number in range(lives):
            process = live(tmp_path, stand.url)
            await raised(process, *(f"p-{number}-{one}" for one in range(each)))
            await trio.sleep(chance.uniform(0, 0.1))
            kill(process)
        process = live(tmp_path, stand.url)
        await raised(process, "last")
        await eventually(lambda: "last" in ids(stand), "the last arrived")
        kill(process)
    told = Counter(ids(stand))
    assert set(told) == {f"p-{number}-{one}" for number in range(lives) for one in range(each)} | {
        "last"
    }
    # One at a time for an endpoint: a kill doubles one at most.
    assert sum(told.values()) - len(told) <= lives


# -- the start -------------------------------------------------------------------------------------


def test_a_broker_without_push_imports_nothing_of_it(tmp_path: Path) -> None:
    script = (
        "import sys, pathlib, mux.config.model as c\n"
        "from mux.push.sender import Pushes\n"
        "import mux.server.serve\n"
        "p = Pushes.open(pathlib.Path(sys.argv[1]), c.Push())\n"
        "p.send('phone', None); p.withdraw('phone', 'x'); p.status(); p.history()\n"
        "print([n for n in ('httpx', 'httpcore', 'h2', 'certifi') if n in sys.modules])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
    assert not list(tmp_path.iterdir()), "nor leaves a file"


async def test_a_service_of_the_settings_alone_is_enough(tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    settings = model.Push(exec=model.Exec(command=("/usr/bin/env", "touch", str(ran))))
    pushes = Pushes.open(tmp_path, settings)
    async with running(pushes):
        pushes.send("host", push(expires_at=pushes.clock() + 60))
        await settled(pushes)
    assert ran.exists()


ENDED = "https://box.tail1234.ts.net:14543"


async def test_a_page_whose_origin_has_ended_is_told_once_and_dropped(tmp_path: Path) -> None:
    issued = issue(tmp_path)
    authority = tmp_path / "authority.pem"
    issued.authority.cert_pem.write_to_path(str(authority))
    clock = Clock()
    async with standing(issued) as stand:
        settings = model.Push(private_hosts=("localhost",), ca_file=authority)
        pushes = Pushes.open(tmp_path, settings, clock=clock)
        old = Browser(stand.url)
        address = old.registration.address
        page = pushes.register("phone", "webpush", address, "full", f"{ENDED}/")
        topic = {"server": stand.url, "topic": "larder-7"}
        stays = pushes.register("phone", "ntfy", topic, "full")
        pushes.send("phone", push(collapse="before"))  # of no use to a page that isn't there
        for _look in range(3):
            pushes.push_last(ENDED, lambda: push(id="last", kind="moved", collapse="last"))
        pushes.send("phone", push(id="after", collapse="after"))
        stand.otherwise = lambda heard: Said(503 if "/push/" in heard.path else 200)
        async with running(pushes):
            await eventually(
                lambda: [row.attempts for row in pushes.queue.waiting()] == [1], "it is put off"
            )
            stand.otherwise = lambda _heard: Said()
            clock.now += 300
            pushes.refresh()
            await eventually(lambda: pushes.endpoints.by_id(page.id) is None, "it is dropped")
        told = [json.loads(old.read(each.body)) for each in stand.heard if "/push/" in each.path]
        assert {each["notification"]["data"]["kind"] for each in told} == {"moved"}
        assert len(told) == 2  # refused once
        assert [each.id for each in pushes.endpoints.of("phone")] == [stays.id]
