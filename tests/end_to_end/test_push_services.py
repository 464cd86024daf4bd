"""An approval that nobody saw: each push service is told once, and has it taken back once."""

from __future__ import annotations

import json
import stat
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import attrs
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from mux.demo.scripted_model import Run, Say, Scripted
from tests.certificates import issue
from tests.end_to_end.brokered import brokered, client
from tests.end_to_end.peer import Peer
from tests.end_to_end.scenes import APPROVAL, eventually, status_shows
from tests.push.browser import Browser
from tests.push.stand import Heard, Said, Stand, standing

SERVICES = ("apns", "fcm", "webpush", "unifiedpush", "ntfy", "webhook", "exec")


@attrs.define
class Told:
    """What each service was told: the service, and whether it was a withdrawal."""

    secure: Stand
    plain: Stand
    ran: Path
    browser: Browser

    def all(self) -> Counter[tuple[str, bool]]:
        heard = [self._what(each) for each in (*self.secure.heard, *self.plain.heard)]
        lines = self.ran.read_text().splitlines() if self.ran.exists() else []
        heard += [("exec", bool(json.loads(line).get("withdraw"))) for line in lines]
        return Counter(each for each in heard if each is not None)

    def _what(self, heard: Heard) -> tuple[str, bool] | None:
        if heard.path == "/token":
            return None
        if heard.path.startswith("/3/device/"):
            return "apns", heard.headers["apns-push-type"] == "background"
        if heard.path.startswith("/v1/projects/"):
            return "fcm", "withdraw" in heard.json["message"]["data"]
        if heard.path.startswith("/push/"):
            return "webpush", bool(json.loads(self.browser.read(heard.body)).get("withdraw"))
        if heard.path == "/up":
            return "unifiedpush", bool(heard.json.get("withdraw"))
        if heard.path == "/hook":
            return "webhook", bool(heard.json.get("withdraw"))
        return "ntfy", heard.method == "DELETE"


def _private(path: Path, content: str | bytes) -> str:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    path.chmod(stat.S_IRUSR | stat.S_IWUSR)
    return str(path)


def _pem(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> str:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def _settings(tmp_path: Path, told: Told, ca: Path) -> str:
    """All services, in a config file; its path."""
    key = _private(tmp_path / "k.p8", _pem(ec.generate_private_key(ec.SECP256R1())))
    account = {
        "client_email": "a@p.example",
        "private_key": _pem(rsa.generate_private_key(65537, 2048)),
        "private_key_id": "k",
        "project_id": "p",
        "token_uri": f"{told.secure.url}/token",
    }
    hook = tmp_path / "hook"
    hook.write_text(f"#!{sys.executable}\nopen({str(told.ran)!r}, 'a').write(input() + chr(10))\n")
    hook.chmod(0o700)
    return _private(
        tmp_path / "config.toml",
        f"""
        [notices]
        escalate_after = 0.05
        [push]
        private_hosts = ["127.0.0.1", "localhost"]
        ca_file = "{ca}"
        [push.apns]
        key_file = "{key}"
        key_id = "K"
        team_id = "T"
        topic = "org.app"
        url = "{told.secure.url}"
        [push.fcm]
        service_account_file = "{_private(tmp_path / "account.json", json.dumps(account))}"
        url = "{told.secure.url}"
        [push.webhook]
        url = "{told.plain.url}/hook"
        secret_file = "{_private(tmp_path / "secret", "s" * 32)}"
        [push.exec]
        command = ["{hook}"]
        """,
    )


async def _register(phone: Peer, told: Told) -> None:
    addresses: dict[str, dict[str, str]] = {
        "apns": {"token": "ab" * 32, "environment": "sandbox"},
        "fcm": {"token": "registration"},
        "webpush": dict(told.browser.registration.address),
        "unifiedpush": {"endpoint": f"{told.plain.url}/up"},
        "ntfy": {"server": told.plain.url, "topic": "larder"},
    }
    for service, address in addresses.items():
        await phone.request("mux/push/register", {"service": service, "address": address})


def _answer(heard: Heard) -> Said:
    token: dict[str, Any] = {"access_token": "ya29", "expires_in": 3600}
    return Said(200, token if heard.path == "/token" else {})


async def _until(told: Told, wanted: dict[tuple[str, bool], int]) -> None:
    await eventually(lambda: told.all() == wanted, f"{wanted}; was told {told.all()}")


async def test_each_service_is_told_once_and_has_it_taken_back(tmp_path: Path) -> None:
    model = Scripted()
    model.on("run it", Run("echo ran >> ran.txt", escalated=True), Say("Over."))
    issued = issue(tmp_path)
    ca = tmp_path / "ca.pem"
    issued.authority.cert_pem.write_to_path(str(ca))
    async with standing(issued) as secure, standing() as plain:
        for stand in (secure, plain):
            stand.otherwise = _answer
        browser = Browser(secure.url)
        told = Told(secure, plain, tmp_path / "told", browser)
        config = _settings(tmp_path, told, ca)
        async with brokered("--config", config, model=model) as broker:
            async with client(broker, "phone") as phone:
                await _register(phone, told)
                thread = await phone.start_thread(broker.home.work)
                await phone.start_turn(thread, "run it")
                await phone.wait_method(APPROVAL)
            # Nobody is attached now.
            once = {(service, False): 1 for service in SERVICES}
            await _until(told, once)
            assert b"ran.txt" not in b"".join(each.body for each in plain.heard + secure.heard)
            async with client(broker, "desk") as desk:
                # Not only begun: one that is still on its way (a command that hasn't ended yet)
                # when the answer comes may count as withdrawn.
                sent = {"sent": len(SERVICES)}
                await status_shows(desk, lambda seen: seen["notices"]["pushes"] == sent)
                (waits,) = (await desk.request("mux/approvals/list"))["approvals"]
                result = {"decision": "accept"}
                await desk.request("mux/approvals/answer", {"id": waits["id"], "result": result})
                await eventually((broker.home.work / "ran.txt").exists, "the command ran")
                await _until(told, once | {(service, True): 1 for service in SERVICES})
                both = {"sent": 2 * len(SERVICES)}
                report = await status_shows(desk, lambda seen: seen["notices"]["pushes"] == both)
                assert report["notices"]["trouble"] is None
