"""What the doctor finds of push, without sending anything."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from mux.cli.doctor.push import push
from mux.config import model
from mux.config.model import Config


def found(settings: model.Push, state_dir: Path) -> dict[str, str]:
    given = Config(push=settings, state_dir=state_dir)
    return {each.about: f"{each.verdict}: {each.says}" for each in push(given)}


def written(path: Path, made: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> Path:
    path.write_bytes(made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    path.chmod(0o600)
    return path


def test_nothing_is_said_of_what_is_not_set(tmp_path: Path) -> None:
    assert not found(model.Push(), tmp_path)


def test_all_that_is_well(tmp_path: Path) -> None:
    p8 = written(tmp_path / "AuthKey.p8", ec.generate_private_key(ec.SECP256R1()))
    pem = written(tmp_path / "rsa.pem", rsa.generate_private_key(65537, 2048)).read_text()
    account = tmp_path / "account.json"
    names = ("client_email", "private_key_id", "project_id", "token_uri")
    account.write_text(json.dumps(dict.fromkeys(names, "x") | {"private_key": pem}))
    secret = tmp_path / "secret"
    secret.write_text("s" * 24)
    for path in (account, secret):
        path.chmod(0o600)
    settings = model.Push(
        url="https://host.example",
        apns=model.Apns(key_file=p8, key_id="K", team_id="T", topic="org.app"),
        fcm=model.Fcm(service_account_file=account),
        webpush=model.WebPush(subject="mailto:ada@example.org"),
        ntfy=model.Ntfy(server="https://ntfy.sh", topic="t", token_file=secret),
        webhook=model.Webhook(url="https://hook.example/x", secret_file=secret),
        exec=model.Exec(command=("sh", "-c", "true")),
    )
    said = found(settings, tmp_path)
    assert {each.partition(":")[0] for each in said.values()} == {"well"}
    assert len(said) == 7
    assert not (tmp_path / "vapid.pem").exists(), "the doctor makes nothing"


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (model.Push(apns=model.Apns(topic="x")), "APNs needs all four"),
        (model.Push(fcm=model.Fcm(url="x")), "service_account_file isn't set"),
        (model.Push(webpush=model.WebPush(subject="ada")), "begin with mailto:"),
        (model.Push(webpush=model.WebPush(key_file=Path("/none"))), "can't read /none"),
        (model.Push(ntfy=model.Ntfy(server="https://x")), "both server and topic"),
        (model.Push(ntfy=model.Ntfy(server="ntfy.sh", topic="t")), "isn't a URL"),
        (model.Push(webhook=model.Webhook(url="https://x")), "both url and secret_file"),
        (model.Push(exec=model.Exec(command=("/none",))), "no program '/none'"),
        (model.Push(url="host"), "push.url: 'host' isn't a URL"),
        (model.Push(ca_file=Path("/none")), "push.ca_file /none can't be used"),
    ],
)
def test_what_is_wrong_is_told(tmp_path: Path, settings: model.Push, told: str) -> None:
    ((_, said),) = found(settings, tmp_path).items()
    assert said.startswith("wrong: ")
    assert told in said


def test_a_key_of_another_kind(tmp_path: Path) -> None:
    other = written(tmp_path / "k.p8", ec.generate_private_key(ec.SECP384R1()))
    apns = model.Apns(key_file=other, key_id="K", team_id="T", topic="org.app")
    settings = model.Push(apns=apns, webpush=model.WebPush(key_file=other))
    said = found(settings, tmp_path)
    assert "isn't a P-256 private key" in said["push (apns)"]
    assert "isn't a key on the curve P-256" in said["push (webpush)"]
