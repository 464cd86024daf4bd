"""A state directory of the last version opens unchanged: nobody pairs, registers or loses anew."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, Final

import pytest
from msgspec import to_builtins

from mux.access.devices import open_registry
from mux.config import model
from mux.core.policy.notice import WAITING
from mux.notices.ledger import Ledger
from mux.notices.preferences import open_preferences
from mux.push.sender import Pushes
from mux.storage import audit_chain
from mux.storage.audit_log import DIRECTORY, Audit
from mux.storage.journal import Store
from tests.end_to_end.brokered import brokered
from tests.end_to_end.devices import DEVICES_ONLY, operator_of
from tests.end_to_end.lives import appmux
from tests.end_to_end.native import private_home
from tests.end_to_end.peer import connect_ws

HERE: Final = Path(__file__).parent
FACTS: Final[dict[str, Any]] = json.loads((HERE / "facts.json").read_text())
FOR_EVER: Final = 1e9
"""Seconds: what the fixture holds doesn't become too old."""
AWARE: Final[dict[str, Any]] = {"extensions": {"appmux": {"version": 1}}}
(NOTICE,) = FACTS["notices"]


def then() -> float:
    """The clock of that time."""
    return float(FACTS["now"])


def laid_out(place: Path) -> Path:
    """The state directory with the modes that it had, which git doesn't keep."""
    shutil.copytree(HERE / "state", place, dirs_exist_ok=True)
    for path in (place, *place.rglob("*")):
        path.chmod(0o700 if path.is_dir() else 0o600)
    return place


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return laid_out(tmp_path / "state")


def test_its_device_is_known_by_its_token(state: Path) -> None:
    book = open_registry(state, then)
    device = book.by_token(FACTS["token"])
    assert device is not None
    (shown,) = FACTS["devices"]["devices"]
    assert [each.name for each in book] == ["phone"], "and who was revoked isn't"
    assert (device.name, sorted(device.scopes)) == (shown["name"], shown["scopes"])
    assert (device.kind, device.made, device.expires) == ("paired", shown["madeAt"], None)


async def test_its_journal_goes_on(state: Path) -> None:
    journal = FACTS["journal"]
    store = Store.open(state, max_bytes=2**30, max_age=FOR_EVER)
    assert (store.trouble, store.epoch, store.earliest) == (None, journal["epoch"], 0)
    entries = await store.read(0, 2**53, None, 2**30)
    read = [[each.seq, each.thread, each.message.decode()] for each in entries]
    assert len(read) > 30
    assert read == journal["entries"]
    assert store.next_seq - 1 == read[-1][0], "it ended in order"
    await store.close()


async def test_its_audit_log_goes_on(state: Path) -> None:
    directory = state / DIRECTORY
    audit = Audit.open(state, max_bytes=2**30, max_age=FOR_EVER)
    audit.record("later", {})
    await audit.flush()
    assert audit.trouble is None
    kinds = [json.loads(line.text)["kind"] for line in audit_chain.lines(directory)]
    assert kinds[0] == "broker/started"
    assert kinds[-2:] == ["broker/stopped", "later"]
    assert audit.writer.n == FACTS["audit"]["n"] + 1
    assert not audit_chain.verify(directory).faults


def test_its_registrations_and_queued_pushes_are_there(state: Path) -> None:
    pushes = Pushes.open(state, model.Push(), clock=then)
    assert pushes.trouble is None
    told = FACTS["endpoints"]
    endpoints = [each.to_json() | {"device": "phone"} for each in pushes.endpoints.all()]
    assert endpoints == told["endpoints"]
    assert pushes.services() == told["services"], "browsers know this host by its old key"
    history = {row["service"]: (row["state"], row["attempts"]) for row in pushes.history()}
    assert history == {"ntfy": ("queued", 1), "webpush": ("queued", 1)}


def test_its_wishes_and_notices_are_there(state: Path) -> None:
    book = open_registry(state, then)
    device = book.by_token(FACTS["token"])
    assert device is not None
    wishes = open_preferences(state, then, "", ())
    assert to_builtins(wishes.of(f"device:{device.id}")) == FACTS["settings"]["rules"]
    ledger = Ledger.open(state, then)
    assert ledger.trouble is None
    (standing,) = ledger.standing()
    assert (standing.thing, standing.raised) == (NOTICE["thing"], NOTICE["raised"])
    assert standing.kind in WAITING
    assert [each.what for each in ledger.steps(standing.thing)] == [
        each["what"] for each in NOTICE["steps"]
    ]
    assert len(ledger.newest(10)) == 2
    ledger.close()


async def test_a_broker_serves_it() -> None:
    """The real one: its device gets in, and goes on where it was.

    What the journal held is older than a week some day, and no broker keeps it then.
    """
    with private_home("http://127.0.0.1:1") as home:
        state = laid_out(home.home / ".local" / "state" / "appmux")
        async with brokered(*DEVICES_ONLY, home=home) as broker:
            async with connect_ws(broker.url, FACTS["token"]) as phone:
                hello = (await phone.initialize("phone", **AWARE))["appmux"]
                assert hello["epoch"] == FACTS["journal"]["epoch"]
                last = FACTS["journal"]["entries"][-1][0]
                assert hello["began"] == last
                asked = {"after": {"epoch": hello["epoch"], "seq": last}}
                answer = await phone.request("mux/replay", asked)
                assert answer["complete"], answer
                listed = await phone.request("mux/push/list")
                assert [each["id"] for each in listed["endpoints"]] == [
                    each["id"] for each in FACTS["endpoints"]["endpoints"]
                ]
                settings = await phone.request("mux/notices/settings/read")
                assert settings["rules"] == FACTS["settings"]["rules"]
            async with operator_of(broker) as operator:
                await operator.initialize("operator")
                told = await operator.request("mux/status")
                assert told["audit"]["records"] > FACTS["audit"]["n"]
                assert not any(told[name]["trouble"] for name in ("store", "audit", "devices"))
            verified = await appmux(broker, "audit", "--verify")
            assert verified.returncode == 0, verified.stdout + verified.stderr
        assert json.loads((state / "devices.json").read_text())["devices"]
