"""`mux.access.pairing`: tickets, codes, and that nothing is half-made."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
import trio.testing
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import to_builtins
from msgspec.structs import replace
from structlog.testing import capture_logs

from mux.access import pairing, replies
from mux.access.device import DeviceError
from mux.access.devices import DeviceRegistry, DeviceRegistryError, open_registry
from mux.access.pairing import Pairing, PairingError
from mux.access.replies import Reply
from mux.access.tickets import DeviceGrant, code_of
from mux.storage.small_file import SmallFile

OPERATOR = 7
WANTED = DeviceGrant("paired", frozenset({"observe"}))


@attrs.define
class Desk:
    """A pairing whose operator is the test."""

    book: DeviceRegistry
    told: list[tuple[int, str, dict[str, Any]]] = attrs.field(factory=list)
    records: list[tuple[str, dict[str, object]]] = attrs.field(factory=list)
    pairing: Pairing = attrs.field(init=False)
    replies: list[Reply] = attrs.field(factory=list)

    def __attrs_post_init__(self) -> None:
        self.pairing = Pairing(
            self.book,
            lambda client, method, params: self.told.append((client, method, to_builtins(params))),
            lambda kind, fields: self.records.append((kind, fields)),
        )

    def begin(self, wanted: DeviceGrant = WANTED, owner: int = OPERATOR) -> tuple[int, str]:
        ticket, text = self.pairing.begin(owner, wanted)
        return ticket.id, text

    async def send(self, body: object) -> None:
        encoded = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.replies.append(await self.pairing.exchange(encoded, "10.0.0.7:5"))

    @asynccontextmanager
    async def waiting(self, body: object) -> AsyncIterator[trio.CancelScope]:
        """A device that has sent this and waits; cancel the scope for it to hang up."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.send, body)
            await trio.testing.wait_all_tasks_blocked()
            yield nursery.cancel_scope

    def said(self) -> tuple[int, dict[str, Any]]:
        """The last reply, delivered."""
        reply = self.replies[-1]
        self.pairing.conclude(reply, delivered=True)
        return int(reply.status), json.loads(reply.body)

    def outcomes(self) -> list[str]:
        return [params["outcome"] for _, method, params in self.told if method == pairing.ENDED]


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(open_registry(tmp_path, lambda: 1_800_000_000.0))


async def test_a_ticket_becomes_a_device(desk: Desk) -> None:
    wanted = DeviceGrant(
        "invite", frozenset({"observe", "approve"}), lifetime=60.0, operator="local"
    )
    id, ticket = desk.begin(wanted)
    async with desk.waiting({"ticket": ticket, "name": " Ada's\x1b phone ", "nonce": "abc"}):
        code = code_of(ticket, " Ada's\x1b phone ", "abc")
        asked = {"id": id, "name": "Ada's phone", "code": code, "from": "10.0.0.7:5"}
        assert desk.told == [(OPERATOR, pairing.ASKED, asked)]
        assert not list(desk.book)
        desk.pairing.confirm(OPERATOR, id, accept=True)
    assert not desk.outcomes()  # not before the device has it
    status, body = desk.said()
    (device,) = desk.book
    assert status == 200
    assert body == {
        "token": body["token"],
        "name": "Ada's phone",
        "scopes": ["approve", "observe"],
        "expiresAt": 1_800_000_060.0,
    }
    assert desk.book.by_token(body["token"]) == device
    assert (device.kind, device.scopes) == ("invite", wanted.scopes)
    assert desk.told[1:] == [
        (OPERATOR, pairing.ENDED, {"id": id, "outcome": "paired", "name": "Ada's phone"})
    ]
    assert [kind for kind, _ in desk.records] == ["device/paired"]
    shown = repr(desk.pairing) + repr(desk.records) + repr(desk.told) + repr(desk.replies)
    assert body["token"] not in shown
    assert ticket not in shown


async def test_the_operators_name_for_it_wins(desk: Desk) -> None:
    id, ticket = desk.begin(replace(WANTED, name=" My  phone "))
    async with desk.waiting({"ticket": ticket, "name": "theirs"}):
        desk.pairing.confirm(OPERATOR, id, accept=True)
    assert desk.said()[1]["name"] == "My phone"


async def test_a_name_that_is_taken_is_told_at_once(desk: Desk) -> None:
    desk.book.add("phone", "paired", WANTED.scopes, "0" * 64)
    with pytest.raises(DeviceError, match="is taken"):
        desk.begin(replace(WANTED, name="Phone"))
    id, ticket = desk.begin()
    async with desk.waiting({"ticket": ticket, "name": "phone"}):
        desk.pairing.confirm(OPERATOR, id, accept=True)
    assert desk.said()[1]["name"] == "phone 2"


async def test_a_name_that_was_taken_meanwhile_ends_it(desk: Desk) -> None:
    id, ticket = desk.begin(replace(WANTED, name="phone"))
    desk.book.add("phone", "paired", WANTED.scopes, "0" * 64)
    async with desk.waiting({"ticket": ticket}):
        with pytest.raises(DeviceError, match="is taken"):
            desk.pairing.confirm(OPERATOR, id, accept=True)
    assert desk.said()[0] == 410
    assert len(list(desk.book)) == 1


async def test_declined(desk: Desk) -> None:
    id, ticket = desk.begin()
    async with desk.waiting({"ticket": ticket}):
        desk.pairing.confirm(OPERATOR, id, accept=False)
    assert desk.said() == (403, {"error": "declined", "message": "the operator said no"})
    assert desk.outcomes() == ["declined"]
    assert not list(desk.book)
    with pytest.raises(PairingError, match="isn't waiting any more"):
        desk.pairing.confirm(OPERATOR, id, accept=True)


async def test_a_ticket_is_of_one_use(desk: Desk) -> None:
    id, ticket = desk.begin()
    async with desk.waiting({"ticket": ticket}):
        await desk.send({"ticket": ticket, "name": "thief"})
        assert desk.said()[0] == 409
        desk.pairing.confirm(OPERATOR, id, accept=True)
    assert desk.said()[0] == 200
    await desk.send({"ticket": ticket})
    assert desk.said() == (
        409,
        {"error": "used-ticket", "message": "the ticket has been used: ask for a new one"},
    )
    assert desk.outcomes() == ["again", "paired", "again"]  # the operator hears of each
    assert len(list(desk.book)) == 1


async def test_the_operator_hears_which_used_ticket_came_again_and_from_where(desk: Desk) -> None:
    desk.begin(owner=8)
    id, ticket = desk.begin()
    async with desk.waiting({"ticket": ticket}):
        desk.pairing.confirm(OPERATOR, id, accept=False)
    del desk.told[:]
    again = {"id": id, "outcome": "again", "from": "10.0.0.7:5"}
    with capture_logs() as logs:
        for number in range(1, pairing.TOLD_AGAIN + 3):
            await desk.send({"ticket": ticket})
            times = min(number, pairing.TOLD_AGAIN)
            assert desk.told == [(OPERATOR, pairing.ENDED, again)] * times
            assert desk.replies[-1].whose == f"ticket {id}"
    line = {
        "event": "a pairing ticket was used again",
        "client": "10.0.0.7:5",
        "log_level": "warning",
    }
    assert logs == [line] * pairing.TOLD_AGAIN


async def test_what_became_of_a_device_is_recorded(desk: Desk) -> None:
    id, ticket = desk.begin(replace(WANTED, operator="ada"))
    async with desk.waiting({"ticket": ticket, "name": "phone"}):
        desk.pairing.confirm(OPERATOR, id, accept=False)
    common = {"device": "phone", "kind": "paired", "by": "ada"}
    assert desk.records == [("device/refused", {**common, "why": "declined"})]
    assert desk.told[-1] == (OPERATOR, pairing.ENDED, {"id": id, "outcome": "declined"})
    wanted = DeviceGrant("invite", frozenset({"observe", "approve"}), name="tablet", operator="ada")
    made, ticket = desk.pairing.begin(OPERATOR, wanted)
    async with desk.waiting({"ticket": ticket, "name": "theirs"}):
        desk.pairing.confirm(OPERATOR, made.id, accept=True)
    assert desk.said()[0] == 200
    common = {"device": "tablet", "kind": "invite", "by": "ada"}
    assert desk.records[1:] == [("device/paired", {**common, "scopes": ["approve", "observe"]})]
    assert made.token == ""  # nobody needs it any more


async def test_a_second_device_of_a_name_is_recorded_under_its_own(desk: Desk) -> None:
    for _ in range(2):
        id, ticket = desk.begin()
        with capture_logs() as logs:
            async with desk.waiting({"ticket": ticket, "name": "phone"}):
                desk.pairing.confirm(OPERATOR, id, accept=True)
        (line,) = [each for each in logs if each["event"] == "a device asks to be paired"]
        assert (line["client"], line["name"]) == ("10.0.0.7:5", "phone")
        assert desk.said()[0] == 200
    first, second = (device.name for device in desk.book)
    assert first != second
    assert [fields["device"] for _, fields in desk.records] == [first, second]
    assert desk.told[-1][2]["name"] == second


async def test_a_device_that_cannot_be_taken_back_is_told_of(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    id, ticket = desk.begin()
    async with desk.waiting({"ticket": ticket, "name": "phone"}):
        desk.pairing.confirm(OPERATOR, id, accept=True)

    def full(_registry: DeviceRegistry, _device: object) -> None:
        raise DeviceRegistryError("no room")

    monkeypatch.setattr(DeviceRegistry, "revoke", full)
    with capture_logs() as logs:
        desk.pairing.conclude(desk.replies[-1], delivered=False)
    assert logs == [
        {
            "event": "a device that left before it was paired stays",
            "why": "no room",
            "log_level": "error",
        }
    ]
    assert desk.outcomes() == ["left"]
    assert desk.records[-1] == (
        "device/refused",
        {"device": "phone", "kind": "paired", "by": "", "why": "left"},
    )


async def test_a_device_that_has_its_yes_keeps_it_when_the_operator_leaves(desk: Desk) -> None:
    id, ticket = desk.begin()
    async with desk.waiting({"ticket": ticket}):
        desk.pairing.confirm(OPERATOR, id, accept=True)
        desk.pairing.called_off(OPERATOR)
    assert desk.said()[0] == 200
    assert desk.outcomes() == ["paired"]


async def test_another_operator_who_leaves_takes_nothing_along(desk: Desk) -> None:
    id, ticket = desk.begin(owner=8)
    async with desk.waiting({"ticket": ticket}):
        desk.pairing.called_off(OPERATOR)
        desk.pairing.confirm(8, id, accept=True)
    assert desk.said()[0] == 200


async def test_each_refusal_says_what_to_do(
    desk: Desk, autojump_clock: trio.testing.MockClock
) -> None:
    def refused(reply: Reply) -> tuple[int, dict[str, str]]:
        return int(reply.status), json.loads(reply.body)

    malformed = {
        "error": "malformed",
        "message": 'send {"ticket": "…", "name": "…", "nonce": "…"} as JSON',
    }
    await desk.send(b"")
    assert refused(desk.replies[-1]) == (400, malformed)
    assert refused(replies.malformed("why")) == (400, {"error": "malformed", "message": "why"})
    await desk.send({"ticket": "x"})
    unknown = {"error": "unknown-ticket", "message": "no such ticket"}
    assert refused(desk.replies[-1]) == (401, unknown)
    _, ticket = desk.begin()
    await desk.send({"ticket": ticket})
    message = "the operator gave no word within 120 s"
    assert refused(desk.replies[-1]) == (410, {"error": "unanswered", "message": message})
    _, ticket = desk.begin()
    desk.pairing.called_off(OPERATOR)
    await desk.send({"ticket": ticket})
    message = "the ticket holds no more: ask for a new one"
    assert refused(desk.replies[-1]) == (410, {"error": "expired-ticket", "message": message})
    _, ticket = desk.begin()
    async with desk.waiting({"ticket": ticket}):
        desk.pairing.called_off(OPERATOR)
    message = "the pairing was called off: ask for a new ticket"
    assert refused(desk.replies[-1]) == (410, {"error": "called-off", "message": message})
    message = "too many wrong attempts with this ticket, or by this device: ask for a new ticket"
    assert refused(replies.too_many()) == (429, {"error": "too-many", "message": message})
    assert {reply.whose for reply in desk.replies} == {""}


@pytest.mark.parametrize(("name", "nonce"), [("y" * 512, ""), ("", "y" * 128)])
async def test_the_longest_that_a_device_may_send(desk: Desk, name: str, nonce: str) -> None:
    await desk.send({"ticket": "x", "name": name, "nonce": nonce})
    assert desk.said()[0] == 401


async def test_a_ticket_expires(desk: Desk, autojump_clock: trio.testing.MockClock) -> None:
    _, ticket = desk.begin()
    await trio.sleep(pairing.TICKET_SECONDS)
    await desk.send({"ticket": ticket})
    assert desk.said()[0] == 410
    desk.begin()  # the old one is forgotten then
    await desk.send({"ticket": ticket})
    assert desk.said()[0] == 401


async def test_a_ticket_expires_while_the_machine_sleeps(desk: Desk) -> None:
    """trio's clock stands still then."""
    _, ticket = desk.begin()
    asleep = desk.book.clock() + pairing.TICKET_SECONDS
    desk.book.clock = lambda: asleep
    await desk.send({"ticket": ticket})
    assert desk.said()[0] == 410


async def test_a_ticket_at_its_last_moment(
    desk: Desk, autojump_clock: trio.testing.MockClock
) -> None:
    """It counts when it is sent; the operator may still take a minute."""
    id, ticket = desk.begin()
    await trio.sleep(pairing.TICKET_SECONDS - 1)
    async with desk.waiting({"ticket": ticket}):
        await trio.sleep(60)
        desk.begin()
        desk.pairing.confirm(OPERATOR, id, accept=True)
    assert desk.said()[0] == 200


async def test_an_operator_who_says_nothing(
    desk: Desk, autojump_clock: trio.testing.MockClock
) -> None:
    id, ticket = desk.begin()
    await desk.send({"ticket": ticket})
    assert trio.current_time() == pytest.approx(replies.CONFIRM_SECONDS)
    assert desk.said()[1]["error"] == "unanswered"
    assert desk.outcomes() == ["unanswered"]
    with pytest.raises(PairingError):
        desk.pairing.confirm(OPERATOR, id, accept=True)
    assert not list(desk.book)


async def test_an_operator_who_leaves_takes_the_ticket_along(desk: Desk) -> None:
    _, ticket = desk.begin()
    desk.pairing.called_off(OPERATOR)
    await desk.send({"ticket": ticket})
    assert desk.said()[0] == 410
    id, ticket = desk.begin(owner=8)
    async with desk.waiting({"ticket": ticket}):
        desk.pairing.called_off(OPERATOR)  # another's
        await trio.testing.wait_all_tasks_blocked()
        desk.pairing.called_off(8)
    assert desk.said()[1]["error"] == "called-off"
    with pytest.raises(PairingError):
        desk.pairing.confirm(8, id, accept=True)
    assert not list(desk.book)


async def test_nobody_else_can_confirm(desk: Desk) -> None:
    id, ticket = desk.begin()
    with pytest.raises(PairingError, match="no device waits"):
        desk.pairing.confirm(OPERATOR, id, accept=True)  # none has come
    async with desk.waiting({"ticket": ticket}):
        for owner, number in ((8, id), (OPERATOR, id + 1)):
            with pytest.raises(PairingError, match="no device waits"):
                desk.pairing.confirm(owner, number, accept=True)
        desk.pairing.confirm(OPERATOR, id, accept=True)
    assert desk.said()[0] == 200


async def test_a_device_that_hangs_up(desk: Desk) -> None:
    id, ticket = desk.begin()
    async with desk.waiting({"ticket": ticket}) as hang_up:
        hang_up.cancel()
    assert desk.outcomes() == ["left"]
    with pytest.raises(PairingError):
        desk.pairing.confirm(OPERATOR, id, accept=True)
    assert not list(desk.book)


async def test_a_device_that_hangs_up_as_the_operator_says_yes(desk: Desk) -> None:
    id, ticket = desk.begin()
    async with desk.waiting({"ticket": ticket}) as hang_up:
        hang_up.cancel()
        desk.pairing.confirm(OPERATOR, id, accept=True)
    assert not desk.replies
    assert desk.outcomes() == ["left"]
    assert not list(desk.book)


async def test_an_answer_that_does_not_reach_the_device(desk: Desk) -> None:
    id, ticket = desk.begin()
    async with desk.waiting({"ticket": ticket}):
        desk.pairing.confirm(OPERATOR, id, accept=True)
    assert len(list(desk.book)) == 1
    desk.pairing.conclude(desk.replies[-1], delivered=False)
    assert not list(desk.book)
    assert desk.outcomes() == ["left"]


async def test_a_book_that_cannot_be_written(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    id, ticket = desk.begin()

    def full(*_given: object, **_named: object) -> None:
        raise OSError(28, "No space left on device")

    async with desk.waiting({"ticket": ticket}):
        monkeypatch.setattr(SmallFile, "write", full)
        with pytest.raises(DeviceRegistryError, match="nothing was changed"):
            desk.pairing.confirm(OPERATOR, id, accept=True)
    assert desk.said()[0] == 410
    assert not list(desk.book)


async def test_tickets_are_bounded(desk: Desk, autojump_clock: trio.testing.MockClock) -> None:
    for _ in range(pairing.MOST_TICKETS):
        desk.begin()
    with pytest.raises(PairingError, match=r"16 tickets are out already: .* \(within 5 minutes\)"):
        desk.begin()
    await trio.sleep(pairing.TICKET_SECONDS)
    desk.begin()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"null",
        b'"x"',
        b"{}",
        b'{"ticket":null}',
        b'{"ticket":5}',
        b'{"ticket":"x","name":5}',
        b'{"ticket":"x"',
        b'{"ticket":"x"}{}',
        b"\xff",
        b'{"ticket":"\\ud800"}',
        b"[" * 4000,
        json.dumps({"ticket": "x", "nonce": "y" * 129}).encode(),
        json.dumps({"ticket": "x", "name": "y" * 513}).encode(),
    ],
)
async def test_malformed(desk: Desk, body: bytes) -> None:
    await desk.send(body)
    status, said = desk.said()
    assert (status, said["error"]) == (400, "malformed")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(text=st.text(max_size=60) | st.binary(max_size=60).map(lambda b: b.decode("latin-1")))
def test_no_other_text_is_a_ticket(desk: Desk, text: str) -> None:
    async def story() -> None:
        _, ticket = desk.begin(owner=9)
        for tried in (text, ticket + text, text + ticket, ticket[1:] + text, ticket.swapcase()):
            if tried == ticket:
                continue
            await desk.send({"ticket": tried})
            assert desk.said()[0] in (400, 401)
        assert not desk.told
        desk.pairing._tickets.clear()

    trio.run(story)


@given(st.text(), st.text(), st.text(), st.text())
def test_a_code_is_six_digits_of_all_that_was_sent(a: str, b: str, c: str, d: str) -> None:
    try:
        code = code_of(a, b, c)
    except UnicodeEncodeError:  # JSON lets no lone surrogate through
        return
    assert len(code) == 7
    assert code.replace(" ", "").isdecimal()
    assert code == code_of(a, b, c)


def test_codes_tell_devices_apart() -> None:
    codes = {code_of("ticket", "phone", str(nonce)) for nonce in range(2000)}
    assert len(codes) > 1990
    assert (
        len({code_of(*parts) for parts in (("a", "b", "c"), ("ab", "", "c"), ("a", "", "b"))}) == 3
    )
    # What an app's author can check theirs against.
    assert code_of("QuKMHXgwnKnmECVvZmKeig", "Ada's phone", "n") == "020 761"
