"""`downstream.http.origins`: which requests of browsers go on, by `Origin`, `Host` and the rest."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mux.downstream.http import origins
from mux.downstream.http.head import RequestHead
from mux.downstream.http.origins import Reach, is_origin, origin_of, refused

NAMED = "https://broker.example"
HERE = Reach("http", "127.0.0.1", 14500, frozenset({NAMED}))
SIX = Reach("http", "::1", 14500)
TAIL = Reach("https", "100.64.0.7", 443, frozenset({NAMED, "https://other.example:8443"}))
UNIX = Reach("http", "", 0)

OWN = "http://127.0.0.1:14500"


def head(
    origin: str | list[str] | None = None,
    host: str = "127.0.0.1:14500",
    method: bytes = b"GET",
    **more: str,
) -> RequestHead:
    several = [] if origin is None else [origin] if isinstance(origin, str) else origin
    headers = {b"host": [host.encode("latin-1")]}
    if several:
        headers[b"origin"] = [each.encode("latin-1") for each in several]
    for name, value in more.items():
        headers[name.replace("_", "-").encode()] = [value.encode()]
    return RequestHead(method, b"/", b"1.1", headers, b"")


def test_pages_of_the_brokers_own_may_ask() -> None:
    for reach, origin, host in (
        (HERE, OWN, "127.0.0.1:14500"),
        (HERE, "http://localhost:14500", "localhost:14500"),
        (HERE, "http://localhost:8080", "localhost:8080"),  # ssh -L 8080:127.0.0.1:14500
        (HERE, "http://[::1]:8080", "[::1]:8080"),
        (HERE, "http://127.0.0.1", "127.0.0.1"),  # at port 80
        (HERE, NAMED, "broker.example"),
        (HERE, NAMED, "127.0.0.1:14500"),  # a proxy that names its target
        (SIX, "http://[::1]:14500", "[::1]:14500"),
        (TAIL, "https://100.64.0.7", "100.64.0.7"),
        (TAIL, "https://other.example:8443", "other.example:8443"),
        (UNIX, "http://localhost:8080", "localhost:8080"),  # ssh -L 8080:/the/socket
        (Reach("http", "::ffff:127.0.0.1", 14500), OWN, "127.0.0.1:14500"),  # [::] serves IPv4, too
    ):
        for method in (b"GET", b"POST", b"DELETE"):
            assert refused(head(origin, host, method), b"/", reach) is None, (origin, host)
        upgrade = head(origin, host, upgrade="websocket")
        assert refused(upgrade, b"/", reach) is None, (origin, host)


@pytest.mark.parametrize(
    "origin",
    [
        "null", "", "http://127.0.0.1:14501", "https://127.0.0.1:14500", "http://127.0.0.1",
        "HTTP://127.0.0.1:14500", "http://127.0.0.1:14500/", "http://127.0.0.1:14500.",
        "http://127.0.0.1.:14500", "http://0x7f.1:14500", "http://2130706433:14500",
        "http://127.0.0.1:014500", "http://user@127.0.0.1:14500", "http://[::1]:14500",
        "http://localhost:14500", "http://localhost.:14500", "http://[::ffff:127.0.0.1]:14500",
        "https://broker.example.", "https://Broker.example", "https://broker.example:443",
        "https://sub.broker.example", "https://xbroker.example", "http://broker.example",
        "https://brok\xe9r.example", "https://xn--brokr-dsa.example",
        "chrome-extension://aapbdbdomjkkjkaonfhkkikfgjllcleb", "moz-extension://1", "file://",
        "http://127.0.0.1:14500 https://broker.example", "ws://127.0.0.1:14500",
    ],
)  # fmt: skip
@pytest.mark.parametrize("method", [b"GET", b"POST", b"OPTIONS"])
def test_any_other_origin_may_not(origin: str, method: bytes) -> None:
    assert refused(head(origin, method=method), b"/", HERE) is not None
    assert refused(head(origin, upgrade="websocket"), b"/", HERE) is not None


@given(
    st.lists(st.sampled_from([OWN, NAMED, "null", "http://evil.example"]), min_size=2, max_size=4)
)
def test_several_origins_are_none(several: list[str]) -> None:
    assert refused(head(several), b"/", HERE) is not None


@given(st.text(st.characters(max_codepoint=255), max_size=40))
def test_no_made_up_origin_is_one(origin: str) -> None:
    assert refused(head(origin), b"/", HERE) is not None or origin in (OWN, NAMED)


@given(
    host=st.one_of(
        st.from_regex(r"[a-z0-9.-]{1,30}(:[0-9]{1,5})?", fullmatch=True),
        st.text(st.characters(max_codepoint=255), max_size=30),
        st.sampled_from(
            ["localhost.", "LOCALHOST", "127.0.0.1.", "127.1", "127.0.0.1:", "127.0.0.1:0", "[::1",
             "127.0.0.1.evil.example", "localhost.evil.example:14500", "[::ffff:127.0.0.1]"]
        ),
    )
)  # fmt: skip
@pytest.mark.parametrize("reach", [HERE, TAIL, UNIX], ids=["loopback", "tailnet", "unix"])
def test_a_name_that_was_pointed_at_the_broker_is_refused(reach: Reach, host: str) -> None:
    """However it is asked: the page that has this name would be of the same origin."""
    name = host.rpartition(":")[0] if ":" in host and not host.endswith("]") else host
    known = {"broker.example", "other.example:8443", "100.64.0.7"}
    if host in known or (reach is not TAIL and name in origins.LOOPBACK_NAMES):
        return
    for origin in (None, f"http://{host}", OWN, NAMED):
        assert refused(head(origin, host), b"/", reach) is not None


@pytest.mark.parametrize(
    ("method", "fetch", "goes_on"),
    [
        (b"GET", {"sec_fetch_site": "none", "sec_fetch_mode": "navigate"}, True),
        (b"GET", {"sec_fetch_site": "same-origin", "sec_fetch_dest": "script"}, True),
        (b"HEAD", {"sec_fetch_site": "same-origin"}, True),
        (
            b"GET",
            {
                "sec_fetch_site": "cross-site",
                "sec_fetch_mode": "navigate",
                "sec_fetch_dest": "document",
            },
            True,
        ),
        (
            b"GET",
            {
                "sec_fetch_site": "cross-site",
                "sec_fetch_mode": "navigate",
                "sec_fetch_dest": "iframe",
            },
            False,
        ),
        (b"GET", {"sec_fetch_site": "same-site", "sec_fetch_dest": "image"}, False),
        (b"GET", {"sec_fetch_site": "cross-site", "sec_fetch_mode": "no-cors"}, False),
        (b"GET", {"sec_fetch_site": "Same-Origin"}, False),
        (b"GET", {"sec_fetch_site": ""}, False),
        (b"POST", {"sec_fetch_site": "same-origin"}, False),  # without Origin no browser posts
        (
            b"POST",
            {
                "sec_fetch_site": "cross-site",
                "sec_fetch_mode": "navigate",
                "sec_fetch_dest": "document",
            },
            False,
        ),
        (b"GET", {"sec_fetch_site": "same-origin", "upgrade": "websocket"}, False),
    ],
)
def test_what_a_page_may_be_fetched_for(
    method: bytes, fetch: dict[str, str], goes_on: bool
) -> None:
    assert (refused(head(method=method, **fetch), b"/", HERE) is None) is goes_on


def test_the_share_sheet_posts_without_an_origin() -> None:
    for origin in (None, "null"):
        assert refused(head(origin, method=b"POST"), b"/share", HERE) is None
        assert refused(head(origin, method=b"POST"), b"/v1/session", HERE) is not None
    assert refused(head("http://evil.example", method=b"POST"), b"/share", HERE) is not None


@pytest.mark.parametrize(
    ("scheme", "host", "port", "origin"),
    [
        ("http", "127.0.0.1", 80, "http://127.0.0.1"),
        ("https", "127.0.0.1", 80, "https://127.0.0.1:80"),
        ("https", "fd7a::0:1", 443, "https://[fd7a::1]"),
        ("http", "fe80::1%eth0", 1, "http://[fe80::1]:1"),
        ("http", "::ffff:10.0.0.1", 1, "http://10.0.0.1:1"),
        ("https", "broker.example", 443, "https://broker.example"),
    ],
)
def test_an_origin_is_written_as_browsers_do(
    scheme: str, host: str, port: int, origin: str
) -> None:
    assert origin_of(scheme, host, port) == origin
    assert is_origin(origin)


@pytest.mark.parametrize(
    "text",
    ["", "broker.example", "https://", "https://a/", "https://A", "https://a:443", "http://a:80",
     "https://a:0", "https://a:65536", "https://a.", "https://.a", "ftp://a", "https://a b",
     "https://[::1", "https://a:", "null", "https://user@a", "https://é", "https://a.:8443",
     "https://.a:8443", "https://-a:8443", "https://-a"],
)  # fmt: skip
def test_what_is_no_origin(text: str) -> None:
    assert not is_origin(text)
    origins.require_origins((NAMED,))
    with pytest.raises(origins.OriginError) as told:
        origins.require_origins((NAMED, text))
    assert str(told.value) == (
        f"web.origins: {text!r} is no origin as browsers write it: https://NAME or"
        " https://NAME:PORT, in lower case, without a path and the usual port"
    )


@pytest.mark.parametrize(
    ("host", "is_address"),
    [
        ("127.0.0.1", True),
        ("192.0.2.7:14500", True),
        ("[::1]", True),
        ("[fd7a::1]:443", True),
        ("localhost", True),
        ("LocalHost:8080", True),
        ("broker.example", False),
        ("broker.example:127.0.0.1", False),
        ("evil:localhost", False),
        ("localhost.evil.example", False),
        ("127.0.0.1.evil.example:14500", False),
        ("[::1]x]", False),
        ("XX::1]", False),
        ("[XX]:1", False),
        ("", False),
    ],
)
def test_a_host_that_nobody_else_can_point_to(host: str, is_address: bool) -> None:
    assert origins.host_is_address(head(host=host)) is is_address


def test_a_host_that_is_missing_or_stands_twice_is_no_address() -> None:
    for several in ([], [b"127.0.0.1", b"127.0.0.1"]):
        assert not origins.host_is_address(
            RequestHead(b"GET", b"/", b"1.1", {b"host": several}, b"")
        )


def test_why_a_request_is_refused_is_told_to_the_log() -> None:
    """In these words: what an operator looks for."""
    assert [
        refused(head(OWN, "evil.example"), b"/", HERE),
        refused(head(method=b"POST"), b"/", HERE),
        refused(head([OWN, OWN]), b"/", HERE),
        refused(head("http://evil.example"), b"/", HERE),
        refused(head(OWN, sec_fetch_site="cross-site"), b"/", HERE),
    ] == [
        "its Host is no name of the broker's",
        "it has no Origin",
        "it has several Origins",
        "its Origin is none of the broker's",
        "another page sent it",
    ]
