"""`mux.cli.common.invitation`: where phones connect, and how they are told; flags of `pair`."""

from __future__ import annotations

import base64
import json
from urllib.parse import parse_qs, urlsplit

import attrs
import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mux.cli.common.invitation import (
    PhoneAddress,
    PhoneAddressError,
    listening,
    named,
    novascale_uri,
    page_origin,
    pair_uri,
    reachable,
    resolve,
)
from mux.cli.common.options import Scopes
from mux.cli.devices.pair import Span, span
from mux.cli.terminal.qr_code import drawn

TAIL = PhoneAddress("ws", "100.64.0.7", 14500)
LOOP = PhoneAddress("ws", "127.0.0.1", 9000)
ALL = PhoneAddress("ws", "0.0.0.0", 14501)
SIX = PhoneAddress("wss", "fd7a:115c:a1e0::7", 14502)
OWN = ["100.64.0.7", "100.64.0.8"]
NAMED = PhoneAddress("wss", "box.tail1234.ts.net", 14543)
HOME = PhoneAddress("ws", "192.168.1.5", 14500)


def test_a_page_is_linked_by_the_name() -> None:
    assert page_origin([TAIL, SIX, NAMED, LOOP], OWN, []) == "https://box.tail1234.ts.net:14543"
    assert page_origin([NAMED], OWN, ["https://a.example"]) == "https://a.example"


def test_listeners_are_read_from_their_urls() -> None:
    urls = [str(TAIL), "unix:///run/x.sock", str(ALL), str(SIX), str(LOOP)]
    assert urls[3] == "wss://[fd7a:115c:a1e0::7]:14502"
    assert listening(urls) == [TAIL, ALL, SIX, LOOP]


@pytest.mark.parametrize(
    ("listeners", "own", "places"),
    [
        ([LOOP], OWN, []),
        ([LOOP, HOME, TAIL], OWN, [TAIL, HOME]),
        ([ALL], OWN, [PhoneAddress("ws", ip, 14501) for ip in OWN]),
        ([ALL], [], []),
        ([PhoneAddress("wss", "::", 7)], OWN[:1], [PhoneAddress("wss", OWN[0], 7)]),
        ([TAIL, TAIL], OWN, [TAIL]),
        ([SIX], [], [SIX]),
        ([HOME, TAIL, NAMED], OWN, [NAMED, TAIL, HOME]),
    ],
)
def test_where_other_machines_reach_it(
    listeners: list[PhoneAddress], own: list[str], places: list[PhoneAddress]
) -> None:
    assert reachable(listeners, own) == places


@pytest.mark.parametrize(
    ("host", "ips", "place"),
    [
        ("100.64.0.7", ["100.64.0.7"], TAIL),
        ("100.64.0.7:14500", ["100.64.0.7"], TAIL),
        ("desk.tail.ts.net", ["100.64.0.7"], PhoneAddress("ws", "desk.tail.ts.net", 14500)),
        ("100.64.0.7:14501", ["100.64.0.7"], PhoneAddress("ws", "100.64.0.7", 14501)),
        ("192.168.1.9", ["192.168.1.9"], PhoneAddress("ws", "192.168.1.9", 14501)),
        ("fd7a:115c:a1e0::7", ["fd7a:115c:a1e0::7"], SIX),
        ("[fd7a:115c:a1e0::7]:14502", ["fd7a:115c:a1e0::7"], SIX),
        ("wss://phones.example.net", [], PhoneAddress("wss", "phones.example.net", 443)),
        ("ws://phones.example.net/", [], PhoneAddress("ws", "phones.example.net", 80)),
        ("ws://[::1]:5", [], PhoneAddress("ws", "::1", 5)),
        ("box.tail1234.ts.net", ["100.64.0.7"], NAMED),
        ("box.tail1234.ts.net:14543", ["100.64.0.7"], NAMED),
        ("box.tail1234.ts.net:14500", ["100.64.0.7"], attrs.evolve(TAIL, host=NAMED.host)),
    ],
)
def test_a_host_that_is_named(host: str, ips: list[str], place: PhoneAddress) -> None:
    assert named(host, [TAIL, SIX, ALL, NAMED], lambda _name: ips) == place


@pytest.mark.parametrize(
    "host",
    [
        "",
        " ",
        "a b",
        "http://x",
        "x:99999",
        "x:",
        "x/y",
        "user@x",
        "ws://",
        "[::1",
        "100.64.0.7:1:2",
    ],
)
def test_what_is_no_host(host: str) -> None:
    with pytest.raises(PhoneAddressError, match="is no host"):
        named(host, [ALL], lambda _name: ["1.2.3.4"])


def test_a_host_where_nobody_listens() -> None:
    with pytest.raises(
        PhoneAddressError, match=r"doesn't listen at desk, but at ws://100\.64\.0\.7:14500"
    ):
        named("desk", [TAIL], lambda _name: ["100.64.0.9"])
    with pytest.raises(PhoneAddressError, match="no TCP address"):
        named("desk", [], lambda _name: ["100.64.0.9"])
    with pytest.raises(PhoneAddressError, match="doesn't listen"):
        named("desk:14501", [TAIL], lambda _name: ["100.64.0.7"])


def test_names_are_resolved() -> None:
    assert "127.0.0.1" in resolve("127.0.0.1")
    for unknown in ("no.such.host.invalid", "x" * 300, "a..b"):
        with pytest.raises(PhoneAddressError, match="host unknown"):
            resolve(unknown)


def test_the_uri_of_a_ticket() -> None:
    uri = urlsplit(pair_uri(SIX, "a-_b"))
    assert (uri.scheme, uri.netloc) == ("appmux", "pair")
    assert {name: value for name, (value,) in parse_qs(uri.query).items()} == {
        "scheme": "wss",
        "host": "fd7a:115c:a1e0::7",
        "port": "14502",
        "ticket": "a-_b",
    }


@given(name=st.text(), token=st.text(min_size=1))
def test_the_uri_that_novascale_imports(name: str, token: str) -> None:
    uri = novascale_uri(TAIL, name, token)
    assert uri.isascii()
    start, _, payload = uri.partition("payload=")
    assert start == "novascale-codex://import?"
    assert "=" not in payload
    decoded = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    assert decoded == {
        "type": "novascale-codex-host",
        "version": 1,
        "name": name,
        "host": "100.64.0.7",
        "port": 14500,
        "scheme": "ws",
        "auth": {"mode": "capability-token", "token": token},
    }


def test_the_picture_fits_a_terminal() -> None:
    lines = drawn(
        pair_uri(PhoneAddress("wss", "a-rather-long-name.tailnet-1234.ts.net", 14500), "x" * 22)
    )
    assert len(lines) <= 24
    assert {len(line) for line in lines} == {len(lines[0])}
    assert len(lines[0]) <= 80
    assert set("".join(lines)) <= set(" ▀▄█")


# -- flags -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30d", 30 * 86_400),
        ("2h", 7_200),
        ("90min", 5_400),
        ("90m", 5_400),
        ("1w", 604_800),
        ("45 s", 45),
        ("Never", float("inf")),
    ],
)
def test_lengths_of_time(text: str, seconds: float) -> None:
    assert Span().convert(text, None, None) == seconds


@pytest.mark.parametrize("text", ["", "30", "0d", "-1d", "1.5h", "h", "1y", "1e9s", "٣d"])
def test_what_is_no_length_of_time(text: str) -> None:
    with pytest.raises(click.BadParameter, match="no length of time"):
        Span().convert(text, None, None)


def test_scopes_with_commas() -> None:
    assert Scopes().convert("observe, drive", None, None) == ("observe", "drive")
    for wrong in ("", ",", "root", "observe,root", "Observe"):
        with pytest.raises(click.BadParameter, match="the scopes are"):
            Scopes().convert(wrong, None, None)


@pytest.mark.parametrize(
    ("seconds", "text"), [(30 * 86_400, "30 d"), (5_400, "90 min"), (7_200, "2 h"), (1.5, "1.5 s")]
)
def test_a_length_of_time_is_told_by_its_greatest_unit(seconds: float, text: str) -> None:
    assert span(seconds) == text
