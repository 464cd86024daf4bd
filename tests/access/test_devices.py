"""`mux.access.devices`: the book, its file, names and tokens."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from mux.access import devices
from mux.access.device import Device, DeviceError, digest_of, new_token, printable_name, proper_name
from mux.access.devices import DeviceRegistry, DeviceRegistryError, open_registry
from mux.core.policy.scopes import ALL
from mux.core.protocol.scope import Scope
from mux.storage import json_file
from tests.end_to_end.scenes import eventually

OBSERVE: frozenset[Scope] = frozenset({"observe"})


@attrs.define
class Clock:
    """Unix seconds, as the test says."""

    now: float = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def book(tmp_path: Path, clock: Clock) -> DeviceRegistry:
    return open_registry(tmp_path, clock)


def add(book: DeviceRegistry, name: str, token: str = "", **more: Any) -> Device:
    given: dict[str, Any] = {"kind": "paired", "scopes": OBSERVE} | more
    return book.add(name, digest=digest_of(token or new_token()), **given)


# -- tokens ----------------------------------------------------------------------------------------


def test_a_token_opens_and_is_kept_nowhere(book: DeviceRegistry) -> None:
    token = new_token()
    device = add(book, "phone", token)
    assert book.by_token(token) == device
    assert token.startswith("amx_")
    assert len(token) == len("amx_") + 43  # 32 bytes
    assert token not in book.path.read_text() + repr(book) + repr(device)
    assert digest_of(token) not in repr(book) + repr(device)


@given(st.text())
def test_no_other_text_opens(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    book = open_registry(tmp_path_factory.mktemp("book"), Clock())
    token = new_token()
    add(book, "phone", token)
    if text.isascii():  # what a header can bring
        assert book.by_token(text) is None
        assert book.by_token(token + text) is None or not text


def test_tokens_differ() -> None:
    assert len({new_token() for _ in range(100)}) == 100


def test_a_token_belongs_to_one_device(book: DeviceRegistry) -> None:
    add(book, "phone", "same")
    with pytest.raises(DeviceError, match="'phone' has this token already"):
        add(book, "tablet", "same")
    assert [each.name for each in book] == ["phone"]


def test_a_key_belongs_to_one_browser(book: DeviceRegistry) -> None:
    add(book, "desk", "same", key="a key")
    with pytest.raises(DeviceError, match="'desk' has this key already"):
        add(book, "tablet", "same", key="a key")


def test_the_key_of_a_browser_is_kept_and_a_device_with_a_token_has_none(
    book: DeviceRegistry, tmp_path: Path, clock: Clock
) -> None:
    """Nor is one written for it: a version that knows of no browsers reads the book."""
    add(book, "phone")
    browser = add(book, "desk", key="a key")
    assert (
        [each.key for each in open_registry(tmp_path, clock)] == ["", browser.key] == ["", "a key"]
    )
    assert ["key" in each for each in json.loads(book.path.read_text())["devices"]] == [False, True]


# -- names -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["", "  ", "a\x1b[2J", "a\nb\x00", "x" * 65, "local", "JWT", "\ud800"]
)
def test_what_is_no_name(book: DeviceRegistry, name: str) -> None:
    with pytest.raises(DeviceError):
        add(book, name)
    assert not book.path.exists()


def test_names_are_one_whatever_their_case_and_spaces(book: DeviceRegistry) -> None:
    device = add(book, "  Ada's \t phone ")
    assert device.name == "Ada's phone"
    assert book.by_name("ADA'S  PHONE") == device
    with pytest.raises(DeviceError, match="is taken"):
        add(book, "ada's phone")
    with pytest.raises(DeviceError, match="no device is named 'x'"):
        book.by_name("x")


def test_a_proposed_name_is_made_free(book: DeviceRegistry) -> None:
    for wanted in ("phone", "phone 2", "phone 3"):
        assert book.name_like("Phone").casefold() == wanted
        add(book, book.name_like("Phone"))
    add(book, "y" * 64)
    assert book.name_like("y" * 64) == "y" * 62 + " 2"


@given(st.text(max_size=200))
def test_any_proposal_makes_a_proper_name(text: str) -> None:
    name = printable_name(text)
    assert proper_name(name) == name


def test_an_expired_devices_name_is_free(book: DeviceRegistry, clock: Clock) -> None:
    first = add(book, "guest", lifetime=60.0)
    clock.now += 60
    second = add(book, "guest")
    assert list(book) == [second]
    assert book.by_id(first.id) is None


# -- changes ---------------------------------------------------------------------------------------


def test_every_change_is_in_the_file_at_once(
    book: DeviceRegistry, tmp_path: Path, clock: Clock
) -> None:
    def kept() -> list[Device]:
        return list(open_registry(tmp_path, clock))

    device = add(book, "phone", lifetime=90.5, kind="invite", scopes=ALL)
    assert kept() == [device]
    assert (device.made, device.expires) == (clock.now, clock.now + 90.5)
    assert stat.S_IMODE(book.path.stat().st_mode) == 0o600
    device = book.rename(device, "Telefon")
    assert kept() == [device]
    device = book.limit(device, OBSERVE)
    assert kept() == [device]
    assert device.scopes == OBSERVE
    book.revoke(device)
    assert kept() == []


def test_a_device_may_change_the_case_of_its_name(book: DeviceRegistry) -> None:
    add(book, "tablet")
    device = add(book, "phone")
    assert book.rename(device, "Phone").name == "Phone"
    with pytest.raises(DeviceError, match="is taken"):
        book.rename(device, "Tablet")


def test_when_it_was_seen_waits_for_a_while(
    book: DeviceRegistry, tmp_path: Path, clock: Clock
) -> None:
    device = add(book, "phone")

    def kept() -> tuple[float | None, str | None]:
        (each,) = open_registry(tmp_path, clock)
        return each.seen, each.address

    book.saw(device.id, "10.0.0.7")
    assert kept() == (None, None)
    book.file.flush()
    assert kept() == (clock.now, "10.0.0.7")
    clock.now += 1
    book.saw("another", "10.0.0.9")
    book.file.flush()
    assert kept() == (clock.now - 1, "10.0.0.7")
    add(book, "tablet")
    book.saw(device.id, "10.0.0.8")
    book.rename(device, "telephone")  # whatever is written takes it along
    assert "telephone" in book.path.read_text()


async def test_when_it_was_seen_is_written_behind(book: DeviceRegistry, clock: Clock) -> None:
    device = add(book, "phone")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(book.file.run)
        book.saw(device.id, "10.0.0.7")
        book.file.owe()  # as the minute's end does
        await eventually(lambda: "10.0.0.7" in book.path.read_text(), "it is written")
        nursery.cancel_scope.cancel()


def test_those_expired_long_ago_are_forgotten(book: DeviceRegistry, clock: Clock) -> None:
    old = add(book, "old", lifetime=1.0)
    clock.now += devices.EXPIRED_KEPT
    add(book, "younger")
    assert book.by_id(old.id) == old
    clock.now += 1
    add(book, "young")
    assert book.by_id(old.id) is None


def test_the_book_is_bounded(book: DeviceRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "MOST_DEVICES", 2)
    add(book, "one")
    add(book, "two")
    with pytest.raises(DeviceError, match="2 devices already"):
        add(book, "three")


# -- trouble with the file -------------------------------------------------------------------------


def test_what_cannot_be_written_is_not_done(
    book: DeviceRegistry, tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = add(book, "phone")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DeviceRegistryError, match=r"nothing was changed: .*No space left"):
        add(book, "tablet")
    with pytest.raises(DeviceRegistryError):
        book.rename(device, "tablet")
    with pytest.raises(DeviceRegistryError):
        book.limit(device, ALL)
    assert list(book) == [device]
    assert book.file.trouble is None, "whoever asked was told"
    monkeypatch.undo()
    assert list(open_registry(tmp_path, clock)) == [device]


def test_what_got_into_one_of_the_two_files_is_taken_out_again(
    book: DeviceRegistry, tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = add(book, "phone")
    replace, calls = json_file.replace, []

    def half(path: Path, text: str) -> None:
        calls.append(path)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        replace(path, text)

    monkeypatch.setattr(json_file, "replace", half)
    with pytest.raises(DeviceRegistryError, match="nothing was changed"):
        book.limit(device, ALL)
    assert [path.name for path in calls] == [devices.COPY, devices.FILE]
    book.file.flush()
    book.path.write_text("")
    assert list(open_registry(tmp_path, clock)) == [device]


async def test_shutting_out_waits_for_no_disk_and_is_written_once_there_is_room(
    book: DeviceRegistry, tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = new_token()
    device, other = add(book, "phone", token), add(book, "tablet")
    monkeypatch.setattr(os, "fsync", full)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(book.file.run)
        for name, each in (("'phone'", device), ("'phone', 'tablet'", other)):
            with pytest.raises(
                DeviceRegistryError, match=r"is shut out, but the device book"
            ) as told:
                book.revoke(each)
            assert f"would let in again who was revoked: {name}" in str(told.value)
            assert book.file.trouble is not None
            assert book.file.trouble in str(told.value)
        assert book.by_token(token) is None
        assert list(open_registry(tmp_path, clock)) == [device, other]
        monkeypatch.undo()
        await eventually(lambda: not list(open_registry(tmp_path, clock)), "it is written")
        await eventually(lambda: not book.file.trouble, "and said so")
        nursery.cancel_scope.cancel()
    add(book, "phone")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DeviceRegistryError, match=r"who was revoked: 'phone'$"):
        book.revoke(book.by_name("phone"))


def full(_descriptor: int) -> None:
    raise OSError(28, "No space left on device")


def both(book: DeviceRegistry) -> tuple[Path, Path]:
    """The book and its copy."""
    return book.path, book.path.with_name(devices.COPY)


def changed(document: dict[str, Any], key: str, value: object) -> dict[str, Any]:
    device = document["devices"][0] | {key: value}
    return document | {"devices": [device]}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("name", None),
        ("name", 5),
        ("kind", "guest"),
        ("scopes", []),
        ("scopes", ["root"]),
        ("scopes", "observe"),
        ("scopes", None),
        ("made", "then"),
        ("made", True),
        ("expires", "never"),
        ("digest", None),
        ("address", 5),
        ("more", 1),
    ],
)
def test_a_damaged_entry_is_refused(
    book: DeviceRegistry, clock: Clock, key: str, value: object
) -> None:
    """Never read as something that might allow more."""
    add(book, "phone")
    document = json.loads(book.path.read_text())
    for path in both(book):
        path.write_text(json.dumps(changed(document, key, value)))
    with pytest.raises(DeviceRegistryError, match=rf"{book.path}: an entry in it is damaged"):
        open_registry(book.path.parent, clock)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "isn't a device book"),
        ("[]", "isn't a device book"),
        ("{}", "isn't a device book"),
        ('{"version": 1}', "damaged"),
        ('{"version": 1, "devices": {}}', "damaged"),
        ('{"version": 2, "devices": []}', "version 2, written by a newer appmux"),
        ("[" * 100_000, "isn't a device book"),
    ],
)
def test_another_file_is_refused(book: DeviceRegistry, clock: Clock, text: str, why: str) -> None:
    book.path.write_text(text)
    with pytest.raises(DeviceRegistryError, match=why):
        open_registry(book.path.parent, clock)


def test_a_device_that_stands_there_twice_is_refused(book: DeviceRegistry, clock: Clock) -> None:
    add(book, "phone")
    document = json.loads(book.path.read_text())
    document["devices"] *= 2
    for path in both(book):
        path.write_text(json.dumps(document))
    with pytest.raises(DeviceRegistryError, match="twice"):
        open_registry(book.path.parent, clock)


def test_a_book_that_cannot_be_read_is_refused(book: DeviceRegistry, clock: Clock) -> None:
    book.path.mkdir()
    with pytest.raises(DeviceRegistryError, match="can't read the device book"):
        open_registry(book.path.parent, clock)
    book.path.rmdir()
    book.path.write_bytes(b"\xff")
    with pytest.raises(DeviceRegistryError, match="can't read the device book"):
        open_registry(book.path.parent, clock)


@pytest.mark.parametrize("damage", [b"", b"{}", b"\xff", b'{"version": 1, "devices": [{}]}'])
def test_a_damaged_book_is_read_from_its_copy(
    book: DeviceRegistry, clock: Clock, damage: bytes
) -> None:
    gone = add(book, "gone")
    device = add(book, "phone")
    book.revoke(gone)
    book.path.write_bytes(damage)
    with capture_logs() as logs:
        assert list(open_registry(book.path.parent, clock)) == [device]
    (told,) = logs
    assert told["log_level"] == "error"
    assert f"{book.path} is damaged: set aside" in told["event"]
    assert f"nothing is lost: {both(book)[1]} holds the same" in told["event"]
    assert Path(told["kept"]).read_bytes() == damage
    with capture_logs() as logs:
        assert list(open_registry(book.path.parent, clock)) == [device]
    assert not logs, "it is mended"


def test_a_book_that_was_removed_is_empty_whatever_its_copy_says(
    book: DeviceRegistry, clock: Clock
) -> None:
    add(book, "phone")
    book.path.unlink()
    assert not list(open_registry(book.path.parent, clock))


def test_a_copy_is_no_way_around_what_a_newer_appmux_wrote(
    book: DeviceRegistry, clock: Clock
) -> None:
    add(book, "phone")
    path, copy = both(book)
    before = path.read_text()
    newer = before.replace('"version": 1', '"version": 2')
    path.write_text(newer)
    with pytest.raises(DeviceRegistryError, match="written by a newer appmux"):
        open_registry(path.parent, clock)
    path.write_text("")
    copy.write_text(newer)
    with pytest.raises(
        DeviceRegistryError, match=r"isn't a device book.* Its copy is of no use, too: .*newer"
    ):
        open_registry(path.parent, clock)
    assert path.read_text() == ""
    copy.unlink()
    with pytest.raises(DeviceRegistryError, match="isn't a device book"):
        open_registry(path.parent, clock)


def test_a_pipe_in_the_place_of_the_book_is_no_damage(book: DeviceRegistry, clock: Clock) -> None:
    add(book, "phone")
    book.path.unlink()
    os.mkfifo(book.path)
    with pytest.raises(
        DeviceRegistryError, match=rf"{book.path}: it is a pipe \(FIFO\), where a file"
    ):
        open_registry(book.path.parent, clock)


def test_what_is_wrong_with_a_name_is_told() -> None:
    with pytest.raises(DeviceError, match="has 1 to 64 printable characters: choose another"):
        proper_name("")
    with pytest.raises(DeviceError, match="can't be named 'JWT': who isn't a device is called so"):
        proper_name("JWT")


def test_a_proposal_keeps_what_can_be_shown_of_it(book: DeviceRegistry) -> None:
    assert printable_name("Ada's\x1bphone\x00") == "Ada's phone"
    assert printable_name("\x00") == "device"
    assert printable_name("\x00", "invite") == book.name_like("\x00", "invite") == "invite"
    assert book.name_like("\x00") == "device"


def test_a_name_of_one_that_has_expired_may_be_taken_over(
    book: DeviceRegistry, tmp_path: Path, clock: Clock
) -> None:
    add(book, "guest", lifetime=60.0)
    kept, device = add(book, "kept"), add(book, "phone")
    clock.now += 60
    changed = book.rename(device, "Guest")
    assert changed.id == device.id
    assert list(open_registry(tmp_path, clock)) == list(book) == [kept, changed]


@pytest.mark.parametrize("damage", ["entry", "twice"])
def test_a_damaged_book_is_told_with_its_path(
    book: DeviceRegistry, clock: Clock, damage: str
) -> None:
    add(book, "phone")
    document = json.loads(book.path.read_text())
    document["devices"] = [1] if damage == "entry" else document["devices"] * 2
    book.path.write_text(json.dumps(document))
    book.path.with_name(devices.COPY).unlink()
    told = rf"can't read the device book {book.path}: .*every device must be paired again"
    with pytest.raises(DeviceRegistryError, match=told):
        open_registry(book.path.parent, clock)


def test_a_damaged_book_that_cannot_be_mended_is_read_from_its_copy_all_the_same(
    book: DeviceRegistry, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = add(book, "phone")
    book.path.write_text("")
    monkeypatch.setattr(os, "fsync", full)
    with capture_logs() as logs:
        assert list(open_registry(book.path.parent, clock)) == [device]
    (told,) = logs
    assert told["event"] == "the device book isn't mended"
    assert (told["path"], told["why"]) == (str(book.path), "No space left on device")
