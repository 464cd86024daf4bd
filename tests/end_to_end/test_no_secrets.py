"""What lets somebody in is written nowhere: in no log, audit record, journal or command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from tests.end_to_end.brokered import brokered
from tests.end_to_end.browsers import Browser, origin_of
from tests.end_to_end.devices import DEVICES_ONLY, operator_of, pair
from tests.end_to_end.native import Native
from tests.end_to_end.peer import Peer, connect_ws
from tests.end_to_end.plays import AWARE
from tests.end_to_end.scenes import eventually
from tests.end_to_end.test_uploads import audited, begin, http, state_of

SPOOL: Final = "uploads"
"""There an unfinished upload's files are named after it, for us alone."""


async def test_what_lets_somebody_in_is_written_nowhere() -> None:
    async with brokered(*DEVICES_ONLY, log_level="debug") as broker, operator_of(broker) as desk:
        await desk.initialize("desk", **AWARE)
        secrets = await _used(broker, desk)
        await desk.request("mux/devices/revoke", {"name": "phone"})
        await eventually(lambda: "device/revoked" in audited(broker), "the audit log")
        said = {name: broker.shown() for name in ("the log",)} | _written(state_of(broker))
        said |= _command_lines(broker)
        found = {
            (what, where)
            for what, secret in secrets.items()
            for where, text in said.items()
            if secret in text
        }
        assert found == set()
        assert len(broker.shown()) > 1000
        assert any(where.startswith("audit") for where in said)


async def _used(broker: Native, desk: Peer) -> dict[str, str]:
    """Have each kind of secret made and used; all of them."""
    browser = Browser(origin_of(broker))
    wanted = {"scopes": ["observe", "drive"], "letters": True, "ticketSeconds": 60}
    unused = await desk.request("mux/pairing/begin", wanted)
    await browser.pair(desk, "observe", "drive", name="page")
    async with browser.connect() as page:
        short = page.hello["token"]["token"]
    header = f"authorization: Bearer {short}"
    assert (await browser.send("GET", "/v1/session", None, header)).status == 200
    challenge = json.loads((await browser.send("POST", "/v1/session/challenge", {})).body)
    lines = (browser.device, challenge["nonce"], browser.origin, str(challenge["time"]))
    proof = browser.key.sign("appmux request", *lines, "GET", "/v1/session")
    header = f"authorization: appmux {browser.device} {challenge['nonce']} {proof}"
    assert (await browser.send("GET", "/v1/session", None, header)).status == 200
    assert (await browser.redeem(letters=unused["letters"][::-1]))[0] in {401, 403, 404, 410}
    token = await pair(broker, desk, "phone", "observe", "drive", "admin")
    async with (
        connect_ws(broker.url, token) as phone,
        http(broker, authorization=f"Bearer {token}") as web,
    ):
        await phone.initialize("phone", **AWARE)
        thread = await phone.start_thread(broker.home.work)
        upload = await begin(web, 3, filename="a.bin", thread=thread)
        file = broker.home.work / "a.txt"
        file.write_text("hello")
        asked = {"threadId": thread, "path": str(file)}
        url = (await phone.request("mux/files/open", asked))["url"]
        assert (await web.get(url)).text == "hello"
    return {
        "a ticket": unused["ticket"],
        "letters": unused["letters"],
        "a token": token,
        "a short token": short,
        "a signature": proof,
        "an upload's id": upload.rpartition("/")[2],
        "a download's token": url.rpartition("/")[2],
    }


def _written(state: Path) -> dict[str, str]:
    return {
        str(file.relative_to(state)): file.read_text(errors="replace")
        for file in state.rglob("*")
        if file.is_file() and file.relative_to(state).parts[0] not in {SPOOL, "codex-schema"}
    }


def _command_lines(broker: Native) -> dict[str, str]:
    """Those of all processes that the broker has started, and its own."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            environ = (process / "environ").read_bytes()
            words = (process / "cmdline").read_text(errors="replace")
        except OSError:
            continue  # it is another's, or has ended
        if str(broker.home.root).encode() in environ:
            found[f"process {process.name}"] = words
    assert found
    return found
