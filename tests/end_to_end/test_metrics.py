"""`/metrics` of a whole broker, over the real app-server."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import pytest
import trio

from mux.demo.scripted_model import Hold, Run, Say, Scripted
from tests import knocks
from tests.end_to_end.brokered import brokered, client
from tests.end_to_end.lives import kill_app_server, life
from tests.end_to_end.native import Native
from tests.end_to_end.peer import RpcError, connect_ws
from tests.end_to_end.scenes import (
    APPROVAL,
    DECLINE,
    DELTA,
    TURN_COMPLETED,
    shared_thread,
    status_shows,
)
from tests.end_to_end.stalling import stalling
from tests.server.observability.test_metrics import queries, samples

CHUNKS = 40
MUCH = {"APPMUX_LIMITS_OUTBOX_BYTES": "20000", "APPMUX_LIMITS_CATCH_UP_BYTES": "10000"}


async def _scrape(broker: Native) -> Mapping[str, float]:
    """What it says now."""
    host, _, port = broker.url.removeprefix("ws://").rpartition(":")
    async with await trio.open_tcp_stream(host, int(port)) as stream:
        reply = await knocks.ask(stream, knocks.at_address(knocks.request("GET /metrics")))
    assert reply.status == 200
    assert reply.headers["content-type"].startswith("text/plain; version=")
    return samples(reply.body)


async def test_a_turn_an_approval_and_a_restart_are_counted() -> None:
    model = Scripted()
    model.on("talk", Say(chunks=(*["abcd "] * CHUNKS, Hold("mid"), "over")))
    model.on("run it", Run("echo no", escalated=True), Say("Over."))
    async with brokered(model=model) as broker, client(broker, "desk") as desk:
        async with client(broker, "phone") as phone:
            thread = await shared_thread(broker, desk, phone)
            before = await _scrape(broker)
            assert before["appmux_app_server_up"] == 1
            assert before["appmux_app_server_generation"] == 1
            assert before["appmux_clients{state=ready}"] == 2
            assert before["appmux_threads_followed"] == 1
            assert before["appmux_turns_running"] == 0

            since = len(phone.inbox)
            await desk.start_turn(thread, "talk")
            await phone.wait_method(DELTA, since=since)
            during = await _scrape(broker)
            assert during["appmux_turns_running"] == 1
            assert during["appmux_turn_requests_total"] == before["appmux_turn_requests_total"] + 1
            since = len(desk.inbox)
            model.release("mid")
            await desk.wait_method(TURN_COMPLETED, since=since)

            since = len(desk.inbox)
            await desk.start_turn(thread, "run it")
            asked = await desk.wait_method(APPROVAL, since=since)
            await phone.wait_method(APPROVAL)
            pending = await _scrape(broker)
            assert pending["appmux_approvals_pending"] == 1
            assert pending["appmux_approvals_oldest_seconds"] > 0
            await desk.respond(asked["id"], {"nonsense": True})
            await desk.respond(asked["id"], DECLINE)
            await desk.wait_method(TURN_COMPLETED, since=since)
            await phone.respond(asked["id"], DECLINE)
            await phone.request("mux/status")  # so it has been heard

        after = await _scrape(broker)
        answers = {
            outcome: after[f"appmux_answers_total{{outcome={outcome}}}"]
            for outcome in ("accepted", "abstained", "late", "refused")
        }
        assert answers == {"accepted": 1, "abstained": 1, "late": 1, "refused": 0}
        assert after["appmux_approvals_pending"] == 0
        assert after["appmux_approvals_oldest_seconds"] == 0
        assert after["appmux_approvals_total"] == 1
        assert after["appmux_clients_attached_total"] == 2
        down = "appmux_messages_total{direction=to_clients}"
        assert after[down] - before[down] >= 2 * CHUNKS
        up = "appmux_messages_total{direction=from_app_server}"
        assert CHUNKS <= after[up] - before[up] < after[down] - before[down]
        assert after["appmux_delivered_bytes_total"] > before["appmux_delivered_bytes_total"]
        assert after["appmux_journal_seq_total"] >= CHUNKS
        assert after["appmux_journal_write_seconds_count"] > 0
        assert after["appmux_journal_bytes"] > 0
        assert sum(v for k, v in after.items() if k.startswith("appmux_disk_trouble")) == 0

        assert after["appmux_pushes_queued"] == after["appmux_pushes_total{end=sent}"] == 0

        await kill_app_server(desk)
        await life(desk, 2)
        again = await _scrape(broker)
        assert again["appmux_app_server_restarts_total"] == 1
        assert again["appmux_app_server_process_resident_memory_bytes"] > 0
        known = {name.partition("{")[0] for name in again}
        for query in queries():
            assert query.names() <= known, query
            assert query.names(), query


async def test_a_client_that_lags_is_seen() -> None:
    model = Scripted()
    model.on("talk", Say("x" * 400_000, chunks=2000))
    async with (
        brokered(model=model, environ=MUCH) as broker,
        client(broker, "desk") as desk,
        stalling(broker, "slow") as slow,
    ):
        thread = await shared_thread(broker, desk, slow.peer)
        slow.stall()
        await desk.run_turn(thread, "talk")
        seen = await _scrape(broker)
        assert seen["appmux_clients_behind"] == 1
        assert seen["appmux_client_lag_entries_max"] > 0
        assert seen["appmux_client_owed_bytes"] >= seen["appmux_client_owed_bytes_max"] > 0
        slow.go_on()
        await slow.peer.wait_method(TURN_COMPLETED, since=len(slow.peer.inbox), threadId=thread)
        await status_shows(desk, lambda report: all(not c["behind"] for c in report["clients"]))
        seen = await _scrape(broker)
        assert seen["appmux_clients_behind"] == seen["appmux_client_lag_entries_max"] == 0


async def test_refusals_are_counted() -> None:
    digest = hashlib.sha256(knocks.TOKEN.encode()).hexdigest()
    guarded = ("--ws-auth", "capability-token", "--ws-token-sha256", digest)
    async with brokered(*guarded) as broker:
        host, _, port = broker.url.removeprefix("ws://").rpartition(":")
        for name in ("the upgrade, unauthorized", "the upgrade"):
            async with await trio.open_tcp_stream(host, int(port)) as stream:
                await knocks.ask(stream, knocks.CASES[name][0])
        await broker.wait_log('"client left"')  # the one that was let in
        seen = await _scrape(broker)
        assert seen["appmux_authentication_failures_total"] == 1
        async with connect_ws(broker.url, knocks.TOKEN) as peer:
            with pytest.raises(RpcError):
                await peer.request("thread/list")  # before its handshake
            seen = await _scrape(broker)
            assert seen["appmux_clients{state=attached}"] == 1
