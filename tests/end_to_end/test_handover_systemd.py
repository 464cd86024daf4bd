"""The service is restarted, killed and stopped by a real systemd, with a turn in the middle."""

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

from mux.demo import scripted_model
from mux.demo.scripted_model import Hold, Run, Say, Scripted
from tests.end_to_end.installed import Installed
from tests.end_to_end.peer import Json, Peer, connect_unix, plainly
from tests.end_to_end.scenes import (
    ACCEPT,
    APPROVAL,
    DELTA,
    TURN_COMPLETED,
    app_server_pid,
    ended,
    eventually,
    join,
    status,
)
from tests.end_to_end.test_handover import AWARE, text_of, words
from tests.end_to_end.user_manager import (
    PATIENCE,
    Managed,
    appmux,
    journal,
    main_pid,
    managing,
    systemctl,
)


@attrs.frozen
class Service:
    """appmux as an installed service, over a scripted model."""

    managed: Managed
    model: Scripted

    @asynccontextmanager
    async def client(self, name: str, **capabilities: Any) -> AsyncIterator[Peer]:
        """A client at the control socket, which systemd holds."""
        async with connect_unix(self.managed.control) as peer:
            await peer.initialize(name, **capabilities)
            yield peer

    async def thread(self, peer: Peer) -> str:
        thread = await peer.start_thread(self.managed.home.work)
        await peer.run_turn(thread, "hello")
        return thread

    async def kept(self) -> int:
        """How many descriptors systemd keeps for it."""
        shown = await systemctl("show", "--property=NFileDescriptorStore", "--value", UNIT)
        return int(shown)


UNIT = "appmux.service"


@asynccontextmanager
async def service(monkeypatch: pytest.MonkeyPatch, model: Scripted) -> AsyncIterator[Service]:
    with plainly():
        async with trio.open_nursery() as nursery:
            await nursery.start(scripted_model.serve, model)
            with managing(monkeypatch, model.base_url) as managed:
                settings = managed.home.home / ".config" / "appmux" / "config.toml"
                settings.parent.mkdir(parents=True)
                settings.write_text(f'listen = ["unix://", "{managed.url}"]\n')
                await appmux("service", "install", "--yes")
                try:
                    yield Service(managed, model)
                except BaseException:
                    print(await journal())  # noqa: T201 (pytest shows it with the failure)
                    raise
            nursery.cancel_scope.cancel()


async def _next_main(before: int) -> int:
    with trio.fail_after(PATIENCE):
        while await main_pid() in (0, before):  # noqa: ASYNC110 (systemd does not say)
            await trio.sleep(0.05)
    return await main_pid()


async def test_a_restart_in_the_middle_of_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    """A turn, an approval and a queue go on; the app-server notices nothing."""
    model = Scripted()
    model.on("tell", Say(chunks=("one ", Hold("gate"), "two")))
    model.on("do it", (Run("echo done", escalated=True),), Say("I did."))
    async with service(monkeypatch, model) as there, there.client("before", **AWARE) as before:
        talks, asks = await there.thread(before), await there.thread(before)
        app_server, main = await app_server_pid(before), await main_pid()
        asked = {"threadId": talks, "input": words("tell"), "clientUserMessageId": "m1"}
        answer = await before.request("turn/start", asked)
        await before.wait_method(DELTA, threadId=talks)
        for text in ("do one", "do two"):
            queued = {"threadId": talks, "input": words(text), "ifBusy": "queue"}
            await before.request("turn/start", queued)
        await before.start_turn(asks, "do it")
        offered = await before.wait_method(APPROVAL, threadId=asks)

        await systemctl("restart", UNIT)
        await before.wait_gone()
        assert before.link.connection.closed.code == 1012  # type: ignore[attr-defined]
        assert await main_pid() != main
        async with there.client("after", **AWARE) as after:
            assert await app_server_pid(after) == app_server
            assert (await status(after))["broker"]["supervisor"] == await main_pid()
            await join(after, talks)
            await join(after, asks)
            again = await after.wait_method(APPROVAL, threadId=asks)
            assert (again["id"], again["params"]) == (offered["id"], offered["params"])
            await after.respond(offered["id"], ACCEPT)
            await after.wait_method(TURN_COMPLETED, threadId=asks)
            assert (await after.request("turn/start", asked)) == answer
            model.release("gate")
            await eventually(
                lambda: len(after.heard(TURN_COMPLETED, threadId=talks)) == 3, "three turns' end"
            )
            assert text_of(after, talks) == ["one two", "You said: do one", "You said: do two"]
            assert text_of(after, asks) == ["I did."]


async def test_kills_reexec_and_a_stop(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The first process and its broker die, the manager is renewed; a stop ends all of it."""
    model = Scripted()
    model.on("tell", Say(chunks=("one ", Hold("gate"), "two")))
    left = tmp_path / "left"
    command = f"setsid sh -c 'echo $$ > {left}; exec sleep 600' >/dev/null 2>&1 &"
    command += f" until [ -s {left} ]; do sleep 0.05; done"
    async with service(monkeypatch, model) as there, there.client("before") as before:
        free = {"command": ["sh", "-c", command], "sandboxPolicy": {"type": "dangerFullAccess"}}
        await before.request("command/exec", free)
        thread = await there.thread(before)
        app_server, main = await app_server_pid(before), await main_pid()
        turn = await before.start_turn(thread, "tell")
        await before.wait_method(DELTA, threadId=thread)
        kept = await there.kept()

        for step in ("supervisor", "both", "reexec"):
            broker = (await _broker(there))["pid"]
            if step == "reexec":
                await systemctl("daemon-reexec")
                await _next_main(0)  # the manager answers again
                await systemctl("restart", UNIT)
            if step == "both":
                os.kill(broker, signal.SIGKILL)
            if step != "reexec":
                os.kill(main, signal.SIGKILL)
            main = await _next_main(main)
            assert await _broker(there) != broker
            assert ended(broker)
            async with there.client("looks") as looks:
                assert await app_server_pid(looks) == app_server
                joined = await join(looks, thread)
                assert joined["thread"]["status"]["type"] == "active", step
                assert await there.kept() == kept, "nothing is kept twice"
        async with there.client("after") as after:
            await join(after, thread)
            model.release("gate")
            done = await after.wait_method(TURN_COMPLETED, threadId=thread)
            assert (done["params"]["turn"]["id"], done["params"]["turn"]["status"]) == (
                turn,
                "completed",
            )
            assert text_of(after, thread) == ["one two"]

            # The app-server is renewed, and kept in the place of the other one.
            assert await after.request("mux/restart", {"now": False}, timeout=PATIENCE)
            renewed = await app_server_pid(after)
            assert ended(app_server)
            assert await there.kept() == kept
            await systemctl("restart", UNIT)
        async with there.client("again") as again:
            assert await app_server_pid(again) == renewed

            assert not ended(int(left.read_text())), "a restart ends nothing"
            await systemctl("stop", UNIT)
            await again.wait_gone()
            assert again.link.connection.closed.code == 1001  # type: ignore[attr-defined]
        assert ended(renewed)
        assert ended(int(left.read_text()))
        assert await there.kept() == 0
        assert await systemctl("show", "--property=Result", "--value", UNIT) == "success"


async def _broker(there: Service) -> Json:
    async with there.client("looks") as looks:
        return (await status(looks))["broker"]  # type: ignore[no-any-return]


async def test_an_app_server_that_dies_while_nobody_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is a crash of the app-server, as any other: the turn is told to be interrupted."""
    model = Scripted()
    model.on("tell", Say(chunks=("one ", Hold("gate"), "two")))
    async with service(monkeypatch, model) as there, there.client("before", **AWARE) as before:
        thread = await there.thread(before)
        app_server, main = await app_server_pid(before), await main_pid()
        turn = await before.start_turn(thread, "tell")
        await before.wait_method(DELTA, threadId=thread)
        broker = (await _broker(there))["pid"]
        for pid in (main, broker, app_server):
            os.kill(pid, signal.SIGKILL)
        async with there.client("after", **AWARE) as after:
            cursor = {name: before.hello["appmux"][name] for name in ("epoch", "seq")}
            await after.request("mux/replay", {"after": cursor, "threadIds": [thread]})
            done = await after.wait(
                lambda m: m.get("method") == TURN_COMPLETED and m["params"]["turn"]["id"] == turn
            )
            assert done["params"]["turn"]["status"] == "interrupted"
            await join(after, thread)
            assert (await after.run_turn(thread, "hello"))["status"] == "completed"
            report = await status(after)
            assert (report["appServer"]["generation"], report["broker"]["handovers"]) == (2, 1)


async def test_an_upgrade_under_the_running_service(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The program is replaced, then the service restarted: another version, the same turn."""
    model = Scripted()
    model.on("tell", Say(chunks=("one ", Hold("gate"), "two")))
    program = Installed(tmp_path)
    program.install("0.1.1")
    async with service(monkeypatch, model) as there:
        await _drop_in(there, f"Environment=PYTHONPATH={tmp_path}")
        async with there.client("before") as before:
            assert (await status(before))["broker"]["version"] == "0.1.1"
            thread, app_server = await there.thread(before), await app_server_pid(before)
            await before.start_turn(thread, "tell")
            await before.wait_method(DELTA, threadId=thread)
            program.install("0.1.2")
            done = await appmux("service", "restart", "--json")  # asks nothing: no turn ends
            assert json.loads(done.stdout)["running"]
        async with there.client("after") as after:
            assert (await status(after))["broker"]["version"] == "0.1.2"
            assert await app_server_pid(after) == app_server
            await join(after, thread)
            model.release("gate")
            await after.wait_method(TURN_COMPLETED, threadId=thread)
            assert text_of(after, thread) == ["one two"]


async def test_a_unit_of_an_older_appmux_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    """It keeps nothing, and a restart ends turns as it did; installed again it keeps them."""
    async with service(monkeypatch, Scripted()) as there:
        unit = there.managed.units / UNIT
        new = unit.read_text()
        lines = [line for line in new.splitlines() if "DESCRIPTOR" not in line.upper()]
        old = "\n".join(lines).replace("KillMode=process", "KillMode=mixed")
        unit.write_text(old)
        await systemctl("daemon-reload")
        await systemctl("stop", UNIT)
        async with there.client("one") as one:
            app_server = await app_server_pid(one)
            assert await there.kept() == 0
            await systemctl("restart", UNIT)
            await one.wait_gone()
            assert one.link.connection.closed.code == 1001  # type: ignore[attr-defined]
            assert ended(app_server)
        assert "+KillMode=process" in (await appmux("service", "install", "--yes")).output
        assert unit.read_text() == new
        async with there.client("two") as two:
            app_server = await app_server_pid(two)
        await systemctl("restart", UNIT)
        async with there.client("three") as three:
            assert await app_server_pid(three) == app_server


async def test_what_another_version_left_with_systemd_is_let_go(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A newer one, which remembers otherwise: another app-server begins, and it is said."""
    program = Installed(tmp_path)
    program.install("9.0")
    store = tmp_path / "mux" / "supervisor" / "descriptor_store.py"
    text = store.read_text().replace("VERSION: Final = 1", "VERSION: Final = 2")
    store.write_text(text.replace('BROKER: Final = "broker"', 'BROKER: Final = "the-broker"'))
    async with service(monkeypatch, Scripted()) as there:
        await _drop_in(there, f"Environment=PYTHONPATH={tmp_path}")
        async with there.client("before") as before:
            thread, app_server = await there.thread(before), await app_server_pid(before)
        kept = await there.kept()
        program.install("0.1.0")
        await systemctl("restart", UNIT)
        async with there.client("after") as after:
            assert await app_server_pid(after) != app_server
            assert ended(app_server)
            await join(after, thread)
            assert "another version" in (await status(after))["broker"]["handoverTrouble"]
            assert await there.kept() == kept


async def test_starts_in_vain_come_more_and_more_rarely(monkeypatch: pytest.MonkeyPatch) -> None:
    """With wrong settings; once they are right a restart waits for nothing."""
    async with service(monkeypatch, Scripted()) as there:
        settings = there.managed.home.home / ".config" / "appmux" / "config.toml"
        right = settings.read_text()
        settings.write_text("nonsense = 1\n")
        await systemctl("stop", UNIT)
        await systemctl("start", "--no-block", UNIT)
        with trio.fail_after(PATIENCE):
            while await _restarts() < 4:  # noqa: ASYNC110 (systemd does not say)
                await trio.sleep(0.05)
        since = trio.current_time()
        with trio.fail_after(PATIENCE):
            while await _restarts() < 5:  # noqa: ASYNC110 (as above)
                await trio.sleep(0.05)
        assert trio.current_time() - since > 0.2 * 2**3
        settings.write_text(right)
        await systemctl("restart", UNIT)
        async with there.client("one") as one:
            await app_server_pid(one)


async def _restarts() -> int:
    return int(await systemctl("show", "--property=NRestarts", "--value", UNIT))


async def _drop_in(there: Service, line: str) -> None:
    """Add a line to the service, and start it with that."""
    place = there.managed.units / f"{UNIT}.d"
    place.mkdir()
    (place / "test.conf").write_text(f"[Service]\n{line}\n")
    await systemctl("daemon-reload")
    await systemctl("stop", UNIT)
    await systemctl("start", UNIT)
