"""`appmux setup`: what it decides, that it keeps what is there, and that it can be taken back."""

from __future__ import annotations

import http.server
import json
import os
import shutil
import ssl
import subprocess
import threading
import time
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from ipaddress import IPv4Address
from pathlib import Path

import attrs
import pytest
from click.testing import CliRunner, Result

from mux.access.device import digest_of
from mux.access.devices import open_registry
from mux.cli import main
from mux.cli.terminal import confirmation
from mux.cli.terminal.confirmation import UnansweredError
from mux.config.load import load
from mux.core.policy.scopes import ALL
from mux.host import codex_login, readiness, setup, tailnet
from mux.host.service import ServiceError
from mux.host.setup import SetupError
from tests.host.machine import Host, host
from tests.ports import kept_port

__all__ = ["host"]

NOT_READY = 0.05
"""Seconds that a test waits for a broker that nobody starts."""


@pytest.fixture
def port(host: Host, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """A free port in the place of 14500, and no setting in the environment but the codex."""
    monkeypatch.delenv("APPMUX_LISTEN")
    monkeypatch.setattr(tailnet, "own", lambda: ["127.0.0.1"])
    monkeypatch.setattr(readiness, "PATIENCE", NOT_READY)
    monkeypatch.setattr(readiness, "ANSWER_DEADLINE", 30.0)  # of one who answers, however slowly
    with kept_port() as number:
        monkeypatch.setattr(setup, "PORT", number)
        yield number


@contextmanager
def answering(port: int, started: Path, tls: ssl.SSLContext | None = None) -> Iterator[None]:
    """Something that says it is ready at the port, once the service was started."""

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            there = self.path == "/readyz" and started.exists()
            self.send_response(200 if there else 503)
            self.end_headers()

        def log_message(self, *_words: object) -> None:
            """Nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Answer)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def _unwatched(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stand-in answers before the service is there: that is no other program's address."""
    monkeypatch.setattr("mux.host.processes.of_port", lambda _ip, _port: [])


def run(*args: str, answer: str | None = None) -> Result:
    return CliRunner().invoke(main.appmux, ["setup", *args], input=answer)


def snapshot(root: Path) -> dict[str, tuple[int, float, bytes]]:
    """Everything below a directory: kind and mode, time of change, content."""
    found = {}
    for path in sorted(root.rglob("*")):
        status = path.lstat()
        content = path.read_bytes() if path.is_file() else b""
        found[str(path)] = (status.st_mode, status.st_mtime, content)
    return found


# -- a new host ------------------------------------------------------------------------------------


def test_a_dry_run_tells_all_and_changes_nothing(host: Host, port: int) -> None:
    host.vanilla("[Service]\nExecStart=/x --listen ws://127.0.0.1:1 --ws-token-file {token}", "")
    before = snapshot(host.root)
    for flags in ((), ("--yes",), ("--no-start",), ("--host", "127.0.0.2")):
        done = run("--dry-run", *flags)
        assert done.exit_code == 0, (done.output, done.exception)
        assert "Nothing was changed" in done.output
        assert 'mode = "capability-token"' in done.output
        for path in (host.settings, host.units / "appmux.service", host.units / "appmux.socket"):
            assert f"- write {path} (mode 644)" in done.output
    assert snapshot(host.root) == before
    assert "systemctl --user start appmux.socket appmux.service" in run("--dry-run").output
    assert f"- write {host.settings.with_name('token')}" in run("--dry-run", "--no-start").output


@pytest.mark.usefixtures("_unwatched")
def test_a_new_host(host: Host, port: int) -> None:
    with answering(port, host.root / "manager" / "active" / "appmux.service"):
        done = run("--yes")
    assert done.exit_code == 0, (done.output, done.exception)
    token = host.settings.with_name("token")
    secret = token.read_text().strip()
    assert len(secret) == 43
    assert token.stat().st_mode & 0o777 == 0o600
    assert secret not in done.output
    assert f"ready at ws://127.0.0.1:{port}" in done.output
    settled = load({}, {})
    assert settled.file == host.settings
    assert settled.config.listen == ("unix://", f"ws://127.0.0.1:{port}")
    assert (settled.config.auth.mode, settled.config.auth.token_file) == ("capability-token", token)
    assert f"ListenStream=127.0.0.1:{port}\n" in (host.units / "appmux.socket").read_text()
    assert host.asked("start") == ["start appmux.socket appmux.service"]
    # Once more: what is there is kept, and there is nothing to ask.
    before = snapshot(host.home)
    with answering(port, host.root / "manager" / "active" / "appmux.service"):
        assert run("--yes").exit_code == 0
    assert snapshot(host.home) == before


def test_no_start(host: Host, port: int) -> None:
    host.break_manager()  # of no use, but not needed either until something runs
    done = run("--no-start", "--dry-run")
    assert done.exit_code == 0
    (host.root / "manager" / "broken").unlink()
    done = run("--no-start", "--yes")
    assert done.exit_code == 0, (done.output, done.exception)
    assert host.asked() == ["daemon-reload", "enable appmux.socket appmux.service"]
    assert (host.units / "appmux.service").exists()


def test_one_that_never_gets_ready_is_said(host: Host, port: int) -> None:
    done = run("--yes")
    assert isinstance(done.exception, SetupError)
    told = str(done.exception)
    assert "the service is installed, but it isn't ready: Connection refused" in told


def test_a_crash_loop_is_no_success_and_its_last_words_are_shown(
    host: Host, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readiness, "PATIENCE", 600.0)  # it isn't waited for
    host.crash_loop("appmux[7]: Error: it can't be", "systemd[1]: Scheduled restart job")
    done = run("--yes")
    told = str(done.exception)
    assert isinstance(done.exception, SetupError)
    assert "it isn't ready: it ended" in told
    assert "\n  appmux[7]: Error: it can't be\n  systemd[1]: Scheduled restart job" in told


def test_without_a_service_there_are_settings_token_and_the_command(host: Host, port: int) -> None:
    host.break_manager()  # as in a container
    done = run("--yes", "--no-service", "--host", "0.0.0.0")
    assert done.exit_code == 0, (done.output, done.exception)
    assert "Run it: appmux serve\n" in done.output
    config = load({}, {}).config
    assert config.listen == ("unix://", f"ws://0.0.0.0:{port}")
    assert config.auth.token_file == host.settings.with_name("token")
    assert config.auth.token_file.exists()
    assert host.asked() == []
    assert not host.units.exists()


@pytest.mark.parametrize("place", ["run/fnm_multishells/7_1/bin", "run/bin"])
def test_a_codex_of_this_shell_alone_is_refused_with_what_to_do(
    host: Host, port: int, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    monkeypatch.delenv("APPMUX_CODEX_BIN")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(host.root / "run"))
    there = host.root / place / "codex"
    there.parent.mkdir(parents=True)
    there.symlink_to(host.codex)
    monkeypatch.setenv("PATH", f"{there.parent}{os.pathsep}{host.root / 'bin'}")
    monkeypatch.setattr("mux.config.codex_binary._packaged", lambda: None)
    done = run("--yes")
    told = str(done.exception)
    assert f"this shell finds {there}, but a service doesn't" in told
    assert f"codex_bin = '{host.codex.resolve()}'" in told
    assert host.asked() == []
    # Where the manager of versions keeps it, a service finds it.
    kept = host.home / ".local/share/fnm/node-versions/v22.1.0/installation/bin/codex"
    kept.parent.mkdir(parents=True)
    kept.symlink_to(host.codex)
    assert run("--yes", "--no-start").exit_code == 0
    unit = (host.units / "appmux.service").read_text()
    assert str(there.parent) not in unit


def test_nobody_to_ask_changes_nothing(host: Host, port: int) -> None:
    before = snapshot(host.home)
    done = run()
    assert isinstance(done.exception, UnansweredError)
    assert "say it with --yes" in str(done.exception)
    assert snapshot(host.home) == before


def test_a_no_changes_nothing(host: Host, port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(confirmation, "is_terminal", lambda: True)
    before = snapshot(host.home)
    done = run(answer="n\n")
    assert isinstance(done.exception, UnansweredError)
    assert str(done.exception) == "nothing was changed"
    assert snapshot(host.home) == before


def test_another_listener_is_not_pushed_aside(host: Host, port: int) -> None:
    with host.listening():
        done = run("--yes")
    assert isinstance(done.exception, ServiceError)
    assert f"process {os.getpid()}" in str(done.exception)
    assert not host.settings.exists()
    assert not host.units.exists()


# -- a config file of the user's own ---------------------------------------------------------------


@pytest.mark.usefixtures("_unwatched")
def test_the_users_own_file_is_only_shown_what_it_lacks(host: Host, port: int) -> None:
    host.settings.parent.mkdir(parents=True)
    text = f'# mine\nlisten = ["unix://", "ws://127.0.0.1:{port}"]\n'
    host.settings.write_text(text)
    with answering(port, host.root / "manager" / "active" / "appmux.service"):
        done = run("--yes", "--host", "127.0.0.3")
    assert done.exit_code == 0, (done.output, done.exception)
    assert host.settings.read_text() == text
    shown = done.output.partition("For phones to connect, it needs:\n")[2]
    lines = "\n".join(line[4:] for line in shown.splitlines() if line.startswith("    "))
    lacking = tomllib.loads(lines)
    assert lacking["listen"] == ["unix://", f"ws://127.0.0.1:{port}", f"ws://127.0.0.3:{port}"]
    assert lacking["auth"]["mode"] == "capability-token"
    # With these lines in it, nothing is lacking any more, and the token is made.
    host.settings.write_text(lines)
    with answering(port, host.root / "manager" / "active" / "appmux.service"):
        done = run("--yes", "--host", "127.0.0.3")
    assert done.exit_code == 0, (done.output, done.exception)
    assert "it needs" not in done.output
    assert Path(lacking["auth"]["token_file"]).exists()


# -- listeners that show or let in too much --------------------------------------------------------


@pytest.mark.usefixtures("_unwatched")
@pytest.mark.parametrize(
    ("address", "clear"),
    [
        ("127.0.0.4", False),
        ("::1", False),
        ("100.101.1.2", False),
        ("fd7a:115c:a1e0::7", False),
        ("192.0.2.7", True),
        ("0.0.0.0", True),
        ("2001:db8::7", True),
    ],
)
def test_tokens_in_clear_are_said_and_asked(
    host: Host, port: int, monkeypatch: pytest.MonkeyPatch, address: str, clear: bool
) -> None:
    for flags in (("--dry-run",), ("--yes",)):
        done = run("--no-service", "--host", address, *flags)
        assert done.exit_code == 0, (done.output, done.exception)
        assert ("in clear" in done.output) is clear
        host.settings.unlink(missing_ok=True)
        host.settings.with_name("token").unlink(missing_ok=True)
    monkeypatch.setattr(confirmation, "is_terminal", lambda: True)
    done = run("--no-service", "--host", address, answer="n\n")
    assert ("Listen there all the same?" in done.output) is clear
    assert not host.settings.exists()


def test_no_open_listener_is_made_by_default(host: Host, port: int) -> None:
    """A file of the user's that says nothing of listeners and tokens would make one."""
    host.settings.parent.mkdir(parents=True)
    host.settings.write_text('[log]\nlevel = "debug"\n')
    before = snapshot(host.home)
    done = run("--yes")
    assert isinstance(done.exception, SetupError)
    assert "ws://127.0.0.1:14500 would ask nobody for a token" in str(done.exception)
    assert snapshot(host.home) == before
    # Each of what it names does.
    lines = str(done.exception).partition("again:\n")[2]
    for part in lines.split("or\n"):
        host.settings.write_text(part)
        assert load({}, {}).file == host.settings
        done = run("--yes", "--no-service")
        assert done.exit_code == 0, (done.output, done.exception)
        assert "without a token" not in done.output


def test_an_open_listener_of_the_users_own_is_asked_about(
    host: Host, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.settings.parent.mkdir(parents=True)
    host.settings.write_text(f'listen = ["unix://", "ws://127.0.0.1:{port}"]\n')
    monkeypatch.setattr(confirmation, "is_terminal", lambda: True)
    done = run("--no-service", answer="n\n")
    assert isinstance(done.exception, UnansweredError)
    assert "your file lets every process of this machine in there" in done.output


# -- NovaScale's place -----------------------------------------------------------------------------


def vanilla(host: Host, port: int) -> Path:
    unit = "[Service]\nExecStart=/x --listen ws://127.0.0.1:{port} --ws-token-file {token}"
    return host.vanilla(unit.replace("{port}", str(port)), "NOVASCALE_CODEX_NAME='my host'")


@pytest.mark.usefixtures("_unwatched")
def test_novascales_place_is_taken_and_given_back(host: Host, port: int) -> None:
    token = vanilla(host, port)
    theirs = {path: path.read_bytes() for path in (token, host.units / "novascale-codex.service")}
    with answering(port, host.root / "manager" / "active" / "appmux.service"):
        done = run("--yes")
    assert done.exit_code == 0, (done.output, done.exception)
    assert "phones that are paired go on as they are" in done.output
    config = load({}, {}).config
    assert config.listen == ("unix://", f"ws://127.0.0.1:{port}")
    # Its token is a device beside appmux's own token: it can be revoked.
    assert config.auth.token_file == host.settings.with_name("token")
    (device,) = open_registry(host.state, time.time)
    assert (device.name, device.kind, device.scopes) == ("NovaScale", "novascale", ALL)
    assert device.digest == digest_of("the-phones-token")
    order = host.asked("disable", "start")
    assert order == [
        "disable --now novascale-codex.service",
        "start appmux.socket appmux.service",
    ]
    record = json.loads((host.state / "novascale.json").read_text())
    assert (record["enabled"], record["running"]) == (True, True)
    # A second setup doesn't take what is taken.
    with answering(port, host.root / "manager" / "active" / "appmux.service"):
        assert run("--yes").exit_code == 0
    done = CliRunner().invoke(main.appmux, ["service", "uninstall", "--yes"])
    assert done.exit_code == 0, (done.output, done.exception)
    assert "NovaScale's service has its place back" in done.output
    assert host.asked()[-2:] == [
        "enable novascale-codex.service",
        "start novascale-codex.service",
    ]
    assert {path: path.read_bytes() for path in theirs} == theirs
    assert not (host.state / "novascale.json").exists()
    assert list(open_registry(host.state, time.time)) == []


def test_a_take_over_that_fails_is_taken_back(host: Host, port: int) -> None:
    vanilla(host, port)
    done = run("--yes")
    assert isinstance(done.exception, SetupError)
    assert str(done.exception).endswith("NovaScale's service is as it was")
    manager = host.root / "manager"
    assert (manager / "active" / "novascale-codex.service").exists()
    assert (manager / "enabled" / "novascale-codex.service").exists()
    assert not (manager / "active" / "appmux.service").exists()
    assert not (host.units / "appmux.service").exists()


def test_an_offer_that_is_declined_changes_nothing(
    host: Host, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    vanilla(host, port)
    monkeypatch.setattr(confirmation, "is_terminal", lambda: True)
    before = snapshot(host.home)
    done = run(answer="n\n")
    assert isinstance(done.exception, UnansweredError)
    assert "Take its place?" in done.output
    assert snapshot(host.home) == before
    assert not host.asked()


def test_the_users_own_file_has_to_fit_before_the_place_is_taken(host: Host, port: int) -> None:
    vanilla(host, port)
    host.settings.parent.mkdir(parents=True)
    host.settings.write_text('listen = ["unix://"]\n')
    done = run("--yes")
    assert isinstance(done.exception, SetupError)
    assert f'listen = ["unix://", "ws://127.0.0.1:{port}"]' in str(done.exception)
    assert 'mode = "capability-token"' in str(done.exception)
    assert not host.asked()


def test_what_the_shell_sets_would_go_over_the_file(
    host: Host, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("APPMUX_LISTEN", "unix://")
    done = run("--dry-run")
    assert isinstance(done.exception, SetupError)
    assert "listen is set by the environment APPMUX_LISTEN" in str(done.exception)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl to make a certificate")
def test_readiness_is_asked_over_tls_too(host: Host, port: int, tmp_path: Path) -> None:
    made = ("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=elsewhere")
    files = ("-keyout", str(tmp_path / "key"), "-out", str(tmp_path / "cert"))
    subprocess.run(["openssl", *made, *files], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert", tmp_path / "key")
    config = attrs.evolve(load({}, {}).config, listen=(f"wss://127.0.0.1:{port}",))
    assert readiness.probe(config, {}) == "Connection refused"
    with answering(port, tmp_path, context):
        assert readiness.probe(config, {}) == readiness.OK
    with answering(port, tmp_path):
        assert "SSL" in readiness.probe(config, {}).upper()


# -- where to listen -------------------------------------------------------------------------------


def test_which_address(host: Host, port: int) -> None:
    assert setup.host_to_use(None, None, ["100.64.0.1"]) == "100.64.0.1"
    assert setup.host_to_use(None, None, ["100.64.0.1", "100.64.0.2"]) is None
    assert setup.host_to_use(None, None, []) is None
    assert setup.host_to_use("10.0.0.1", None, ["100.64.0.1"]) == "10.0.0.1"
    for wrong in ("myhost", "100.64.0.300", "ws://1.2.3.4"):
        done = run("--host", wrong, "--dry-run")
        assert isinstance(done.exception, SetupError)
        assert f"{wrong!r} is no address" in str(done.exception)
    assert f"ws://[::1]:{port}" in run("--host", "::1", "--dry-run").output


def test_no_tailnet_is_asked_about(host: Host, port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tailnet, "own", list)
    done = run("--dry-run")
    assert "no Tailnet address" in done.output
    assert f"ws://127.0.0.1:{port}" in done.output
    monkeypatch.setattr(confirmation, "is_terminal", lambda: True)
    monkeypatch.setattr(tailnet, "own", lambda: ["100.64.0.1", "100.100.0.2"])
    done = run(answer="127.0.0.7\nn\n")
    assert "Address where phones connect [100.64.0.1]: 127.0.0.7" in done.output
    assert f"phones connect to ws://127.0.0.7:{port}" in done.output


IFCONFIG = """\
lo0: flags=8049<UP,LOOPBACK,RUNNING,MULTICAST> mtu 16384
	inet 127.0.0.1 netmask 0xff000000
	inet6 ::1 prefixlen 128
en0: flags=8863<UP> mtu 1500
	inet 100.127.255.1 netmask 0xffffff00 broadcast 192.168.1.255
utun4: flags=8051<UP,POINTOPOINT> mtu 1280
	inet 100.64.7.8 --> 100.64.7.8 netmask 0xffffffff
"""


def test_a_macs_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    def ifconfig(argv: Sequence[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(argv, 0, IFCONFIG, "")

    monkeypatch.setattr(tailnet.sys, "platform", "darwin")  # type: ignore[attr-defined]
    assert tailnet.addresses(ifconfig) == [
        ("lo0", IPv4Address("127.0.0.1")),
        ("en0", IPv4Address("100.127.255.1")),
        ("utun4", IPv4Address("100.64.7.8")),
    ]
    # Some provider gave the first of them; Tailscale's comes first all the same.
    assert tailnet.own(ifconfig) == ["100.64.7.8", "100.127.255.1"]


def test_this_machines_addresses() -> None:
    assert IPv4Address("127.0.0.1") in [ip for _name, ip in tailnet.addresses()]


# -- logged in? ------------------------------------------------------------------------------------

CUSTOM = 'model_provider = "x"\n[model_providers.x]\nname = "x"\n'


@pytest.mark.parametrize(
    ("config", "auth", "environ", "expected"),
    [
        ("", False, {}, (False, "codex is not logged in")),
        ("", True, {}, (True, "logged in")),
        ("not TOML", True, {}, (True, "logged in")),
        ('model_provider = "oss"', False, {}, (True, "'oss' needs no login")),
        (CUSTOM, False, {}, (True, "'x' needs no login")),
        (CUSTOM + "requires_openai_auth = true", False, {}, (False, "not logged in")),
        (CUSTOM + 'env_key = "X_KEY"', False, {}, (False, "wants X_KEY, which isn't set")),
        (CUSTOM + 'env_key = "X_KEY"', False, {"X_KEY": "1"}, (True, "a service doesn't see")),
        ('cli_auth_credentials_store = "keyring"', False, {}, (True, "Logged in using ChatGPT")),
    ],
)
def test_whether_codex_can_reach_a_model(
    tmp_path: Path, config: str, auth: bool, environ: dict[str, str], expected: tuple[bool, str]
) -> None:
    (tmp_path / "config.toml").write_text(config)
    if auth:
        (tmp_path / "auth.json").write_text("{}")

    def codex(argv: Sequence[str]) -> subprocess.CompletedProcess[str]:
        assert list(argv[1:]) == ["login", "status"]
        return subprocess.CompletedProcess(argv, 0, "", "WARNING: x\nLogged in using ChatGPT\n")

    well, words = expected
    found = codex_login.check(Path("codex"), tmp_path, environ, tmp_path / "environment", codex)
    assert (found.well, bool(found.remedy)) == (well, not well)
    assert words in found.words


def test_a_key_in_the_services_environment_file(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text(CUSTOM + 'env_key = "X_KEY"')
    file = tmp_path / "environment"
    file.write_text("X_KEY=secret\n")
    found = codex_login.check(Path("codex"), tmp_path, {}, file)
    assert found.well
    assert "secret" not in found.words
