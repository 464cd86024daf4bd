"""`mux.access.browser_pairing` and `letters`: a key is let in by a ticket, asked for repeatedly."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
import trio.lowlevel
import trio.testing
from hypothesis import given
from hypothesis import strategies as st
from msgspec import to_builtins

from mux.access import browser_pairing, letters, replies
from mux.access.browser_pairing import BrowserPairing, browser_code
from mux.access.devices import DeviceRegistry, open_registry
from mux.access.letters import ALPHABET, LENGTH, Letters
from mux.access.pairing import ASKED, ENDED, TICKET_SECONDS, Pairing, PairingError
from mux.access.tickets import Browser, DeviceGrant, PairingTicket
from tests.end_to_end.browsers import Key
from tests.end_to_end.peer import PATIENCE

OPERATOR = 1
WANTED = DeviceGrant("paired", frozenset({"observe"}))
KEYS = (Key(), Key())


@attrs.define
class Desk:
    """A pairing whose operator is the test."""

    registry: DeviceRegistry
    told: list[tuple[str, dict[str, Any]]] = attrs.field(factory=list)
    records: list[tuple[str, dict[str, object]]] = attrs.field(factory=list)
    browsers: BrowserPairing = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        def tell(_client: int, method: str, params: object) -> None:
            self.told.append((method, to_builtins(params)))

        def record(kind: str, fields: dict[str, object]) -> None:
            self.records.append((kind, fields))

        self.browsers = BrowserPairing(Pairing(self.registry, tell, record))

    def begin(self, wanted: DeviceGrant = WANTED) -> tuple[PairingTicket, str]:
        return self.browsers.pairing.begin(OPERATOR, wanted)

    def confirm(self, ticket: PairingTicket, *, accept: bool = True) -> None:
        self.browsers.pairing.confirm(OPERATOR, ticket.id, accept=accept)

    async def send(
        self, key: Key = KEYS[0], nonce: str = "n", **redeemed: str
    ) -> tuple[int, dict[str, Any]]:
        body = {"name": "a browser", "nonce": nonce, "key": key.jwk, **redeemed}
        reply = await self.browsers.redeem(json.dumps(body).encode(), "10.0.0.7:5")
        return int(reply.status), json.loads(reply.body)

    def outcomes(self) -> list[str]:
        return [params["outcome"] for method, params in self.told if method == ENDED]


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(open_registry(tmp_path, lambda: 1_800_000_000.0))


async def test_a_browser_asks_until_the_operator_has_decided(
    desk: Desk, autojump_clock: trio.testing.MockClock
) -> None:
    ticket, text = desk.begin()
    for _ in range(3):  # its network changes, it sleeps: nothing is called off
        assert await desk.send(ticket=text) == (202, {"state": "waiting"})
    (asked,) = [params for method, params in desk.told if method == ASKED]
    jwk = KEYS[0].jwk
    # The page computes the same: see docs/protocol.md.
    parts = ["appmux session", text, "a browser", "n", jwk["x"], jwk["y"]]
    digest = hashlib.sha256("\n".join(parts).encode()).digest()
    code = f"{int.from_bytes(digest[:8]) % 10**6:06}"
    assert (asked["code"], asked["from"]) == (f"{code[:3]} {code[3:]}", "10.0.0.7:5")
    assert asked["code"] == browser_code(text, "a browser", "n", f"{jwk['x']}.{jwk['y']}")
    assert trio.current_time() == 3 * browser_pairing.HELD_SECONDS
    desk.confirm(ticket)
    assert desk.outcomes() == ["paired"]  # whether or not it asks again: it has its key
    (device,) = desk.registry
    paired = {"state": "paired", "device": device.id, "name": "a browser"}
    expected = {**paired, "scopes": ["observe"], "expiresAt": None}
    assert await desk.send(ticket=text) == (200, expected)
    assert await desk.send(ticket=text) == (200, expected)
    assert [kind for kind, _ in desk.records] == ["device/paired"]
    shown = repr(desk.told) + repr(desk.records) + repr(desk.browsers)
    assert text not in shown


async def test_a_decision_is_told_at_once(desk: Desk) -> None:
    ticket, text = desk.begin()
    async with trio.open_nursery() as nursery:

        async def ask() -> None:
            assert (await desk.send(ticket=text))[0] == 200

        nursery.start_soon(ask)
        with trio.fail_after(PATIENCE):
            while not ticket.came:
                await trio.lowlevel.checkpoint()
        desk.confirm(ticket)


async def test_a_ticket_is_for_one_key_and_nonce(
    desk: Desk, autojump_clock: trio.testing.MockClock
) -> None:
    ticket, text = desk.begin()
    assert (await desk.send(ticket=text))[0] == 202
    for key, nonce in ((KEYS[1], "n"), (KEYS[0], "m"), (KEYS[1], "m")):
        assert (await desk.send(key, nonce, ticket=text))[1]["error"] == "used-ticket"
    assert desk.outcomes() == ["again"] * 3
    assert {params["from"] for method, params in desk.told if method == ENDED} == {"10.0.0.7:5"}
    desk.confirm(ticket)
    assert (await desk.send(KEYS[1], ticket=text))[1]["error"] == "used-ticket"
    assert len(list(desk.registry)) == 1


async def test_no_word_and_a_no(desk: Desk, autojump_clock: trio.testing.MockClock) -> None:
    ticket, text = desk.begin()
    await desk.send(ticket=text)
    await trio.sleep(replies.CONFIRM_SECONDS)
    with pytest.raises(PairingError):  # too late, though no browser has asked meanwhile
        desk.confirm(ticket)
    assert (await desk.send(ticket=text))[1]["error"] == "unanswered"
    ticket, text = desk.begin()
    await desk.send(ticket=text)
    desk.confirm(ticket, accept=False)
    assert await desk.send(ticket=text) == (
        403,
        {"error": "declined", "message": "the operator said no"},
    )
    ticket, text = desk.begin()
    await desk.send(ticket=text)
    desk.browsers.pairing.called_off(OPERATOR)
    assert (await desk.send(ticket=text))[1]["error"] == "called-off"
    assert not list(desk.registry)


async def test_who_asks_again_has_no_more_time_and_hears_at_its_end(
    desk: Desk, autojump_clock: trio.testing.MockClock
) -> None:
    _, text = desk.begin()
    await desk.send(ticket=text)
    await trio.sleep(replies.CONFIRM_SECONDS - trio.current_time() - 1)
    status, told = await desk.send(ticket=text)
    assert (status, told["error"]) == (410, "unanswered")
    assert trio.current_time() == replies.CONFIRM_SECONDS
    assert desk.outcomes() == ["unanswered"]


async def test_a_browser_is_told_when_it_expires(
    desk: Desk, autojump_clock: trio.testing.MockClock
) -> None:
    ticket, text = desk.begin(DeviceGrant("paired", frozenset({"observe"}), lifetime=3600.0))
    await desk.send(ticket=text)
    desk.confirm(ticket)
    assert (await desk.send(ticket=text))[1]["expiresAt"] == 1_800_003_600.0


async def test_the_longest_name_and_nonce(
    desk: Desk, autojump_clock: trio.testing.MockClock
) -> None:
    _, text = desk.begin()
    assert (await desk.send(nonce="n" * 128, ticket=text, name="n" * 512))[0] == 202


async def test_what_is_no_ticket(desk: Desk) -> None:
    told = {"error": "unknown-ticket", "message": "no such ticket"}
    assert await desk.send(ticket="amp_x") == (401, told)


async def test_an_expired_ticket(desk: Desk, autojump_clock: trio.testing.MockClock) -> None:
    _, text = desk.begin()
    await trio.sleep(TICKET_SECONDS)
    assert (await desk.send(ticket=text))[1]["error"] == "expired-ticket"
    _, short = desk.browsers.pairing.begin(OPERATOR, WANTED, 60.0)
    await trio.sleep(60.0)
    assert (await desk.send(ticket=short))[1]["error"] == "expired-ticket"


@pytest.mark.parametrize(
    "change",
    [
        {"ticket": ""},
        {"ticket": "a", "letters": "ABCDEFGH"},
        {"nonce": ""},
        {"nonce": "n" * 129},
        {"name": "n" * 513},
        {"key": None},
        {"key": {"kty": "EC", "crv": "P-384", "x": "A" * 43, "y": "A" * 43}},
        {"key": {"kty": "EC", "crv": "P-256", "x": "A" * 43, "y": "A" * 43}},
        {"key": {**KEYS[0].jwk, "y": KEYS[1].jwk["y"]}},
    ],
)
async def test_what_is_malformed_uses_no_ticket(desk: Desk, change: dict[str, Any]) -> None:
    _, text = desk.begin()
    body = {"ticket": text, "name": "x", "nonce": "n", "key": KEYS[0].jwk, **change}
    reply = await desk.browsers.redeem(json.dumps(body).encode(), "10.0.0.7:5")
    told = {"error": "malformed", "message": browser_pairing.SHAPE}
    assert (int(reply.status), json.loads(reply.body)) == (400, told)
    assert not desk.told


async def test_one_browser_takes_the_place_of_another(
    desk: Desk, autojump_clock: trio.testing.MockClock
) -> None:
    wanted = DeviceGrant("paired", frozenset({"observe"}), "this machine", replaces=True)
    gone: list[str] = []

    def replaced(name: str) -> None:
        gone.append(name)
        for device in list(desk.registry):
            if device.name == name:
                desk.registry.revoke(device)

    desk.browsers.pairing.replaced = replaced
    for key in KEYS:
        ticket, text = desk.begin(wanted)
        await desk.send(key, ticket=text)
        desk.confirm(ticket)
    assert gone == ["this machine"] * 2
    (device,) = desk.registry
    assert device.key.startswith(KEYS[1].jwk["x"])


# -- letters ---------------------------------------------------------------------------------------


async def test_letters_stand_for_a_ticket(
    desk: Desk, autojump_clock: trio.testing.MockClock
) -> None:
    ticket, _ = desk.begin()
    typed = desk.browsers.letters.make(ticket)
    assert len(typed) == LENGTH
    assert set(typed) <= set(ALPHABET)
    shown = f" {typed[:4].lower()}-{typed[4:]} "
    assert (await desk.send(letters=shown))[0] == 202
    (asked,) = [params for method, params in desk.told if method == ASKED]
    jwk = KEYS[0].jwk
    assert asked["code"] == browser_code(typed, "a browser", "n", f"{jwk['x']}.{jwk['y']}")
    assert (await desk.send(KEYS[1], letters=typed))[1]["error"] == "used-ticket"
    desk.confirm(ticket)
    assert (await desk.send(letters=typed))[0] == 200


async def test_letters_die_after_ten_wrong_tries_and_no_later_for_who_has_used_them(
    desk: Desk, autojump_clock: trio.testing.MockClock
) -> None:
    ticket, _ = desk.begin()
    used = desk.browsers.letters.make(ticket)
    assert (await desk.send(letters=used))[0] == 202
    other, text = desk.begin()
    unused = desk.browsers.letters.make(other)
    for _ in range(letters.MOST_WRONG):
        assert (await desk.send(letters="AAAAAAAA"))[1]["error"] == "unknown-ticket"
    assert (await desk.send(KEYS[1], letters=unused))[1]["error"] == "unknown-ticket"
    assert (await desk.send(letters=used))[0] == 202
    assert (await desk.send(KEYS[1], ticket=text))[0] == 202  # the ticket itself lives


async def test_letters_go_one_at_a_time_and_with_their_ticket(
    desk: Desk, autojump_clock: trio.testing.MockClock
) -> None:
    first, second = desk.begin()[0], desk.begin()[0]
    before, now = (desk.browsers.letters.make(each) for each in (first, second))
    assert (await desk.send(letters=before))[1]["error"] == "unknown-ticket"
    await trio.sleep(TICKET_SECONDS)
    assert (await desk.send(letters=now))[1]["error"] == "expired-ticket"


@given(tries=st.lists(st.text(alphabet=ALPHABET, min_size=8, max_size=8), min_size=10))
def test_ten_guesses_are_all_that_anybody_has(tries: list[str]) -> None:
    desk = Letters()
    ticket = PairingTicket(1, OPERATOR, WANTED, 1.0, 1.0)
    text = desk.make(ticket)
    right = [desk.find(each) for each in tries if each != text]
    assert set(right) <= {None}
    if len(right) >= letters.MOST_WRONG:
        assert desk.find(text) is None


def used(number: int) -> PairingTicket:
    """A ticket that a browser has brought."""
    ticket = PairingTicket(number, OPERATOR, WANTED, 1.0, 1.0)
    ticket.browser = Browser("key", "n", 1.0)
    return ticket


def test_nine_wrong_tries_leave_the_letters_and_each_new_ones_begin_anew() -> None:
    desk, text = Letters(), ""
    for number in range(3):
        ticket = PairingTicket(number, OPERATOR, WANTED, 1.0, 1.0)
        text = desk.make(ticket)
        for _ in range(letters.MOST_WRONG - 1):
            assert desk.find("AAAAAAAA") is None
        assert desk.find(text) is ticket
    assert desk.find("AAAAAAAA") is None
    assert desk.find(text) is None
    assert desk.find("") is None


def test_so_many_used_letters_are_remembered_the_newest() -> None:
    desk, tickets = Letters(), [used(number) for number in range(letters.MOST_USED + 2)]
    texts = [desk.make(ticket) for ticket in tickets]
    known = [desk.find(text) for text in texts]
    assert known == [None, None, *tickets[2:]]
