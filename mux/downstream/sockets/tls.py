"""The certificate of the ``wss://`` listeners: read at the start, and again on SIGHUP.

A connection keeps the certificate that it began with; a new one gets the one that was read last.
Files that can't be used are an error at the start, and change nothing later.

Used by ``listener``, for each new connection's context, and ``server``, which reads again.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from mux.core.part import Part
from mux.errors import AppmuxError
from mux.posix import private_file

if TYPE_CHECKING:
    from mux.config.model import Tls

FIRST_VERSION = ssl.TLSVersion.TLSv1_2
"""Older versions have known holes; every client since 2014 knows this one (RFC 8996)."""

PROTOCOL = "http/1.1"
"""Protocol to offer by ALPN: a WebSocket begins with HTTP/1.1, and HTTP/2 isn't spoken here."""


class TlsError(AppmuxError):
    """A certificate or key that can't be used."""


def open_certificate(tls: Tls) -> Certificate | None:
    """Read the configured files; None if none are configured. Raises ``TlsError``."""
    if tls.cert is None and tls.key is None:
        return None
    if tls.cert is None:
        raise TlsError("`--tls-key` needs `--tls-cert`, the certificate that it belongs to")
    if tls.key is None:
        raise TlsError("`--tls-cert` needs `--tls-key`, its private key")
    return Certificate(tls.cert, tls.key, read(tls.cert, tls.key))


class Certificate(Part):
    """A certificate and its key, read from PEM files."""

    cert: Path
    """The file with the chain, the server's own certificate first."""
    key: Path
    context: ssl.SSLContext
    """The context for new connections."""

    def read_again(self) -> Callable[[], None]:
        """Read the files again, and return the function that puts them in force.

        Blocks: call it in a thread. Raises ``TlsError`` if the files can't be used; then the
        certificate in force stays.
        """
        context = read(self.cert, self.key)
        return lambda: self._present(context)

    def _present(self, context: ssl.SSLContext) -> None:
        self.context = context


def read(cert: Path, key: Path) -> ssl.SSLContext:
    """Return a server's context for a certificate and its key. Blocks. Raises ``TlsError``."""
    for what, path in (("certificate", cert), ("key", key)):
        _require_pem(what, path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = FIRST_VERSION
    context.set_alpn_protocols([PROTOCOL])
    try:
        context.load_cert_chain(cert, key, password=_ask_nobody(key))
    except ssl.SSLError as failure:
        reason = failure.reason or ""
        if reason == "KEY_VALUES_MISMATCH":
            raise TlsError(
                f"the TLS key {key} isn't the key of the certificate {cert}: give the pair that was"
                " made together, the server's own certificate first in its file"
            ) from None
        # Unchained, like all errors here: OpenSSL's own text says nothing more.
        shown = reason.lower().replace("_", " ") or "not PEM"
        raise TlsError(
            f"the TLS certificate {cert} and key {key} can't be used ({shown}): both must be PEM,"
            " the key not encrypted"
        ) from None
    return context


def _require_pem(what: str, path: Path) -> None:
    try:
        if what == "key":
            content = private_file.read_secret(path)
        else:
            content = private_file.read(path, links=True, foreign=True)
    except OSError as failure:
        raise TlsError(f"can't read the TLS {what} {path}: {failure.strerror}") from failure
    marker = b"CERTIFICATE-----" if what == "certificate" else b"PRIVATE KEY-----"
    if marker not in content:
        raise TlsError(
            f"the TLS {what} {path} holds no `-----BEGIN …{marker.decode()}`: it must be PEM"
        )


def _ask_nobody(key: Path) -> Callable[[], NoReturn]:
    """Return a password callback that raises ``TlsError``.

    Without it OpenSSL asks on the terminal, which would hold up the whole broker.
    """

    def refuse() -> NoReturn:
        raise TlsError(
            f"the TLS key {key} is encrypted; write it without (`openssl pkey -in … -out …`),"
            " readable for you alone"
        )

    return refuse
