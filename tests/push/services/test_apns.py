"""Apple's push service: what it is sent, over HTTP/2 and TLS, and what its answers mean."""

from __future__ import annotations

import contextlib
import json
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import attrs
import jwt
import pytest
import trio
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from mux.config import model
from mux.push.message import Push
from mux.push.outcome import Delivered, Failed, Gone, Outcome, Retry
from mux.push.services.apns import NOT_BEFORE, PAYLOAD_BYTES, RENEW_AFTER, Apns, payload
from mux.push.services.registry import Services, open_services
from tests.certificates import Issued, issue
from tests.push.stand import Said, Stand, standing
from tests.push.told import NOW, endpoint, push

TOKEN = "ab" * 32
PHONE = endpoint("apns", token=TOKEN, environment="sandbox")


@attrs.define
class Apple:
    stand: Stand
    services: Services
    public: str
    issued: Issued

    async def deliver(self, told: Push, now: float = NOW) -> Outcome:
        return await self.services.deliver(PHONE, told, now)


@pytest.fixture
async def apple(tmp_path: Path) -> AsyncIterator[Apple]:
    key = generate_private_key(SECP256R1())
    p8 = tmp_path / "AuthKey.p8"
    p8.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    p8.chmod(0o600)
    issued = issue(tmp_path)
    ca = tmp_path / "ca.pem"
    issued.authority.cert_pem.write_to_path(str(ca))
    async with standing(issued) as stand:
        settings = model.Push(
            ca_file=ca,
            apns=model.Apns(
                key_file=p8, key_id="KEY1234567", team_id="TEAM123456", topic="org.app",
                url=stand.url,
            ),
        )  # fmt: skip
        services = open_services(settings, tmp_path)
        public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        yield Apple(stand, services, public.decode(), issued)
        await services.web.aclose()


async def test_an_alert(apple: Apple) -> None:
    apple.stand.answers = [Said(200, headers={"apns-id": "x-y"})]
    assert await apple.deliver(push()) == Delivered("200, apns-id x-y")
    (heard,) = apple.stand.heard
    assert (heard.http, heard.method, heard.path) == ("2", "POST", f"/3/device/{TOKEN}")
    wanted = {
        "apns-topic": "org.app",
        "apns-push-type": "alert",
        "apns-priority": "10",
        "apns-expiration": str(int(NOW + 3600)),
        "apns-collapse-id": "thread-a",
        "apns-id": push().delivery,
    }
    assert {name: heard.headers[name] for name in wanted} == wanted
    scheme, _, token = heard.headers["authorization"].partition(" ")
    claims = jwt.decode(token, apple.public, ["ES256"], options={"verify_iat": False})
    assert (scheme, claims) == ("bearer", {"iss": "TEAM123456", "iat": int(NOW)})
    assert jwt.get_unverified_header(token)["kid"] == "KEY1234567"
    aps = heard.json["aps"]
    assert aps["alert"] == {"title": "Tidy the larder", "body": "rm -r jam/"}
    assert (aps["mutable-content"], aps["category"]) == (1, "APPMUX_APPROVAL")
    assert heard.json["appmux"]["count"] == 2
    assert heard.json["appmux"]["ticket"] == push().ticket


async def test_a_withdrawal_is_silent(apple: Apple) -> None:
    await apple.deliver(push().withdrawal(0, NOW + 60))
    (heard,) = apple.stand.heard
    assert heard.headers["apns-push-type"] == "background"
    assert heard.headers["apns-priority"] == "5"
    assert heard.headers["apns-collapse-id"] == "thread-a"
    assert heard.headers["apns-id"] != push().delivery
    assert heard.json["aps"] == {"content-available": 1}
    assert heard.json["appmux"]["withdraw"] is True


async def test_a_level_says_no_more_than_it_may() -> None:
    opaque = json.loads(payload(push().at("opaque")))
    assert opaque["aps"]["alert"] == {"title": "An approval waits", "body": "2 things wait"}
    title = json.loads(payload(push().at("title")))
    assert title["aps"]["alert"] == {"title": "Tidy the larder", "body": "An approval waits"}
    assert "jam" not in str(opaque) + str(title)


async def test_a_long_body_is_cut_to_what_the_service_takes(apple: Apple) -> None:
    assert isinstance(await apple.deliver(push(body="ж\n" * 5000, title="t" * 200)), Delivered)
    (heard,) = apple.stand.heard
    assert PAYLOAD_BYTES - 50 < len(heard.body) <= PAYLOAD_BYTES
    assert heard.json["aps"]["alert"]["body"].endswith("…")
    assert heard.json["aps"]["alert"]["title"] == "t" * 200


async def test_a_token_is_used_until_it_is_old(apple: Apple) -> None:
    for after in (0, 60, RENEW_AFTER - 1, RENEW_AFTER + 1, RENEW_AFTER + 1800):
        await apple.deliver(push(), NOW + after)
    tokens = [heard.headers["authorization"] for heard in apple.stand.heard]
    assert tokens[0] == tokens[1] == tokens[2] != tokens[3] == tokens[4]


async def test_an_expired_token_is_made_anew_at_once_but_not_too_often(apple: Apple) -> None:
    expired = Said(403, {"reason": "ExpiredProviderToken"})
    await apple.deliver(push())
    apple.stand.answers = [expired]
    assert isinstance(await apple.deliver(push(), NOW + NOT_BEFORE), Delivered)
    first, refused, renewed = (heard.headers["authorization"] for heard in apple.stand.heard)
    assert first == refused != renewed
    apple.stand.answers = [expired]
    outcome = await apple.deliver(push(), NOW + NOT_BEFORE + 60)
    assert isinstance(outcome, Retry)
    assert (outcome.after, outcome.ours) == (NOT_BEFORE - 60, True)
    assert len(apple.stand.heard) == 4


async def test_of_many_that_meet_with_an_expired_token_one_makes_it_anew(apple: Apple) -> None:
    await apple.deliver(push())
    apple.stand.answers = [Said(403, {"reason": "ExpiredProviderToken"})] * 4
    outcomes: list[Outcome] = []

    async def one() -> None:
        outcomes.append(await apple.deliver(push(), NOW + NOT_BEFORE + 1))

    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(one)
    assert all(isinstance(each, Delivered) for each in outcomes)
    assert len({heard.headers["authorization"] for heard in apple.stand.heard}) == 2


@pytest.mark.parametrize(
    ("status", "reason", "headers", "outcome"),
    [
        (410, "Unregistered", {}, Gone("410 Unregistered")),
        (410, "ExpiredToken", {}, Gone("410 ExpiredToken")),
        (400, "BadDeviceToken", {}, Gone("400 BadDeviceToken")),
        (400, "DeviceTokenNotForTopic", {}, Gone("400 DeviceTokenNotForTopic")),
        (400, "BadCollapseId", {}, Failed("400 BadCollapseId")),
        (413, "PayloadTooLarge", {}, Failed("413 PayloadTooLarge")),
        (429, "TooManyRequests", {"retry-after": "7"}, Retry(7.0, "429 TooManyRequests")),
        (
            429,
            "TooManyProviderTokenUpdates",
            {},
            Retry(None, "429 TooManyProviderTokenUpdates", ours=True),
        ),
        (500, "InternalServerError", {}, Retry(None, "500 InternalServerError")),
        (503, "Shutdown", {"retry-after": "30"}, Retry(30.0, "503 Shutdown")),
    ],
)
async def test_what_a_reason_means(
    apple: Apple, status: int, reason: str, headers: dict[str, str], outcome: Outcome
) -> None:
    apple.stand.answers = [Said(status, {"reason": reason}, headers)]
    assert await apple.deliver(push()) == outcome


@pytest.mark.parametrize(
    ("status", "reason"),
    [(403, "InvalidProviderToken"), (403, "Forbidden"), (400, "BadTopic"), (403, "Novel")],
)
async def test_what_lies_in_the_settings_is_said_so(apple: Apple, status: int, reason: str) -> None:
    apple.stand.answers = [Said(status, {"reason": reason})]
    why = f"{status} {reason}: see push.apns in the settings"
    assert await apple.deliver(push()) == Failed(why, ours=True)


@pytest.mark.parametrize("after", [0, 1, 400])
async def test_a_connection_that_is_cut_mid_stream(apple: Apple, after: int) -> None:
    """Over TLS and HTTP/2, having read so many bytes of the request."""
    cut = 0

    async def handle(stream: trio.SSLStream[trio.SocketStream]) -> None:
        nonlocal cut
        read = b""
        with contextlib.suppress(trio.BrokenResourceError):
            while len(read) < after and (part := await stream.receive_some()):
                read += part
        cut += 1
        await trio.aclose_forcefully(stream)

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(apple.issued.cert, apple.issued.key)
    context.set_alpn_protocols(["h2"])
    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        port = listener.socket.getsockname()[1]
        secure = trio.SSLListener(listener, context)
        nursery.start_soon(trio.serve_listeners, handle, [secure])
        apns = apple.services.of["apns"]
        assert isinstance(apns, Apns)
        apns.settings = attrs.evolve(apns.settings, url=f"https://localhost:{port}")
        outcome = await apple.deliver(push())
        nursery.cancel_scope.cancel()
    assert isinstance(outcome, Retry)
    assert not outcome.ours
    assert cut == 1


async def test_a_key_that_cannot_be_used(apple: Apple, tmp_path: Path) -> None:
    key = tmp_path / "AuthKey.p8"
    key.chmod(0o644)
    outcome = await apple.deliver(push())
    assert isinstance(outcome, Retry)
    assert outcome.ours
    assert outcome.reason == f"push.apns.key_file: others may read {key}: `chmod 600 {key}`"
    key.chmod(0o600)
    key.write_text("-----BEGIN PRIVATE KEY-----\nhunter2\n-----END PRIVATE KEY-----")
    outcome = await apple.deliver(push())
    assert isinstance(outcome, Retry)
    assert "isn't a P-256 private key" in outcome.reason
    assert "hunter2" not in outcome.reason
    assert not apple.stand.heard
