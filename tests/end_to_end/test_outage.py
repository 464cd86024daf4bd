"""While no app-server runs: what waits, what is answered all the same, and when it is given up."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import trio

from tests.end_to_end.brokered import brokered, client
from tests.end_to_end.lives import app_server, appmux, kill_app_server, life, staged, stood_in
from tests.end_to_end.native import codex_bin
from tests.end_to_end.peer import Peer, RpcError, connect_ws
from tests.end_to_end.scenes import TURN_COMPLETED, ended, shared_thread

DOWN_WAIT = 60.0
LAST_WORDS = "Error: config.toml is broken\nfix line 5\n"


# --- Start-up ------------------------------------------------------------------------------------


async def test_killed_during_its_start_up_another_one_is_started(tmp_path: Path) -> None:
    async with (
        staged(tmp_path) as stage,
        client(stage.broker, "desk") as desk,
        client(stage.broker, "phone") as phone,
    ):
        thread = await shared_thread(stage.broker, desk, phone)
        stage.keep_back()
        await kill_app_server(desk)
        await stage.kept_back()
        await life(desk, 2, "initializing")  # the script runs before its start is told
        asked = await phone.ask("thread/loaded/list")
        async with connect_ws(stage.broker.url) as newcomer:
            hello = await newcomer.initialize("newcomer")  # is answered at once
            assert hello["userAgent"].endswith("(newcomer; 0.1)")
            begun = await newcomer.ask("thread/resume", {"threadId": thread})

            await kill_app_server(desk)
            await stage.kept_back()
            await life(desk, 3, "initializing")
            await stage.let_go()
            assert (await phone.result(asked))["data"] == [thread]
            assert (await newcomer.result(begun))["thread"]["id"] == thread
            mark = len(phone.inbox)
            await desk.run_turn(thread, "go on")
            for peer in (phone, newcomer):
                await peer.wait_method(TURN_COMPLETED, since=mark if peer is phone else 0)


async def test_a_replay_asked_meanwhile_waits_and_misses_nothing() -> None:
    aware = {"extensions": {"appmux": {"version": 1}}}
    late = {"APPMUX_LIMITS_RESTART_FIRST_WAIT": "2"}  # so the next one is started after a second
    async with brokered(environ=late) as broker, client(broker, "desk") as desk:
        async with client(broker, "phone", **aware) as phone:
            thread = await shared_thread(broker, desk, phone)
            own = await phone.start_thread(broker.home.work)
            await phone.run_turn(own, "mine")
            epoch = phone.hello["appmux"]["epoch"]
            seq = max(each.get("seq", 0) for each in phone.inbox)
        await kill_app_server(desk)
        async with client(broker, "phone", **aware) as back:
            told = await back.request("mux/replay", {"after": {"epoch": epoch, "seq": seq}})
            assert (told["threads"], told["missing"]) == (sorted([thread, own]), [])
            await back.run_turn(own, "go on")
            await desk.run_turn(thread, "and on")
            await back.wait_method(TURN_COMPLETED, threadId=thread)


async def test_what_waits_too_long_gets_an_error(tmp_path: Path) -> None:
    limits = {"APPMUX_LIMITS_COMING_UP": "0.5"}
    async with staged(tmp_path, environ=limits) as stage, client(stage.broker, "desk") as desk:
        stage.keep_back()
        await kill_app_server(desk)
        await stage.kept_back()
        await life(desk, 2, "initializing")  # or the first error may name the life before
        for method, retryable in (("thread/list", True), ("thread/start", False)):
            with pytest.raises(RpcError, match=r"did not come up within 0\.5 s") as failed:
                await desk.request(method)
            assert failed.value.data == {"generation": 2, "retryable": retryable}
        await stage.let_go()
        await life(desk, 2)
        assert (await desk.request("thread/list"))["data"] == []


# --- It stays down -------------------------------------------------------------------------------


async def test_after_five_deaths_it_is_down_and_somebody_may_ask_for_it() -> None:
    async with (
        brokered() as broker,
        client(broker, "desk") as desk,
        client(broker, "phone") as phone,
    ):
        thread = await shared_thread(broker, desk, phone)
        for generation in range(1, 6):
            await life(desk, generation)
            await kill_app_server(desk)
        assert (await life(desk, 5, "down"))["pid"] is None
        for peer in (desk, phone):
            with pytest.raises(RpcError, match="down, see `appmux status`; it is started again"):
                await peer.request("thread/list")
        async with client(broker, "newcomer") as newcomer:
            assert newcomer.hello["userAgent"].endswith("(newcomer; 0.1)")
            told = await newcomer.request("mux/restart")
            assert told == {"generation": 6, "version": version(newcomer)}
        mark = len(phone.inbox)
        await desk.run_turn(thread, "go on")
        await phone.wait_method(TURN_COMPLETED, since=mark)


def version(peer: Peer) -> str:
    """The app-server's own, as every client is told it."""
    return str(peer.hello["userAgent"]).partition("/")[2].partition(" ")[0]


async def test_down_its_last_words_are_shown_and_a_restart_tries_again(tmp_path: Path) -> None:
    limits = {
        "APPMUX_LIMITS_RESTART_FIRST_WAIT": "0.02",
        "APPMUX_LIMITS_DOWN_FIRST_WAIT": str(DOWN_WAIT),  # or it would come up by itself
    }
    async with staged(tmp_path, environ=limits) as stage, client(stage.broker, "desk") as desk:
        thread = await shared_thread(stage.broker, desk)
        stage.spoil(LAST_WORDS)
        await kill_app_server(desk)
        server = await life(desk, 5, "down")
        assert server["lastWords"][-2:] == LAST_WORDS.splitlines()
        shown = await appmux(stage.broker, "status")
        assert "the app-server is down: it died too often" in shown.stdout
        assert "is started again in" in shown.stdout
        assert 0 < server["nextStartSeconds"] <= DOWN_WAIT
        assert "it said: Error: config.toml is broken" in shown.stdout

        failed = await appmux(stage.broker, "restart")
        assert (failed.returncode, failed.stdout) == (1, "")
        assert "Error: the restart failed: the app-server is down: exit status 3" in failed.stderr
        assert (await app_server(desk))["generation"] == 10
        stage.mend()
        done = await appmux(stage.broker, "restart")
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout == (f"codex {version(desk)} runs, as generation 11 of the app-server\n")
        assert (await desk.run_turn(thread, "go on"))["status"] == "completed"


async def test_a_binary_that_is_gone_for_longer_than_a_burst_is_found_when_it_is_back(
    tmp_path: Path,
) -> None:
    """As in an upgrade, which takes seconds: nobody has to type a command."""
    limits = {
        "APPMUX_LIMITS_RESTART_FIRST_WAIT": "0.02",
        "APPMUX_LIMITS_DOWN_FIRST_WAIT": "0.2",
    }
    codex, away = tmp_path / "codex", tmp_path / "away"
    codex.symlink_to(codex_bin())
    async with brokered(environ=limits, codex=str(codex)) as broker, client(broker, "a") as peer:
        thread = await shared_thread(broker, peer)
        await trio.Path(codex).rename(away)
        await kill_app_server(peer)
        await broker.wait_log("app-server is down; it is started again")
        with pytest.raises(RpcError, match="it is started again in"):
            await peer.request("thread/list")
        await trio.Path(away).rename(codex)
        await life(peer, 2)
        assert (await peer.run_turn(thread, "go on"))["status"] == "completed"


# --- Ends that are none --------------------------------------------------------------------------


async def test_one_that_hangs_is_killed_and_another_one_started() -> None:
    limits = {"APPMUX_LIMITS_PROBE_INTERVAL": "0.5", "APPMUX_LIMITS_PROBE_DEADLINE": "6"}
    async with (
        brokered(environ=limits) as broker,
        client(broker, "desk") as desk,
        client(broker, "phone") as phone,
    ):
        thread = await shared_thread(broker, desk, phone)
        pid = await kill_app_server(desk, signal.SIGSTOP)
        with pytest.raises(RpcError) as failed:
            await phone.request("thread/list")
        assert failed.value.data == {"generation": 1, "retryable": True}
        await life(desk, 2)
        assert ended(pid)
        await broker.wait_log("no sign of life within 6 s")
        assert (await desk.run_turn(thread, "go on"))["status"] == "completed"


async def test_a_line_that_is_cut_by_the_end_is_dropped_whole(tmp_path: Path) -> None:
    async with stood_in(tmp_path) as broker, client(broker, "desk") as desk:
        cut = await desk.ask("fault/cutLine")
        with pytest.raises(RpcError, match="ended before it answered"):
            await desk.result(cut)
        assert await desk.request("any", {"n": 1}) == {"n": 1, "asked": 1}
        texts = [each["params"]["message"] for each in desk.heard("warning")]
        assert texts == ["whole"]
        assert "half a l" not in "".join(map(str, desk.raw))
        assert "app-server wrote a line that is no message" not in broker.shown()
        assert (await app_server(desk))["generation"] == 2


async def test_one_that_closes_its_stdout_has_ended(tmp_path: Path) -> None:
    async with stood_in(tmp_path) as broker, client(broker, "desk") as desk:
        pid = (await app_server(desk))["pid"]
        closed = await desk.ask("fault/closeStdout")
        with pytest.raises(RpcError, match="ended before it answered"):
            await desk.result(closed)
        assert ended(pid)
        assert await desk.request("any", {"n": 1}) == {"n": 1, "asked": 1}


async def test_its_end_is_seen_though_a_child_of_it_has_its_pipes(tmp_path: Path) -> None:
    async with stood_in(tmp_path) as broker, client(broker, "desk") as desk:
        noted = tmp_path / "child"
        left = await desk.ask("fault/leaveChild", {"into": str(noted)})
        try:
            with pytest.raises(RpcError, match="ended before it answered"):
                await desk.result(left)
            assert await desk.request("any", {"n": 1}) == {"n": 1, "asked": 1}
        finally:
            os.kill(int(noted.read_text()), signal.SIGKILL)
