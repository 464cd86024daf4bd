"""`mux.tailnet.tailscaled`: what it asks, what it is answered, and what a person is told to do."""

from __future__ import annotations

import getpass
import json
import os
import ssl
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import attrs
import pytest

from mux.tailnet import certificate
from mux.tailnet import tailscaled as asking
from mux.tailnet.node import Node, TailscaledError, read
from tests.tailnet.stand_in import DENIED, NAME, NO_HTTPS, Tailscaled, tailscaled

WEEKS = 3 * 7 * 86_400.0


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Tailscaled]:
    with tailscaled(tmp_path / "ts", addresses=("100.64.0.7", "fd7a:115c:a1e0::7")) as made:
        yield made


def test_it_says_who_we_are(daemon: Tailscaled) -> None:
    node = asking.find(daemon.socket).node()
    assert node == Node("Running", NAME, ("100.64.0.7", "fd7a:115c:a1e0::7"), (NAME,))
    node.require_https()
    assert daemon.asked == ["/localapi/v0/status?peers=false"]


def test_it_gives_a_certificate_with_its_key(daemon: Tailscaled, tmp_path: Path) -> None:
    pem = asking.find(daemon.socket).certificate(NAME, WEEKS)
    kept = certificate.keep(tmp_path, pem, NAME, 0.0)
    assert isinstance(kept.served.context, ssl.SSLContext)
    assert daemon.asked == [f"/localapi/v0/cert/{NAME}?type=pair&min_validity=1814400s"]
    file = tmp_path / certificate.FILE
    assert file.stat().st_mode & 0o777 == 0o600
    again = certificate.load(tmp_path, NAME, 0.0)
    assert again is not None
    assert again.until == kept.until
    assert certificate.load(tmp_path, "another.name", 0.0) is None
    assert certificate.load(tmp_path, NAME, kept.until) is None
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == [certificate.FILE]


@pytest.mark.parametrize(
    ("pem", "says"),
    [
        (b"nonsense", "holds no certificate"),
        (b"\xff\xfe", "can't be kept"),
        ("of another name", "the certificate is for other.ts.net"),
        ("without its key", "can't be used"),
        ("ended", "ended on"),
    ],
)
def test_what_cant_be_served_is_refused_and_the_one_before_stays(
    daemon: Tailscaled, tmp_path: Path, pem: bytes | str, says: str
) -> None:
    before = certificate.keep(tmp_path, daemon.issue(NAME)[0], NAME, 0.0)
    now = 0.0
    if pem == "of another name":
        pem = daemon.issue("other.ts.net")[0]
    elif pem == "without its key":
        pem = daemon.issue(NAME)[0].partition(b"-----BEGIN CERTIFICATE")[0]
        pem += daemon.authority.issue_cert(NAME).cert_chain_pems[0].bytes()
    elif pem == "ended":
        pem, end = daemon.issue(NAME)
        now = end.timestamp() + 1
    assert isinstance(pem, bytes)
    with pytest.raises(certificate.CertificateError, match=says):
        certificate.keep(tmp_path, pem, NAME, now)
    kept = certificate.load(tmp_path, NAME, 0.0)
    assert kept is not None
    assert kept.until == before.until
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == [certificate.FILE]


def test_when_a_certificate_is_renewed(daemon: Tailscaled, tmp_path: Path) -> None:
    kept = certificate.keep(tmp_path, daemon.issue(NAME)[0], NAME, 0.0)
    day = 86_400
    assert round((kept.until - kept.renew_from) / day) == 21
    assert round((kept.until - kept.late_from) / day) == 14
    short = attrs.evolve(kept, since=0.0, until=6.0 * day)
    assert short.renew_from == 4 * day
    assert short.late_from == 4.5 * day


# -- what is in the way, and what to do ------------------------------------------------------------


def _refused(daemon: Tailscaled) -> TailscaledError:
    with pytest.raises(TailscaledError) as refused:
        asking.find(daemon.socket).certificate(NAME, WEEKS)
    return refused.value


def test_who_may_not_is_told_the_command(daemon: Tailscaled) -> None:
    daemon.refusal = DENIED
    refused = _refused(daemon)
    me = getpass.getuser()
    assert f"root and its operator alone, and {me} is neither" in str(refused)
    assert f"`sudo tailscale set --operator={me}`" in refused.remedy
    assert f"TS_PERMIT_CERT_UID={me}" in refused.remedy
    assert refused.again_soon


def test_where_https_is_off_one_is_told_where_to_click(daemon: Tailscaled) -> None:
    daemon.https = False
    assert "HTTPS is off in this tailnet" in str(_refused(daemon))
    with pytest.raises(TailscaledError, match="HTTPS is off") as off:
        asking.find(daemon.socket).node().require_https()
    assert "https://login.tailscale.com/admin/dns" in off.value.remedy
    assert "*Enable HTTPS*" in off.value.remedy
    daemon.https, daemon.refusal = True, NO_HTTPS
    assert "HTTPS is off" in str(_refused(daemon))


@pytest.mark.parametrize(
    ("refusal", "says", "soon"),
    [
        ((500, "acme: rateLimited: too many certificates"), "too many certificates", False),
        ((429, "rate limited"), "tailscaled says: rate limited", False),
        ((500, f'invalid domain "{NAME}"; must be one of ["x"]'), "invalid domain", True),
        ((503, ""), "503 Service Unavailable", False),
    ],
)
def test_its_own_words_are_shown(
    daemon: Tailscaled, refusal: tuple[int, str], says: str, soon: bool
) -> None:
    daemon.refusal = refusal
    refused = _refused(daemon)
    assert says in str(refused)
    assert refused.again_soon == soon


@pytest.mark.parametrize(
    ("state", "says", "remedy"),
    [
        ("NeedsLogin", "isn't logged in", "sudo tailscale up"),
        ("Stopped", "is stopped", "sudo tailscale up"),
        ("NeedsMachineAuth", "isn't approved", "admin/machines"),
        ("Starting", "is starting here", "wait"),
    ],
)
def test_a_tailscale_that_isnt_up(daemon: Tailscaled, state: str, says: str, remedy: str) -> None:
    daemon.state = state
    with pytest.raises(TailscaledError, match=says) as down:
        asking.find(daemon.socket).node().require_https()
    assert remedy in down.value.remedy


def test_one_that_hangs_is_given_up(daemon: Tailscaled) -> None:
    daemon.mute = True
    way = attrs.evolve(asking.find(daemon.socket), status_deadline=0.1, certificate_deadline=0.1)
    for ask in (way.node, lambda: way.certificate(NAME, WEEKS)):
        with pytest.raises(TailscaledError, match="no answer within") as hangs:
            ask()
        assert "restart tailscaled" in hangs.value.remedy


def test_one_that_doesnt_run(daemon: Tailscaled, tmp_path: Path) -> None:
    daemon.stop()
    for socket in (daemon.socket, tmp_path / "nothing"):
        with pytest.raises(TailscaledError, match="tailscaled doesn't run here") as gone:
            asking.find(socket).node()
        assert "systemctl start tailscaled" in gone.value.remedy
    daemon.start()
    assert asking.find(daemon.socket).node().name == NAME


def test_a_socket_of_somebody_else_is_asked_for_nothing(
    daemon: Tailscaled, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    os.chown(daemon.socket, 4712, -1) if os.getuid() == 0 else pytest.skip("only root can")
    with pytest.raises(TailscaledError, match=r"belongs to another user \(4712\)"):
        asking.find(daemon.socket).node()
    assert daemon.asked == []


@pytest.mark.parametrize(
    "status",
    [
        b"no json",
        b"{}",
        b'{"BackendState": 1}',
        b'{"BackendState": "Running", "Self": {"TailscaleIPs": ["nowhere"]}}',
        b'{"BackendState": "Running", "Self": {"DNSName": "../x."}}',
        b'{"BackendState": "Running", "Self": {"DNSName": "box"}}',
    ],
)
def test_a_status_that_makes_no_sense(daemon: Tailscaled, status: bytes) -> None:
    daemon.status = status
    with pytest.raises(TailscaledError):
        asking.find(daemon.socket).node()


def test_a_name_for_which_there_is_no_certificate() -> None:
    other = read(json.dumps({
        "BackendState": "Running", "CertDomains": ["other.ts.net"],
        "Self": {"DNSName": "Box.Tail1234.ts.net."},
    }).encode())  # fmt: skip
    assert other.name == NAME
    with pytest.raises(TailscaledError, match=r"for other.ts.net, not for box"):
        other.require_https()


# -- by the command --------------------------------------------------------------------------------


def _by_command(
    monkeypatch: pytest.MonkeyPatch, *answers: tuple[int, str, str]
) -> tuple[asking.Tailscaled, list[list[str]]]:
    monkeypatch.setattr(asking, "SOCKET", Path("/nowhere"))
    ran: list[list[str]] = []

    def run(argv: Sequence[str]) -> subprocess.CompletedProcess[str]:
        ran.append(list(argv))
        return subprocess.CompletedProcess(argv, *answers[len(ran) - 1])

    found = asking.find(None, lambda name: "/usr/bin/tailscale" if name == "tailscale" else None)
    return attrs.evolve(found, runner=run), ran


def test_the_command_says_the_same(
    daemon: Tailscaled, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    status = json.dumps(daemon._status())
    pem = daemon.issue(NAME)[0].decode()
    key, _, rest = pem.partition("-----BEGIN CERTIFICATE")
    chain = "-----BEGIN CERTIFICATE" + rest  # the command prints the certificates first
    way, ran = _by_command(monkeypatch, (0, status, ""), (0, chain + key, ""))
    assert way.node().addresses == ("100.64.0.7", "fd7a:115c:a1e0::7")
    certificate.keep(tmp_path, way.certificate(NAME, WEEKS), NAME, 0.0)
    assert ran == [
        ["/usr/bin/tailscale", "status", "--json", "--peers=false"],
        ["/usr/bin/tailscale", "cert", "--min-validity=1814400s", "--cert-file=-",
         "--key-file=-", NAME],
    ]  # fmt: skip


def test_an_older_command_is_asked_without_what_it_doesnt_know(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    unknown = (2, "", "flag provided but not defined: -min-validity\nUSAGE\n  tailscale cert …\n")
    way, ran = _by_command(monkeypatch, unknown, (0, "a pair", ""))
    assert way.certificate(NAME, WEEKS) == b"a pair"
    assert ran[1][1:] == ["cert", "--cert-file=-", "--key-file=-", NAME]


def test_the_commands_refusals(monkeypatch: pytest.MonkeyPatch) -> None:
    way, _ = _by_command(
        monkeypatch,
        (1, "", "failed to connect to local tailscaled; it doesn't appear to be running\n"),
        (1, "", "Access denied: cert access denied\n\nUse 'sudo tailscale cert'.\n"),
        (1, "", f"500 Internal Server Error: {NO_HTTPS[1]}\n"),
        (127, "", ""),
    )
    with pytest.raises(TailscaledError, match="doesn't run here"):
        way.node()
    with pytest.raises(TailscaledError, match="operator alone"):
        way.certificate(NAME, WEEKS)
    with pytest.raises(TailscaledError, match="HTTPS is off"):
        way.certificate(NAME, WEEKS)
    with pytest.raises(TailscaledError, match="`tailscale status` failed"):
        way.node()


def test_no_tailscale_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "SOCKET", Path("/nowhere"))
    with pytest.raises(TailscaledError, match="isn't installed here") as absent:
        asking.find(None, lambda _name: None).node()
    assert "https://tailscale.com/download" in absent.value.remedy
