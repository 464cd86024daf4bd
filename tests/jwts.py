"""JWTs made by hand, down to the bytes, and what the app-server says to each.

`CASES` is checked against `mux.access.authentication` (`test_authentication`) and against the
app-server itself (`end_to_end/test_auth_native`), so neither can drift from the other.
"""

from __future__ import annotations

import base64
import hmac
import json
from collections.abc import Mapping
from typing import Any, Final

SECRET: Final = b"k" * 40
ISSUER: Final = "the-issuer"
AUDIENCE: Final = "the-audience"
SKEW: Final = 30

LET_IN: Final = ""
EXPIRED: Final = "expired websocket jwt"
NOT_YET: Final = "websocket jwt is not valid yet"
WRONG_ISSUER: Final = "websocket jwt issuer mismatch"
WRONG_AUDIENCE: Final = "websocket jwt audience mismatch"
INVALID: Final = "invalid websocket jwt"

HEADER: Final = {"alg": "HS256", "typ": "JWT"}


def signed(
    claims: Mapping[str, Any] | bytes,
    header: Mapping[str, Any] | bytes = HEADER,
    secret: bytes = SECRET,
    digest: str = "sha256",
) -> str:
    """A JWT with these claims and header; bytes are taken as they are."""
    signing_input = _segment(header) + b"." + _segment(claims)
    signature = hmac.new(secret, signing_input, digest).digest()
    return (signing_input + b"." + _base64url(signature)).decode()


def _segment(part: Mapping[str, Any] | bytes) -> bytes:
    return _base64url(part if isinstance(part, bytes) else json.dumps(part).encode())


def _base64url(decoded: bytes) -> bytes:
    return base64.urlsafe_b64encode(decoded).rstrip(b"=")


def good(now: int, **changes: Any) -> dict[str, Any]:
    """Claims that are let in, with `changes`; a change to `...` leaves the claim out."""
    claims = {"exp": now + 600, "iss": ISSUER, "aud": AUDIENCE, **changes}
    return {name: value for name, value in claims.items() if value is not ...}


def cases(now: int) -> dict[str, tuple[str, str]]:
    """By name: a token, and the refusal's text (`LET_IN` if it is none).

    Made for a listener with `SECRET`, `ISSUER`, `AUDIENCE` and the default skew, to be used within
    10 s of `now`: nothing here is nearer to a border than that.
    """
    plain = json.dumps(good(now)).encode()
    claims: dict[str, tuple[dict[str, Any], str]] = {
        "plain": (good(now), LET_IN),
        "expired within the skew": (good(now, exp=now - 5), LET_IN),
        "expired": (good(now, exp=now - 45), EXPIRED),
        "exp missing": (good(now, exp=...), INVALID),
        "exp null": (good(now, exp=None), INVALID),
        "exp a float": (good(now, exp=now + 600.5), INVALID),
        "exp a whole float": (good(now, exp=float(now + 600)), INVALID),
        "exp a string": (good(now, exp=str(now + 600)), INVALID),
        "exp true": (good(now, exp=True), INVALID),
        "exp negative": (good(now, exp=-5), EXPIRED),
        "exp the last": (good(now, exp=2**63 - 1), LET_IN),
        "exp beyond": (good(now, exp=2**63), INVALID),
        "exp of 400 digits": (good(now, exp=10**400), INVALID),
        "nbf within the skew": (good(now, nbf=now + 15), LET_IN),
        "nbf ahead": (good(now, nbf=now + 90), NOT_YET),
        "nbf null": (good(now, nbf=None), LET_IN),
        "nbf false": (good(now, nbf=False), INVALID),
        "nbf a string": (good(now, nbf="0"), INVALID),
        "nbf a float": (good(now, nbf=0.5), INVALID),
        "iss another": (good(now, iss="x"), WRONG_ISSUER),
        "iss missing": (good(now, iss=...), WRONG_ISSUER),
        "iss null": (good(now, iss=None), WRONG_ISSUER),
        "iss a number": (good(now, iss=1), INVALID),
        "iss a list": (good(now, iss=[ISSUER]), INVALID),
        "aud a list": (good(now, aud=["x", AUDIENCE]), LET_IN),
        "aud a list without": (good(now, aud=["x"]), WRONG_AUDIENCE),
        "aud an empty list": (good(now, aud=[]), WRONG_AUDIENCE),
        "aud missing": (good(now, aud=...), WRONG_AUDIENCE),
        "aud null": (good(now, aud=None), WRONG_AUDIENCE),
        "aud a number": (good(now, aud=5), INVALID),
        "aud mixed": (good(now, aud=[AUDIENCE, 5]), INVALID),
        "iat ahead": (good(now, iat=now + 9999), LET_IN),
        "iat a string": (good(now, iat="x"), LET_IN),
        "sub a number": (good(now, sub=5), LET_IN),
        "expired before nbf": (good(now, exp=1, nbf=now + 900), EXPIRED),
        "nbf before iss": (good(now, nbf=now + 900, iss="x"), NOT_YET),
        "iss before aud": (good(now, iss="x", aud="x"), WRONG_ISSUER),
        "type before date": (good(now, exp=1, aud=5), INVALID),
    }
    headers: dict[str, tuple[Mapping[str, Any] | bytes, str]] = {
        "no typ": ({"alg": "HS256"}, LET_IN),
        "typ another": ({"alg": "HS256", "typ": "x"}, LET_IN),
        "typ a number": ({"alg": "HS256", "typ": 5}, INVALID),
        "typ null": ({"alg": "HS256", "typ": None}, LET_IN),
        "kid": ({"alg": "HS256", "kid": "a"}, LET_IN),
        "kid a number": ({"alg": "HS256", "kid": 5}, INVALID),
        "unknown header": ({"alg": "HS256", "zzz": [1]}, LET_IN),
        "alg none": ({"alg": "none"}, INVALID),
        "alg missing": ({"typ": "JWT"}, INVALID),
        "alg in lower case": ({"alg": "hs256"}, INVALID),
        "alg asymmetric": ({"alg": "RS256"}, INVALID),
        "alg said twice": (b'{"alg":"none","alg":"HS256"}', INVALID),
        "header a list": (b"[]", INVALID),
    }
    tokens = {name: (signed(body), text) for name, (body, text) in claims.items()}
    tokens |= {name: (signed(plain, header), text) for name, (header, text) in headers.items()}
    return tokens | {
        "HS512": (signed(plain, {"alg": "HS512"}, digest="sha512"), INVALID),
        "another's secret": (signed(plain, secret=b"j" * 40), INVALID),
        "expired, another's secret": (signed(good(now, exp=1), secret=b"j" * 40), INVALID),
        "not a JWT": ("abc", INVALID),
        "two dots": ("a.b.c", INVALID),
        "four parts": (signed(plain) + ".x", INVALID),
        "padded": (signed(plain) + "=", INVALID),
        "unsigned": (signed(plain).rpartition(".")[0] + ".", INVALID),
        "exp said twice": (signed(b'{"exp":1,' + plain[1:]), INVALID),
        "aud said twice": (signed(b'{"aud":"x",' + plain[1:]), INVALID),
        "claims a list": (signed(b"[1]"), INVALID),
        "claims with spaces": (signed(b" \n" + plain + b"\n"), LET_IN),
        "claims and more": (signed(plain + b"x"), INVALID),
        "claims with NaN": (signed(plain[:-1] + b',"x":NaN}'), INVALID),
        "claims with a BOM": (signed(b"\xef\xbb\xbf" + plain), INVALID),
    }


CASES: Final = tuple(cases(0))
"""The names, for `pytest.mark.parametrize`."""

CAPABILITY_TOKEN: Final = "se cret"

HEADERS: Final[dict[str, tuple[tuple[bytes, ...], str]]] = {
    "none": ((), "missing websocket bearer token"),
    "right": ((b"Bearer se cret",), LET_IN),
    "lower case": ((b"bearer se cret",), LET_IN),
    "upper case": ((b"BEARER se cret",), LET_IN),
    "spaces": ((b"Bearer   se cret ",), LET_IN),
    "a tab after the space": ((b"Bearer \tse cret",), LET_IN),
    "a tab for the space": ((b"Bearer\tse cret",), "invalid authorization header"),
    "wrong": ((b"Bearer se Cret",), "invalid websocket bearer token"),
    "a part": ((b"Bearer se",), "invalid websocket bearer token"),
    "no token": ((b"Bearer",), "invalid authorization header"),
    "an empty token": ((b"Bearer  ",), "invalid authorization header"),
    "an empty header": ((b"",), "invalid authorization header"),
    "Basic": ((b"Basic se cret",), "invalid authorization header"),
    "bare": ((b"se cret",), "invalid authorization header"),
    "run together": ((b"Bearerse cret",), "invalid authorization header"),
    "not ASCII": ((b"Bearer \xff",), "invalid authorization header"),
    "two, the first right": ((b"Bearer se cret", b"Bearer x"), LET_IN),
    "two, the first wrong": ((b"Bearer x", b"Bearer se cret"), "invalid websocket bearer token"),
}
"""By name: the values of the `Authorization` headers, and the refusal's text."""
