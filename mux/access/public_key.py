"""A browser's public key, and the signatures that it makes: ECDSA on P-256 with SHA-256.

The private half was made by the browser, isn't extractable, and never leaves it. A key is kept as
the two coordinates of its JWK. Signatures are WebCrypto's: r and s, 32 bytes each.

Used by ``browser_pairing``, which takes a key, and ``sessions``, which checks what it signed. The
library takes 30 ms to load, which happens in a thread (`prepare`) before the first of either.
"""

from __future__ import annotations

import base64
import binascii
import importlib
import re
import sys
from typing import TYPE_CHECKING, Final

import trio

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

COORDINATE_BYTES: Final = 32
SIGNATURE_BYTES: Final = 2 * COORDINATE_BYTES

DIGEST_PREFIX: Final = "key:"
"""Begins the name that a key has in the device registry: no token's digest begins so."""

_COORDINATE: Final = re.compile(r"[A-Za-z0-9_-]{43}")
_EC: Final = "cryptography.hazmat.primitives.asymmetric.ec"


async def prepare() -> None:
    """Load the library, in a thread, if it isn't loaded yet."""
    if _EC in sys.modules:
        await trio.lowlevel.checkpoint()
    else:
        await trio.to_thread.run_sync(importlib.import_module, _EC)


def key_of(x: str, y: str) -> str:
    """Return a key as it is kept. Raises ``ValueError`` if it is no point of the curve."""
    if not _COORDINATE.fullmatch(x) or not _COORDINATE.fullmatch(y):
        raise ValueError("a coordinate is 32 bytes in base64url")
    key = f"{x}.{y}"
    _loaded(key)
    return key


def digest_of_key(key: str) -> str:
    """Return the name of a key in the device registry."""
    return DIGEST_PREFIX + key


def signed(key: str, text: str, signature: str) -> bool:
    """Return whether ``signature`` (base64url) is this key's, of this text."""
    from cryptography.exceptions import InvalidSignature  # noqa: PLC0415 (as above)
    from cryptography.hazmat.primitives import hashes  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric import ec, utils  # noqa: PLC0415

    try:
        raw = _decode(signature)
        if len(raw) != SIGNATURE_BYTES:
            return False
        r, s = (int.from_bytes(raw[at : at + COORDINATE_BYTES]) for at in (0, COORDINATE_BYTES))
        encoded = utils.encode_dss_signature(r, s)
        _loaded(key).verify(encoded, text.encode(), ec.ECDSA(hashes.SHA256()))
    except (InvalidSignature, ValueError):
        return False
    return True


def _loaded(key: str) -> EllipticCurvePublicKey:
    from cryptography.hazmat.primitives.asymmetric import ec  # noqa: PLC0415

    x, y = (int.from_bytes(_decode(each)) for each in key.split("."))
    return ec.EllipticCurvePublicNumbers(x, y, ec.SECP256R1()).public_key()


def _decode(text: str) -> bytes:
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, UnicodeEncodeError) as wrong:
        raise ValueError("no base64url") from wrong
