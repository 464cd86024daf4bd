"""The service on a real systemd: a user manager of the test's own, with its own home.

Skipped where none can be started (it takes root, and a cgroup that can be written).
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
from click.testing import CliRunner, Result
from trio_websocket import ConnectionRejected

from mux.cli import main
from mux.host import setup, tailnet
from tests.end_to_end.native import Home, codex_bin, private_home
from tests.end_to_end.peer import Peer, RpcError, connect_unix, connect_ws
from tests.ports import kept_port

PATIENCE = 60.0
LOOK_SECONDS = 0.05

SYSTEMD = next(
    (
        path
        for path in map(Path, ("/usr/lib/systemd/systemd", "/lib/systemd/systemd"))
        if path.exists()
    ),
    None,
)

MANAGER = """
for group in "$@"; do echo $$ > "$group/cgroup.procs" || exit 3; done
if ! [ -d /run/systemd/system ]; then
    mount -t tmpfs tmpfs /run/systemd && mkdir /run/systemd/system || exit 4
fi
exec "$SYSTEMD" --user
"""
"""In a mount namespace of its own: a user manager wants a machine that systemd has booted."""


@attrs.frozen
class Managed:
    """A home whose services are run by a real user manager."""

    home: Home
    port: int

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}"

    @property
    def control(self) -> Path:
        return self.home.codex_home / "app-server-control" / "app-server-control.sock"

    @property
    def units(self) -> Path:
        return self.home.home / ".config" / "systemd" / "user"

    @property
    def token(self) -> Path:
        return self.home.home / ".config" / "appmux" / "token"


@pytest.fixture
def managed(monkeypatch: pytest.MonkeyPatch) -> Iterator[Managed]:
    if SYSTEMD is None or os.geteuid() != 0:
        pytest.skip("no systemd here, or not root")
    with private_home("http://127.0.0.1:9/v1") as home, contextlib.ExitStack() as stack:
        environ = {name: value for name, value in home.environ().items() if name != "CODEX_HOME"}
        for name in set(os.environ) - set(environ):
            monkeypatch.delenv(name)
        for name, value in environ.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("APPMUX_CODEX_BIN", str(codex_bin()))
        runtime = stack.enter_context(tempfile.TemporaryDirectory(prefix="am"))
        monkeypatch.setenv("XDG_RUNTIME_DIR", runtime)
        port = stack.enter_context(kept_port())
        monkeypatch.setattr(setup, "PORT", port)
        monkeypatch.setattr(tailnet, "own", lambda: ["127.0.0.1"])
        stack.enter_context(user_manager(Path(runtime)))
        yield Managed(home, port)


@contextlib.contextmanager
def user_manager(runtime: Path) -> Iterator[None]:
    groups = [root / f"appmux-test-{os.getpid()}" for root in cgroups()]
    try:
        for group in groups:
            group.mkdir()
    except OSError as failure:
        pytest.skip(f"no cgroup of its own: {failure.strerror}")
    manager = subprocess.Popen(
        ["unshare", "--mount", "sh", "-c", MANAGER, "sh", *map(str, groups)],
        env=os.environ | {"SYSTEMD": str(SYSTEMD)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + PATIENCE
        while not (runtime / "systemd" / "private").exists():
            if manager.poll() is not None or time.monotonic() > deadline:
                pytest.skip(f"no user manager can be started here ({manager.returncode})")
            time.sleep(LOOK_SECONDS)
        yield
    finally:
        subprocess.run(["systemctl", "--user", "exit"], capture_output=True, check=False)
        try:
            manager.wait(PATIENCE)
        finally:
            manager.kill()
            manager.wait()
            for group in groups:
                for path in [*sorted(group.rglob("*/"), reverse=True), group]:
                    if path.is_dir():
                        path.rmdir()


def cgroups() -> list[Path]:
    """Where a cgroup for a manager can be made, in the hierarchies that systemd uses."""
    roots = [Path("/sys/fs/cgroup/systemd"), Path("/sys/fs/cgroup/unified")]
    if (Path("/sys/fs/cgroup") / "cgroup.controllers").exists():
        roots = [Path("/sys/fs/cgroup")]
    return [root for root in roots if root.is_dir()]


async def appmux(*args: str) -> Result:
    """A command in this process; it blocks, so not in this thread."""
    invoke = partial(CliRunner().invoke, main.appmux, list(args))
    done: Result = await trio.to_thread.run_sync(invoke)
    assert done.exit_code == 0, (done.output, done.exception, await journal())
    return done


async def systemctl(*words: str) -> str:
    done = await trio.run_process(
        ["systemctl", "--user", *words], capture_stdout=True, capture_stderr=True, check=False
    )
    return done.stdout.decode().strip()


async def journal() -> str:
    return await systemctl("status", "appmux.service", "--no-pager", "--full")


async def main_pid(unit: str = "appmux.service") -> int:
    return int(await systemctl("show", "--property=MainPID", "--value", unit))


async def healthy(port: int) -> bytes:
    """The first bytes that a request gets, however long nobody is there to answer it."""
    with trio.fail_after(PATIENCE):
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            await stream.send_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
            return bytes(await stream.receive_some(12))


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
