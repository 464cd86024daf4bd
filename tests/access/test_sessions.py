"""`mux.access.sessions`: one device's key proves a challenge, once, for one page; short tokens."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import msgspec
import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

import mux
from mux.access import public_key, sessions
from mux.access.authentication import AuthError
from mux.access.device import Device
from mux.access.devices import DeviceRegistry, open_registry
from mux.access.public_key import digest_of_key, key_of, signed
from mux.access.sessions import Challenge, NotProvenError, Sessions
from mux.core.extension.sessions import Session
from mux.core.policy.principal import device_key
from tests.end_to_end.browsers import Key, base64url

NOW = 1_800_000_000.0
ORIGIN = "https://broker.example"
READ = ("GET", "/v1/session")
KEYS = (Key(), Key())


def kept(key: Key) -> str:
    return key_of(key.jwk["x"], key.jwk["y"])


@attrs.define
class Clock:
    now: float = NOW

    def __call__(self) -> float:
        return self.now


@attrs.define
class Gate:
    """A registry with two browsers and a phone, and its sessions."""

    registry: DeviceRegistry
    clock: Clock
    sessions: Sessions
    browsers: tuple[Device, ...]
    phone: Device


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    return opened(tmp_path)


def opened(where: Path) -> Gate:
    clock = Clock()
    registry = open_registry(where, clock)
    browsers = tuple(
        registry.add(
            f"browser {number}", "paired", frozenset({"observe"}), digest_of_key(kept(key)), 3600.0,
            key=kept(key),
        )
        for number, key in enumerate(KEYS)
    )  # fmt: skip
    phone = registry.add("phone", "paired", frozenset({"observe"}), "a" * 64)
    return Gate(registry, clock, Sessions(registry), browsers, phone)


def proof(challenge: Challenge, device: str, key: Key = KEYS[0]) -> str:
    lines = ("appmux challenge", device, challenge.nonce, challenge.origin, str(challenge.time))
    return key.sign(*lines)


SAID = {
    "late": "the challenge was answered too late",
    "unknown-device": "this device isn't known (any more)",
    "expired-device": "this device has expired",
    "wrong-signature": "the signature isn't this device's",
}


def refused(prove: Callable[[], object], whose: str = "") -> str:
    """Why it was refused; to be told in these words, and of this device."""
    with pytest.raises(NotProvenError) as wrong:
        prove()
    assert (str(wrong.value), wrong.value.whose) == (SAID[wrong.value.reason], whose)
    return wrong.value.reason


async def test_who_signs_the_challenge_is_its_device(gate: Gate) -> None:
    challenge = await gate.sessions.challenge(ORIGIN)
    device = gate.browsers[0]
    principal = gate.sessions.prove(challenge, device.id, proof(challenge, device.id))
    assert (principal.kind, principal.device, principal.name) == ("device", device.id, "browser 0")
    assert principal.scopes == {"observe"}
    assert principal.expires_at == NOW + 3600


async def test_a_signature_is_good_for_nothing_else(gate: Gate) -> None:
    """Not for another connection, page, device, time; nor is anything that was not signed."""
    first, second = gate.browsers
    challenge = await gate.sessions.challenge(ORIGIN)
    signature = proof(challenge, first.id)
    again = await gate.sessions.challenge(ORIGIN)
    for other in (
        again,
        replace(challenge, origin="https://evil.example"),
        replace(challenge, time=challenge.time + 1),
        replace(challenge, nonce=challenge.nonce[:-1]),
    ):
        assert refused(partial(gate.sessions.prove, other, first.id, signature)) == (
            "wrong-signature"
        )
    prove = gate.sessions.prove
    assert refused(lambda: prove(challenge, second.id, signature)) == "wrong-signature"
    wrong_key = proof(challenge, first.id, KEYS[1])
    assert refused(lambda: prove(challenge, first.id, wrong_key)) == "wrong-signature"
    assert refused(lambda: prove(challenge, gate.phone.id, signature)) == "unknown-device"
    assert refused(lambda: prove(challenge, "", signature)) == "unknown-device"


@attrs.frozen
class Signed:
    """What a signature names, and whose it is."""

    nonce: str = "the-nonce"
    origin: str = ORIGIN
    time: int = int(NOW)
    device: int = 0
    key: int = 0
    method: str = "GET"
    target: str = "/v1/session"


OTHERS = st.one_of(
    st.sampled_from(["", "The-nonce", "the-nonce\n"]).map(lambda other: {"nonce": other}),
    st.sampled_from(
        ["https://broker.example.", "https://Broker.example", "https://broker.example:443", "null",
         "http://broker.example", "https://broker.exampl\u0435", "https://xn--brokr-dsa.example"]
    ).map(lambda other: {"origin": other}),
    st.integers(-10, 10).filter(bool).map(lambda by: {"time": int(NOW) + by}),
    st.sampled_from([{"device": 1}, {"key": 1}, {"device": 1, "key": 1}]),
)  # fmt: skip
OF_REQUESTS = st.sampled_from(
    [{"method": "DELETE"}, {"method": "get"}, {"target": "/v1/session?"}, {"target": "/v1/files"}]
)


def signature_of(gate: Gate, said: Signed, *, request: bool) -> str:
    device = gate.browsers[said.device].id
    lines = [device, said.nonce, said.origin, str(said.time)]
    more = [said.method, said.target] if request else []
    return KEYS[said.key].sign(f"appmux {'request' if request else 'challenge'}", *lines, *more)


@settings(max_examples=100, deadline=None)
@given(
    other=st.one_of(st.just({}), OTHERS, OF_REQUESTS),
    as_request=st.booleans(),
    signed_as_request=st.booleans(),
    age=st.floats(0, 2 * sessions.CHALLENGE_SECONDS),
    set_by=st.sampled_from([0.0, -86_400.0, 3599.0, 3600.0]),
)
def test_a_proof_is_good_for_its_very_challenge_alone(
    other: dict[str, Any], as_request: bool, signed_as_request: bool, age: float, set_by: float
) -> None:
    """Whatever else is signed, by whom, when, wherever the wall's clock is set meanwhile."""
    said = attrs.evolve(Signed(), **other)

    async def story(gate: Gate) -> bool:
        until = trio.current_time() + sessions.CHALLENGE_SECONDS
        challenge = Challenge(ORIGIN, "the-nonce", int(NOW), until)
        signature = signature_of(gate, said, request=signed_as_request)
        device = gate.browsers[0].id
        gate.clock.now += set_by
        await trio.sleep(age)
        try:
            if as_request:
                gate.sessions._asked["the-nonce"] = challenge
                header = f"appmux {device} {challenge.nonce} {signature}".encode()
                return gate.sessions.authenticate(header, *READ).device == device
            return gate.sessions.prove(challenge, device, signature).device == device
        except AuthError:
            return False

    with tempfile.TemporaryDirectory() as where:
        clock = trio.testing.MockClock(autojump_threshold=0)
        let_in = trio.run(story, opened(Path(where)), clock=clock)
    # Of a connection's challenge no method is signed, so that another one names nothing.
    named = other if as_request else other.keys() - {"method", "target"}
    right = not named and as_request == signed_as_request
    assert let_in == (right and age < sessions.CHALLENGE_SECONDS and set_by < 3600)


async def test_a_challenge_is_over_by_our_clock_whatever_the_walls_says(
    gate: Gate, autojump_clock: trio.testing.MockClock
) -> None:
    challenge = await gate.sessions.challenge(ORIGIN)
    signature = proof(challenge, gate.browsers[0].id)
    gate.clock.now -= 3600
    gate.sessions.prove(challenge, gate.browsers[0].id, signature)
    await trio.sleep(sessions.CHALLENGE_SECONDS)
    late = refused(lambda: gate.sessions.prove(challenge, gate.browsers[0].id, signature))
    assert late == "late"


async def test_an_expired_or_revoked_device_proves_nothing(gate: Gate) -> None:
    first, second = gate.browsers
    challenge = await gate.sessions.challenge(ORIGIN)
    gate.registry.revoke(first)
    gone = refused(lambda: gate.sessions.prove(challenge, first.id, proof(challenge, first.id)))
    assert gone == "unknown-device"
    gate.clock.now += 3600
    signature = proof(challenge, second.id, KEYS[1])
    expired = refused(
        lambda: gate.sessions.prove(challenge, second.id, signature), device_key(second.id)
    )
    assert expired == "expired-device"  # for the log: whose it was


async def test_a_browser_is_told_who_it_is_here(gate: Gate) -> None:
    challenge = await gate.sessions.challenge(ORIGIN)
    device = gate.browsers[0].id
    principal = gate.sessions.prove(challenge, device, proof(challenge, device))
    several = msgspec.structs.replace(principal, scopes=frozenset({"observe", "approve"}))
    gate.sessions.host = "workshop"
    told = gate.sessions.describe(several)
    assert told == Session(
        device=device,
        name="browser 0",
        scopes=["approve", "observe"],
        expires_at=NOW + 3600,
        host="workshop",
        version=mux.__version__,
    )


@settings(max_examples=60)
@given(
    signature=st.one_of(
        st.text(max_size=100),
        st.binary(min_size=64, max_size=64).map(base64url),
        st.binary(max_size=80).map(base64url),
        st.sampled_from([base64url(bytes(64)), base64url(b"\xff" * 64), "A" * 86 + "==", "é" * 86]),
    )
)
def test_no_made_up_signature_is_one(signature: str) -> None:
    assert not signed(kept(KEYS[0]), "text", signature)


@settings(max_examples=60)
@given(x=st.binary(max_size=40).map(base64url), y=st.binary(max_size=40).map(base64url))
def test_what_is_no_point_of_the_curve_is_no_key(x: str, y: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 (any of them)
        key_of(x, y)


async def test_a_signed_request_is_its_devices_once(gate: Gate) -> None:
    device = gate.browsers[0].id
    challenge = await gate.sessions.challenge_request(ORIGIN)
    signature = KEYS[0].sign(*challenge.text_of(device, *READ).split("\n"))
    header = f"Appmux {device} {challenge.nonce} {signature}".encode()
    for nonsense in (b"appmux ", b"appmux a b", b"appmux a b c d", b"appmux a b \xff"):
        with pytest.raises(AuthError):
            gate.sessions.authenticate(nonsense, *READ)
    assert gate.sessions.authenticate(header, *READ).name == "browser 0"
    with pytest.raises(AuthError, match="answered already"):
        gate.sessions.authenticate(header, *READ)
    wrong = await gate.sessions.challenge_request(ORIGIN)
    for _ in range(2):  # a wrong answer uses it up as well
        with pytest.raises(AuthError):
            gate.sessions.authenticate(f"appmux {device} {wrong.nonce} x".encode(), *READ)
    first = await gate.sessions.challenge_request(ORIGIN)
    for _ in range(sessions.MOST_CHALLENGES):
        await gate.sessions.challenge_request(ORIGIN)
    assert first.nonce not in gate.sessions._asked
    assert len(gate.sessions._asked) == sessions.MOST_CHALLENGES


def test_a_key_survives_the_registrys_file(gate: Gate, tmp_path: Path) -> None:
    again = open_registry(tmp_path, gate.clock)
    assert [each.key for each in again] == [*(each.key for each in gate.browsers), ""]
    text = (tmp_path / "devices.json").read_text()
    assert text.count('"key"') == 2  # an older version reads a book without browsers


def test_a_browsers_key_is_no_token(gate: Gate) -> None:
    device = gate.browsers[0]
    for text in (device.key, device.digest, device.id, f"key:{device.key}"):
        assert gate.registry.by_token(text) is None


# -- short tokens ----------------------------------------------------------------------------------


def bearer(token: str) -> bytes:
    return f"Bearer {token}".encode()


def test_a_short_token_is_its_device_for_ten_minutes(
    gate: Gate, autojump_clock: trio.testing.MockClock
) -> None:
    async def story() -> None:
        short = gate.sessions.token_for(gate.browsers[0].id)
        assert short.expires_in_seconds == sessions.TOKEN_SECONDS
        token = short.token
        assert gate.sessions.authenticate(bearer(token), *READ).name == "browser 0"
        await trio.sleep(sessions.TOKEN_SECONDS)
        with pytest.raises(AuthError):
            gate.sessions.authenticate(bearer(token), *READ)

    trio.run(story, clock=autojump_clock)


async def test_a_short_token_ends_when_the_clock_says_so_though_the_machine_slept(
    gate: Gate,
) -> None:
    token = gate.sessions.token_for(gate.browsers[0].id).token
    gate.clock.now += sessions.TOKEN_SECONDS
    with pytest.raises(AuthError):
        gate.sessions.authenticate(bearer(token), *READ)


async def test_a_short_token_ends_with_its_device(gate: Gate) -> None:
    tokens = [gate.sessions.token_for(each.id).token for each in gate.browsers]
    gate.registry.revoke(gate.browsers[0])
    with pytest.raises(AuthError):
        gate.sessions.authenticate(bearer(tokens[0]), *READ)
    assert gate.sessions.authenticate(bearer(tokens[1]), *READ).name == "browser 1"
    gate.registry.limit(gate.browsers[1], frozenset({"approve"}))
    assert gate.sessions.authenticate(bearer(tokens[1]), *READ).scopes == {"approve"}


async def test_a_device_has_so_many_short_tokens_and_the_others_keep_theirs(gate: Gate) -> None:
    others = gate.sessions.token_for(gate.browsers[1].id).token
    own = [
        gate.sessions.token_for(gate.browsers[0].id).token
        for _ in range(sessions.MOST_OF_DEVICE + 1)
    ]
    with pytest.raises(AuthError):
        gate.sessions.authenticate(bearer(own[0]), *READ)
    for token in (*own[1:], others):
        gate.sessions.authenticate(bearer(token), *READ)
    assert not any(token in repr(gate.sessions) for token in own)


@pytest.mark.parametrize(
    "header", [None, b"", b"Bearer", b"Basic x", b"Bearer ams_x", b"Bearer \xff"]
)
async def test_what_is_no_short_token(gate: Gate, header: bytes | None) -> None:
    with pytest.raises(AuthError):
        gate.sessions.authenticate(header, *READ)


async def test_a_token_that_is_nobodys_is_refused_in_words(gate: Gate) -> None:
    with pytest.raises(AuthError, match=r"^invalid session token$"):
        gate.sessions.authenticate(b"Bearer ams_x", *READ)


async def test_the_library_of_keys_is_loaded_before_the_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Another module stands for it: a second copy of the real one would fit no key of the first.
    library = "colorsys"
    monkeypatch.setattr(public_key, "_EC", library)
    monkeypatch.delitem(sys.modules, library, raising=False)
    await public_key.prepare()
    assert library in sys.modules


def test_a_key_and_a_signature_have_one_spelling() -> None:
    """Another one would be another device, or a signature that was never made."""
    x, y = KEYS[0].jwk["x"], KEYS[0].jwk["y"]
    for other in ((f"{x}=", y), (x, f"{y}="), (f"{x}!!!!", y), (x, f"{y}!!!!")):
        with pytest.raises(ValueError, match="a coordinate is 32 bytes"):
            key_of(*other)
    signature = KEYS[0].sign("text")
    assert signed(kept(KEYS[0]), "text", signature)
    assert not signed(kept(KEYS[0]), "text", f"{signature[:8]}!!!!{signature[8:]}")
