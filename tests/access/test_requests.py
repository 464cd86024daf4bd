"""`mux.access.requests`: who may grant what, and what becomes of connections when the book
changes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
import trio.testing
from msgspec import to_builtins

from mux.access.device import Device, DeviceError, digest_of
from mux.access.devices import DeviceRegistry, open_registry
from mux.access.pairing import TICKET_SECONDS
from mux.access.requests import (
    CHANGED,
    LONGEST_LIFETIME,
    REVOKED,
    DeviceRequestError,
    DeviceRequests,
)
from mux.access.tickets import DeviceGrant
from mux.core.broker import Broker
from mux.core.commands import AnswerOutside
from mux.core.events import DeviceAccessEnded, Event
from mux.core.limits import Limits
from mux.core.policy.principal import ClientId, Principal
from mux.core.policy.scopes import ALL
from mux.core.protocol.scope import Scope
from mux.core.state.app_server import Introduction
from mux.dispatch.dispatcher import Dispatcher
from mux.dispatch.outbox import ClientPort, Outbox
from mux.errors import AppmuxError
from tests.shells import idle_shells

NOW = 1_800_000_000.0
OWNER = Principal("local", "local-user")
WATCHER = Principal("guest", "jwt", scopes=frozenset({"observe", "admin"}))
ENDED = 4401


class Heard(Broker):
    """A broker that remembers what it heard."""

    def __init__(self) -> None:
        super().__init__(Limits(), Introduction("appmux", "0.1"))
        self.heard: list[Event] = []

    def handle(self, event: Event, now: float) -> list[Any]:
        self.heard.append(event)
        return super().handle(event, now)


@attrs.define(eq=False)
class Gate:
    """Everything around an `DeviceRequests`, and what it said."""

    path: Path
    open_door: bool = False
    broker: Heard = attrs.field(factory=Heard)
    dispatcher: Dispatcher = attrs.field(init=False)
    book: DeviceRegistry = attrs.field(init=False)
    access: DeviceRequests = attrs.field(init=False)
    records: list[tuple[str, dict[str, object]]] = attrs.field(factory=list)
    closed: dict[ClientId, list[tuple[int, str]]] = attrs.field(factory=dict)
    changes: int = 0
    revoked: list[str] = attrs.field(factory=list)
    now: float = NOW

    def __attrs_post_init__(self) -> None:
        self.dispatcher = Dispatcher(self.broker)
        self.book = open_registry(self.path, lambda: self.now)
        record: Callable[[str, dict[str, object]], None] = lambda kind, fields: (  # noqa: E731
            self.records.append((kind, fields))
        )
        self.access = DeviceRequests(
            self.book, self.dispatcher, self.open_door, record, self.change, self.revoked.append
        )
        self.dispatcher.connect(idle_shells(connections=self.access))

    def change(self) -> None:
        self.changes += 1

    def attach(self, principal: Principal, peer: str = "10.0.0.7:5") -> ClientId:
        closed: list[tuple[int, str]] = []
        port = ClientPort(Outbox(1e9), lambda code, reason: closed.append((code, reason)))
        client = self.dispatcher.attach(port, principal, "ws", peer)
        self.closed[client] = closed
        return client

    def of(self, device: Device, peer: str = "10.0.0.7:5") -> ClientId:
        """A connection of a device, as the door lets it in."""
        return self.attach(principal_of(device), peer)

    def add(self, name: str, *scopes: Scope, **more: Any) -> Device:
        given = frozenset(scopes) or ALL
        return self.book.add(name, "paired", given, digest_of(name), **more)

    def ask(self, method: str, by: Principal = OWNER, **params: object) -> Any:
        client = self.attach(by)
        return self.asked(client, method, **params)

    def asked(self, client: ClientId, method: str, **params: object) -> Any:
        asked = AnswerOutside(client, b"1", f"mux/{method}", json.dumps(params).encode())
        return to_builtins(self.access.answer(asked))


def principal_of(device: Device) -> Principal:
    return Principal(device.name, "device", device.expires, device.scopes, device.id)


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    return Gate(tmp_path)


# -- coming and going ------------------------------------------------------------------------------


async def test_a_device_that_comes_and_goes_is_seen_and_told(gate: Gate) -> None:
    device = gate.add("phone")
    one, two = gate.of(device), gate.of(device, "[fd7a::1]:77")
    assert gate.changes == 2
    shown = gate.ask("devices/list")["devices"]
    assert [(each["attached"], each["seenAt"]) for each in shown] == [(2, NOW)]
    assert shown[0]["address"] == "fd7a::1"
    gate.now += 9
    gate.access.left(one)
    assert gate.changes == 3
    found = gate.book.by_id(device.id)
    assert found is not None
    assert (found.seen, found.address) == (NOW + 9, "10.0.0.7")
    gate.access.left(two)
    gate.access.left(two)
    assert gate.changes == 4
    assert gate.ask("devices/list")["devices"][0]["attached"] == 0


async def test_who_is_no_device_changes_nothing(gate: Gate) -> None:
    client = gate.attach(OWNER, "unix")
    gate.access.left(client)
    assert gate.changes == 0
    assert not gate.closed[client]


async def test_a_device_whose_peer_has_no_port_is_seen_there(gate: Gate) -> None:
    device = gate.add("phone")
    gate.of(device, "somewhere")
    found = gate.book.by_id(device.id)
    assert found is not None
    assert found.address == "somewhere"


async def test_one_that_was_changed_on_its_way_in_is_sent_away(gate: Gate) -> None:
    device = gate.add("phone")
    gate.book.limit(device, frozenset({"observe"}))
    late = gate.of(device)
    assert gate.closed[late] == [(ENDED, CHANGED)]
    gate.book.revoke(device)
    later = gate.of(device)
    assert gate.closed[later] == [(ENDED, REVOKED)]
    assert gate.changes == 0
    assert gate.ask("devices/list")["devices"] == []


async def test_one_that_was_renamed_on_its_way_in_has_its_new_name(gate: Gate) -> None:
    device = gate.add("phone")
    gate.book.rename(device, "telephone")
    client = gate.of(device)
    assert gate.broker.state.clients[client].principal.name == "telephone"
    assert not gate.closed[client]


# -- what is asked ---------------------------------------------------------------------------------


async def test_revoking_ends_that_device_alone_at_once(gate: Gate) -> None:
    lost, kept = gate.add("lost"), gate.add("kept")
    gone = [gate.of(lost), gate.of(lost)]
    stays = gate.of(kept)
    assert gate.ask("devices/revoke", name="LOST") == {"name": "lost", "closed": 2}
    assert [gate.closed[client] for client in gone] == [[(ENDED, REVOKED)]] * 2
    assert not gate.closed[stays]
    assert gate.revoked == [lost.id]
    assert DeviceAccessEnded(lost.id) in gate.broker.heard
    assert gate.records[-1] == (
        "device/revoked",
        {"device": "lost", "scopes": sorted(ALL), "by": "local"},
    )
    assert [each.name for each in gate.book] == ["kept"]
    with pytest.raises(DeviceError, match="no device is named 'lost'"):
        gate.ask("devices/revoke", name="lost")


async def test_revoking_counts_although_it_is_not_on_the_disk(
    gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = gate.add("lost")
    client = gate.of(lost)

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(AppmuxError, match="is shut out, but"):
        gate.ask("devices/revoke", name="lost")
    assert gate.closed[client] == [(ENDED, REVOKED)]
    assert gate.revoked == [lost.id]
    assert gate.records[-1][0] == "device/revoked"


async def test_other_scopes_send_away_the_same_do_not(gate: Gate) -> None:
    device = gate.add("phone", "observe", "approve")
    client = gate.of(device)
    told = gate.ask("devices/scope", name="phone", scopes=["approve", "observe"])
    assert (told["closed"], told["attached"]) == (0, 1)
    assert not gate.closed[client]
    changes = gate.changes
    told = gate.ask("devices/scope", name="phone", scopes=["observe"])
    assert (told["closed"], told["scopes"]) == (1, ["observe"])
    assert gate.closed[client] == [(ENDED, CHANGED)]
    assert gate.changes > changes
    kind, fields = gate.records[-1]
    assert kind == "device/limited"
    assert fields == {
        "device": "phone",
        "scopes": ["observe"],
        "by": "local",
        "had": ["approve", "observe"],
    }
    with pytest.raises(DeviceError, match="a device needs a scope"):
        gate.ask("devices/scope", name="phone", scopes=[])


async def test_a_new_name_keeps_connections_and_is_theirs_at_once(gate: Gate) -> None:
    device, other = gate.add("phone"), gate.add("other")
    client, stays = gate.of(device), gate.of(other)
    changes = gate.changes
    told = gate.ask("devices/rename", name="phone", to="telephone")
    assert (told["name"], told["attached"]) == ("telephone", 1)
    assert gate.changes == changes + 1
    clients = gate.broker.state.clients
    assert clients[client].principal.name == "telephone"
    assert clients[client].principal.device == device.id
    assert clients[stays].principal.name == "other"
    assert not gate.closed[client]
    assert gate.records[-1] == (
        "device/renamed",
        {"device": "telephone", "scopes": sorted(ALL), "by": "local", "was": "phone"},
    )


async def test_nobody_grants_what_it_has_not(gate: Gate) -> None:
    gate.add("phone", "observe", "drive")
    beyond: dict[str, dict[str, Any]] = {
        "pairing/begin": {"scopes": ["observe", "drive"]},
        "devices/add": {"scopes": ["drive"]},
        "devices/scope": {"name": "phone", "scopes": ["observe", "drive", "approve"]},
    }
    for method, params in beyond.items():
        with pytest.raises(
            DeviceRequestError, match=r"can't grant what you haven't yourself: \w+$"
        ):
            gate.ask(method, WATCHER, **params)
    # What a device has already isn't granted; it may be kept, and taken away.
    gate.ask("devices/scope", WATCHER, name="phone", scopes=["drive"])
    gate.ask("devices/scope", WATCHER, name="phone", scopes=["drive", "observe"])
    assert gate.ask("devices/add", WATCHER, scopes=["observe"])["scopes"] == ["observe"]
    assert gate.ask("pairing/begin", WATCHER, scopes=["observe"])["ticket"]
    for method in ("pairing/begin", "devices/add"):
        with pytest.raises(DeviceRequestError, match="grant at least one scope"):
            gate.ask(method, scopes=[])


async def test_a_device_added_by_its_digest_or_with_a_token_that_is_shown_once(gate: Gate) -> None:
    made = gate.ask("devices/add", scopes=["observe"])
    device = gate.book.by_token(made["token"])
    assert device is not None
    assert (made["name"], device.kind) == ("novascale", "novascale")
    brought = gate.ask("devices/add", scopes=["observe"], name="mine", tokenSha256=digest_of("t"))
    assert "token" not in brought
    assert gate.book.by_token("t") == gate.book.by_name("mine")
    assert gate.records[-1] == (
        "device/added",
        {"device": "mine", "scopes": ["observe"], "by": "local"},
    )
    for wrong in ("", "x", digest_of("u").upper(), digest_of("u")[1:], digest_of("u") + "0"):
        with pytest.raises(DeviceRequestError, match="64 hex digits in lower case"):
            gate.ask("devices/add", scopes=["observe"], tokenSha256=wrong)
    assert gate.ask("devices/add", scopes=["observe"])["name"] == "novascale 2"


@pytest.mark.parametrize("method", ["devices/add", "pairing/begin"])
async def test_a_lifetime_has_bounds(gate: Gate, method: str) -> None:
    for wrong in (0, -1, LONGEST_LIFETIME + 1, 1e300):
        with pytest.raises(DeviceRequestError, match="more than 0 s and at most 10 years"):
            gate.ask(method, scopes=["observe"], lifetimeSeconds=wrong)
    for name, right in (("short", 0.5), ("long", LONGEST_LIFETIME)):
        gate.ask(method, scopes=["observe"], name=name, lifetimeSeconds=right)
    if method == "devices/add":
        assert gate.book.by_name("short").expires == NOW + 0.5
        assert gate.book.by_name("long").expires == NOW + LONGEST_LIFETIME
        shown = {each["name"]: each for each in gate.ask("devices/list")["devices"]}
        assert (shown["short"]["expired"], shown["short"]["expiresAt"]) == (False, NOW + 0.5)
        gate.now += 0.5
        shown = {each["name"]: each for each in gate.ask("devices/list")["devices"]}
        assert (shown["short"]["expired"], shown["long"]["expired"]) == (True, False)


@pytest.mark.parametrize("open_door", [False, True])
async def test_a_pairing_is_its_askers_and_ends_with_it(tmp_path: Path, open_door: bool) -> None:
    gate = Gate(tmp_path, open_door=open_door)
    client = gate.attach(OWNER)
    begun = gate.asked(client, "pairing/begin", scopes=["observe"])
    assert begun["openDoor"] is open_door
    assert begun["ticket"]
    assert begun["expiresInSeconds"] == TICKET_SECONDS
    with pytest.raises(AppmuxError, match="no device waits for your word"):
        gate.asked(client, "pairing/confirm", id=begun["id"], accept=True)
    other = gate.ask("pairing/begin", scopes=["observe"])
    gate.access.left(client)
    for made, error in ((begun, "expired-ticket"), (other, None)):
        with trio.move_on_after(0) as waiting:
            sent = json.dumps({"ticket": made["ticket"]}).encode()
            reply = await gate.access.pairing.exchange(sent, "10.0.0.7:5")
        if error is None:
            assert waiting.cancelled_caught, "its operator is still asked"
        else:
            assert json.loads(reply.body)["error"] == error


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("devices/revoke", {}),
        ("devices/rename", {"name": "x"}),
        ("devices/scope", {"name": "x", "scopes": ["root"]}),
        ("devices/add", {"scopes": "observe"}),
        ("pairing/confirm", {"id": "x", "accept": True}),
    ],
)
async def test_what_is_no_request_is_told_with_its_method(
    gate: Gate, method: str, params: dict[str, Any]
) -> None:
    with pytest.raises(DeviceRequestError, match=f"^`mux/{method}`: "):
        gate.ask(method, **params)


async def test_nobody_answers_what_is_unknown(gate: Gate) -> None:
    with pytest.raises(DeviceRequestError, match="nobody here answers `mux/devices/other`"):
        gate.ask("devices/other")


async def test_a_ticket_grants_what_was_asked_for_and_no_more(gate: Gate) -> None:
    client = gate.attach(WATCHER)
    begun = gate.asked(
        client, "pairing/begin", scopes=["observe"], kind="invite", name="Ada", lifetimeSeconds=60
    )
    (ticket,) = gate.access.pairing._tickets.values()
    assert (ticket.id, ticket.owner) == (begun["id"], client)
    assert ticket.grant == DeviceGrant("invite", frozenset({"observe"}), "Ada", 60.0, "guest")


@pytest.mark.parametrize("accept", [True, False])
async def test_the_askers_word_decides_on_the_device_that_waits(gate: Gate, accept: bool) -> None:
    client, stranger = gate.attach(OWNER), gate.attach(OWNER)
    begun = gate.asked(client, "pairing/begin", scopes=["observe"], name="phone")
    other = gate.asked(client, "pairing/begin", scopes=["observe"], name="other")
    replies = []

    async def device() -> None:
        sent = json.dumps({"ticket": begun["ticket"]}).encode()
        replies.append(await gate.access.pairing.exchange(sent, "10.0.0.7:5"))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(device)
        await trio.testing.wait_all_tasks_blocked()
        for wrong, id in ((stranger, begun["id"]), (client, other["id"])):
            with pytest.raises(AppmuxError, match="no device waits for your word"):
                gate.asked(wrong, "pairing/confirm", id=id, accept=True)
        assert gate.asked(client, "pairing/confirm", id=begun["id"], accept=accept) == {}
    assert int(replies[0].status) == (200 if accept else 403)
    assert [each.name for each in gate.book] == (["phone"] if accept else [])


async def test_the_list_tells_a_device_as_it_stands_in_the_book(gate: Gate) -> None:
    gate.book.add("ada", "invite", frozenset({"observe"}), digest_of("x"))
    (shown,) = gate.ask("devices/list")["devices"]
    assert shown == {
        "name": "ada",
        "kind": "invite",
        "scopes": ["observe"],
        "madeAt": NOW,
        "expiresAt": None,
        "expired": False,
        "seenAt": None,
        "address": None,
        "attached": 0,
        "proof": "token",
        "self": False,
    }
