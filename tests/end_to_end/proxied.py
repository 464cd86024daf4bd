"""Real proxies on a test bench, set up by the very blocks of `docs/proxy.md`.

Of a block only names, ports and certificates are replaced; where a program wants more than the page
shows (a place for its files, what Debian's own file says around it), that is put around the block.

Hands to: `test_proxies`. Hears from: `caddy`, `nginx`, `haproxy`, `sshd`, `ssh`.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import attrs
import pytest
import trio

from tests import knocks
from tests.certificates import issue
from tests.end_to_end.native import Native
from tests.end_to_end.peer import PATIENCE
from tests.ports import kept_port

PAGE: Final = Path(__file__).parents[2] / "docs" / "proxy.md"

LOOK: Final = 0.05
"""Seconds between two looks whether a program is ready."""


def block(language: str, containing: str = "") -> str:
    """The code block of the page in this language, the first that has some words in it."""
    found = re.findall(rf"^```{language}\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    return next(str(each) for each in found if containing in each)


def program(name: str) -> str:
    """The path of a program; the test is skipped where there is none."""
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")
    if found is None:
        pytest.skip(f"{name} isn't installed: `apt install {name}`")
    return found


def replaced(text: str, *pairs: tuple[str, str]) -> str:
    """A text with each of these replaced; what isn't there has been renamed on the page."""
    for old, new in pairs:
        assert old in text, old
        text = text.replace(old, new)
    return text


@attrs.frozen
class Proxy:
    """A running proxy."""

    name: str
    port: int
    trusting: Callable[[], ssl.SSLContext]
    """What a client needs that trusts its certificate."""

    @property
    def origin(self) -> str:
        """Where a browser finds it."""
        return f"https://localhost:{self.port}"

    def request(self, line: str, *headers: str) -> bytes:
        """A request for it."""
        sent = knocks.request(line, *headers)
        return sent.replace(b"host: x", f"host: localhost:{self.port}".encode())

    async def connect(self, source: str = "127.0.0.1") -> trio.SSLStream[trio.SocketStream]:
        """A TLS connection, from an address of this machine."""
        with trio.fail_after(PATIENCE):
            while True:
                bare = await trio.open_tcp_stream("127.0.0.1", self.port, local_address=source)
                stream = trio.SSLStream(
                    bare, self.trusting(), server_hostname="localhost", https_compatible=True
                )
                try:
                    await stream.do_handshake()
                except trio.BrokenResourceError:  # Caddy listens before it has its certificate
                    await trio.aclose_forcefully(stream)
                    await trio.sleep(LOOK)
                else:
                    return stream


@asynccontextmanager
async def running(
    command: Sequence[str], ready: Callable[[], bool], **environ: str
) -> AsyncIterator[trio.Process]:
    """A program in the foreground, once it is ready; ended at the end of the block."""
    process = await trio.lowlevel.open_process(
        list(command), stdin=subprocess.DEVNULL, env=os.environ | environ
    )
    try:
        with trio.fail_after(PATIENCE):
            while not ready():
                assert process.poll() is None, f"{command[0]} ended by itself"
                await trio.sleep(LOOK)
        yield process
    finally:
        with trio.CancelScope(shield=True):
            process.terminate()
            with trio.move_on_after(PATIENCE) as late:
                await process.wait()
            if late.cancelled_caught:
                process.kill()
                await process.wait()


def listens(port: int) -> Callable[[], bool]:
    """A function that looks whether somebody listens at a port of loopback."""

    def look() -> bool:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            return False
        return True

    return look


def _target(broker: Native) -> tuple[str, str]:
    return "127.0.0.1:14500", broker.url.removeprefix("ws://")


@asynccontextmanager
async def caddy(broker: Native, port: int, where: Path) -> AsyncIterator[Proxy]:
    """Caddy, which is its own authority for `localhost`."""
    path = program("caddy")
    around = (
        "{\n\tadmin off\n\tskip_install_trust\n\tauto_https disable_redirects\n"
        f"\tdefault_bind 127.0.0.1\n\tstorage file_system {where}\n}}\n"
    )
    file = where / "Caddyfile"
    name = ("appmux.example", f"localhost:{port}")
    file.write_text(around + replaced(block("caddyfile"), name, _target(broker)))
    root = where / "pki" / "authorities" / "local" / "root.crt"
    leaf = where / "certificates" / "local" / "localhost" / "localhost.crt"
    listening = listens(port)
    command = [path, "run", "--config", str(file), "--adapter", "caddyfile"]
    home = {"HOME": str(where), "XDG_CONFIG_HOME": str(where)}
    async with running(command, lambda: leaf.exists() and listening(), **home):
        yield Proxy("caddy", port, lambda: ssl.create_default_context(cafile=str(root)))


@asynccontextmanager
async def nginx(broker: Native, port: int, where: Path) -> AsyncIterator[Proxy]:
    """nginx, with what Debian's `nginx.conf` says around the block."""
    path = program("nginx")
    issued = issue(where)
    live = "/etc/letsencrypt/live/appmux.example"
    server = replaced(
        block("nginx"),
        ("    listen [::]:443 ssl;\n", ""),
        ("listen 443 ssl", f"listen 127.0.0.1:{port} ssl"),
        ("server_name appmux.example", "server_name localhost"),
        (f"{live}/fullchain.pem", str(issued.cert)),
        (f"{live}/privkey.pem", str(issued.key)),
        _target(broker),
    )
    temporary = "".join(
        f"{kind}_temp_path {where / kind};\n"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    user = "user root;\n" if os.geteuid() == 0 else ""
    file = where / "nginx.conf"
    file.write_text(
        f"{user}daemon off;\npid {where / 'pid'};\nerror_log stderr warn;\n"
        f"events {{}}\nhttp {{\naccess_log off;\n{temporary}{server}}}\n"
    )
    async with running([path, "-p", str(where), "-c", str(file)], listens(port)):
        yield Proxy("nginx", port, issued.trusting)


@asynccontextmanager
async def haproxy(broker: Native, port: int, where: Path) -> AsyncIterator[Proxy]:
    """HAProxy."""
    path = program("haproxy")
    issued = issue(where)
    both = where / "both.pem"
    both.write_bytes(issued.cert.read_bytes() + issued.key.read_bytes())
    file = where / "haproxy.cfg"
    file.write_text(
        replaced(
            block("haproxy"),
            ("bind :443", f"bind 127.0.0.1:{port}"),
            ("/etc/haproxy/appmux.example.pem", str(both)),
            _target(broker),
        )
    )
    async with running([path, "-db", "-f", str(file)], listens(port)):
        yield Proxy("haproxy", port, issued.trusting)


PROXIES: Final = {"caddy": caddy, "nginx": nginx, "haproxy": haproxy}


# -- SSH -------------------------------------------------------------------------------------------


@attrs.frozen
class Server:
    """A running sshd that lets this user in, and the options by which `ssh` finds it."""

    options: tuple[str, ...]

    def command(self, containing: str, *pairs: tuple[str, str]) -> list[str]:
        """The page's command that has some words in it, for this server."""
        text = replaced(block("sh", containing), ("HOST", "127.0.0.1"), *pairs)
        ssh, *words = shlex.split(text)
        return [program(ssh), *self.options, *words]


@asynccontextmanager
async def sshd(where: Path) -> AsyncIterator[Server]:
    """An sshd of this user's own."""
    path, keygen = program("sshd"), program("ssh-keygen")
    if os.geteuid() == 0:  # as its init script does
        await trio.Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    for name in ("host", "user"):
        await trio.run_process([keygen, "-q", "-t", "ed25519", "-N", "", "-f", str(where / name)])
    with kept_port() as port:
        lines = (
            f"Port {port}", "ListenAddress 127.0.0.1", f"HostKey {where / 'host'}",
            f"AuthorizedKeysFile {where / 'user.pub'}", f"PidFile {where / 'pid'}",
            "StrictModes no", "UsePAM no", "PasswordAuthentication no",
        )  # fmt: skip
        (where / "sshd_config").write_text("\n".join(lines) + "\n")
        options = (
            "-F", "none", "-i", str(where / "user"), "-p", str(port),
            "-o", "StrictHostKeyChecking=no", "-o", f"UserKnownHostsFile={where / 'known'}",
            "-o", "BatchMode=yes", "-o", "ExitOnForwardFailure=yes", "-o", "LogLevel=ERROR",
        )  # fmt: skip
        command = [path, "-D", "-e", "-f", str(where / "sshd_config")]
        async with running(command, listens(port)):
            yield Server(options)
