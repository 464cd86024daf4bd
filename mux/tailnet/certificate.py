"""The certificate of the Tailnet's name, with its key: one PEM file in the state directory.

It is kept so that a broker that starts, or goes on for another, has https before tailscaled has
answered.

Used by ``https``. Blocks, and imports cryptography: call it in a thread.
"""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Final

import attrs
from cryptography import x509
from cryptography.x509.oid import ExtensionOID

from mux.downstream.sockets import tls
from mux.errors import AppmuxError
from mux.posix import private_file
from mux.storage import json_file
from mux.tailnet import choice
from mux.text import day

FILE: Final = choice.CERTIFICATE

DAY: Final = 86_400.0

RENEW_BEFORE: Final = 21 * DAY
"""Seconds before its end from which on a newer certificate is asked for: a week of tries before the
two weeks that are left at least."""

LATE: Final = 14 * DAY
"""Seconds before its end from which on a certificate is said to be late, whatever is the cause."""


class CertificateError(AppmuxError):
    """Raised when what tailscaled gave can't be served."""


@attrs.frozen
class TailnetCertificate:
    """A certificate that can be served. Times in Unix seconds."""

    name: str
    since: float
    until: float
    served: tls.Certificate

    @property
    def renew_from(self) -> float:
        """The time from which a newer one is asked for; of a short one a third is left then."""
        return self.until - min(RENEW_BEFORE, (self.until - self.since) / 3)

    def days_left(self, now: float) -> float:
        """Return the days until its end."""
        return max(0.0, self.until - now) / DAY

    @property
    def late_from(self) -> float:
        """The time at which it should have been renewed."""
        return self.until - min(LATE, (self.until - self.since) / 4)


def load(state_dir: Path, name: str, now: float) -> TailnetCertificate | None:
    """Return the kept certificate of a name; None if there is none that can still be served."""
    try:
        return _read(state_dir / FILE, name, now)
    except (OSError, AppmuxError):
        return None


def keep(state_dir: Path, pem: bytes, name: str, now: float) -> TailnetCertificate:
    """Check a certificate with its key, and keep them. Raises ``CertificateError``.

    A disk that takes no file is an error, too: the TLS library reads from files alone.
    """
    path = state_dir / FILE
    try:
        new = json_file.prepare(path, pem.decode())
    except (OSError, UnicodeDecodeError) as failure:
        raise CertificateError(f"the certificate can't be kept in {path}: {failure}") from failure
    try:
        checked = _read(new, name, now)
        new.replace(path)
        private_file.sync_directory(path.parent)
    except (OSError, AppmuxError) as failure:
        new.unlink(missing_ok=True)
        text = str(failure).replace(str(new), str(path))
        raise CertificateError(f"what tailscaled gave can't be used: {text}") from failure
    served = tls.Certificate(path, path, checked.served.context)
    return attrs.evolve(checked, served=served)


def remove(state_dir: Path) -> None:
    """Remove the kept certificate and key."""
    (state_dir / FILE).unlink(missing_ok=True)


def _read(path: Path, name: str, now: float) -> TailnetCertificate:
    content = private_file.read(path)
    try:
        first = x509.load_pem_x509_certificates(content)[0]
    except (ValueError, IndexError) as failure:
        raise CertificateError(f"{path} holds no certificate") from failure
    names = _names(first)
    if name not in names:
        raise CertificateError(f"the certificate is for {', '.join(names) or 'no name'}")
    since, until = (_seconds(each) for each in (first.not_valid_before_utc,
                                                first.not_valid_after_utc))  # fmt: skip
    if until <= now:
        raise CertificateError(f"the certificate ended on {day(until)}")
    return TailnetCertificate(name, since, until, tls.Certificate(path, path, tls.read(path, path)))


def _names(certificate: x509.Certificate) -> list[str]:
    try:
        found = certificate.extensions.get_extension_for_oid(
            ExtensionOID.SUBJECT_ALTERNATIVE_NAME
        ).value
    except x509.ExtensionNotFound:
        return []
    assert isinstance(found, x509.SubjectAlternativeName)
    return [each.lower() for each in found.get_values_for_type(x509.DNSName)]


def _seconds(moment: datetime.datetime) -> float:
    return moment.timestamp()
