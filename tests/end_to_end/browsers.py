"""A browser on a test bench, without the browser: its key, its pairing, its challenge.

What a real one does beyond that, `chromium` shows.

Hands to: the tests. Hears from: the broker, at `POST /v1/session` and on a WebSocket.
"""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import attrs
import trio
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils

from tests import knocks
from tests.end_to_end.native import Native
from tests.end_to_end.peer import Json, Peer, connect

SUBPROTOCOL: Final = "appmux.v1"


def base64url(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def origin_of(broker: Native) -> str:
    """The origin of the pages that the broker serves."""
    return broker.url.replace("ws", "http", 1)


@attrs.define
class Key:
    """A browser's key pair."""

    private: ec.EllipticCurvePrivateKey = attrs.field(
        factory=lambda: ec.generate_private_key(ec.SECP256R1())
    )

    @property
    def jwk(self) -> Json:
        """The public half, as WebCrypto exports it."""
        numbers = self.private.public_key().public_numbers()
        x, y = (base64url(each.to_bytes(32, "big")) for each in (numbers.x, numbers.y))
        return {"kty": "EC", "crv": "P-256", "x": x, "y": y, "ext": True, "key_ops": ["verify"]}

    def sign(self, *lines: str) -> str:
        """A signature of lines, as WebCrypto makes it."""
        signature = self.private.sign("\n".join(lines).encode(), ec.ECDSA(hashes.SHA256()))
        r, s = utils.decode_dss_signature(signature)
        return base64url(r.to_bytes(32, "big") + s.to_bytes(32, "big"))


@attrs.define
class Browser:
    """A browser that is at one origin."""

    origin: str
    key: Key = attrs.field(factory=Key)
    device: str = ""
    nonce: str = "a nonce"

    async def send(self, method: str, path: str, body: Json | None = None, *more: str) -> Any:
        """Send a plain request; the reply."""
        text = "" if body is None else json.dumps(body)
        host = self.origin.partition("://")[2]
        length = [] if body is None else [f"content-length: {len(text.encode())}"]
        lines = [f"host: {host}", f"origin: {self.origin}", *length, *more]
        sent = "\r\n".join([f"{method} {path} HTTP/1.1", *lines, "", text])
        name, _, port = host.rpartition(":")
        async with await trio.open_tcp_stream(name.strip("[]"), int(port)) as stream:
            return await knocks.ask(stream, sent.encode())

    async def redeem(self, **redeemed: str) -> tuple[int, Json]:
        """Send a ticket or letters, once; status and answer."""
        asked = {"name": "a browser", "nonce": self.nonce, "key": self.key.jwk, **redeemed}
        reply = await self.send("POST", "/v1/session", asked)
        return reply.status, json.loads(reply.body)

    async def pair(self, operator: Peer, *scopes: str, **wanted: Any) -> Json:
        """Be paired, as the operator and the browser do it together; what it is told."""
        begun = await operator.request("mux/pairing/begin", {"scopes": list(scopes), **wanted})
        told: Json = {}
        async with trio.open_nursery() as nursery:

            async def ask() -> None:
                status, answer = await self.redeem(ticket=begun["ticket"])
                assert status == 200, answer
                told.update(answer)

            nursery.start_soon(ask)
            await operator.wait_method("mux/pairing/asked", id=begun["id"])
            await operator.request("mux/pairing/confirm", {"id": begun["id"], "accept": True})
        self.device = told["device"]
        return told

    @asynccontextmanager
    async def knock(self, headers: Sequence[tuple[str, str]] = ()) -> AsyncIterator[Peer]:
        """A WebSocket on which nothing was proved yet."""
        host = self.origin.partition("://")[2]
        name, _, port = host.rpartition(":")
        stream = await trio.open_tcp_stream(name.strip("[]"), int(port))
        more = [("Origin", self.origin), *headers]
        async with connect(stream, host, "/", more, subprotocols=[SUBPROTOCOL]) as peer:
            yield peer

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[Peer]:
        """A WebSocket on which it has proved who it is; `hello` is what it was told."""
        async with self.knock() as peer:
            peer.hello = await self.prove(peer)
            yield peer

    async def prove(self, peer: Peer) -> Json:
        """Answer the challenge; what that is answered."""
        challenge = (await peer.wait_method("mux/session/challenge"))["params"]
        told: Json = await peer.request("mux/session/prove", self.proof(challenge))
        return told

    def proof(self, challenge: Json) -> Json:
        """The answer to a challenge."""
        lines = (self.device, challenge["nonce"], self.origin, str(challenge["time"]))
        return {"device": self.device, "signature": self.key.sign("appmux challenge", *lines)}
