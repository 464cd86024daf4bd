"""A real systemd user manager of a test's own, with its own home and runtime directory.

Skipped where none can be started (it takes root, and a cgroup that can be written).

Hands to: the tests of the service on systemd. Hears from: systemd, `appmux service`.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import attrs
import pytest
import trio
from click.testing import CliRunner, Result

from mux.cli import main
from mux.host import setup, tailnet
from tests.end_to_end.native import Home, codex_bin, private_home
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


@contextlib.contextmanager
def managing(monkeypatch: pytest.MonkeyPatch, base_url: str) -> Iterator[Managed]:
    """Inside, `systemctl --user` and `appmux` are for a manager and a home of this test's own.

    Its codex asks the model at `base_url`.
    """
    if SYSTEMD is None or os.geteuid() != 0:
        pytest.skip("no systemd here, or not root")
    with private_home(base_url) as home, contextlib.ExitStack() as stack:
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
    """The service's first process; 0 if it has none, or the manager says nothing for a moment."""
    return int(await systemctl("show", "--property=MainPID", "--value", unit) or 0)


async def healthy(port: int) -> bytes:
    """The first bytes that a request gets, however long nobody is there to answer it."""
    with trio.fail_after(PATIENCE):
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            await stream.send_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
            return bytes(await stream.receive_some(12))
