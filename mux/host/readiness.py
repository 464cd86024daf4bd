"""Ask a broker's `/readyz` whether it is ready, as a load balancer would ask.

Used by ``setup`` and ``doctor``.
"""

from __future__ import annotations

import http.client
import socket
import ssl
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from mux.config import locate
from mux.config.addresses import Address, TcpAddress, parse_listen_url
from mux.config.codex_binary import codex_home
from mux.config.model import Config

OK: Final = "200"

PATIENCE: Final = 90.0
"""Seconds to wait until `/readyz` answers 200: a first start of codex on a cold disk is slow."""

LOOK_SECONDS: Final = 0.2
ANSWER_DEADLINE: Final = 2.0

EVERYWHERE: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}
"""Addresses of a listener on all interfaces, and where this machine reaches it."""


def wait(
    config: Config, environ: Mapping[str, str], hopeless: Callable[[], bool] = lambda: False
) -> str:
    """Wait until `/readyz` says ``OK``, for ``PATIENCE`` at most; return its last answer.

    Ends sooner if it is ``hopeless``.
    """
    deadline = time.monotonic() + PATIENCE
    while True:
        answer = probe(config, environ)
        if answer == OK or time.monotonic() > deadline or hopeless():
            return answer
        time.sleep(LOOK_SECONDS)


def probe(config: Config, environ: Mapping[str, str]) -> str:
    """Return the status of `/readyz` at the first listener that answers, or why none does."""
    reason = "nothing"
    for url in sorted(config.listen, key=lambda url: not url.startswith("unix:")):
        address = parse_listen_url(url, codex_home(environ))
        try:
            return str(_status(_connected(address)))
        except (OSError, http.client.HTTPException) as failure:
            reason = getattr(failure, "strerror", None) or str(failure) or type(failure).__name__
    return reason


def served_certificate(config: Config, environ: Mapping[str, str]) -> bytes | None:
    """Return the certificate that the first ``wss://`` listener serves, as DER; None if none does.

    Whether it is to be trusted isn't asked.
    """
    for url in config.listen:
        address = parse_listen_url(url, codex_home(environ))
        if isinstance(address, TcpAddress) and address.tls:
            try:
                with _connected(address) as opened:
                    return opened.getpeercert(True) if isinstance(opened, ssl.SSLSocket) else None
            except OSError:
                return None
    return None


def _connected(address: Address) -> socket.socket:
    if isinstance(address, TcpAddress):
        ip = str(address.ip)
        connection = socket.create_connection(
            (EVERYWHERE.get(ip, ip), address.port), timeout=ANSWER_DEADLINE
        )
        # The certificate names another host than an IP of this one; nothing secret is sent here.
        return _encrypted(connection) if address.tls else connection
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(ANSWER_DEADLINE)
        connection.connect(locate.address(Path(str(address))))
    except BaseException:
        connection.close()
        raise
    return connection


def _encrypted(connection: socket.socket) -> socket.socket:
    """Wrap in TLS without checking the certificate, which is for names that phones use."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        return context.wrap_socket(connection)
    except BaseException:
        connection.close()
        raise


def _status(opened: socket.socket) -> int:
    connection = http.client.HTTPConnection("localhost", timeout=ANSWER_DEADLINE)
    connection.sock = opened
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status
    finally:
        connection.close()
