"""Pairing as a person does it: a QR code, two codes compared, a device that is in."""

from __future__ import annotations

import base64
import json
import re
import signal
from urllib.parse import parse_qs

import pytest
import trio

from mux.access.tickets import code_of
from tests.end_to_end.brokered import brokered
from tests.end_to_end.devices import (
    DEVICES_ONLY,
    Terminal,
    appmux,
    listed,
    operator_of,
    pair,
    piped,
    post,
    terminal,
)
from tests.end_to_end.peer import Json, Peer, RpcError, connect_ws
from tests.end_to_end.scenes import eventually

URI = r"appmux://pair\?(\S+)"


async def uri(shown: Terminal) -> dict[str, str]:
    """What the QR code and the line below it say."""
    found = await shown.see(URI + r"\n")
    return {name: value for name, (value,) in parse_qs(found[1]).items()}


async def devices(peer: Peer) -> dict[str, Json]:
    return listed(await peer.request("mux/devices/list"))


async def test_a_phone_is_paired_on_a_terminal() -> None:
    answers: list[tuple[int, Json]] = []
    async with (
        brokered(*DEVICES_ONLY) as broker,
        operator_of(broker) as looking,
        terminal(broker, "pair", "--app", "--host", "127.0.0.1", "--expires", "30d") as shown,
        trio.open_nursery() as nursery,
    ):
        said = await uri(shown)
        assert f"ws://{said['host']}:{said['port']}" == broker.url
        assert said["scheme"] == "ws"
        await shown.see("▀")  # the QR code
        await shown.see("within 5 minutes")
        await shown.see("It may observe, approve, drive, for 30 d")

        async def phone() -> None:
            body = {"ticket": said["ticket"], "name": "Ada's phone", "nonce": "n0"}
            answers.append(await post(broker.url, body))

        nursery.start_soon(phone)
        code = code_of(said["ticket"], "Ada's phone", "n0")
        await shown.see(rf'"Ada\'s phone" asks to be paired, from 127.0.0.1:\d+. Its code: {code}')
        await shown.see(r"\[y/N\]")
        assert not await devices(looking)
        await shown.type("y\n")
        await shown.see('paired "Ada\'s phone"')
        assert await shown.end() == 0
        # The phone's answer comes by a connection of its own.
        await eventually(lambda: answers, "the answer to the phone")
        ((status, granted),) = answers
        assert status == 200
        assert granted["scopes"] == ["approve", "drive", "observe"]
        made = (await devices(looking))["Ada's phone"]
        assert granted["expiresAt"] == made["expiresAt"] == made["madeAt"] + 30 * 86_400
        assert made["attached"] == 0
        async with connect_ws(broker.url, granted["token"]) as device:
            await device.initialize("phone")
            assert (await devices(looking))["Ada's phone"]["attached"] == 1
        token = granted["token"]
        assert token not in broker.shown()
        assert said["ticket"] not in broker.shown()
    assert token not in shown.shown


async def test_declined_on_the_terminal() -> None:
    answers: list[tuple[int, Json]] = []
    async with (
        brokered() as broker,
        operator_of(broker) as looking,
        terminal(broker, "pair", "--app", "--host", "127.0.0.1") as shown,
        trio.open_nursery() as nursery,
    ):
        said = await uri(shown)
        await shown.see("lets in whoever reaches its port")  # this broker asks for no token

        async def stranger() -> None:
            name = "your \x1b[2Jphone"
            answers.append(await post(broker.url, {"ticket": said["ticket"], "name": name}))

        nursery.start_soon(stranger)
        await shown.see(r"\[y/N\]")
        assert "\x1b[2J" not in shown.shown
        await shown.type("\n")
        assert await shown.end() == 1
        assert "declined; nothing was paired" in shown.shown
        await eventually(lambda: answers, "the answer to the stranger")
        assert answers[0][0] == 403
        assert not await devices(looking)


async def test_a_device_that_gives_up_while_the_operator_thinks() -> None:
    async with (
        brokered() as broker,
        operator_of(broker) as looking,
        terminal(broker, "pair", "--app", "--host", "127.0.0.1") as shown,
        trio.open_nursery() as nursery,
    ):
        said = await uri(shown)
        nursery.start_soon(post, broker.url, {"ticket": said["ticket"]})
        await shown.see(r"\[y/N\]")
        nursery.cancel_scope.cancel()  # it hangs up
        with trio.CancelScope(shield=True):
            await shown.see("the device broke off; nothing was paired")
            assert await shown.end() == 1
            assert not await devices(looking)


async def test_called_off_by_ctrl_c() -> None:
    async with (
        brokered() as broker,
        terminal(broker, "pair", "--app", "--host", "127.0.0.1") as shown,
    ):
        said = await uri(shown)
        shown.process.send_signal(signal.SIGINT)
        assert await shown.end() == 130
        assert "called off; nothing was paired" in shown.shown
        # The ticket went with it.
        assert (await post(broker.url, {"ticket": said["ticket"]}))[0] == 410


async def test_an_invitation_without_a_terminal() -> None:
    asked = ("invite", "--app", "--host", "127.0.0.1", "--yes", "--name", "Grace")
    async with (
        brokered(*DEVICES_ONLY) as broker,
        operator_of(broker) as looking,
        piped(broker, *asked) as shown,
    ):
        said = await uri(shown)
        assert "▀" not in shown.shown  # no picture in a pipe
        status, granted = await post(broker.socket, {"ticket": said["ticket"], "name": "x"})
        assert await shown.end() == 0
        assert "It may observe, for 2 h." in shown.shown
        assert 'paired "Grace"' in shown.shown
        guest = (await devices(looking))["Grace"]
        assert (status, guest["kind"], guest["scopes"]) == (200, "invite", ["observe"])
        assert granted["expiresAt"] == guest["madeAt"] + 7200


async def test_novascale_gets_a_token_of_its_own() -> None:
    async with brokered(*DEVICES_ONLY) as broker:
        done = await appmux(
            broker, "pair", "--novascale", "--host", "127.0.0.1", "--name", "iPhone"
        )
        assert done.returncode == 0, done.stderr
        found = re.search(r"novascale-codex://import\?payload=([A-Za-z0-9_-]+)\n", done.stdout)
        assert found is not None
        payload = json.loads(base64.urlsafe_b64decode(found[1] + "=" * (-len(found[1]) % 4)))
        auth = payload.pop("auth")
        assert f"{payload['scheme']}://{payload['host']}:{payload['port']}" == broker.url
        assert (payload["type"], payload["version"]) == ("novascale-codex-host", 1)
        assert auth["mode"] == "capability-token"
        async with connect_ws(broker.url, auth["token"]) as device:
            await device.initialize("NovaScale")
            await device.start_thread(broker.home.work, sandbox="workspace-write")
            done = await appmux(broker, "devices", "revoke", "iphone")
            assert done.stdout == 'revoked "iPhone"; its connection is closed\n'
            await device.wait_gone()


REFUSALS: dict[str, tuple[tuple[str, ...], int, str]] = {
    "no terminal": (("pair", "--host", "127.0.0.1"), 1, "no terminal to compare"),
    "loopback alone": (("pair", "--yes", "--app"), 1, "listens on loopback alone"),
    "an unknown host": (("pair", "--yes", "--host", "no.such.host.invalid"), 1, "host unknown"),
    "another host": (("pair", "--yes", "--host", "100.64.0.1"), 1, "doesn't listen at 100.64.0.1"),
    "no host": (("pair", "--yes", "--host", "a b"), 1, "is no host"),
    "a name that is no name": (
        ("pair", "--yes", "--host", "127.0.0.1", "--name", "local"),
        1,
        "can't be named 'local'",
    ),
    "a scope that is none": (("pair", "--scope", "root"), 2, "the scopes are observe, approve"),
    "a time that is none": (("pair", "--expires", "soon"), 2, "no length of time"),
    "no broker": (
        ("pair", "--yes", "--state-dir", "elsewhere"),
        1,
        "no appmux runs on the state directory",
    ),
}


async def test_what_cannot_be_paired_is_told_and_leaves_nothing() -> None:
    async with brokered() as broker, operator_of(broker) as looking:
        for name, (arguments, status, words) in REFUSALS.items():
            done = await appmux(broker, *arguments)
            assert done.returncode == status, (name, done)
            assert words in " ".join(done.stderr.split()), (name, done)
            assert "Traceback" not in done.stderr, name
            assert "appmux://" not in done.stdout, name
        assert not await devices(looking)


async def test_a_name_that_is_taken() -> None:
    async with brokered() as broker, operator_of(broker) as looking:
        await pair(broker, looking, "phone", "observe")
        done = await appmux(broker, "pair", "--yes", "--host", "127.0.0.1", "--name", "Phone")
        assert done.returncode == 1
        assert "the name 'phone' is taken" in done.stderr


async def test_nobody_grants_what_it_has_not_itself() -> None:
    """`admin` alone mustn't make itself an approver."""
    async with brokered(*DEVICES_ONLY) as broker, operator_of(broker) as looking:
        token = await pair(broker, looking, "janitor", "admin")
        async with connect_ws(broker.url, token) as janitor:
            for method in ("mux/pairing/begin", "mux/devices/add"):
                with pytest.raises(
                    RpcError, match="can't grant what you haven't yourself: approve"
                ):
                    await janitor.request(method, {"scopes": ["admin", "approve"]})
            with pytest.raises(RpcError, match="can't grant"):
                await janitor.request(
                    "mux/devices/scope", {"name": "janitor", "scopes": ["admin", "approve"]}
                )
            await pair(broker, janitor, "another", "admin")
        token = await pair(broker, looking, "phone", "observe", "approve", "drive")
        async with connect_ws(broker.url, token) as phone:
            for method in ("mux/pairing/begin", "mux/devices/list", "mux/devices/revoke"):
                with pytest.raises(RpcError, match="needs the scope `admin`") as refused:
                    await phone.request(method, {"name": "janitor", "scopes": ["observe"]})
                assert refused.value.code == -32003


async def test_guesses_are_counted() -> None:
    async with brokered(*DEVICES_ONLY) as broker, operator_of(broker) as looking:
        for _ in range(3):
            assert (await post(broker.url, {"ticket": "guess"}))[0] == 401
        report = await looking.request("mux/status")
        assert report["failedAuthentications"] == {"total": 3, "addresses": {"127.0.0.1": 3}}


async def test_asked_where_the_phone_connects() -> None:
    async with brokered() as broker, terminal(broker, "pair", "--app") as shown:
        await shown.see(r"Where does the phone connect\?")
        await shown.see(r"Address \[" + re.escape(broker.url) + r"\]: ")
        await shown.type("wss://phones.example.net\n")
        said = await uri(shown)
        assert (said["scheme"], said["host"], said["port"]) == ("wss", "phones.example.net", "443")
