"""A stand-in of tailscaled: its LocalAPI on a unix socket, with certificates of our own authority.

It answers as tailscaled's public source does: statuses, texts and all. A test changes its fields
while it runs. By hand: `python -m tests.tailnet.stand_in DIRECTORY NAME ADDRESS…`.

Hands to: the tests of `mux.tailnet`, `setup`, `doctor` and the page.
"""

from __future__ import annotations

import datetime
import http.server
import json
import socketserver
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

import attrs
import trustme

NAME: Final = "box.tail1234.ts.net"
LIFETIME: Final = datetime.timedelta(days=90)

DENIED: Final = (403, "cert access denied")
NO_HTTPS: Final = (500, "your Tailscale account does not support getting TLS certs")


@attrs.define(eq=False)
class Tailscaled:
    """What it answers, and what it was asked."""

    directory: Path
    name: str = NAME
    addresses: tuple[str, ...] = ("127.0.0.2",)
    state: str = "Running"
    https: bool = True
    """HTTPS is on in the tailnet."""
    refusal: tuple[int, str] | None = None
    """What a request for a certificate is answered."""
    mute: bool = False
    """It takes connections, and answers nothing."""
    status: bytes | None = None
    """Said in the place of a status."""
    left: datetime.timedelta = LIFETIME
    """Until the end of the next certificate."""
    knows_validity: bool = True
    """False: as versions before 1.66, which don't know `min_validity`."""
    authority: trustme.CA = attrs.field(factory=trustme.CA)
    asked: list[str] = attrs.field(factory=list)
    """Paths with their queries."""
    _certificates: dict[str, tuple[bytes, datetime.datetime]] = attrs.field(factory=dict)
    _server: socketserver.ThreadingUnixStreamServer | None = None
    _released: threading.Event = attrs.field(factory=threading.Event)

    @property
    def socket(self) -> Path:
        return self.directory / "tailscaled.sock"

    @property
    def ca(self) -> Path:
        """The authority's certificate, in a file."""
        path = self.directory / "authority.pem"
        self.authority.cert_pem.write_to_path(str(path))
        return path

    def orders(self) -> int:
        """How often a certificate was asked for."""
        return sum("/cert/" in each for each in self.asked)

    def start(self) -> None:
        self.socket.unlink(missing_ok=True)
        self._released.clear()
        handler = type("Handler", (_Handler,), {"tailscaled": self})
        self._server = _Server(str(self.socket), handler)
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        """End it, as a stop of the service does; the socket's file stays, as of a kill."""
        assert self._server is not None
        self._released.set()
        self._server.shutdown()
        self._server.server_close()

    def renew(self, left: datetime.timedelta = LIFETIME) -> None:
        """Have another certificate from now on, as a renewal in the background does."""
        self.left = left
        self._certificates.clear()

    # -- answers -----------------------------------------------------------------------------------

    def answer(self, target: str) -> tuple[int, bytes]:
        self.asked.append(target)
        if self.mute:
            self._released.wait()
        path, query = urlsplit(target).path, parse_qs(urlsplit(target).query)
        if path == "/localapi/v0/status":
            return 200, self.status or json.dumps(self._status()).encode()
        if path.startswith("/localapi/v0/cert/"):
            return self._cert(path.rpartition("/")[2], query)
        return 404, b"404 not found"

    def _status(self) -> dict[str, Any]:
        return {
            "Version": "1.90.0-t1234",
            "BackendState": self.state,
            "TailscaleIPs": list(self.addresses),
            "Self": {
                "ID": "n1CNTRL",
                "HostName": "box",
                "DNSName": f"{self.name}." if self.name else "",
                "TailscaleIPs": list(self.addresses),
                "Online": True,
            },
            "CertDomains": [self.name] if self.https and self.name else None,
            "Peer": None,
        }

    def _cert(self, name: str, query: dict[str, list[str]]) -> tuple[int, bytes]:
        assert query["type"] == ["pair"]
        if self.refusal is not None:
            return self.refusal[0], self.refusal[1].encode()
        if not self.https:
            return NO_HTTPS[0], NO_HTTPS[1].encode()
        if name != self.name:
            return 500, f'invalid domain "{name}"; must be one of ["{self.name}"]'.encode()
        least = float(query["min_validity"][0].removesuffix("s")) if self.knows_validity else 0.0
        made = self._certificates.get(name)
        now = datetime.datetime.now(datetime.UTC)
        if made is None or (made[1] - now).total_seconds() < least:
            made = self._certificates[name] = self.issue(name)
        return 200, made[0]

    def issue(self, name: str) -> tuple[bytes, datetime.datetime]:
        """A key with its certificate, as tailscaled writes the pair, and the certificate's end."""
        end = datetime.datetime.now(datetime.UTC) + self.left
        made = self.authority.issue_cert(name, not_before=end - LIFETIME, not_after=end)
        return made.private_key_and_cert_chain_pem.bytes(), end


class _Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Nothing: who asked has gone, as those do that a hanging tailscaled keeps waiting."""


class _Handler(http.server.BaseHTTPRequestHandler):
    tailscaled: Tailscaled

    def do_GET(self) -> None:
        if self.headers["Host"] != "local-tailscaled.sock":
            self.send_error(403, "invalid localapi request")
            return
        status, body = self.tailscaled.answer(self.path)
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def address_string(self) -> str:
        return "unix"

    def log_message(self, *_words: object) -> None:
        """Nothing."""


@contextmanager
def tailscaled(directory: Path, **fields: Any) -> Iterator[Tailscaled]:
    """A stand-in that runs for as long as the block takes."""
    directory.mkdir(parents=True, exist_ok=True)
    made = Tailscaled(directory, **fields)
    made.start()
    try:
        yield made
    finally:
        made.stop()


if __name__ == "__main__":
    with tailscaled(Path(sys.argv[1]), name=sys.argv[2], addresses=tuple(sys.argv[3:])) as running:
        sys.stdout.write(f"{running.socket}\nauthority: {running.ca}\n")
        sys.stdout.flush()
        threading.Event().wait()
