"""Firebase: the token that a service account gets, the message, and what the answers mean."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import parse_qs

import attrs
import jwt
import pytest
import trio
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from mux.config import model
from mux.push.message import Push, PushError
from mux.push.outcome import Delivered, Failed, Gone, Outcome, Retry
from mux.push.services.fcm import GRANT, SCOPE, read_account
from mux.push.services.registry import Services, open_services
from tests.certificates import issue
from tests.push.stand import Heard, Said, Stand, standing
from tests.push.told import NOW, endpoint, push

PHONE = endpoint("fcm", token="registration:token")
KEY = generate_private_key(65537, 2048)


@attrs.define
class Google:
    """Both of its servers; each asked for a token gives the next one."""

    stand: Stand
    services: Services
    account: Path
    tokens: int = 0
    messages: list[Said] = attrs.field(factory=list)
    refusal: Said | None = None

    def answer(self, heard: Heard) -> Said:
        if heard.path != "/token":
            return self.messages.pop(0) if self.messages else Said(200, {"name": "projects/p/m/7"})
        if self.refusal:
            return self.refusal
        self.tokens += 1
        return Said(200, {"access_token": f"ya29.{self.tokens}", "expires_in": 3599})

    def heard(self, path: str) -> list[Heard]:
        return [heard for heard in self.stand.heard if heard.path.startswith(path)]

    async def deliver(self, told: Push, now: float = NOW) -> Outcome:
        return await self.services.deliver(PHONE, told, now)


@pytest.fixture
async def google(tmp_path: Path) -> AsyncIterator[Google]:
    issued = issue(tmp_path)
    ca = tmp_path / "ca.pem"
    issued.authority.cert_pem.write_to_path(str(ca))
    async with standing(issued) as stand:
        account = tmp_path / "account.json"
        account.write_text(
            json.dumps(
                {
                    "type": "service_account",
                    "client_email": "appmux@p-1.example",
                    "private_key": KEY.private_bytes(
                        Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
                    ).decode(),
                    "private_key_id": "k1",
                    "project_id": "p-1",
                    "token_uri": f"{stand.url}/token",
                }
            )
        )
        account.chmod(0o600)
        settings = model.Push(
            ca_file=ca, fcm=model.Fcm(service_account_file=account, url=stand.url)
        )
        services = open_services(settings, tmp_path)
        google = Google(stand, services, account)
        stand.otherwise = google.answer
        yield google
        await services.web.aclose()


async def test_a_message(google: Google) -> None:
    assert await google.deliver(push()) == Delivered("200 7")
    (asked,), (told,) = google.heard("/token"), google.heard("/v1")
    form = parse_qs(asked.body.decode())
    assert form["grant_type"] == [GRANT]
    public = KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    claims = jwt.decode(
        form["assertion"][0],
        public,
        ["RS256"],
        audience=f"{google.stand.url}/token",
        options={"verify_iat": False},
    )
    assert (claims["iss"], claims["scope"]) == ("appmux@p-1.example", SCOPE)
    assert told.path == "/v1/projects/p-1/messages:send"
    assert told.http == "2"
    assert told.headers["authorization"] == "Bearer ya29.1"
    message = told.json["message"]
    assert message["token"] == "registration:token"
    assert message["android"] == {"priority": "HIGH", "ttl": "3600s"}
    assert message["data"]["title"] == "Tidy the larder"
    assert message["data"]["actions"] == '["approve","decline"]'
    assert all(isinstance(value, str) for value in message["data"].values())


async def test_a_withdrawal_is_quiet_and_says_so(google: Google) -> None:
    await google.deliver(push().withdrawal(0, NOW + 60))
    message = google.heard("/v1")[0].json["message"]
    assert message["android"]["priority"] == "NORMAL"
    assert message["data"]["withdraw"] == "true"
    assert "title" not in message["data"]


async def test_a_long_message_fits(google: Google) -> None:
    assert isinstance(await google.deliver(push(body="x" * 9000)), Delivered)
    data = google.heard("/v1")[0].json["message"]["data"]
    assert sum(len(name) + len(value.encode()) for name, value in data.items()) <= 4096


async def test_an_access_token_is_kept_while_it_is_good(google: Google) -> None:
    for after in (0, 3200, 3400, 3500):
        await google.deliver(push(), NOW + after)
    assert [each.headers["authorization"][-1] for each in google.heard("/v1")] == [*"1122"]


async def test_many_at_once_get_one_access_token(google: Google) -> None:
    google.messages = [Said(200, {"name": "x"})] * 4 + [Said(401)] * 4
    for _ in range(2):
        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(google.deliver, push())
    assert google.tokens == 2
    assert [each.headers["authorization"][-1] for each in google.heard("/v1")] == [*"111111112222"]


async def test_an_access_token_that_is_refused_is_got_anew_once(google: Google) -> None:
    no = Said(401, {"error": {"status": "UNAUTHENTICATED"}})
    google.messages = [no]
    assert isinstance(await google.deliver(push()), Delivered)
    google.messages = [no, no]
    outcome = await google.deliver(push(), NOW + 60)
    assert isinstance(outcome, Failed)
    assert outcome.ours
    assert google.tokens == 3


def error(status: int, code: str, message: str = "", **headers: str) -> Said:
    details = [{"@type": "type.googleapis.com/google.firebase.fcm.v1.FcmError", "errorCode": code}]
    body = {"error": {"status": "GENERAL", "message": message, "details": details}}
    return Said(status, body, headers)


@pytest.mark.parametrize(
    ("said", "outcome"),
    [
        (error(404, "UNREGISTERED"), Gone("404 UNREGISTERED")),
        (error(403, "SENDER_ID_MISMATCH"), Gone("403 SENDER_ID_MISMATCH")),
        (
            error(400, "INVALID_ARGUMENT", "The registration token is not a valid one"),
            Gone("400 INVALID_ARGUMENT: no registration token"),
        ),
        (error(400, "INVALID_ARGUMENT", "Invalid value at …"), Failed("400 INVALID_ARGUMENT")),
        (error(429, "QUOTA_EXCEEDED"), Retry(60.0, "429 QUOTA_EXCEEDED")),
        (error(429, "QUOTA_EXCEEDED", **{"retry-after": "90"}), Retry(90.0, "429 QUOTA_EXCEEDED")),
        (error(503, "UNAVAILABLE"), Retry(None, "503 UNAVAILABLE")),
        (
            error(401, "THIRD_PARTY_AUTH_ERROR"),
            Failed("401 THIRD_PARTY_AUTH_ERROR: see push.fcm.service_account_file", ours=True),
        ),
        (Said(500, b"<html>"), Retry(None, "500")),
    ],
)
async def test_what_an_answer_means(google: Google, said: Said, outcome: Outcome) -> None:
    google.messages = [said]
    assert await google.deliver(push()) == outcome


async def test_an_account_that_google_does_not_take(google: Google) -> None:
    google.refusal = Said(400, {"error": "invalid_grant"})
    outcome = await google.deliver(push())
    assert outcome == Failed(
        "Google gave no access token: 400 invalid_grant; see push.fcm.service_account_file",
        ours=True,
    )
    google.refusal = Said(503)
    assert await google.deliver(push()) == Retry(None, "503")
    google.refusal = None
    assert isinstance(await google.deliver(push()), Delivered)


async def test_a_file_that_is_no_account(google: Google) -> None:
    google.account.write_text('{"private_key": "hunter2"}')
    outcome = await google.deliver(push())
    assert isinstance(outcome, Retry)
    assert outcome.ours
    assert "isn't the JSON of a service account" in outcome.reason
    assert "hunter2" not in outcome.reason


WHOLE = {
    "client_email": "appmux@p-1.example",
    "private_key": "a key",
    "private_key_id": "k1",
    "project_id": "p-1",
    "token_uri": "https://oauth2.example/token",
}


def account_file(where: Path, document: object) -> Path:
    path = where / "account.json"
    path.write_text(json.dumps(document))
    path.chmod(0o600)
    return path


def test_a_service_account_is_read_as_it_stands(tmp_path: Path) -> None:
    account = read_account(account_file(tmp_path, WHOLE | {"type": "service_account"}))
    read = (account.email, account.key, account.key_id, account.project, account.token_url)
    assert read == tuple(WHOLE.values())
    assert "a key" not in repr(account)


@pytest.mark.parametrize("name", WHOLE)
@pytest.mark.parametrize("value", [None, "", 5, ["x"], ...])
def test_a_service_account_that_lacks_something(tmp_path: Path, name: str, value: object) -> None:
    document = {**WHOLE, name: value}
    if value is ...:
        del document[name]
    with pytest.raises(PushError, match=r"account\.json isn't the JSON of a service account"):
        read_account(account_file(tmp_path, document))


@pytest.mark.parametrize("document", [[], "x", None, [WHOLE]])
def test_what_is_no_service_account(tmp_path: Path, document: object) -> None:
    with pytest.raises(PushError, match="isn't the JSON of a service account"):
        read_account(account_file(tmp_path, document))


async def test_without_a_key_nothing_is_sent(google: Google, tmp_path: Path) -> None:
    settings = model.Push(fcm=model.Fcm(url=google.stand.url))
    keyless = open_services(settings, tmp_path)
    outcome = await keyless.deliver(PHONE, push(), NOW)
    await keyless.web.aclose()
    assert isinstance(outcome, Retry)
    assert "FCM needs push.fcm.service_account_file: see docs/push.md" in outcome.reason
    google.account.unlink()
    missing = await google.deliver(push())
    assert isinstance(missing, Retry)
    assert "can't read" in missing.reason
    assert not google.stand.heard
