"""Encryption for Web Push: RFC 8291, with the coding of RFC 8188. The push service can't read it.

A key is agreed upon between a key pair made for this message alone and the browser's. The secret
``auth``, which the push service never saw, is mixed in. The message is one record:

    salt (16) │ record size (4) │ length of our public key (1) │ our public key (65) │ ciphertext
"""

from __future__ import annotations

import os
from typing import Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import (
    ECDH,
    SECP256R1,
    EllipticCurvePrivateKey,
    EllipticCurvePublicKey,
    generate_private_key,
)
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

RECORD_BYTES: Final = 4096
"""The largest message that every push service must carry."""

SALT_BYTES: Final = 16
KEY_BYTES: Final = 16
NONCE_BYTES: Final = 12
SHARED_BYTES: Final = 32

HEAD_BYTES: Final = SALT_BYTES + 4 + 1 + 65
TAG_BYTES: Final = 16
LAST_RECORD: Final = b"\x02"

PLAIN_BYTES: Final = RECORD_BYTES - HEAD_BYTES - TAG_BYTES - len(LAST_RECORD)
"""The most that fits into one message: 3993 bytes."""


def encrypt(plain: bytes, receiver: bytes, auth: bytes) -> bytes:
    """Return the body for a browser whose public key is ``receiver`` and whose secret is ``auth``.

    Raises ``ValueError`` if ``receiver`` isn't a point on the curve.
    """
    theirs = EllipticCurvePublicKey.from_encoded_point(SECP256R1(), receiver)
    ours = generate_private_key(SECP256R1())
    return _sealed(plain, theirs, auth, ours, os.urandom(SALT_BYTES))


def _sealed(
    plain: bytes,
    theirs: EllipticCurvePublicKey,
    auth: bytes,
    ours: EllipticCurvePrivateKey,
    salt: bytes,
) -> bytes:
    mine, other = public_bytes(ours.public_key()), public_bytes(theirs)
    info = b"WebPush: info\0" + other + mine
    shared = _derived(ours.exchange(ECDH(), theirs), auth, info, SHARED_BYTES)
    key = _derived(shared, salt, b"Content-Encoding: aes128gcm\0", KEY_BYTES)
    nonce = _derived(shared, salt, b"Content-Encoding: nonce\0", NONCE_BYTES)
    sealed = AESGCM(key).encrypt(nonce, plain + LAST_RECORD, None)
    return salt + RECORD_BYTES.to_bytes(4) + len(mine).to_bytes(1) + mine + sealed


def _derived(secret: bytes, salt: bytes, info: bytes, length: int) -> bytes:
    return HKDF(hashes.SHA256(), length, salt, info).derive(secret)


def public_bytes(key: EllipticCurvePublicKey) -> bytes:
    """Return the point, uncompressed: 65 bytes."""
    return key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
