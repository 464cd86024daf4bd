"""The doctor's checks of tokens, secrets and certificates: whether they are there, and whose.

No secret is shown, and nothing is changed.
"""

from __future__ import annotations

import datetime
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from mux.access.authentication import open_auth
from mux.cli.doctor.finding import Finding
from mux.config.model import Config
from mux.downstream.sockets.tls import open_certificate
from mux.errors import AppmuxError
from mux.host import readiness

SOON: Final = datetime.timedelta(days=14)
"""Before its end a certificate should have been renewed: Let's Encrypt's and Tailscale's are, some
30 and 14 days before."""

OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO


def credentials(settings: Config) -> Iterator[Finding]:
    """Check the files that the settings name: token, shared secret, certificate, key."""
    yield from _auth(settings)
    yield from _certificate(settings)


def _auth(settings: Config) -> Iterator[Finding]:
    auth = settings.auth
    if auth.mode is None:
        return
    try:
        open_auth(auth)
    except AppmuxError as failure:
        remedy = "`appmux setup` makes a token; or name the right file in [auth]"
        yield Finding("credentials", "wrong", str(failure), remedy)
        return
    files = [each for each in (auth.token_file, auth.shared_secret_file) if each is not None]
    for path in files:
        yield _file(path) or Finding("credentials", "well", f"{path}, for you alone")


def _file(path: Path) -> Finding | None:
    """Return what is wrong with the mode of a secret's file; None if nothing is."""
    try:
        mode = path.stat().st_mode
    except OSError as failure:
        says = f"{path} can't be read: {failure.strerror}"
        return Finding("credentials", "wrong", says, "put it there, or name another file")
    if not mode & OTHERS:
        return None
    whose = "everybody" if mode & stat.S_IRWXO else "its group"
    may = "change" if mode & (stat.S_IWGRP | stat.S_IWOTH) else "read"
    says = f"{whose} on this host may {may} {path} (mode {stat.S_IMODE(mode):o})"
    return Finding("credentials", "wrong", says, f"`chmod 600 {path}`, and write a new secret")


def _certificate(settings: Config) -> Iterator[Finding]:
    tls = settings.tls
    try:
        opened = open_certificate(tls)
    except AppmuxError as failure:
        yield Finding("certificate", "wrong", str(failure), "mend [tls] in the settings")
        return
    if opened is None or tls.cert is None:
        return
    if tls.key is not None and (finding := _file(tls.key)) is not None:
        yield finding
    certificate = x509.load_pem_x509_certificates(tls.cert.read_bytes())[0]
    yield _valid(tls.cert, certificate)
    yield from _served(settings, tls.cert, certificate)


def _valid(path: Path, certificate: x509.Certificate) -> Finding:
    now, end = datetime.datetime.now(datetime.UTC), certificate.not_valid_after_utc
    day = f"{end:%Y-%m-%d}"
    facts = {"path": str(path), "until": end.isoformat()}
    renew = f"renew it into {path}, then `appmux service reload`"
    if end <= now:
        return Finding("certificate", "wrong", f"{path} has expired, on {day}", renew, facts)
    if certificate.not_valid_before_utc > now:
        says = f"{path} isn't valid before {certificate.not_valid_before_utc:%Y-%m-%d %H:%M}"
        return Finding("certificate", "wrong", says, "set the clock, or wait", facts)
    if end - now < SOON:
        says = f"{path} expires on {day}: whatever renews it should have done so"
        return Finding("certificate", "note", says, renew, facts)
    return Finding("certificate", "well", f"{path}, until {day}", facts=facts)


def _served(settings: Config, path: Path, certificate: x509.Certificate) -> Iterator[Finding]:
    """Report a broker that still serves an older certificate than the file has."""
    served = readiness.served_certificate(settings, dict(os.environ))
    if served is None or served == certificate.public_bytes(Encoding.DER):
        return
    says = f"the broker serves another certificate than {path} has"
    remedy = "`appmux service reload`; what renews it should do so, too"
    yield Finding("certificate served", "wrong", says, remedy)
