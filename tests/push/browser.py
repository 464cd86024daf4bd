"""A browser that has subscribed: its keys, and how it reads what it is told (by http_ece)."""

from __future__ import annotations

import base64
import os

import attrs
import http_ece
from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP256R1,
    EllipticCurvePrivateKey,
    generate_private_key,
)

from mux.push.endpoints import Endpoint
from mux.push.services.webpush_encryption import public_bytes
from tests.push.told import endpoint


def text(raw: bytes) -> str:
    """Base64url, as browsers give it."""
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


@attrs.define
class Browser:
    """One whose push service is at `url`."""

    url: str
    key: EllipticCurvePrivateKey = attrs.field(factory=lambda: generate_private_key(SECP256R1()))
    auth: bytes = attrs.field(factory=lambda: os.urandom(16))

    @property
    def registration(self) -> Endpoint:
        return endpoint(
            "webpush",
            endpoint=f"{self.url}/push/secret-path",
            p256dh=text(public_bytes(self.key.public_key())),
            auth=text(self.auth),
        )

    def read(self, body: bytes) -> bytes:
        read: bytes = http_ece.decrypt(
            body, private_key=self.key, auth_secret=self.auth, version="aes128gcm"
        )
        return read
