"""Authentication: an ``Authorization`` header becomes a ``Principal``, or a refusal that says why.

Used by ``server``, which opens one ``Authenticator`` and reloads it on SIGHUP, and by ``routes``,
for one header at a time.

The flags, their errors, the refusals and the order of the checks are the app-server's own, so that
a client made for it needs no change. There are two departures. Tokens are compared by digest in
constant time. A JWT must be unambiguous: anything in it that two parsers could read differently (a
doubled key, bytes that aren't UTF-8, a ``crit`` extension) is refused, where the app-server
overlooks some of it.

There are two additions: every mode accepts a paired device's token, as that device; and a JWT's
``scope`` claim limits its client.

No secret and no token appears in an error, a log line or a ``repr``.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn

from mux.access.auth_rules import (
    CapabilityToken,
    DevicesOnly,
    Open,
    Rules,
    SignedBearer,
    read_rules,
    require_consistent,
)
from mux.access.device import TOKEN_PREFIX, Device
from mux.core.part import Part
from mux.core.policy.principal import Principal
from mux.core.policy.scopes import ALL
from mux.core.protocol.scope import Scope
from mux.errors import AppmuxError

if TYPE_CHECKING:
    from mux.config.model import Auth

LONGEST_PRINCIPAL_NAME = 128
"""Characters of a JWT's ``sub`` that are shown to operators; more would break every table."""

JWT_ALGORITHM = "HS256"

WRONG_TOKEN = "invalid websocket bearer token"

_INTEGER_DATES = range(-(2**63), 2**63)
_TEXT_JWT_HEADERS = ("typ", "cty", "jku", "kid", "x5u", "x5t", "x5t#S256")


_WITH_THE_TOKEN = Principal("capability-token", "capability-token")
_LOCAL_USER = Principal("local", "local-user")


class AuthError(AppmuxError):
    """A refused client; the text is the body of its 401.

    ``whose`` is the principal that the token belongs to, where that is known: then the token is
    genuine, but not valid (any more, or yet, or here).
    """

    def __init__(self, text: str, whose: Principal | None = None) -> None:
        super().__init__(text)
        self.whose = "" if whose is None else whose.key


# -- from flags to rules ---------------------------------------------------------------------------


def open_auth(
    auth: Auth, device: Callable[[str], Device | None] = lambda _token: None
) -> Authenticator:
    """Check the auth settings and read their secret.

    ``device`` finds a paired device by its token. Raises ``AuthConfigError`` with the app-server's
    wording.
    """
    require_consistent(auth)
    return Authenticator(auth, device, read_rules(auth))


# -- from a header to a principal ------------------------------------------------------------------


class Authenticator(Part):
    """The rules in force. Made by ``open_auth``; one for all WebSocket listeners."""

    _auth: Auth
    device: Callable[[str], Device | None]
    """Finds a paired device by its token. ``server`` sets it once the device registry is open."""
    _rules: Rules

    @property
    def open(self) -> bool:
        """True if a client needs no token."""
        return isinstance(self._rules, Open)

    def authenticate(self, authorization: bytes | None, now: float) -> Principal:
        """Return the principal that the value of an ``Authorization`` header stands for.

        ``now`` is in Unix seconds. Raises ``AuthError``, whose text is safe to send to anybody.
        """
        if isinstance(self._rules, Open):
            return self._claimed(authorization, now) or Principal("local", "open")
        token = bearer(authorization)
        device = self.device(token)
        if device is not None:
            return device_principal(device, now)
        match self._rules:
            case DevicesOnly():
                raise AuthError(WRONG_TOKEN)
            case CapabilityToken(digest=digest):
                return _check_token(token, digest)
            case SignedBearer() as rules:
                return _check_jwt(token, rules, int(now))

    def _claimed(self, authorization: bytes | None, now: float) -> Principal | None:
        """Return the device whose token a client of an open listener brings, if any.

        So a device's limits hold on an open listener, too. As in the app-server, any other header
        means nothing there.
        """
        try:
            token = bearer(authorization)
        except AuthError:
            return None
        device = self.device(token)
        if device is not None:
            return device_principal(device, now)
        if token.startswith(TOKEN_PREFIX):  # a revoked device must not get more than it had
            raise AuthError(WRONG_TOKEN)
        return None

    def read_again(self) -> Callable[[], None]:
        """Read the token or secret file again, and return the function that puts it in force.

        Blocks: call it in a thread. Attached clients stay attached. Raises ``AuthConfigError`` if
        the file can't be used; then the rules in force stay.
        """
        rules = read_rules(self._auth)
        return lambda: self._enforce(rules)

    def _enforce(self, rules: Rules) -> None:
        self._rules = rules


def local_user() -> Principal:
    """Return the principal of a unix socket's client, whom file mode and peer uid prove."""
    return _LOCAL_USER


def device_principal(device: Device, now: float) -> Principal:
    """Return the principal of a paired device. Raises ``AuthError`` if the device has expired."""
    principal = Principal(device.name, "device", device.expires, device.scopes, device.id)
    if device.expired(now):
        raise AuthError("expired device token", principal)
    return principal


def bearer(authorization: bytes | None) -> str:
    """Return the token of an ``Authorization`` header. Raises ``AuthError``."""
    if authorization is None:
        raise AuthError("missing websocket bearer token")
    if not authorization.isascii():
        raise AuthError("invalid authorization header")
    scheme, _, token = authorization.decode("ascii").strip().partition(" ")
    token = token.strip()
    if scheme.lower() != "bearer" or not token:
        raise AuthError("invalid authorization header")
    return token


def _check_token(token: str, digest: bytes) -> Principal:
    if not hmac.compare_digest(hashlib.sha256(token.encode()).digest(), digest):
        raise AuthError(WRONG_TOKEN)
    return _WITH_THE_TOKEN


def _check_jwt(token: str, rules: SignedBearer, now: int) -> Principal:
    claims = _verified_claims(token, rules.secret)
    expires, not_before = _date(claims, "exp"), _date(claims, "nbf")
    issuer, audience, scopes = _issuer(claims), _audience(claims), _scopes(claims)
    if expires is None:
        _refuse_jwt()
    # The skew counts at the connection's end, too: else a client that was let in within the skew
    # would be disconnected at once.
    principal = Principal(_subject(claims), "jwt", float(expires + rules.skew), scopes)
    # The order of the causes is the app-server's.
    if expires < now - rules.skew:
        raise AuthError("expired websocket jwt", principal)
    if not_before is not None and not_before > now + rules.skew:
        raise AuthError("websocket jwt is not valid yet", principal)
    if rules.issuer is not None and issuer != rules.issuer:
        raise AuthError("websocket jwt issuer mismatch", principal)
    if rules.audience is not None and rules.audience not in audience:
        raise AuthError("websocket jwt audience mismatch", principal)
    return principal


def _verified_claims(token: str, secret: bytes) -> dict[str, Any]:
    import jwt  # noqa: PLC0415 (as above; loaded by now)
    from jwt.utils import base64url_decode  # noqa: PLC0415

    try:
        verified = jwt.PyJWS().decode_complete(token, secret, algorithms=[JWT_ALGORITHM])
        head = token.partition(".")[0]
        # PyJWT has decoded the header, but leniently: it accepts a doubled key or a NaN.
        header = _strict_object(base64url_decode(head))
        claims = _strict_object(verified["payload"])
    except (jwt.InvalidTokenError, ValueError, RecursionError):
        # Unchained: their texts may quote the token.
        _refuse_jwt()
    if "=" in token or not all(isinstance(header.get(n), str | None) for n in _TEXT_JWT_HEADERS):
        _refuse_jwt()
    return claims


def _strict_object(encoded: bytes) -> dict[str, Any]:
    """Decode a JSON object without doubled keys. Raises ``ValueError``."""
    decoded = json.loads(
        encoded.decode("utf-8"), object_pairs_hook=_without_doubles, parse_constant=_no_constant
    )
    if isinstance(decoded, dict):
        return decoded
    raise ValueError("not a JSON object")


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    decoded = dict(pairs)
    if len(decoded) != len(pairs):
        raise ValueError("a doubled key")
    return decoded


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _date(claims: dict[str, Any], name: str) -> int | None:
    date = claims.get(name)
    if date is None:
        return None
    # bool is an int to Python; 1.0 is a number to JSON but no integer to the app-server.
    if type(date) is not int or date not in _INTEGER_DATES:
        _refuse_jwt()
    return date


def _issuer(claims: dict[str, Any]) -> str | None:
    issuer = claims.get("iss")
    if not isinstance(issuer, str | None):
        _refuse_jwt()
    return issuer


def _audience(claims: dict[str, Any]) -> list[str]:
    audience = claims.get("aud")
    if audience is None:
        return []
    audiences = audience if isinstance(audience, list) else [audience]
    if not all(isinstance(each, str) for each in audiences):
        _refuse_jwt()
    return audiences


def _scopes(claims: dict[str, Any]) -> frozenset[Scope]:
    """Return the scopes of the ``scope`` claim (RFC 8693, 4.2); all of them if there is no claim.

    An unknown scope refuses the JWT. If it were ignored, a typo would make a JWT that can do less
    than was meant.
    """
    claim = claims.get("scope")
    if claim is None:
        return ALL
    named = set(claim.split(" ")) if isinstance(claim, str) else set()
    granted = frozenset(scope for scope in ALL if scope in named)
    if not named or granted != named:
        _refuse_jwt()
    return granted


def _subject(claims: dict[str, Any]) -> str:
    subject = claims.get("sub")
    if not isinstance(subject, str) or not subject.strip():
        return "jwt"
    # An unprintable character could move an operator's cursor, or can't be encoded at all.
    shown = subject.strip()[:LONGEST_PRINCIPAL_NAME]
    return "".join(letter if letter.isprintable() else "?" for letter in shown)


def _refuse_jwt() -> NoReturn:
    raise AuthError("invalid websocket jwt") from None
