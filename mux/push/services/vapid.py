"""VAPID (RFC 8292): identifies this broker to a browser's push service.

The key is made once, if the settings name none (``vapid.pem`` in the state directory). A
subscription is bound to this key: with another one, every browser must subscribe anew.
"""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import attrs
import jwt
from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP256R1,
    EllipticCurvePrivateKey,
    generate_private_key,
)
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from mux.config import model
from mux.posix import private_file
from mux.push import key_file
from mux.push.message import PushError
from mux.push.services.webpush_encryption import public_bytes
from mux.storage import json_file

FILE: Final = "vapid.pem"

LIFETIME: Final = 12 * 3600.0
"""Seconds of a token. RFC 8292 allows 24 hours; this is half of it, so that no wrong clock makes it
longer."""

RENEW_BEFORE: Final = 3600.0
"""Seconds before its end at which a token is renewed."""

MOST_TOKENS: Final = 64
"""Most tokens kept, one for each push service's origin; there are five or so in the world."""


@attrs.define(eq=False, repr=False)
class Vapid:
    """The key, and the tokens that were signed with it."""

    key: EllipticCurvePrivateKey = attrs.field(repr=False)
    subject: str | None
    """How a push service may reach the operator (a ``mailto:`` or ``https:`` URL), or None."""
    _tokens: dict[str, tuple[str, float]] = attrs.field(factory=dict, repr=False)
    """Token and its end, in Unix seconds, for each origin."""

    @property
    def public_key(self) -> str:
        """The public key in base64url: a browser's ``applicationServerKey``."""
        return _base64url(public_bytes(self.key.public_key()))

    def authorization(self, url: str, now: float) -> str:
        """Return the ``Authorization`` header's value for a push to this URL."""
        parts = urlsplit(url)
        audience = f"{parts.scheme}://{parts.netloc}"
        token, until = self._tokens.get(audience, ("", 0.0))
        if not now < until - RENEW_BEFORE < now + LIFETIME:
            until = now + LIFETIME
            claims = {"aud": audience, "exp": int(until)}
            if self.subject:
                claims["sub"] = self.subject
            token = jwt.encode(claims, self.key, algorithm="ES256")
            if len(self._tokens) >= MOST_TOKENS:
                self._tokens.clear()
            self._tokens[audience] = (token, until)
        return f"vapid t={token}, k={self.public_key}"


def open_vapid(settings: model.WebPush, state_dir: Path) -> Vapid:
    """Read the key of the settings, or the state directory's own, which is made if there is none.

    Blocks. Raises ``PushError``.
    """
    setting, path = "push.webpush.key_file", settings.key_file
    if path is None:
        path = state_dir / FILE
        try:
            exists = private_file.check(path)
        except OSError as failure:
            raise PushError(
                f"can't use the key for Web Push {path}: {failure.strerror}"
            ) from failure
        if not exists:
            _make(path)
    text = key_file.read(path, setting)
    try:
        key = load_pem_private_key(text.encode(), None)
    except (ValueError, TypeError) as failure:
        raise PushError(f"{setting}: {path} isn't a private key in PEM, unencrypted") from failure
    if not isinstance(key, EllipticCurvePrivateKey) or not isinstance(key.curve, SECP256R1):
        raise PushError(f"{setting}: {path} isn't a key on the curve P-256")
    return Vapid(key, settings.subject)


def _make(path: Path) -> None:
    key = generate_private_key(SECP256R1())
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    try:
        json_file.replace(path, pem.decode())
    except OSError as failure:
        raise PushError(f"can't keep a key for Web Push in {path}: {failure.strerror}") from failure


def _base64url(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")
