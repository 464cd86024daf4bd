"""`mux.downstream.http.proxies`: whose word on a client's address counts, and what it means."""

from __future__ import annotations

import ipaddress
from hashlib import sha256

import pytest
import trio
import trio.testing
from hypothesis import example, given
from hypothesis import strategies as st

from mux.access.authentication import open_auth
from mux.access.throttle import LoginThrottle, network
from mux.config.model import Auth
from mux.config.proxies import Ip, plain
from mux.downstream.http import http, proxies
from mux.downstream.http.head import RequestHead
from mux.downstream.http.proxies import (
    MOST_HOPS,
    SAID_BY_PROXIES,
    TrustedProxies,
    address_in,
    passed_on,
)
from mux.downstream.http.request import AcceptedUpgrade, Exposition, Peer
from mux.downstream.http.routes import PASSED_ON, admit
from tests import knocks
from tests.knocks import AUTHORIZED, UPGRADE, peer, request

OURS = TrustedProxies.named(["10.0.0.0/8", "fd00:1::/32", "127.0.0.1"])
PROXY = "10.0.0.1:40000"

OPEN = open_auth(Auth())


CLOSED = open_auth(
    Auth(mode="capability-token", token_sha256=sha256(knocks.TOKEN.encode()).hexdigest())
)


def head_of(*values: str, **more: list[bytes]) -> RequestHead:
    headers = {b"x-forwarded-for": [value.encode("latin-1") for value in values], b"host": [b"x"]}
    headers |= {name.replace("_", "-").encode(): value for name, value in more.items()}
    return RequestHead(b"GET", b"/", b"1.1", {k: v for k, v in headers.items() if v}, b"")


def client(*values: str, by: str = PROXY) -> str | None:
    told = OURS.forwarding(by, head_of(*values))
    return None if told is None else told.client


# -- who the client is -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["203.0.113.9"], "203.0.113.9"),
        (["203.0.113.9:5123"], "203.0.113.9"),
        (["2001:db8::7"], "[2001:db8::7]"),
        (["[2001:DB8:0::7]:443"], "[2001:db8::7]"),
        (["[fe80::1%eth0]:443"], "[fe80::1]"),
        (["::ffff:203.0.113.9"], "203.0.113.9"),
        # What a client says itself stands left of what our proxy appends.
        (["127.0.0.1, 203.0.113.9"], "203.0.113.9"),
        (["127.0.0.1", "203.0.113.9"], "203.0.113.9"),
        (["198.51.100.1, 203.0.113.9,10.0.0.2 , 10.0.0.3"], "203.0.113.9"),
        (["198.51.100.1, 203.0.113.9", "fd00:1::5", "127.0.0.1"], "203.0.113.9"),
        # All are ours: the one furthest away.
        (["10.0.0.9, 10.0.0.2"], "10.0.0.9"),
        # Who it was isn't told: the proxy that says so.
        (["unknown"], ""),
        (["_hidden, 10.0.0.2"], "10.0.0.2"),
        (["203.0.113.9, unknown, 10.0.0.2"], "10.0.0.2"),
        ([""], ""),
        (["203.0.113.9,"], ""),
        (["203.0.113.09"], ""),
        (["203.0.113.9:port"], ""),
        (["[2001:db8::7"], ""),
        (["1.2.3.4.5"], ""),
        (["٢.٣.٤.٥".encode().decode("latin-1")], ""),
        (['"203.0.113.9"'], ""),
    ],
)
def test_the_client_is_the_right_most_that_isnt_ours(values: list[str], expected: str) -> None:
    assert client(*values) == expected


def test_the_setting_names_them() -> None:
    named = TrustedProxies.named(("192.0.2.0/24", "::1"))
    assert [named.trusts(each) for each in ("192.0.2.7:1", "[::1]:1", "192.0.3.7:1", "unix")] == [
        True,
        True,
        False,
        False,
    ]


def test_nobody_else_is_believed() -> None:
    assert client("203.0.113.9", by="192.0.2.1:5") is None
    assert client("203.0.113.9", by="unix") is None
    assert TrustedProxies().forwarding(PROXY, head_of("203.0.113.9")) is None
    assert OURS.forwarding(PROXY, RequestHead(b"GET", b"/", b"1.1", {b"host": [b"x"]}, b"")) is None


@pytest.mark.parametrize("by", ["10.0.0.1:4", "[::ffff:10.0.0.1]:4", "[fd00:1::9%eth0]:4"])
def test_a_proxy_is_known_in_every_spelling(by: str) -> None:
    assert client("203.0.113.9", by=by) == "203.0.113.9"


@pytest.mark.parametrize(
    ("values", "secure"),
    [
        ([b"https"], True),
        ([b"WSS "], True),
        ([b"http"], False),
        ([b"https, http"], False),
        ([b"https", b"http"], False),
        ([b"http,https"], True),
        ([b"spdy"], None),
        ([b""], None),
        ([], None),
    ],
)
def test_the_nearest_proxy_says_whether_it_was_encrypted(
    values: list[bytes], secure: bool | None
) -> None:
    told = OURS.forwarding(PROXY, head_of("203.0.113.9", x_forwarded_proto=values))
    assert told is not None
    assert told.secure is secure


# -- whatever the header says ----------------------------------------------------------------------

IPS = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6))
STRANGERS = IPS.map(lambda ip: plain(str(ip))).filter(
    lambda ip: not any(ip in each for each in OURS.networks)
)
HOPS = st.sampled_from(["10.0.0.2", "10.255.0.1", "127.0.0.1", "fd00:1::5"]).map(plain)
JUNK = st.one_of(
    st.sampled_from(["unknown", "_gazonk", "_SEVKISEK:80", "for=1.2.3.4", "", " ", "-", "1.2.3"]),
    st.text(st.characters(max_codepoint=255, exclude_characters=",\r\n"), max_size=40),
)


@st.composite
def written(draw: st.DrawFn, ip: Ip) -> str:
    """An address as some proxy writes it."""
    port = draw(st.sampled_from(["", ":1", ":65535"]))
    text = ip.exploded if draw(st.booleans()) else str(ip)
    if ip.version == 4:
        text += port
    elif port or draw(st.booleans()):
        text = f"[{text}]{port}"
    return draw(st.sampled_from(["", " ", "\t"])) + text + draw(st.sampled_from(["", " "]))


@st.composite
def header_lines(draw: st.DrawFn, entries: list[str]) -> list[str]:
    """The entries in their order, in one header or in several."""
    lines: list[list[str]] = [[]]
    for entry in entries:
        lines[-1].append(entry)
        if draw(st.integers(0, 3)) == 0:
            lines.append([])
    return [",".join(line) for line in lines if line]


@given(st.data())
def test_what_a_client_says_of_itself_changes_nothing(data: st.DataObject) -> None:
    real = data.draw(STRANGERS, "the client")
    spoofed = data.draw(st.lists(st.one_of(IPS.map(str), JUNK), max_size=8), "what it says")
    own = data.draw(st.lists(HOPS, max_size=MOST_HOPS - 1), "our proxies")
    told = [*spoofed, *(data.draw(written(ip)) for ip in (real, *own))]
    values = data.draw(header_lines(told))
    assert client(*values) == proxies.named(real)
    assert network(proxies.named(real)) == network(
        f"[{real}]:5" if real.version == 6 else f"{real}:5"
    )


@given(values=st.lists(st.one_of(IPS.map(str), JUNK, HOPS.map(str)), max_size=30), split=st.data())
@example(values=["10.0.0.2"] * 40, split=None)
def test_what_comes_out_is_an_address_of_the_header_or_nothing(
    values: list[str], split: st.DataObject | None
) -> None:
    lines = [",".join(values)] if split is None else split.draw(header_lines(values))
    if not lines:
        return
    found = client(*lines)
    assert found is not None
    entries = [address_in(entry.encode("latin-1")) for entry in ",".join(lines).split(",")]
    named = [proxies.named(ip) for ip in entries if ip is not None]
    assert found in ("", *named[-MOST_HOPS:])
    ours = found == "" or any(plain(found.strip("[]")) in each for each in OURS.networks)
    # Nothing of what stands left of a stranger, or of what can't be read, ever counts.
    last = entries[-1]
    if last is None:
        assert found == ""
    elif not any(last in each for each in OURS.networks):
        assert found == proxies.named(last)
    else:
        assert ours or proxies.named(last) != found


@given(st.binary(max_size=60))
def test_any_bytes_are_an_address_or_none(entry: bytes) -> None:
    ip = address_in(entry)
    assert ip is None or ipaddress.ip_address(str(ip)) == ip


@pytest.mark.parametrize("entry", ["1.1.1.1", "10.0.0.2", "", "x" * 200])
def test_a_very_long_one_is_read_from_its_end(entry: str, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[bytes] = []

    def counting(entry: bytes) -> Ip | None:
        read.append(entry)
        return address_in(entry)

    monkeypatch.setattr(proxies, "address_in", counting)
    found = client(",".join([entry] * 4000))
    assert found == {"1.1.1.1": "1.1.1.1", "10.0.0.2": "10.0.0.2"}.get(entry, "")
    assert len(read) <= MOST_HOPS


# -- both ways to read a head ----------------------------------------------------------------------


async def admitted(sent: bytes, who: Peer) -> tuple[AcceptedUpgrade | None, bytes]:
    ours, theirs = trio.testing.memory_stream_pair()
    await ours.send_all(sent)
    await ours.send_eof()
    admission = await admit(theirs, who)
    answer = b"" if admission is not None else await ours.receive_some()
    return admission, bytes(answer)


NAMES = st.sampled_from(
    [*sorted(each.decode() for each in SAID_BY_PROXIES), "x-request-id", "forward", "x-via", "vi"]
)


@given(name=NAMES, upper=st.booleans(), at=st.integers(0, 5), value=IPS.map(str))
def test_both_ways_judge_alike(name: str, upper: bool, at: int, value: str) -> None:
    """The expression takes the usual upgrade; a header more that it leaves has h11 read it."""
    line = f"{name.title() if upper else name}: {value}"
    headers = [*AUTHORIZED]
    headers.insert(at, line)
    quick, slow = request("GET /", *headers), request("GET /", *headers, "x-empty:")
    assert http._usual(quick) is not None
    assert http._usual(slow) is None
    for open_door in (True, False):
        who = peer("ws", OPEN, PROXY, proxies=OURS) if open_door else AUTHENTICATED
        found = [trio.run(admitted, sent, who) for sent in (quick, slow)]
        (one, one_said), (other, other_said) = found
        refused = open_door and name.encode() in SAID_BY_PROXIES
        assert (one is None, other is None) == (refused, refused)
        if one is not None and other is not None:
            assert (one.address, one.local, one.transport) == (
                other.address,
                other.local,
                other.transport,
            )
        else:
            assert one_said.split(b"\r\ndate")[0] == other_said.split(b"\r\ndate")[0]


AUTHENTICATED = peer("ws", CLOSED, PROXY, proxies=OURS)


# -- where nobody is asked for a token -------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(SAID_BY_PROXIES))
@pytest.mark.parametrize("kind", ["ws", "unix"])
async def test_who_needs_no_token_doesnt_come_by_a_proxy(kind: str, name: bytes) -> None:
    who = peer("unix" if kind == "unix" else "ws", OPEN, "unix" if kind == "unix" else PROXY)
    for line in ("GET /", "GET /healthz", "GET /metrics", "POST /v1/pair"):
        sent = request(line, *UPGRADE, f"{name.decode()}: a")
        admission, said = await admitted(sent, who)
        assert admission is None
        assert said.startswith(b"HTTP/1.1 403 ")
        assert said.endswith(PASSED_ON.encode())
    admission, _ = await admitted(request("GET /", *UPGRADE), who)
    assert admission is not None


async def test_nor_does_a_browser_or_a_device_there() -> None:
    """The rule is one that a person can keep in mind: nothing that a proxy passes on."""
    named = peer("ws", OPEN, PROXY, origins=frozenset({"https://x"}), proxies=OURS)
    for headers in (("origin: https://x",), ("authorization: Bearer amx_x",)):
        sent = request("GET /", *UPGRADE, "x-forwarded-for: 192.0.2.1", *headers)
        assert (await admitted(sent, named))[1].startswith(b"HTTP/1.1 403 ")


# -- what counts -----------------------------------------------------------------------------------


async def test_the_name_is_the_clients_and_the_transport_says_by_whom() -> None:
    for headers, address, transport in (
        (("x-forwarded-for: 203.0.113.9", "x-forwarded-proto: https"), "203.0.113.9", "wss by"),
        (("x-forwarded-for: 203.0.113.9", "x-forwarded-proto: http"), "203.0.113.9", "ws by"),
        (("x-forwarded-for: 203.0.113.9",), "203.0.113.9", "ws by"),
        (("via: 1.1 a",), PROXY, "ws by"),
        ((), PROXY, "ws"),
    ):
        admission, _ = await admitted(request("GET /", *AUTHORIZED, *headers), AUTHENTICATED)
        assert admission is not None
        assert admission.address == address
        assert admission.transport == transport + (" proxy 10.0.0.1" if "by" in transport else "")


async def test_failures_are_counted_by_client() -> None:
    throttle = LoginThrottle()
    who = peer(
        "ws",
        open_auth(Auth(mode="device-token")),
        PROXY,
        proxies=OURS,
        throttle=throttle,
    )
    stranger = peer("ws", open_auth(Auth(mode="device-token")), "192.0.2.7:9", throttle=throttle)
    for sender, told in ((who, "203.0.113.9"), (who, "203.0.113.10"), (stranger, "203.0.113.9")):
        sent = request("GET /", *UPGRADE, f"x-forwarded-for: 6.6.6.6, {told}")
        assert (await admitted(sent, sender))[1].startswith(b"HTTP/1.1 401 ")
    assert throttle.status()["addresses"] == {
        "203.0.113.9": 1,
        "203.0.113.10": 1,
        "192.0.2.7": 1,
    }


@pytest.mark.parametrize(
    ("address", "headers", "local"),
    [
        ("127.0.0.2:5", (), True),
        ("127.0.0.2:5", ("x-forwarded-for: 127.0.0.2",), False),
        ("127.0.0.2:5", ("via: 1.1 a",), False),
        # From where a proxy passes on nobody is known to be here, whatever is said.
        ("127.0.0.1:5", (), False),
        ("127.0.0.1:5", ("x-forwarded-for: 127.0.0.2",), False),
        ("127.0.0.1:5", ("x-forwarded-for: 203.0.113.9",), False),
    ],
)
async def test_who_comes_by_a_proxy_is_never_local(
    address: str, headers: tuple[str, ...], local: bool
) -> None:
    who = peer("ws", OPEN if not headers else CLOSED, address,
               local=True, proxies=OURS)  # fmt: skip
    sent = request("GET /", *AUTHORIZED, *headers).replace(b"host: x\r\n", b"host: localhost\r\n")
    admission, _ = await admitted(sent, who)
    assert admission is not None
    assert admission.local is local


async def test_metrics_need_a_token_by_way_of_a_proxy() -> None:
    def metrics(_accept: str) -> Exposition:
        return Exposition("1", "text/plain")

    who = peer("ws", CLOSED, "127.0.0.1:5", metrics=metrics)
    sent = knocks.at_address(request("GET /metrics"))
    assert (await admitted(sent, who))[1].startswith(b"HTTP/1.1 200 ")
    sent = knocks.at_address(request("GET /metrics", "x-real-ip: 127.0.0.1"))
    assert (await admitted(sent, who))[1].startswith(b"HTTP/1.1 401 ")


async def test_a_header_makes_no_origin() -> None:
    """Neither the scheme nor the host of a page are what a proxy says, trusted or not."""
    said = ("x-forwarded-host: good", "x-forwarded-proto: https", "x-forwarded-for: 192.0.2.1")
    for origin, status in (("https://good", 403), ("https://x", 403), ("https://named", 400)):
        sent = request("GET /", *AUTHORIZED, *said, f"origin: {origin}")
        sent = sent.replace(b"host: x\r\n", b"host: named\r\n")
        who = peer(
            "ws", CLOSED, PROXY,
            origins=frozenset({"https://named"}), proxies=OURS, sessions=object(),
        )  # fmt: skip
        assert (await admitted(sent, who))[1].startswith(f"HTTP/1.1 {status} ".encode())


def test_passed_on_is_by_name() -> None:
    assert passed_on(head_of("1.2.3.4"))
    assert not passed_on(RequestHead(b"GET", b"/", b"1.1", {b"x-request-id": [b"via"]}, b""))
