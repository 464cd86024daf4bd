"""`mux.access.authentication`: flags judged, headers turned into principals or refusals."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mux.access.auth_rules import LONGEST_CLOCK_SKEW, SHORTEST_SHARED_SECRET, AuthConfigError
from mux.access.authentication import Authenticator, AuthError, local_user, open_auth
from mux.access.device import Device, digest_of
from mux.config.model import Auth
from mux.core.policy.principal import Principal
from mux.core.policy.scopes import ALL
from tests import jwts

NOW = 1_800_000_000
DIGEST = hashlib.sha256(jwts.CAPABILITY_TOKEN.encode()).hexdigest()
CAPABILITY = Auth(mode="capability-token")
SIGNED = Auth(mode="signed-bearer-token")
GOOD = json.dumps(jwts.good(NOW)).encode()[:-1]
"""Claims that are let in, as far as the last brace."""


@pytest.fixture
def signed(tmp_path: Path) -> Authenticator:
    """Signed bearer tokens, as in `jwts.cases`."""
    return open_auth(
        Auth(
            mode="signed-bearer-token",
            shared_secret_file=written(tmp_path / "secret", b" " + jwts.SECRET + b"\n"),
            issuer=f" {jwts.ISSUER} ",
            audience=jwts.AUDIENCE,
        )
    )


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def said(authenticator: Authenticator, header: bytes | None, now: float = NOW) -> str:
    """The refusal's text, or `LET_IN`."""
    try:
        authenticator.authenticate(header, now)
    except AuthError as refusal:
        return str(refusal)
    return jwts.LET_IN


# -- flags -----------------------------------------------------------------------------------------

REQUIRES_MODE = (
    "websocket auth flags require `--ws-auth capability-token` or `--ws-auth signed-bearer-token`"
)
REQUIRES_SIGNED = (
    "`--ws-shared-secret-file`, `--ws-issuer`, `--ws-audience`, and `--ws-max-clock-skew-seconds`"
    " require `--ws-auth signed-bearer-token`"
)
REQUIRES_CAPABILITY = (
    "`--ws-token-file` and `--ws-token-sha256` require `--ws-auth capability-token`,"
    " not `signed-bearer-token`"
)
ANY = Path("any")


@pytest.mark.parametrize(
    ("auth", "text"),
    [
        (Auth(token_file=ANY), REQUIRES_MODE),
        (Auth(token_sha256="zz"), REQUIRES_MODE),
        (Auth(issuer="x"), REQUIRES_MODE),
        (Auth(max_clock_skew_seconds=30), REQUIRES_MODE),
        (
            CAPABILITY,
            "`--ws-token-file` or `--ws-token-sha256` is required"
            " when `--ws-auth capability-token` is set",
        ),
        (
            attrs.evolve(CAPABILITY, token_file=ANY, token_sha256=DIGEST),
            "`--ws-token-file` and `--ws-token-sha256` are mutually exclusive",
        ),
        (attrs.evolve(CAPABILITY, issuer="x"), REQUIRES_SIGNED),
        (attrs.evolve(CAPABILITY, token_file=ANY, audience="x"), REQUIRES_SIGNED),
        (attrs.evolve(CAPABILITY, token_file=ANY, max_clock_skew_seconds=0), REQUIRES_SIGNED),
        (attrs.evolve(CAPABILITY, token_sha256=DIGEST, shared_secret_file=ANY), REQUIRES_SIGNED),
        *(
            (
                attrs.evolve(CAPABILITY, token_sha256=wrong),
                "--ws-token-sha256 must be a 64-character hex SHA-256 digest",
            )
            for wrong in ("", "zz", "g" * 64, "0" * 63, "0" * 65, "0x" + "0" * 62, "٠" * 64)
        ),
        (
            SIGNED,
            "`--ws-shared-secret-file` is required when `--ws-auth signed-bearer-token` is set",
        ),
        (attrs.evolve(SIGNED, token_file=ANY), REQUIRES_CAPABILITY),
        (attrs.evolve(SIGNED, shared_secret_file=ANY, token_sha256="x"), REQUIRES_CAPABILITY),
        (
            attrs.evolve(SIGNED, shared_secret_file=ANY, max_clock_skew_seconds=2**63),
            "websocket auth clock skew must fit in a signed 64-bit integer",
        ),
    ],
)
def test_contradictory_flags(auth: Auth, text: str) -> None:
    with pytest.raises(AuthConfigError) as raised:
        open_auth(auth)
    assert str(raised.value) == text
    assert raised.value.exit_status == 1


@pytest.mark.parametrize("mode", ["capability-token", "signed-bearer-token"])
@pytest.mark.parametrize(
    ("content", "text"),
    [
        (None, "failed to read websocket auth secret {}: No such file or directory (os error 2)"),
        (b" \n", "websocket auth secret {} must not be empty"),
        (
            b"\xff\xfehush",
            "failed to read websocket auth secret {}: stream did not contain valid UTF-8",
        ),
    ],
)
def test_unusable_secret_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str, content: bytes | None, text: str
) -> None:
    monkeypatch.chdir(tmp_path)
    path = Path("relative")
    if content is not None:
        written(path, content)
    base = CAPABILITY if mode == "capability-token" else SIGNED
    with pytest.raises(AuthConfigError) as raised:
        open_auth(
            attrs.evolve(base, token_file=path)
            if base is CAPABILITY
            else attrs.evolve(base, shared_secret_file=path)
        )
    assert str(raised.value) == text.format(tmp_path / path)
    assert "hush" not in repr(raised.value.__cause__)


def test_short_shared_secret(tmp_path: Path) -> None:
    path = written(tmp_path / "s", b"  " + b"x" * 31 + b"  ")
    with pytest.raises(AuthConfigError, match=f"secret {path} must be at least 32 bytes"):
        open_auth(attrs.evolve(SIGNED, shared_secret_file=path))


# -- headers ---------------------------------------------------------------------------------------


def test_without_auth_mode_everybody_is_local() -> None:
    authenticator = open_auth(Auth())
    for header in (None, b"", b"Bearer x", b"\xff"):
        assert authenticator.authenticate(header, NOW) == Principal("local", "open")
    assert local_user() == Principal("local", "local-user")


def test_who_has_the_hosts_own_secret_may_do_all(tmp_path: Path) -> None:
    token_file = written(tmp_path / "token", jwts.CAPABILITY_TOKEN.encode())
    authenticator = open_auth(attrs.evolve(CAPABILITY, token_file=token_file))
    bearer = b"Bearer " + jwts.CAPABILITY_TOKEN.encode()
    everybody = open_auth(Auth()).authenticate(None, NOW)
    for who in (authenticator.authenticate(bearer, NOW), everybody, local_user()):
        assert who.scopes == ALL


@pytest.mark.parametrize("name", jwts.HEADERS)
@pytest.mark.parametrize("from_file", [True, False])
def test_capability_token(tmp_path: Path, name: str, from_file: bool) -> None:
    token_file = written(tmp_path / "token", f"\n {jwts.CAPABILITY_TOKEN} \n".encode())
    authenticator = open_auth(
        attrs.evolve(CAPABILITY, token_file=token_file)
        if from_file
        else attrs.evolve(CAPABILITY, token_sha256=f" {DIGEST.upper()} ")
    )
    headers, text = jwts.HEADERS[name]
    assert said(authenticator, headers[0] if headers else None) == text


@pytest.mark.parametrize("name", jwts.CASES)
def test_jwt(signed: Authenticator, name: str) -> None:
    token, text = jwts.cases(NOW)[name]
    assert said(signed, b"Bearer " + token.encode()) == text


@pytest.mark.parametrize(
    ("claims", "late", "text"),
    [
        ({"exp": NOW}, jwts.SKEW, jwts.LET_IN),
        ({"exp": NOW}, jwts.SKEW + 0.9, jwts.LET_IN),
        ({"exp": NOW}, jwts.SKEW + 1, jwts.EXPIRED),
        ({"nbf": NOW}, -jwts.SKEW, jwts.LET_IN),
        ({"nbf": NOW}, -jwts.SKEW - 1, jwts.NOT_YET),
    ],
)
def test_dates_to_the_second(
    signed: Authenticator, claims: dict[str, int], late: float, text: str
) -> None:
    token = jwts.signed(jwts.good(NOW, **claims))
    assert said(signed, b"Bearer " + token.encode(), NOW + late) == text


@pytest.mark.parametrize("blank", [None, "", " "])
def test_issuer_and_audience_are_judged_only_if_configured(
    tmp_path: Path, blank: str | None
) -> None:
    authenticator = open_auth(
        attrs.evolve(
            SIGNED,
            shared_secret_file=written(tmp_path / "s", jwts.SECRET),
            issuer=blank,
            audience=blank,
            max_clock_skew_seconds=0,
        )
    )
    for claims, text in (
        ({"exp": NOW}, jwts.LET_IN),
        ({"exp": NOW - 1}, jwts.EXPIRED),
        ({"exp": NOW, "iss": "x", "aud": "y"}, jwts.LET_IN),
        ({"exp": NOW, "iss": 7}, jwts.INVALID),
        ({"exp": NOW, "aud": [5]}, jwts.INVALID),
    ):
        assert said(authenticator, b"Bearer " + jwts.signed(claims).encode()) == text


@pytest.mark.parametrize(
    "token",
    [
        jwts.signed(jwts.good(NOW), {"alg": "HS256", "crit": ["x"], "x": 1}),
        jwts.signed(GOOD + b',"x":"\xff"}'),
        jwts.signed(GOOD + b',"x":{"y":1,"y":2}}'),
        jwts.signed(GOOD + b',"x":' + b"[" * 9000 + b"]" * 9000 + b"}"),
    ],
)
def test_stricter_than_the_app_server(signed: Authenticator, token: str) -> None:
    """Natively these are let in: what it doesn't know it doesn't look into."""
    assert said(signed, b"Bearer " + token.encode()) == jwts.INVALID


@pytest.mark.parametrize(
    ("subject", "name"),
    [
        ("phone", "phone"),
        (" Ada's phone ", "Ada's phone"),
        (..., "jwt"),
        (None, "jwt"),
        (5, "jwt"),
        (" ", "jwt"),
        ("a\x1b[2Jb", "a?[2Jb"),
        ("\ud800", "?"),
        ("x" * 999, "x" * 128),
    ],
)
def test_subject_names_the_principal(signed: Authenticator, subject: object, name: str) -> None:
    token = jwts.signed(jwts.good(NOW, sub=subject))
    principal = signed.authenticate(b"Bearer " + token.encode(), NOW)
    assert principal == Principal(name, "jwt", NOW + 600.0 + jwts.SKEW)


@given(header=st.binary(max_size=200) | st.binary(max_size=200).map(b"Bearer ".__add__))
def test_any_bytes_are_a_refusal_and_never_a_crash(
    tmp_path_factory: pytest.TempPathFactory, header: bytes
) -> None:
    secret = written(tmp_path_factory.getbasetemp() / "secret", jwts.SECRET)
    for auth in (
        attrs.evolve(CAPABILITY, token_sha256=DIGEST),
        attrs.evolve(SIGNED, shared_secret_file=secret),
    ):
        with pytest.raises(AuthError):
            open_auth(auth).authenticate(header, NOW)


@given(position=st.integers(min_value=0), replacement=st.sampled_from("AbZ9-_.=+/ "))
def test_a_jwt_with_one_letter_changed_is_refused(
    tmp_path_factory: pytest.TempPathFactory, position: int, replacement: str
) -> None:
    secret = written(tmp_path_factory.getbasetemp() / "secret", jwts.SECRET)
    token = jwts.signed({"exp": NOW + 9})
    place = position % len(token)
    changed = token[:place] + replacement + token[place + 1 :]
    authenticator = open_auth(attrs.evolve(SIGNED, shared_secret_file=secret))
    expected = jwts.LET_IN if changed.strip() == token else jwts.INVALID
    assert said(authenticator, b"Bearer " + changed.encode()) == expected


# -- scopes of a JWT -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("claim", "scopes"),
    [
        (..., ALL),
        (None, ALL),
        ("observe", {"observe"}),
        ("observe drive", {"observe", "drive"}),
        ("drive observe drive", {"observe", "drive"}),
        ("admin approve drive observe", ALL),
    ],
)
def test_scope_limits_a_jwt(signed: Authenticator, claim: object, scopes: set[str]) -> None:
    token = jwts.signed(jwts.good(NOW, scope=claim))
    assert signed.authenticate(b"Bearer " + token.encode(), NOW).scopes == scopes


@pytest.mark.parametrize(
    "claim",
    [
        "",
        " ",
        "root",
        "observe root",
        "Observe",
        "observe,drive",
        "observe  drive",
        " observe",
        "observe\tdrive",
        "observe\u00a0drive",
        "openid profile",
        ["observe"],
        {"observe": True},
        5,
        True,
        False,
        0,
    ],
)
def test_a_scope_that_is_not_understood_grants_nothing(
    signed: Authenticator, claim: object
) -> None:
    token = jwts.signed(jwts.good(NOW, scope=claim))
    assert said(signed, b"Bearer " + token.encode()) == jwts.INVALID


def test_a_scope_said_twice_grants_nothing(signed: Authenticator) -> None:
    token = jwts.signed(GOOD + b',"scope":"admin","scope":"observe"}')
    assert said(signed, b"Bearer " + token.encode()) == jwts.INVALID


@given(claim=st.text(max_size=40) | st.lists(st.sampled_from(sorted(ALL))).map(" ".join))
def test_a_scope_never_grants_what_it_does_not_name(
    tmp_path_factory: pytest.TempPathFactory, claim: str
) -> None:
    secret = written(tmp_path_factory.getbasetemp() / "secret", jwts.SECRET)
    authenticator = open_auth(attrs.evolve(SIGNED, shared_secret_file=secret))
    token = jwts.signed({"exp": NOW + 9, "scope": claim})
    named = set(claim.split(" "))
    if named <= ALL:
        assert authenticator.authenticate(b"Bearer " + token.encode(), NOW).scopes == named
    else:
        assert said(authenticator, b"Bearer " + token.encode()) == jwts.INVALID


PUBLIC_KEY = b"-----BEGIN PUBLIC KEY-----\n" + b"A" * 360 + b"\n-----END PUBLIC KEY-----"


@pytest.mark.parametrize("key", [PUBLIC_KEY, PUBLIC_KEY.replace(b"PUBLIC", b"RSA PRIVATE")])
def test_a_public_key_is_no_secret(tmp_path: Path, key: bytes) -> None:
    """The confusion by which whoever has a public key signs tokens with it, as if by HS256."""
    path = written(tmp_path / "key", key)
    with pytest.raises(AuthConfigError, match="is no secret for HS256") as raised:
        open_auth(attrs.evolve(SIGNED, shared_secret_file=path))
    assert "AAAA" not in str(raised.value)


@pytest.mark.parametrize("algorithm", ["none", "None", "HS512", "HS384", "RS256", "ES256", "EdDSA"])
@pytest.mark.parametrize("digest", ["sha256", "sha384", "sha512"])
def test_no_other_algorithm(signed: Authenticator, algorithm: str, digest: str) -> None:
    token = jwts.signed(jwts.good(NOW, scope="admin"), {"alg": algorithm}, digest=digest)
    assert said(signed, b"Bearer " + token.encode()) == jwts.INVALID
    unsigned = token.rpartition(".")[0] + "."
    assert said(signed, b"Bearer " + unsigned.encode()) == jwts.INVALID


# -- devices ---------------------------------------------------------------------------------------

OBSERVER = Device(
    "d1",
    "Ada's phone",
    "paired",
    frozenset({"observe"}),
    NOW - 9.0,
    digest_of("amx_right"),
    NOW + 9.0,
)


def with_devices(auth: Auth) -> Authenticator:
    """In whose book stands one device, with the token ``amx_right``."""
    return open_auth(auth, lambda token: OBSERVER if digest_of(token) == OBSERVER.digest else None)


@pytest.fixture
def every_mode(tmp_path: Path) -> dict[str, Authenticator]:
    secret = written(tmp_path / "secret", jwts.SECRET)
    return {
        "open": with_devices(Auth()),
        "capability": with_devices(attrs.evolve(CAPABILITY, token_sha256=DIGEST)),
        "signed": with_devices(attrs.evolve(SIGNED, shared_secret_file=secret)),
        "devices": with_devices(Auth(mode="device-token")),
    }


def test_a_device_is_let_in_by_every_mode_as_itself(every_mode: dict[str, Authenticator]) -> None:
    known = Principal("Ada's phone", "device", NOW + 9.0, frozenset({"observe"}), "d1")
    for authenticator in every_mode.values():
        assert authenticator.authenticate(b"Bearer amx_right", NOW) == known
        assert said(authenticator, b"Bearer amx_right", NOW + 9) == "expired device token"
        # A token of ours that stands for nobody was revoked: no door may be wider for it.
        assert said(authenticator, b"Bearer amx_wrong").startswith("invalid websocket")


def test_device_mode_lets_in_nobody_else(every_mode: dict[str, Authenticator]) -> None:
    authenticator = every_mode["devices"]
    jwt = jwts.signed(jwts.good(NOW)).encode()
    for header, text in (
        (None, "missing websocket bearer token"),
        (b"Basic amx_right", "invalid authorization header"),
        (b"Bearer " + jwts.CAPABILITY_TOKEN.encode(), "invalid websocket bearer token"),
        (b"Bearer " + jwt, "invalid websocket bearer token"),
    ):
        assert said(authenticator, header) == text


def test_the_other_modes_go_on_beside_devices(every_mode: dict[str, Authenticator]) -> None:
    capability = b"Bearer " + jwts.CAPABILITY_TOKEN.encode()
    assert every_mode["capability"].authenticate(capability, NOW).scopes == ALL
    jwt = b"Bearer " + jwts.signed({"exp": NOW + 9}).encode()
    assert every_mode["signed"].authenticate(jwt, NOW).kind == "jwt"
    for header in (None, b"Bearer amy_other", b"Basic amx_wrong", b"\xff"):
        assert every_mode["open"].authenticate(header, NOW) == Principal("local", "open")


@pytest.mark.parametrize("other", [Auth(token_file=ANY), Auth(issuer="x"), Auth(token_sha256="0")])
def test_device_mode_takes_no_flags_of_the_others(other: Auth) -> None:
    with pytest.raises(AuthConfigError, match="lets in paired devices alone"):
        open_auth(attrs.evolve(other, mode="device-token"))


# -- reloading and silence -------------------------------------------------------------------------


def test_reload_takes_the_new_token_and_keeps_the_old_one_if_it_cannot(tmp_path: Path) -> None:
    path = written(tmp_path / "token", b"one")
    authenticator = open_auth(attrs.evolve(CAPABILITY, token_file=path))
    written(path, b"two")
    assert said(authenticator, b"Bearer one") == jwts.LET_IN

    authenticator.read_again()()
    assert said(authenticator, b"Bearer one") == "invalid websocket bearer token"
    assert said(authenticator, b"Bearer two") == jwts.LET_IN

    written(path, b"")
    with pytest.raises(AuthConfigError, match="must not be empty"):
        authenticator.read_again()()
    path.unlink()
    with pytest.raises(AuthConfigError, match="No such file"):
        authenticator.read_again()()
    assert said(authenticator, b"Bearer two") == jwts.LET_IN


def test_secrets_stay_out_of_reprs(tmp_path: Path, signed: Authenticator) -> None:
    path = written(tmp_path / "token", b"hush")
    capability = open_auth(attrs.evolve(CAPABILITY, token_file=path))
    shown = repr(capability) + repr(signed)
    assert "hush" not in shown
    assert hashlib.sha256(b"hush").hexdigest() not in shown
    assert "kkkk" not in shown


# -- at the bounds ---------------------------------------------------------------------------------


def _signed(path: Path, **more: Any) -> Auth:
    return Auth(mode="signed-bearer-token", shared_secret_file=path, **more)


def test_the_shortest_secret_and_the_longest_skew_are_good(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("s" * SHORTEST_SHARED_SECRET)
    secret.chmod(0o600)
    for skew in (0, LONGEST_CLOCK_SKEW):
        open_auth(_signed(secret, max_clock_skew_seconds=skew))
    with pytest.raises(AuthConfigError, match="must fit in a signed 64-bit integer"):
        open_auth(_signed(secret, max_clock_skew_seconds=LONGEST_CLOCK_SKEW + 1))
    with pytest.raises(AuthConfigError, match="websocket auth clock skew must not be negative"):
        open_auth(_signed(secret, max_clock_skew_seconds=-1))


def test_a_pipe_in_the_place_of_a_secret_is_told_with_its_name(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "secret")
    told = rf"failed to read websocket auth secret {tmp_path}/secret: it is a pipe"
    with pytest.raises(AuthConfigError, match=told):
        open_auth(_signed(tmp_path / "secret"))
