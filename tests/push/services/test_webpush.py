"""Web Push and UnifiedPush: read by an independent library, and what the answers mean."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from pathlib import Path

import attrs
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP256R1,
    EllipticCurvePublicKey,
    derive_private_key,
    generate_private_key,
)
from msgspec.structs import replace

from mux.config import model
from mux.push.outcome import Delivered, Failed, Gone, Outcome, Retry
from mux.push.services import webpush_encryption
from mux.push.services.registry import Services, open_services
from mux.push.services.vapid import open_vapid
from mux.push.services.webpush_encryption import PLAIN_BYTES, encrypt, public_bytes
from tests.certificates import issue
from tests.push.browser import Browser, text
from tests.push.stand import Said, Stand, standing
from tests.push.told import NOW, endpoint, push


def raw(encoded: str) -> bytes:
    return base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4))


@attrs.define(kw_only=True)
class Subscribed(Browser):
    """A browser, its push service on a stand, and our side."""

    stand: Stand
    services: Services
    state_dir: Path


@pytest.fixture
async def browser(tmp_path: Path) -> AsyncIterator[Subscribed]:
    issued = issue(tmp_path)
    ca = tmp_path / "ca.pem"
    issued.authority.cert_pem.write_to_path(str(ca))
    async with standing(issued) as stand:
        settings = model.Push(
            ca_file=ca,
            private_hosts=("localhost",),
            webpush=model.WebPush(subject="mailto:ada@example.org"),
        )
        services = open_services(settings, tmp_path)
        yield Subscribed(stand.url, stand=stand, services=services, state_dir=tmp_path)
        await services.web.aclose()


async def test_a_push_is_read_by_the_browser_alone(browser: Subscribed) -> None:
    browser.stand.answers = [Said(201)]
    outcome = await browser.services.deliver(browser.registration, push(), NOW)
    assert outcome == Delivered("201")
    (heard,) = browser.stand.heard
    assert heard.path == "/push/secret-path"
    assert json.loads(browser.read(heard.body)) == push().document()
    assert b"jam" not in heard.body
    wanted = {
        "ttl": "3600",
        "urgency": "high",
        "topic": "thread-a",
        "content-encoding": "aes128gcm",
    }
    assert {name: heard.headers[name] for name in wanted} == wanted


async def test_a_pages_push_is_declarative(browser: Subscribed) -> None:
    there = replace(browser.registration, navigate="https://box.example/")
    await browser.services.deliver(there, push(host="box", badge=2), NOW)
    await browser.services.deliver(there, push().withdrawal(0, NOW + 60), NOW)
    shown, withdrawn = browser.stand.heard
    assert shown.headers["content-type"] == "application/notification+json"
    told = json.loads(browser.read(shown.body))
    assert told["web_push"] == 8030
    assert told["notification"]["title"] == "Tidy the larder · box"
    assert withdrawn.headers["content-type"] == "application/octet-stream"
    assert json.loads(browser.read(withdrawn.body))["withdraw"] is True


async def test_the_push_service_can_tell_who_we_are(browser: Subscribed) -> None:
    await browser.services.deliver(browser.registration, push(), NOW)
    await browser.services.deliver(browser.registration, push(), NOW + 3600)
    await browser.services.deliver(browser.registration, push(), NOW + 12 * 3600)
    headers = [heard.headers["authorization"] for heard in browser.stand.heard]
    assert headers[0] == headers[1] != headers[2]
    scheme, _, rest = headers[0].partition(" ")
    parts = dict(part.strip().split("=", 1) for part in rest.split(","))
    key = EllipticCurvePublicKey.from_encoded_point(SECP256R1(), raw(parts["k"]))
    claims = jwt.decode(parts["t"], key, ["ES256"], audience=browser.stand.url)
    assert scheme == "vapid"
    assert claims["sub"] == "mailto:ada@example.org"
    assert claims["exp"] - NOW <= 24 * 3600
    ours = open_vapid(model.WebPush(), browser.state_dir)
    assert parts["k"] == ours.public_key, "the key is the one that apps are told"
    assert (browser.state_dir / "vapid.pem").stat().st_mode & 0o777 == 0o600


async def test_a_long_push_fits(browser: Subscribed) -> None:
    told = push(body="“x” " * 3000)
    assert isinstance(await browser.services.deliver(browser.registration, told, NOW), Delivered)
    (heard,) = browser.stand.heard
    assert len(heard.body) <= webpush_encryption.RECORD_BYTES
    read = browser.read(heard.body)
    assert PLAIN_BYTES - 20 < len(read) <= PLAIN_BYTES
    assert json.loads(read)["body"].endswith("…")


def test_the_example_of_the_standard() -> None:
    """RFC 8291, section 5: the same keys and salt make the same message."""
    plain = b"When I grow up, I want to be a watermelon"
    number = int.from_bytes(raw("yfWPiYE-n46HLnH0KqZOF1fJJU3MYrct3AELtAQ-oRw"))
    receiver = raw(
        "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4"
    )
    made = webpush_encryption._sealed(
        plain,
        EllipticCurvePublicKey.from_encoded_point(SECP256R1(), receiver),
        raw("BTBZMqHH6r4Tts7J_aSIgg"),
        derive_private_key(number, SECP256R1()),
        raw("DGv6ra1nlYgDCS1FRnbzlw"),
    )
    assert text(made) == (
        "DGv6ra1nlYgDCS1FRnbzlwAAEABBBP4z9KsN6nGRTbVYI_c7VJSPQTBtkgcy27mlmlMoZIIgDll6e3vCYLocInmYWAm"
        "S6TlzAC8wEqKK6PBru3jl7A_yl95bQpu6cVPTpK4Mqgkf1CXztLVBSt2Ks3oZwbuwXPXLWyouBWLVWGNWQexSgSxsj_"
        "Qulcy4a-fN"
    )


def test_no_two_messages_are_alike() -> None:
    key = generate_private_key(SECP256R1())
    point = public_bytes(key.public_key())
    assert encrypt(b"same", point, bytes(16)) != encrypt(b"same", point, bytes(16))


@pytest.mark.parametrize(
    ("said", "outcome"),
    [
        (Said(404), Gone("404")),
        (Said(410, b"expired"), Gone("410 expired")),
        (Said(413), Failed("413: the service carries less than 3993 bytes")),
        (Said(429, headers={"retry-after": "60"}), Retry(60.0, "429")),
        (
            Said(429, headers={"retry-after": "Fri, 15 Jan 2027 08:00:30 GMT"}),
            Retry(30.0, "429"),
        ),
        (Said(503, headers={"retry-after": "soon"}), Retry(None, "503")),
        (Said(400, b"bad\x1b[31m\nVAPID"), Failed("400 bad?[31m VAPID")),
        (
            Said(307, headers={"location": "http://127.0.0.1/"}),
            Failed("307 redirects, which isn't followed"),
        ),
    ],
)
async def test_what_an_answer_means(browser: Subscribed, said: Said, outcome: Outcome) -> None:
    browser.stand.answers = [said]
    assert await browser.services.deliver(browser.registration, push(), NOW) == outcome
    assert len(browser.stand.heard) == 1


async def test_a_key_that_is_no_point_is_dropped(browser: Subscribed) -> None:
    address = dict(browser.registration.address) | {"p256dh": text(b"\x04" + bytes(64))}
    outcome = await browser.services.deliver(endpoint("webpush", **address), push(), NOW)
    assert isinstance(outcome, Gone)


async def test_unifiedpush_with_keys_is_web_push(browser: Subscribed) -> None:
    there = endpoint("unifiedpush", **browser.registration.address)
    await browser.services.deliver(there, push(), NOW)
    (heard,) = browser.stand.heard
    assert json.loads(browser.read(heard.body)) == push().document()


async def test_unifiedpush_without_keys_tells_little_and_gives_no_ticket(
    browser: Subscribed,
) -> None:
    there = endpoint("unifiedpush", endpoint=f"{browser.stand.url}/up/x")
    await browser.services.deliver(there, push(), NOW)
    (heard,) = browser.stand.heard
    bare = replace(push().at("opaque"), ticket=None, actions=())
    assert heard.json == bare.document()
    assert heard.headers["ttl"] == "3600"
    assert "content-encoding" not in heard.headers
