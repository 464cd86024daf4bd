"""The rules of authentication: the auth flags, checked, with the secrets that they name.

The flags and their errors are the app-server's own. No secret appears in an error or a ``repr``.

Used by ``authentication``.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import msgspec

from mux.errors import AppmuxError
from mux.posix import private_file

if TYPE_CHECKING:
    from mux.config.model import Auth

DEFAULT_CLOCK_SKEW = 30
"""Seconds by which ``exp`` and ``nbf`` may be off; the app-server's own default."""

LONGEST_CLOCK_SKEW = 2**63 - 1
"""Seconds; the app-server keeps the skew in a signed 64-bit integer."""

SHORTEST_SHARED_SECRET = 32
"""Bytes: an HS256 key shorter than the digest can be guessed offline from one token."""

_SHA256_HEX = re.compile(r"[0-9a-fA-F]{64}")


class AuthConfigError(AppmuxError):
    """Auth flags that contradict each other, or a secret that can't be used. Exit status 1."""


def require_consistent(auth: Auth) -> None:
    """Check that the flags go together. Raises ``AuthConfigError``."""
    capability = auth.token_file is not None or auth.token_sha256 is not None
    signed = (
        auth.shared_secret_file is not None
        or auth.issuer is not None
        or auth.audience is not None
        or auth.max_clock_skew_seconds is not None
    )
    if auth.mode is None and (capability or signed):
        raise AuthConfigError(
            "websocket auth flags require `--ws-auth capability-token`"
            " or `--ws-auth signed-bearer-token`"
        )
    if auth.mode == "device-token" and (capability or signed):
        raise AuthConfigError(
            "`--ws-auth device-token` lets in paired devices alone: `--ws-token-file`,"
            " `--ws-token-sha256` and the flags of JWTs belong to the other modes"
        )
    if auth.mode == "capability-token":
        _require_consistent_capability(auth, signed=signed)
    if auth.mode == "signed-bearer-token":
        _require_consistent_signed(auth, capability=capability)


def _require_consistent_capability(auth: Auth, *, signed: bool) -> None:
    if signed:
        raise AuthConfigError(
            "`--ws-shared-secret-file`, `--ws-issuer`, `--ws-audience`, and"
            " `--ws-max-clock-skew-seconds` require `--ws-auth signed-bearer-token`"
        )
    if auth.token_file is not None and auth.token_sha256 is not None:
        raise AuthConfigError("`--ws-token-file` and `--ws-token-sha256` are mutually exclusive")
    if auth.token_file is None and auth.token_sha256 is None:
        raise AuthConfigError(
            "`--ws-token-file` or `--ws-token-sha256` is required"
            " when `--ws-auth capability-token` is set"
        )


def _require_consistent_signed(auth: Auth, *, capability: bool) -> None:
    if capability:
        raise AuthConfigError(
            "`--ws-token-file` and `--ws-token-sha256` require"
            " `--ws-auth capability-token`, not `signed-bearer-token`"
        )
    if auth.shared_secret_file is None:
        raise AuthConfigError(
            "`--ws-shared-secret-file` is required when `--ws-auth signed-bearer-token` is set"
        )
    if (auth.max_clock_skew_seconds or 0) > LONGEST_CLOCK_SKEW:
        raise AuthConfigError("websocket auth clock skew must fit in a signed 64-bit integer")
    if (auth.max_clock_skew_seconds or 0) < 0:
        raise AuthConfigError("websocket auth clock skew must not be negative")


class Open(msgspec.Struct, frozen=True):
    """No auth mode: every client that reaches the listener is let in."""


class DevicesOnly(msgspec.Struct, frozen=True):
    """The mode ``device-token``: only paired devices are let in."""


@attrs.frozen
class CapabilityToken:
    """The mode ``capability-token``: whoever has the token is let in."""

    digest: bytes = attrs.field(repr=False)


@attrs.frozen
class SignedBearer:
    """The mode ``signed-bearer-token``: JWTs that are signed with the secret are let in."""

    secret: bytes = attrs.field(repr=False)
    issuer: str | None
    audience: str | None
    skew: int


Rules = Open | DevicesOnly | CapabilityToken | SignedBearer


def read_rules(auth: Auth) -> Rules:
    """Read the rules and their secret. Blocks. Raises ``AuthConfigError``."""
    if auth.mode == "capability-token":
        if auth.token_file is None:
            return CapabilityToken(_parse_digest(auth.token_sha256 or ""))
        return CapabilityToken(hashlib.sha256(_read_secret(auth.token_file)).digest())
    if auth.mode == "signed-bearer-token" and auth.shared_secret_file is not None:
        secret = _read_secret(auth.shared_secret_file)
        if len(secret) < SHORTEST_SHARED_SECRET:
            raise AuthConfigError(
                f"signed websocket bearer secret {_absolute(auth.shared_secret_file)}"
                f" must be at least {SHORTEST_SHARED_SECRET} bytes"
            )
        _refuse_public_key(secret, auth.shared_secret_file)
        skew = auth.max_clock_skew_seconds
        return SignedBearer(
            secret=secret,
            # A blank value counts as not given, as in the app-server.
            issuer=(auth.issuer or "").strip() or None,
            audience=(auth.audience or "").strip() or None,
            skew=DEFAULT_CLOCK_SKEW if skew is None else skew,
        )
    return DevicesOnly() if auth.mode == "device-token" else Open()


def _refuse_public_key(secret: bytes, path: Path) -> None:
    """Refuse a key pair's key as secret: whoever has read the public key would be let in."""
    import jwt  # noqa: PLC0415 (it takes a tenth of the broker's start, and one mode needs it)

    try:
        jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256).prepare_key(secret)
    except jwt.InvalidKeyError:
        raise AuthConfigError(
            f"signed websocket bearer secret {_absolute(path)} holds a key pair's key or a"
            " certificate, which is no secret for HS256: make one by `openssl rand -base64 32`"
        ) from None


def _parse_digest(text: str) -> bytes:
    text = text.strip()
    if not _SHA256_HEX.fullmatch(text):
        raise AuthConfigError("--ws-token-sha256 must be a 64-character hex SHA-256 digest")
    return bytes.fromhex(text)


def _read_secret(path: Path) -> bytes:
    path = _absolute(path)
    try:
        secret = private_file.read_secret(path).decode().strip()
    except UnicodeDecodeError:
        # Unchained: the decoding error quotes the file's bytes.
        raise AuthConfigError(
            f"failed to read websocket auth secret {path}: stream did not contain valid UTF-8"
        ) from None
    except private_file.UnfitError as failure:
        raise AuthConfigError(
            f"failed to read websocket auth secret {path}: {failure.strerror}"
        ) from failure
    except OSError as failure:
        raise AuthConfigError(
            f"failed to read websocket auth secret {path}:"
            f" {failure.strerror} (os error {failure.errno})"
        ) from failure
    if not secret:
        raise AuthConfigError(f"websocket auth secret {path} must not be empty")
    return secret.encode()


def _absolute(path: Path) -> Path:
    return Path.cwd() / path
