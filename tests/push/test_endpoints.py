"""Registrations: what an address must be, who has it, and what the file survives."""

from __future__ import annotations

import ipaddress
import json
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from mux.config import model
from mux.push import endpoints as endpoints_module
from mux.push.addresses import check, public
from mux.push.endpoints import FILE, MOST_OF_A_DEVICE, Endpoint, configured, open_endpoints
from mux.push.message import Push, PushError, fitting
from mux.push.sender import Pushes
from mux.storage import json_file
from tests.push.sending import Clock
from tests.push.told import push

TOKEN = "AB" * 32
POINT = "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4"
AUTH = "BTBZMqHH6r4Tts7J_aSIgg"
BROWSER = {"endpoint": "https://push.example/x", "p256dh": POINT, "auth": AUTH}

# -- addresses -------------------------------------------------------------------------------------


def test_addresses_that_are_good() -> None:
    apns = {"token": TOKEN, "environment": "sandbox"}
    assert check("apns", apns, ()) == ("apns", apns | {"token": TOKEN.lower()})
    assert check("webpush", BROWSER, ()) == ("webpush", BROWSER)
    assert check("unifiedpush", {"endpoint": "https://up.example/x", "auth": None}, ())
    ntfy = {"server": "https://ntfy.sh/", "topic": "a-1_B", "token": "tk_1"}
    assert check("ntfy", ntfy, ())[1]["server"] == "https://ntfy.sh"
    assert check("fcm", {"token": "a:b-c_d"}, ())


@pytest.mark.parametrize(
    ("service", "address", "told"),
    [
        ("webhook", {}, "can't register for the service 'webhook': one of apns, fcm"),
        ("exec", {"command": "rm"}, "can't register for the service 'exec'"),
        ("", {}, "can't register for the service ''"),
        ("apns", {"token": TOKEN}, "lacks environment: it has token, environment"),
        ("fcm", {"token": "x", "url": "y"}, "has url besides: it has token"),
        ("fcm", {"token": ["x"]}, "token must be a text"),
        ("fcm", {"token": "x" * 3000}, "token must be a text"),
        ("fcm", {"token": "a\r\nb"}, "token must be a text"),
        ("apns", {"token": "xyz" * 30, "environment": "sandbox"}, "in hex"),
        ("apns", {"token": TOKEN, "environment": "test"}, '"production" (TestFlight'),
        ("webpush", BROWSER | {"auth": "AAAA"}, "auth 16 bytes"),
        ("webpush", BROWSER | {"p256dh": POINT[:-4] + "!!!!"}, "p256dh isn't base64url"),
        ("unifiedpush", {"endpoint": "https://x.example", "auth": AUTH}, "come together"),
        ("ntfy", {"server": "https://ntfy.sh", "topic": "a/b"}, "topic must be"),
    ],
)
def test_addresses_that_are_not(service: str, address: dict[str, Any], told: str) -> None:
    with pytest.raises(PushError) as caught:
        check(service, address, ())
    assert told in str(caught.value)


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("http://push.example/x", "must be https://"),
        ("ftp://push.example/x", "must be a URL"),
        ("file:///etc/passwd", "must be a URL"),
        ("https:///x", "must be a URL"),
        ("https://ada:pw@push.example/x", "without a name or password"),
        ("https://push.example/x#y", "must be a URL"),
        ("https://[::1/x", "isn't a URL"),
        ("https://push.example:99999/x", "isn't a URL"),
        ("https://127.0.0.1/x", "of this host or its network"),
        ("https://10.0.0.7:8443/x", "of this host or its network"),
        ("https://169.254.169.254/latest", "of this host or its network"),
        ("https://100.100.1.1/x", "of this host or its network"),
        ("https://0.0.0.0/x", "of this host or its network"),
        ("https://[::1]/x", "of this host or its network"),
        ("https://[::ffff:10.0.0.1]/x", "of this host or its network"),
        ("https://[fd7a:115c:a1e0::1]/x", "of this host or its network"),
        ("https://[64:ff9b::a00:1]/x", "of this host or its network"),
        ("https://[2002:0a00:0001::1]/x", "of this host or its network"),
        ("https://[2002:0808:0808::1]/x", "of this host or its network"),
        ("https://[::ffff:8.8.8.8]/x", "of this host or its network"),
        ("https://[64:ff9b:1::808:808]/x", "of this host or its network"),
        ("https://[fec0::1]/x", "of this host or its network"),
        ("https://[2606:4700::5efe:10.0.0.1]/x", "of this host or its network"),
    ],
)
def test_urls_that_a_stranger_must_not_have_called(url: str, told: str) -> None:
    with pytest.raises(PushError) as caught:
        check("unifiedpush", {"endpoint": url}, ())
    assert told in str(caught.value)


@pytest.mark.parametrize(
    "network",
    [
        "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16",
        "172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16",
        "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/3",
        "::/3", "::/96", "::ffff:0:0/96", "::ffff:0:0:0/96", "64:ff9b::/96", "64:ff9b:1::/48",
        "100::/64", "100:0:0:1::/64", "2001::/23", "2001::/32", "2001:db8::/32", "2002::/16",
        "3fff::/20", "5f00::/16", "fc00::/7", "fe80::/10", "fec0::/10", "ff00::/8",
    ],
)  # fmt: skip
def test_special_ranges_are_not_public(network: str) -> None:
    """Each with an address of the Internet's in it, too, where one is written into the other."""
    whole = ipaddress.ip_network(network)
    inner = int(ipaddress.IPv4Address("8.8.8.8"))
    first, last = int(whole[0]), int(whole[-1])
    for each in (first, first + 1, last, first | inner if whole.version == 6 else first):
        address = type(whole[0])(each)
        assert not public(address), address


@pytest.mark.parametrize(
    ("address", "is_it"),
    [
        ("1.1.1.1", True), ("9.255.255.255", True), ("11.0.0.0", True), ("100.63.255.255", True),
        ("100.128.0.0", True), ("172.32.0.0", True), ("192.0.1.0", True), ("198.20.0.0", True),
        ("223.255.255.255", True), ("2606:4700::1111", True), ("2001:4860:4860::8888", True),
        ("2001:200::1", True), ("2003::1", True), ("2a00:1450::1", True), ("3ffe::1", True),
        # ISATAP: an IPv4 address behind any prefix
        ("2606:4700::5efe:a00:1", False), ("2606:4700::200:5efe:808:808", False),
        ("2606:4700::5eff:a00:1", True),
    ],
)  # fmt: skip
def test_what_is_beside_a_special_range_is_public(address: str, is_it: bool) -> None:
    assert public(ipaddress.ip_address(address)) is is_it


def test_hosts_that_the_settings_name_are_good_wherever_they_are() -> None:
    hosts = ("ntfy.LAN", "10.0.0.7:8080", "[::1]:80")
    for url in ("http://NTFY.lan:1/x", "http://10.0.0.7:8080/x", "http://[::1]:80/x"):
        assert check("unifiedpush", {"endpoint": url}, hosts)
    for url in ("http://10.0.0.7:80/x", "http://notntfy.lan/x"):
        with pytest.raises(PushError):
            check("unifiedpush", {"endpoint": url}, hosts)


# -- registrations ---------------------------------------------------------------------------------


def test_they_outlive_the_broker_and_are_nobody_elses_business(tmp_path: Path) -> None:
    pushes = Pushes.open(tmp_path, model.Push(), clock=Clock())
    made = pushes.register("phone", "webpush", BROWSER, "title")
    again = Pushes.open(tmp_path, model.Push(), clock=Clock())
    assert again.endpoints.of("phone") == [made]
    assert (tmp_path / FILE).stat().st_mode & 0o777 == 0o600
    assert "push.example" not in repr(made) + str(made.to_json())


def test_registered_again_it_is_the_same(tmp_path: Path) -> None:
    clock = Clock()
    pushes = Pushes.open(tmp_path, model.Push(), clock=clock)
    made = pushes.register("phone", "webpush", BROWSER)
    clock.now += 5
    again = pushes.register("phone", "webpush", BROWSER, "full")
    assert (again.id, again.level, again.created) == (made.id, "full", clock.now - 5)
    assert pushes.endpoints.all() == [again]


def test_an_app_that_is_paired_anew_takes_its_address_along(tmp_path: Path) -> None:
    pushes = Pushes.open(tmp_path, model.Push(), clock=Clock())
    pushes.register("old", "webpush", BROWSER)
    pushes.send("old", push(expires_at=2e9))
    made = pushes.register("new", "webpush", BROWSER)
    assert pushes.endpoints.all() == [made]
    assert [each["said"] for each in pushes.history()] == ["no longer registered"]
    topic = {"server": "https://ntfy.sh", "topic": "family"}
    for device in ("old", "new"):
        pushes.register(device, "ntfy", topic)
    assert len(pushes.endpoints.all()) == 3


def test_they_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pushes = Pushes.open(tmp_path, model.Push(), clock=Clock())
    for number in range(MOST_OF_A_DEVICE):
        pushes.register("phone", "unifiedpush", {"endpoint": f"https://up.example/{number}"})
    with pytest.raises(
        PushError, match=r"8 .* already: remove one first \(`mux/push/unregister`\)$"
    ):
        pushes.register("phone", "unifiedpush", {"endpoint": "https://up.example/more"})
    monkeypatch.setattr(endpoints_module, "MOST", MOST_OF_A_DEVICE)
    with pytest.raises(PushError, match="there are 8 push registrations"):
        pushes.register("tablet", "unifiedpush", {"endpoint": "https://up.example/more"})
    pushes.register("phone", "unifiedpush", {"endpoint": "https://up.example/7"}, "full")


def test_what_a_service_said_is_shown_and_kept(tmp_path: Path) -> None:
    clock = Clock()
    host = Endpoint("host-webhook", "host", "webhook", {}, "opaque", 1.0)
    there = open_endpoints(tmp_path, clock, (host,))
    made = there.add("phone", "fcm", {"token": "x"}, "title")
    other = there.add("tablet", "fcm", {"token": "y"}, "title")
    assert (made.said, made.said_at, made.created) == (None, None, clock.now)
    clock.now += 5
    there.note(made.id, "delivered")
    there.note(host.id, "not now: 503")
    there.note("of nobody", "lost")
    shown = {each.id: each.to_json() for each in there.all()}
    assert shown[made.id] == {
        "id": made.id,
        "device": "phone",
        "service": "fcm",
        "level": "title",
        "created": clock.now - 5,
        "said": "delivered",
        "saidAt": clock.now,
    }
    assert (shown[host.id]["said"], shown[host.id]["saidAt"]) == ("not now: 503", clock.now)
    assert (shown[other.id]["said"], shown[other.id]["saidAt"]) == (None, None)
    assert list(shown) == [host.id, made.id, other.id], "the settings' first"
    there.file.flush()
    again = open_endpoints(tmp_path, clock, (host,))
    assert [each.to_json() for each in again.all()[1:]] == [shown[made.id], shown[other.id]]


def test_the_page_that_a_tap_opens_is_kept_and_none_is_not_written(tmp_path: Path) -> None:
    """A version before knows no pages: it reads a file without any."""
    there, page = open_endpoints(tmp_path, Clock()), "https://broker.example/"
    there.add("phone", "webpush", BROWSER, "opaque", page)
    there.add("tablet", "fcm", {"token": "y"}, "opaque")
    written = json.loads((tmp_path / FILE).read_text())["endpoints"]
    assert [each.get("navigate", "absent") for each in written] == [page, "absent"]
    assert [each.navigate for each in open_endpoints(tmp_path, Clock()).all()] == [page, None]


def test_the_hosts_own_endpoints_are_those_of_its_settings() -> None:
    assert configured(model.Push(), 5.0) == ()
    for half in (model.Ntfy(server="https://ntfy.sh"), model.Ntfy(topic="desk")):
        assert configured(model.Push(ntfy=half), 5.0) == ()
    settings = model.Push(
        ntfy=model.Ntfy(server="https://ntfy.sh/", topic="desk", level="title"),
        webhook=model.Webhook(url="https://hook.example/x", level="full"),
        exec=model.Exec(command=("notify",), level="title"),
    )
    topic = {"server": "https://ntfy.sh", "topic": "desk"}
    assert configured(settings, 5.0) == (
        Endpoint("host-ntfy", "host", "ntfy", topic, "title", 5.0),
        Endpoint("host-webhook", "host", "webhook", {}, "full", 5.0),
        Endpoint("host-exec", "host", "exec", {}, "title", 5.0),
    )


def test_one_that_is_gone_goes_alone_and_for_good(tmp_path: Path) -> None:
    there = open_endpoints(tmp_path, Clock())
    made = [there.add("phone", "fcm", {"token": token}, "opaque") for token in ("x", "y")]
    there.gone("of nobody")
    assert there.all() == made
    there.gone(made[0].id)
    there.file.flush()
    assert there.all() == open_endpoints(tmp_path, Clock()).all() == [made[1]]
    assert there.by_id(made[0].id) is None
    assert there.by_id(made[1].id) == made[1]
    assert there.remove(made[0].id) is False
    assert there.remove(made[1].id) is True
    assert open_endpoints(tmp_path, Clock()).all() == []


def test_only_what_is_of_the_device_goes_with_it(tmp_path: Path) -> None:
    there = open_endpoints(tmp_path, Clock())
    there.add("phone", "fcm", {"token": "x"}, "opaque")
    kept = there.add("tablet", "fcm", {"token": "y"}, "opaque")
    there.forget("nobody")
    assert len(there.all()) == 2
    there.forget("phone")
    there.file.flush()
    assert there.all() == open_endpoints(tmp_path, Clock()).all() == [kept]


def test_the_same_place_by_service_and_by_what_names_it(tmp_path: Path) -> None:
    there = open_endpoints(tmp_path, Clock())
    topic = {"server": "https://ntfy.sh", "topic": "a"}
    made = there.add("phone", "ntfy", topic, "opaque")
    assert there.add("phone", "ntfy", topic | {"token": "t"}, "opaque").id == made.id
    for other in (topic | {"topic": "b"}, topic | {"server": "https://n.example"}):
        assert there.add("phone", "ntfy", other, "opaque").id != made.id
    endpoint = {"endpoint": "https://up.example/x"}
    first = there.add("phone", "unifiedpush", endpoint, "opaque")
    assert there.add("phone", "webpush", endpoint, "opaque").id != first.id
    assert len(there.all()) == 5


def test_a_service_without_a_key_says_so(tmp_path: Path) -> None:
    pushes = Pushes.open(tmp_path, model.Push(), clock=Clock())
    with pytest.raises(PushError, match=r"no key for apns: its operator sets \[push\.apns\]"):
        pushes.register("phone", "apns", {"token": TOKEN, "environment": "sandbox"})
    assert set(pushes.services()) == {"webpush", "unifiedpush", "ntfy"}
    there = model.Apns(key_file=tmp_path / "k.p8", topic="org.app")
    with_apns = Pushes.open(tmp_path, model.Push(apns=there), clock=Clock())
    assert with_apns.services()["apns"] == {"topic": "org.app"}
    assert with_apns.services()["webpush"] == pushes.services()["webpush"]
    made = with_apns.register("phone", "apns", {"token": TOKEN, "environment": "sandbox"})
    assert with_apns.endpoints.all() == [made]


def test_what_is_not_on_disk_was_not_changed(tmp_path: Path) -> None:
    state_dir = tmp_path / "state"
    state_dir.mkdir()
    pushes = Pushes.open(state_dir, model.Push(), clock=Clock())
    pushes.register("phone", "webpush", BROWSER)
    in_the_way = state_dir / f"{FILE}.new"
    in_the_way.mkdir()
    with pytest.raises(
        PushError, match=r"nothing was changed: .* can't be written \(.*\): make room for it$"
    ):
        pushes.register("tablet", "ntfy", {"server": "https://ntfy.sh", "topic": "t"})
    with pytest.raises(PushError, match="nothing was changed"):
        pushes.unregister("phone", pushes.endpoints.all()[0].id)
    assert [each.device for each in pushes.endpoints.all()] == ["phone"]
    pushes.forget("phone")
    assert not pushes.endpoints.all(), "a revocation counts at once"
    pushes.endpoints.file.flush()
    assert "can't be written" in (pushes.trouble or "")
    assert "the list of push registrations" in (pushes.trouble or "")
    assert "addresses of devices that were revoked" in (pushes.status()["trouble"] or "")
    in_the_way.rmdir()
    pushes.endpoints.file.flush()
    assert pushes.trouble is None
    assert not open_endpoints(state_dir, Clock()).all()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        '{"version": 1, "endpoints": [{"id": 3}]}',
        '{"version": 1, "endpoints": 3}',
        '{"version": 1, "endpoints": [], "more": 1}',
    ],
)
def test_a_damaged_file_is_set_aside_with_a_word(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE).write_text(text)
    with capture_logs() as logs:
        opened = open_endpoints(tmp_path, Clock())
    (told,) = logs
    assert f"{FILE} is damaged: set aside, and a new one begun; apps register" in told["event"]
    assert Path(told["kept"]).read_text() == text
    opened.add("phone", "fcm", {"token": "x"}, "opaque")
    assert open_endpoints(tmp_path, Clock()).all() == opened.all()


ENTRY: dict[str, Any] = {
    "id": "e1",
    "device": "phone",
    "service": "fcm",
    "address": {"token": "x"},
    "level": "opaque",
    "created": 5,
    "said": None,
    "said_at": None,
}


def kept(state_dir: Path, entry: dict[str, Any]) -> list[Endpoint]:
    """What is made of a file with this one entry."""
    (state_dir / FILE).write_text(json.dumps({"version": 1, "endpoints": [entry]}))
    return open_endpoints(state_dir, Clock()).all()


def test_an_entry_is_read_as_it_stands_there(tmp_path: Path) -> None:
    (found,) = kept(tmp_path, ENTRY)
    assert found == Endpoint("e1", "phone", "fcm", {"token": "x"}, "opaque", 5.0)
    assert type(found.created) is float
    (found,) = kept(tmp_path, ENTRY | {"created": 5.5, "said": "delivered", "said_at": 6})
    assert (found.created, found.said, found.said_at) == (5.5, "delivered", 6.0)


@pytest.mark.parametrize(
    "damage",
    [
        {"id": 3},
        {"id": None},
        {"device": 5.0},
        {"device": True},
        {"created": "5"},
        {"created": True},
        {"created": None},
        {"address": {"token": 5}},
        {"service": "carrier pigeon"},
        {"level": 1},
        {"said_at": "soon"},
        {"more": 1},
    ],
)
def test_an_entry_of_another_type_is_damage(tmp_path: Path, damage: dict[str, Any]) -> None:
    assert kept(tmp_path, ENTRY | damage) == []


def test_what_can_neither_be_read_nor_set_aside_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_given: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(json_file, "set_aside", full)
    what_to_do = (
        "Restore it from a backup, or remove it: apps register again when they next connect"
    )
    for text, reason in (
        ("[]", "it isn't a list of registrations"),
        ('{"version": 1, "endpoints": [3]}', "an entry in it is damaged"),
    ):
        (tmp_path / FILE).write_text(text)
        with pytest.raises(PushError) as caught:
            open_endpoints(tmp_path, Clock())
        told = f"can't read the push registrations {tmp_path / FILE}: {reason}. {what_to_do}"
        assert str(caught.value) == told


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    path = tmp_path / FILE
    path.write_text('{"version": 2}')
    with pytest.raises(PushError, match="written by a newer appmux"):
        open_endpoints(tmp_path, Clock())
    path.unlink()
    path.symlink_to("elsewhere")
    with pytest.raises(PushError, match=rf"{path}: it is a symbolic link"):
        open_endpoints(tmp_path, Clock())


# -- what is told ----------------------------------------------------------------------------------


def test_an_id_is_short_and_plain() -> None:
    for bad in ("", "x" * 65, "a b", "a/b", "é"):
        with pytest.raises(PushError, match="letters, digits"):
            push(id=bad)
        with pytest.raises(PushError, match="letters, digits"):
            push(collapse=bad)


@pytest.mark.parametrize("most", [4096, 500, 300, 250])
@pytest.mark.parametrize("text", ["x", "ж", "😀", '"', "\n\x01", "…"])
def test_a_push_is_cut_to_fit_and_no_further_than_it_must(text: str, most: int) -> None:
    def render(told: Push) -> bytes:
        return json.dumps(told.document(), ensure_ascii=False).encode()

    rendered = fitting(push(title=text * 100, body=text * 5000, ticket=None), most, render)
    assert len(rendered) <= most
    assert json.loads(rendered)["id"] == "p-1"
    if most == 4096:
        assert len(rendered) > most - 20


def test_what_cannot_fit_is_an_error() -> None:
    with pytest.raises(PushError, match="where the service takes 9"):
        fitting(push(), 9, lambda _told: b"x" * 10)
