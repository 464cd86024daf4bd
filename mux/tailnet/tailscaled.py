"""Asks tailscaled: over its LocalAPI (HTTP on a unix socket), or by the ``tailscale`` command.

Reading is open to every local user. For a certificate one must be root, tailscaled's operator, or
the user that it permits by ``TS_PERMIT_CERT_UID``. Everything here blocks: call it in a thread.

Used by ``https``, and by the commands that ask where no broker runs.
"""

from __future__ import annotations

import errno
import getpass
import http.client
import os
import shutil
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import attrs

from mux.host.steps import Runner, run
from mux.tailnet import node
from mux.tailnet.node import BUSY, RESTART, SWITCHED_OFF, Node, TailscaledError

HOST: Final = "local-tailscaled.sock"
"""The ``Host`` that the LocalAPI asks for."""

SOCKET: Final = Path(
    "/var/run/tailscaled.socket" if sys.platform == "darwin" else
    "/var/run/tailscale/tailscaled.sock"
)  # fmt: skip
"""Where tailscaled listens by itself. Tailscale's app for macOS has no such socket."""

COMMANDS: Final = ("tailscale", "/Applications/Tailscale.app/Contents/MacOS/Tailscale")

STATUS_DEADLINE: Final = 10.0
"""Seconds. tailscaled answers from memory."""

CERTIFICATE_DEADLINE: Final = 120.0
"""Seconds. A first certificate is ordered from Let's Encrypt meanwhile, which may take half a
minute."""

MOST_BYTES: Final = 1024 * 1024
"""Most bytes of an answer: a status without peers and a chain of certificates have some KiB."""

INSTALL: Final = "install it (https://tailscale.com/download), then run `sudo tailscale up`"
START: Final = "run `sudo systemctl start tailscaled` (on a Mac: open Tailscale's app)"

UNKNOWN_FLAG: Final = "flag provided but not defined"
"""Said by a `tailscale` from before 1.66."""

_GONE: Final = frozenset({errno.ECONNREFUSED, errno.ENOENT, errno.ECONNRESET, errno.EPIPE})


@attrs.frozen
class Tailscaled:
    """The way to this machine's tailscaled."""

    socket: Path | None
    """The LocalAPI's; None: by the command."""
    command: str = ""
    runner: Runner = attrs.field(default=run, eq=False)
    status_deadline: float = STATUS_DEADLINE
    certificate_deadline: float = CERTIFICATE_DEADLINE

    def node(self) -> Node:
        """Return what this machine is in its Tailnet. Raises ``TailscaledError``."""
        if self.socket is None:
            return node.read(self._run("status", "--json", "--peers=false"))
        return node.read(self._get("/localapi/v0/status?peers=false", self.status_deadline))

    def certificate(self, name: str, valid_for: float) -> bytes:
        """Return key and certificates of a name, as PEM; the name's own certificate comes first.

        ``valid_for``: seconds that it has to be valid still; else tailscaled renews it first, or
        fails. (Versions before 1.66 don't know that, and renew some later.) Raises
        ``TailscaledError``.
        """
        seconds = f"{valid_for:.0f}s"
        if self.socket is None:
            printed = ("--cert-file=-", "--key-file=-", name)
            try:
                return self._run("cert", f"--min-validity={seconds}", *printed)
            except TailscaledError as failure:
                if UNKNOWN_FLAG not in str(failure):
                    raise
            return self._run("cert", *printed)
        path = f"/localapi/v0/cert/{name}?type=pair&min_validity={seconds}"
        return self._get(path, self.certificate_deadline)

    def _run(self, *words: str) -> bytes:
        if not self.command:
            raise TailscaledError("Tailscale isn't installed here", INSTALL)
        done = self.runner((self.command, *words))
        if done.returncode == 0:
            return done.stdout.encode()
        output = " ".join((done.stderr or done.stdout or "").split())
        raise refusal(output or f"`tailscale {words[0]}` failed", words[0] == "cert")

    def _get(self, path: str, deadline: float) -> bytes:
        assert self.socket is not None
        connection = http.client.HTTPConnection(HOST)
        with _translated_errors(self.socket, deadline):
            _require_trusted(self.socket)
            connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                connection.sock.settimeout(deadline)
                connection.sock.connect(str(self.socket))
                connection.request("GET", path)
                answer = connection.getresponse()
                body = answer.read(MOST_BYTES)
            finally:
                connection.close()
        if answer.status == http.client.OK:
            return body
        text = body.decode(errors="replace").strip() or f"{answer.status} {answer.reason}"
        raise refusal(text, path.startswith("/localapi/v0/cert/"))


def find(
    named: Path | None,
    which: Callable[[str], str | None] = shutil.which,
) -> Tailscaled:
    """Return the way to tailscaled: the socket that the settings name, else the usual one if it is
    there, else the command."""
    if named is not None:
        return Tailscaled(named)
    if SOCKET.exists():
        return Tailscaled(SOCKET)
    found = (which(each) for each in COMMANDS)
    return Tailscaled(None, next(filter(None, found), ""))


def _require_trusted(path: Path) -> None:
    """Raise ``TailscaledError`` if somebody else than root or we could be behind a socket: who
    gives us a key knows it."""
    owner = path.stat().st_uid
    if owner not in (0, os.geteuid()):
        raise TailscaledError(
            f"{path} belongs to another user ({owner}), so it isn't asked for a key",
            "let `tailnet.socket` name tailscaled's own, which is root's",
        )


@contextmanager
def _translated_errors(path: Path, deadline: float) -> Iterator[None]:
    """Raise ``TailscaledError`` for what keeps us from speaking with tailscaled."""
    try:
        yield
    except TimeoutError as failure:
        text = f"tailscaled gives no answer within {deadline:.0f} s"
        raise TailscaledError(text, RESTART) from failure
    except OSError as failure:
        if failure.errno in _GONE:
            raise TailscaledError("tailscaled doesn't run here", START) from failure
        reason = failure.strerror or str(failure)
        raise TailscaledError(f"can't reach tailscaled at {path}: {reason}", START) from failure
    except http.client.HTTPException as failure:
        text = f"{path} doesn't speak as tailscaled does ({type(failure).__name__})"
        raise TailscaledError(text, "let `tailnet.socket` name tailscaled's own") from failure


def refusal(text: str, of_certificate: bool) -> TailscaledError:
    """Return the error for what tailscaled, or its command, said in place of an answer."""
    lower = text.lower()
    if "access denied" in lower:
        user = getpass.getuser()
        return TailscaledError(
            f"tailscaled gives certificates to root and its operator alone, and {user} is neither",
            f"run `sudo tailscale set --operator={user}`; or, to permit certificates and nothing"
            f" else, put the line TS_PERMIT_CERT_UID={user} into /etc/default/tailscaled and run"
            " `sudo systemctl restart tailscaled`. Then: `appmux tailnet enable`",
        )
    if "does not support getting tls certs" in lower:
        return TailscaledError("HTTPS is off in this tailnet", SWITCHED_OFF)
    if "failed to connect to local tailscale" in lower:
        return TailscaledError("tailscaled doesn't run here", START)
    if not of_certificate:
        return TailscaledError(f"tailscaled says: {text}", START)
    again_soon = "invalid domain" in lower
    return TailscaledError(f"no certificate: tailscaled says: {text}", BUSY, again_soon=again_soon)
