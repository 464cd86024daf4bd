"""The service on a real systemd: installed, killed, reloaded, stopped, restarted, uninstalled."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Iterator
from typing import Any

import pytest
import trio
from trio_websocket import ConnectionRejected

from tests.end_to_end.peer import Peer, RpcError, connect_unix, connect_ws
from tests.end_to_end.user_manager import (
    LOOK_SECONDS,
    PATIENCE,
    Managed,
    appmux,
    healthy,
    main_pid,
    managing,
    systemctl,
)


@pytest.fixture
def managed(monkeypatch: pytest.MonkeyPatch) -> Iterator[Managed]:
    with managing(monkeypatch, "http://127.0.0.1:9/v1") as there:
        yield there


async def hello(url: str, token: str) -> dict[str, Any]:
    """What `mux/status` says to a phone with this token; an error from the vanilla app-server."""
    async with connect_ws(url, token) as phone:
        await phone.initialize("phone")
        report: dict[str, Any] = await phone.request("mux/status")
        return report


@pytest.mark.skipif(shutil.which("unshare") is None, reason="no unshare")
async def test_a_life_of_the_service(managed: Managed) -> None:
    done = await appmux("setup", "--yes")
    assert f"ready at {managed.url}" in done.output
    token = managed.token.read_text().strip()
    assert (await hello(managed.url, token))["broker"]["supervisor"] == await main_pid()
    async with connect_unix(managed.control) as peer:
        await peer.initialize("one")
        await _sandbox_works(peer, managed)

    # Killed: started again, and who comes meanwhile only waits.
    before = await main_pid()
    os.kill(before, signal.SIGKILL)
    while await main_pid() in (0, before):  # noqa: ASYNC110 (systemd does not say)
        await trio.sleep(0.1)
    assert await healthy(managed.port) == b"HTTP/1.1 200"

    # Reloaded: another token, no other process.
    pid = await main_pid()
    managed.token.write_text("another-token\n")
    await appmux("service", "reload")
    await _until_let_in(managed.url, "another-token")
    assert await main_pid() == pid

    # Stopped: in order; and started by the next client.
    await systemctl("stop", "appmux.service")
    assert await systemctl("show", "--property=Result", "--value", "appmux.service") == "success"
    assert await main_pid() == 0
    assert await healthy(managed.port) == b"HTTP/1.1 200"
    assert await main_pid() != 0

    # Stopped by our own command it stays so: its sockets are closed as well.
    told = json.loads((await appmux("service", "stop", "--json")).stdout)
    assert told["running"] is False
    assert await main_pid() == 0
    with pytest.raises(OSError, match="all attempts to connect"):
        await healthy(managed.port)
    await appmux("service", "start")
    assert await healthy(managed.port) == b"HTTP/1.1 200"

    # Restarted: another process at the same address.
    before = await main_pid()
    assert "restarted" in (await appmux("service", "restart")).output
    assert await healthy(managed.port) == b"HTTP/1.1 200"
    assert await main_pid() not in (0, before)

    # Installed again: nothing to replace; and gone.
    await appmux("service", "install")
    await appmux("service", "status")
    done = await appmux("service", "uninstall", "--yes")
    assert "failed" not in done.output.replace("reset-failed", "")
    assert f"To remove it: rm -r {managed.token.parent}" in done.output
    assert managed.token.exists()
    assert not list(managed.units.glob("**/appmux*"))
    assert not managed.control.exists()
    assert await systemctl("list-units", "--plain", "--no-legend", "appmux*") == ""


async def _sandbox_works(peer: Peer, managed: Managed) -> None:
    """Codex's own sandbox stands under the service's hardening."""
    status = trio.Path(f"/proc/{await main_pid()}/status")
    assert "NoNewPrivs:\t1\n" in await status.read_text()
    command = ["sh", "-c", "echo in; touch forbidden"]
    answer = await peer.request(
        "command/exec",
        {
            "command": command,
            "cwd": str(managed.home.work),
            "sandboxPolicy": {"type": "readOnly"},
        },
        timeout=PATIENCE,
    )
    assert answer["stdout"] == "in\n", answer
    assert answer["exitCode"] != 0
    assert not (managed.home.work / "forbidden").exists()


async def _until_let_in(url: str, token: str) -> None:
    with trio.fail_after(PATIENCE):
        while True:
            try:
                await hello(url, token)
            except ConnectionRejected:
                await trio.sleep(LOOK_SECONDS)
            else:
                return


VANILLA = """
[Service]
ExecStart={codex} app-server --listen {url} --ws-auth capability-token --ws-token-file {token}
Environment=CODEX_HOME={home}
[Install]
WantedBy=default.target
"""


async def test_novascales_place_is_taken_and_given_back(managed: Managed) -> None:
    """Its real app-server, at its address, with its token; a phone notices only what is new."""
    token = managed.home.codex_home / "novascale-app-server-token"
    token.write_text("the-phones-token\n")
    (managed.home.codex_home / "novascale-codex-host.env").write_text(
        f"NOVASCALE_CODEX_LISTEN='{managed.url}'\nNOVASCALE_CODEX_TOKEN_FILE={token}\n"
    )
    managed.units.mkdir(parents=True)
    (managed.units / "novascale-codex.service").write_text(
        VANILLA.format(
            codex=os.environ["APPMUX_CODEX_BIN"],
            url=managed.url,
            token=token,
            home=managed.home.codex_home,
        )
    )
    await systemctl("daemon-reload")
    await systemctl("enable", "--now", "novascale-codex.service")
    assert await healthy_soon(managed.port) == b"HTTP/1.1 200"
    with pytest.raises(RpcError, match="mux/status"):
        await hello(managed.url, "the-phones-token")

    done = await appmux("setup", "--yes")
    assert "phones that are paired go on as they are" in done.output
    assert "broker" in await hello(managed.url, "the-phones-token")
    assert await main_pid("novascale-codex.service") == 0
    assert await systemctl("is-enabled", "novascale-codex.service") == "disabled"

    await appmux("service", "uninstall", "--yes")
    assert await healthy_soon(managed.port) == b"HTTP/1.1 200"
    with pytest.raises(RpcError, match="mux/status"):
        await hello(managed.url, "the-phones-token")
    assert await systemctl("is-enabled", "novascale-codex.service") == "enabled"
    assert token.read_text() == "the-phones-token\n"


async def healthy_soon(port: int) -> bytes:
    """As ``healthy``, of a service that opens its own socket after a while."""
    with trio.fail_after(PATIENCE):
        while True:
            try:
                return await healthy(port)
            except OSError:
                await trio.sleep(LOOK_SECONDS)
