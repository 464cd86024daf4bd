"""HTTP on the port of the WebSockets, through the whole broker; and the upgrade from it."""

from __future__ import annotations

import hashlib
import stat

import trio

from tests import knocks
from tests.end_to_end.brokered import brokered
from tests.end_to_end.frames import PING, PONG, TEXT, frame, framer
from tests.end_to_end.native import Native
from tests.end_to_end.peer import connect_unix, connect_ws
from tests.end_to_end.scenes import LIST

DIGEST = hashlib.sha256(knocks.TOKEN.encode()).hexdigest()
GUARDED = ("--ws-auth", "capability-token", "--ws-token-sha256", DIGEST)


async def _knock(broker: Native, sent: bytes) -> knocks.Reply:
    host, _, port = broker.url.removeprefix("ws://").rpartition(":")
    async with await trio.open_tcp_stream(host, int(port)) as stream:
        return await knocks.ask(stream, sent)


async def test_every_knock_is_answered_as_natively() -> None:
    got = {}
    async with brokered(*GUARDED) as broker, connect_ws(broker.url, knocks.TOKEN) as peer:
        await peer.initialize("inside")
        for name, (sent, _, _) in knocks.CASES.items():
            reply = await _knock(broker, sent)
            got[name] = (reply.status, "" if reply.status == 101 else reply.body)
        assert await peer.request(LIST) == {"data": [], "nextCursor": None}
    assert got == {name: (status, body) for name, (_, status, body) in knocks.CASES.items()}


async def test_nothing_is_negotiated_in_the_upgrade() -> None:
    sent = knocks.CASES["extensions and subprotocols"][0]
    async with brokered(*GUARDED) as broker:
        reply = await _knock(broker, sent)
        assert reply.status == 101
        wanted = {"connection", "upgrade", "sec-websocket-accept"}
        assert reply.headers.keys() - {"date", "server"} == wanted


async def test_a_client_need_not_wait_for_the_answer_to_its_upgrade() -> None:
    early = frame(TEXT, b'{"id":1,"method":"mux/status"}') + frame(PING, b"there?")
    async with brokered() as broker, framer(broker.url, "/any?a=b", early) as opened:
        answer = await opened.answer()
        assert "appServer" in answer["result"]
        assert await opened.receive() == (PONG, b"there?")


async def test_a_unix_socket_is_its_users_own() -> None:
    async with brokered(*GUARDED) as broker:
        assert stat.S_IMODE(broker.socket.stat().st_mode) == 0o600
        assert stat.S_IMODE(broker.socket.parent.stat().st_mode) == 0o700
        for path in ("/", "/rpc", "/any/path"):  # and asks for no token
            async with connect_unix(broker.socket, path) as peer:
                await peer.initialize("at home")
        async with await trio.open_unix_socket(broker.socket) as stream:
            reply = await knocks.ask(stream, knocks.request("GET /readyz"))
            assert (reply.status, reply.body) == (200, "")
