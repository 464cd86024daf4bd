"""The service: what its files say, whose files are touched, and in which order things are done."""

from __future__ import annotations

import os
import plistlib
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest
import structlog
import trio
from click.testing import CliRunner, Result

from mux.cli import main
from mux.cli.terminal.confirmation import UnansweredError
from mux.config.load import load
from mux.core.state.app_server import AppServerState
from mux.host import novascale, service, steps
from mux.host.launchd import Launchd
from mux.host.service import ServiceError
from mux.host.steps import Remove, Run, Step, StepError, Write
from mux.host.systemd import ManagerError, Systemd, quoted
from mux.host.unit_files import MARKER, ServiceSpec
from mux.server.observability import systemd_notify
from tests.host.machine import Host, host

__all__ = ["host"]

PROJECT = Path(__file__).parent.parent.parent


def spec(tmp_path: Path, **changes: object) -> ServiceSpec:
    fields: dict[str, object] = {
        "command": ("/opt/a b/appmux", "serve", "--config", '/x/100%/"$HOME".toml'),
        "environ": {"PATH": "/usr/bin:/a b", "CODEX_HOME": "/home/me/100%$x"},
        "environment_file": tmp_path / "environment",
        "sockets": ("/run/user/7/100%.sock", "100.64.1.2:14500", "[::1]:14500"),
        "stop_seconds": 30,
        "hardened": True,
        "log": tmp_path / "appmux & co.log",
    }
    return ServiceSpec(**(fields | changes))  # type: ignore[arg-type]


def units(tmp_path: Path, **changes: object) -> tuple[str, str]:
    files = Systemd({"HOME": str(tmp_path)}).files(spec(tmp_path, **changes))
    service_text, socket_text = files.values()
    return service_text, socket_text


# -- systemd: what the files say -------------------------------------------------------------------


def test_words_keep_their_meaning_in_a_unit_file(tmp_path: Path) -> None:
    text, socket_text = units(tmp_path)
    assert (
        r'ExecStart="/opt/a b/appmux" "serve" "--config" "/x/100%%/\"$$HOME\".toml"'
        in text.splitlines()
    )
    assert 'Environment="PATH=/usr/bin:/a b" "CODEX_HOME=/home/me/100%%$x"' in text.splitlines()
    assert "ListenStream=/run/user/7/100%%.sock\nListenStream=100.64.1.2:14500\n" in socket_text
    assert quoted("back\\slash") == r'"back\\slash"'
    with pytest.raises(ManagerError, match="control character"):
        quoted("two\nlines")


@pytest.mark.parametrize(("hardened", "word"), [(True, "yes"), (False, "no")])
def test_hardening_is_all_or_nothing(tmp_path: Path, hardened: bool, word: str) -> None:
    text, _ = units(tmp_path, hardened=hardened)
    for directive in ("NoNewPrivileges", "LockPersonality", "RestrictRealtime"):
        assert f"\n{directive}={word}\n" in text


def test_every_file_has_the_marker_and_no_hole_left(tmp_path: Path) -> None:
    for text in units(tmp_path):
        assert MARKER in text.splitlines()[0]
        assert not any(line.count("@") > 1 for line in text.splitlines() if line[:1] != "#")


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze here")
def test_systemd_finds_nothing_wrong(tmp_path: Path) -> None:
    program = tmp_path / "app mux"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    for name, text in zip(
        ("appmux.service", "appmux.socket"),
        units(tmp_path, command=(str(program), "serve")),
        strict=True,
    ):
        (tmp_path / name).write_text(text)
    done = subprocess.run(
        ["systemd-analyze", "--user", "verify", "appmux.service", "appmux.socket"],
        cwd=tmp_path,
        env=os.environ | {"XDG_RUNTIME_DIR": str(tmp_path), "SYSTEMD_LOG_LEVEL": "warning"},
        capture_output=True,
        text=True,
        check=False,
    )
    # Known from 254 on; what isn't known is ignored with these words.
    said = [
        line
        for line in done.stderr.splitlines()
        if "'RestartSteps'" not in line and "'RestartMaxDelaySec'" not in line
    ]
    assert (done.returncode, [line for line in said if "appmux." in line]) == (0, [])


def test_a_bwrap_with_rights_of_its_own_is_left_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bwrap = tmp_path / "bwrap"
    bwrap.write_text("#!/bin/sh\n")
    environ = {"HOME": str(tmp_path), "PATH": str(tmp_path)}
    for variable in ("HOME", "XDG_CONFIG_HOME"):
        monkeypatch.setenv(variable, str(tmp_path))
    settled = load({}, {})
    bwrap.chmod(0o755)
    assert service.service_spec(settled, environ).hardened
    assert not service.service_spec(settled, environ, allow_sudo=True).hardened
    bwrap.chmod(0o4755)
    assert not service.service_spec(settled, environ).hardened


# -- launchd ---------------------------------------------------------------------------------------


def test_the_property_list(tmp_path: Path) -> None:
    home = tmp_path / "home"
    files = Launchd({"HOME": str(home)}, uid=501).files(spec(tmp_path))
    ((path, text),) = files.items()
    assert path == home / "Library" / "LaunchAgents" / "dev.appmux.plist"
    assert MARKER in text
    listed = plistlib.loads(text.encode())
    assert listed == {
        "Label": "dev.appmux",
        "ProgramArguments": list(spec(tmp_path).command),
        "EnvironmentVariables": spec(tmp_path).environ,
        "RunAtLoad": True,
        "KeepAlive": True,
        "ThrottleInterval": 10,
        "ExitTimeOut": 30,
        "AbandonProcessGroup": False,
        "SoftResourceLimits": {"NumberOfFiles": 8192},
        "ProcessType": "Interactive",
        "StandardErrorPath": str(tmp_path / "appmux & co.log"),
        "StandardOutPath": str(tmp_path / "appmux & co.log"),
    }


DOCUMENTED: dict[str, type | tuple[type, ...]] = {
    "AbandonProcessGroup": bool, "EnvironmentVariables": dict, "ExitTimeOut": int,
    "HardResourceLimits": dict, "KeepAlive": (bool, dict), "Label": str, "LimitLoadToSessionType":
    (str, list), "LowPriorityIO": bool, "Nice": int, "ProcessType": str, "Program": str,
    "ProgramArguments": list, "RunAtLoad": bool, "SessionCreate": bool, "SoftResourceLimits": dict,
    "Sockets": dict, "StandardErrorPath": str, "StandardInPath": str, "StandardOutPath": str,
    "ThrottleInterval": int, "TimeOut": int, "Umask": (int, str), "WorkingDirectory": str,
}  # fmt: skip
"""Keys of a LaunchAgent by launchd.plist(5), with their types; launchd ignores any other."""

LIMITS = {
    "Core", "CPU", "Data", "FileSize", "MemoryLock", "NumberOfFiles", "NumberOfProcesses",
    "ResidentSetSize", "Stack",
}  # fmt: skip


def test_the_property_list_says_what_launchd_understands(tmp_path: Path) -> None:
    (text,) = Launchd({"HOME": str(tmp_path)}, uid=501).files(spec(tmp_path)).values()
    listed = plistlib.loads(text.encode(), fmt=plistlib.FMT_XML)
    for key, value in listed.items():
        assert isinstance(value, DOCUMENTED[key]), key
    assert listed["SoftResourceLimits"].keys() <= LIMITS
    assert listed["ProcessType"] in {"Background", "Standard", "Adaptive", "Interactive"}
    assert all(isinstance(each, str) for each in listed["ProgramArguments"])
    assert Path(listed["ProgramArguments"][0]).is_absolute(), "launchd searches no PATH of ours"
    # Else the drain would be cut short, and the app-server's own end with it.
    assert listed["ExitTimeOut"] >= spec(tmp_path).stop_seconds


class Launchctl:
    """A stand-in for macOS' `launchctl`; there is no Mac to test on."""

    def __init__(self, loaded: set[str], busy: int = 0) -> None:
        self.loaded, self.busy = loaded, busy
        self.ran: list[str] = []

    def __call__(self, argv: Sequence[str]) -> subprocess.CompletedProcess[str]:
        self.ran.append(" ".join(argv))
        verb, target = argv[1], argv[2]
        label = target.rpartition("/")[2]
        code = 0
        if verb == "print" and "/" in target.removeprefix("gui/"):
            code = 0 if label in self.loaded else 113
        elif verb == "bootout":
            self.loaded.discard(label)
        elif verb == "bootstrap" and self.busy:
            self.busy -= 1
            code = 5
        elif verb == "bootstrap":
            self.loaded.add(Path(argv[3]).stem)
        said = "\tstate = running\n\tpid = 77\n\truns = 2\n\tlast exit code = 0\n"
        return subprocess.CompletedProcess(argv, code, "" if code else said, "")


def test_on_a_mac_the_old_job_goes_before_the_new_one_comes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steps, "TRY_AGAIN", 0.0)
    control = Launchctl({"dev.appmux"}, busy=2)
    where = Launchd({"HOME": str(tmp_path)}, control, uid=501)
    places = service.read_files(where.files(spec(tmp_path)))
    said: list[str] = []
    steps.perform(service.installing(where, places, start=True), said.append, control)
    plist = tmp_path / "Library" / "LaunchAgents" / "dev.appmux.plist"
    assert [line for line in control.ran if " print " not in line] == [
        "launchctl bootout gui/501/dev.appmux",
        "launchctl enable gui/501/dev.appmux",
        # `bootout` doesn't wait for the job's end.
        *[f"launchctl bootstrap gui/501 {plist}"] * 3,
    ]
    assert plist.exists()
    assert where.running()
    assert dict(where.status()) == {
        "state": "running",
        "pid": "77",
        "runs": "2",
        "last exit code": "0",
    }
    control.ran.clear()
    assert service.waking(where) == []
    steps.perform([Run(("launchctl", "bootout", "gui/501/dev.appmux"))], said.append, control)
    steps.perform(service.waking(where), said.append, control)
    assert control.ran[-1] == f"launchctl bootstrap gui/501 {plist}"
    assert where.running()
    control.ran.clear()
    steps.perform([*where.again(), *where.reread(), *where.halt()], said.append, control)
    assert [line for line in control.ran if " print " not in line] == [
        "launchctl kickstart -k gui/501/dev.appmux",
        "launchctl kill SIGHUP gui/501/dev.appmux",
        "launchctl bootout gui/501/dev.appmux",
    ]
    steps.perform(where.again(), said.append, control)
    assert control.ran[-1] == f"launchctl bootstrap gui/501 {plist}"
    steps.perform(service.uninstalling(where), said.append, control)
    assert not plist.exists()
    assert not where.running()
    assert where.status() == [("state", "not installed")]
    assert service.uninstalling(where) == []
    assert where.logs(5, True) == [
        "tail", "-n", "5", "-F", str(tmp_path / "Library/Logs/appmux/appmux.log"),
    ]  # fmt: skip


def test_a_mac_without_a_login_at_its_screen(tmp_path: Path) -> None:
    def none(argv: Sequence[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(argv, 113, "", "Could not find domain")

    with pytest.raises(ManagerError, match="log in at the Mac's screen once"):
        Launchd({"HOME": str(tmp_path)}, none, uid=501).require()


# -- the templates' one source ---------------------------------------------------------------------


def test_a_wheel_carries_the_same_files(tmp_path: Path) -> None:
    pytest.importorskip("hatchling")
    build = "from hatchling.build import build_wheel; import sys; build_wheel(sys.argv[1])"
    subprocess.run(
        [sys.executable, "-c", build, str(tmp_path)], cwd=PROJECT, check=True, capture_output=True
    )
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as packed:
        for name in ("systemd/appmux.service", "systemd/appmux.socket", "launchd/dev.appmux.plist"):
            assert packed.read(f"mux/contrib/{name}") == (PROJECT / "contrib" / name).read_bytes()


# -- PATH ------------------------------------------------------------------------------------------


def test_the_path_of_a_service_outlives_an_upgrade(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, temporary = tmp_path / "home", tmp_path / "tmp"
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    node = home / ".nvm/versions/node/v20.1.0/bin"
    shell = tmp_path / "shell"
    for place in (node, shell, temporary / "npx"):
        place.mkdir(parents=True)
    names = [str(shell), str(node), str(temporary / "npx"), "relative", str(tmp_path / "gone")]
    path = service.baked_path({"PATH": os.pathsep.join(names)}, home).split(os.pathsep)
    assert path[0] == str(shell)
    assert not {str(node), str(temporary / "npx"), "relative", str(tmp_path / "gone")} & set(path)
    usual = [str(home / name) for name in (".local/bin", ".npm-global/bin", "bin", ".volta/bin")]
    assert path[1:] == [*usual, "/opt/homebrew/bin", "/usr/local/bin"]


# -- steps -----------------------------------------------------------------------------------------


def test_steps_are_done_in_order_and_told(tmp_path: Path) -> None:
    said: list[str] = []
    secret = tmp_path / "new" / "secret"
    doing: list[Step] = [
        Write(secret, "hush\n", 0o600, secret=True),
        Run(("sh", "-c", "echo why >&2; exit 3"), may_fail=True),
        Remove(tmp_path / "absent"),
    ]
    steps.perform(doing, said.append)
    assert secret.read_text() == "hush\n"
    assert secret.stat().st_mode & 0o777 == 0o600
    assert secret.parent.stat().st_mode & 0o777 == 0o700
    assert said[0] == f"write {secret} (mode 600)"
    assert "failed with 3; going on:\n  why" in said[2]
    assert "hush" not in "".join(said) + repr(doing)


def test_the_first_failure_ends_it(tmp_path: Path) -> None:
    after = tmp_path / "after"
    with pytest.raises(StepError, match=r"`false` failed with 1$"):
        steps.perform([Run(("false",)), Write(after, "")], lambda _text: None)
    assert not after.exists()
    with pytest.raises(StepError, match="no-such-program: No such file"):
        steps.perform([Run(("no-such-program",))], lambda _text: None)
    (tmp_path / "file").write_text("")
    with pytest.raises(StepError, match="can't write"):
        steps.perform([Write(tmp_path / "file" / "x", "")], lambda _text: None)


# -- the commands, with a stand-in for systemctl ---------------------------------------------------


def run(*args: str, answer: str | None = None) -> Result:
    return CliRunner().invoke(main.appmux, list(args), input=answer, catch_exceptions=True)


def test_install_and_uninstall(host: Host) -> None:
    done = run("service", "install", "--yes")
    assert done.exit_code == 0, (done.output, done.exception)
    assert host.asked("daemon-reload", "stop", "enable", "start") == [
        "daemon-reload",
        "stop appmux.socket appmux.service",
        "enable appmux.socket appmux.service",
        "start appmux.socket appmux.service",
    ]
    unit = host.units / "appmux.service"
    text = unit.read_text()
    assert f"APPMUX_CODEX_BIN={host.codex}" in text, "what the shell sets, the service has, too"
    assert 'serve"' in text
    # Again: nothing to replace, nothing to ask.
    before = unit.stat().st_ino
    assert run("service", "install").exit_code == 0
    assert unit.stat().st_ino == before
    assert run("service", "status").exit_code == 0
    done = run("service", "uninstall", "--yes")
    assert done.exit_code == 0, done.output
    assert not list(host.units.glob("appmux*"))
    assert run("service", "status").exit_code == 1
    assert "nothing to do" in run("service", "uninstall").output


def test_start_starts_what_is_installed(host: Host) -> None:
    done = run("service", "start")
    assert "isn't installed as a service" in str(done.exception)
    assert run("service", "install", "--yes", "--no-start").exit_code == 0
    assert host.asked("start") == []
    assert run("service", "start").exit_code == 0
    assert host.asked("start") == ["start appmux.socket appmux.service"]
    host.break_manager()
    assert "no systemd user manager answers" in str(run("service", "start").exception)


def test_what_it_wrote_is_replaced_only_after_a_yes(host: Host) -> None:
    assert run("service", "install", "--yes").exit_code == 0
    unit = host.units / "appmux.service"
    unit.write_text(unit.read_text().replace("WatchdogSec=60", "WatchdogSec=61"))
    done = run("service", "install")
    assert isinstance(done.exception, UnansweredError)
    assert "say it with --yes" in str(done.exception)
    assert "-WatchdogSec=61\n+WatchdogSec=60" in done.output
    assert "WatchdogSec=61" in unit.read_text()
    assert run("service", "install", "--yes").exit_code == 0
    assert "WatchdogSec=60" in unit.read_text()


@pytest.mark.parametrize("masked", [True, False])
def test_a_foreign_file_is_never_touched(host: Host, masked: bool) -> None:
    unit = host.units / "appmux.service"
    unit.parent.mkdir(parents=True)
    if masked:
        unit.symlink_to("/dev/null")
    else:
        unit.write_text("[Service]\nExecStart=/bin/true\n")
    for command in ("install", "uninstall"):
        done = run("service", command, "--yes")
        assert isinstance(done.exception, ServiceError)
        assert "isn't appmux's" in str(done.exception)
    assert unit.is_symlink() is masked
    assert not host.asked("start", "stop", "enable", "disable")


@pytest.mark.parametrize("flags", [(), ("--take-over",)])
def test_an_address_in_use_is_not_stolen(host: Host, flags: tuple[str, ...]) -> None:
    """systemd would put its own socket over the path, whoever listens there."""
    with host.listening():
        done = run("service", "install", "--yes", *flags)
    assert isinstance(done.exception, ServiceError)
    assert f"process {os.getpid()}" in str(done.exception)
    assert not host.units.exists()
    # Its own sockets, which wait for a client to start it, are no other's.
    host.put("appmux.socket", enabled=True, running=True)
    with host.listening():
        assert run("service", "install", "--yes").exit_code == 0


def test_no_manager_is_said_plainly(host: Host) -> None:
    host.break_manager()
    done = run("service", "install", "--yes")
    assert isinstance(done.exception, ManagerError)
    assert "no systemd user manager answers (Failed to connect to bus)" in str(done.exception)
    assert not host.units.exists()


def test_print_changes_nothing(host: Host) -> None:
    done = run("service", "print", "--allow-sudo")
    assert "NoNewPrivileges=no" in done.output
    assert "ListenStream=127.0.0.1:" in done.output
    assert not host.units.exists()
    assert not host.asked()


def test_another_system_is_told_what_it_can_do() -> None:
    with pytest.raises(ServiceError, match="have your own run `appmux serve`"):
        service.supervisor({"PATH": "/nowhere"}, platform="linux")
    assert isinstance(service.supervisor({}, platform="darwin"), Launchd)


# -- NovaScale's place -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("unit", "variables", "url"),
    [
        ("ExecStart=%h/x app-server --listen ws://100.64.0.9:14501 --ws-token-file={token}", "",
         "ws://100.64.0.9:14501"),
        ("ExecStart=%h/x app-server \\\n  --listen ws://100.64.0.9:14501", "",
         "ws://100.64.0.9:14501"),
        ("ExecStart=/bin/sh -c 'exec codex --listen \"$NOVASCALE_CODEX_LISTEN\"'",
         "export NOVASCALE_CODEX_LISTEN='ws://100.64.0.9:1'", "ws://100.64.0.9:1"),
        ("ExecStart=/x", "NOVASCALE_CODEX_LISTEN=100.64.0.9\nNOVASCALE_CODEX_PORT=\"77\" # x",
         "ws://100.64.0.9:77"),
        ("ExecStart=/x", "NOVASCALE_CODEX_HOST=100.64.0.9", "ws://100.64.0.9:14500"),
    ],
)  # fmt: skip
def test_novascales_service_is_understood(host: Host, unit: str, variables: str, url: str) -> None:
    token = host.vanilla("[Service]\n" + unit, variables)
    found = novascale.find(Systemd(os.environ), host.home)
    assert found is not None
    assert (found.url, found.token_file) == (url, token)


def test_one_that_is_not_understood_is_no_guess(host: Host) -> None:
    assert novascale.find(Systemd(os.environ), host.home) is None
    token = host.vanilla("[Service]\nExecStart=/x", "echo `rm -rf /`\nNOVASCALE_CODEX_HOST='")
    with pytest.raises(novascale.NovascaleError, match="says where it listens"):
        novascale.find(Systemd(os.environ), host.home)
    host.vanilla("[Service]\nExecStart=/x --listen wss://example.org:1", "")
    with pytest.raises(novascale.NovascaleError, match="isn't `ws://IP:PORT`"):
        novascale.find(Systemd(os.environ), host.home)
    host.vanilla("[Service]\nExecStart=/x --listen ws://127.0.0.1:1", "")
    token.unlink()
    with pytest.raises(novascale.NovascaleError, match=r"its token .* isn't there"):
        novascale.find(Systemd(os.environ), host.home)


def test_on_a_mac_its_property_list_is_read(tmp_path: Path) -> None:
    where = Launchd({"HOME": str(tmp_path)}, Launchctl({novascale.UNITS["launchd"]}), uid=501)
    path = where.place(novascale.UNITS["launchd"])
    path.parent.mkdir(parents=True)
    words = ["/usr/local/bin/codex", "app-server", "--listen", "ws://100.64.0.9:14500"]
    path.write_bytes(plistlib.dumps({"ProgramArguments": words}))
    token = tmp_path / novascale.TOKEN
    token.parent.mkdir()
    token.write_text("t\n")
    found = novascale.find(where, tmp_path)
    assert found is not None
    assert (found.url, found.running, found.enabled) == ("ws://100.64.0.9:14500", True, True)
    said: list[str] = []
    steps.perform(novascale.taking(where, found, tmp_path), said.append, where.runner)
    assert not where.knows_running(found.unit)
    back = novascale.giving_back(where, tmp_path)
    steps.perform(back, said.append, where.runner)
    assert where.knows_running(found.unit)
    assert not novascale.taken(tmp_path)


def test_the_place_is_given_back_as_it_was(host: Host) -> None:
    host.vanilla("[Service]\nExecStart=/x --listen ws://127.0.0.1:1", "")
    where, unit = Systemd(os.environ), "novascale-codex.service"
    for enabled, running in ((True, True), (True, False), (False, True)):
        host.put(unit, enabled=enabled, running=running)
        found = novascale.find(where, host.home)
        assert found is not None
        said: list[str] = []
        steps.perform(novascale.taking(where, found, host.state), said.append)
        assert (where.knows_enabled(unit), where.knows_running(unit)) == (False, False)
        steps.perform(novascale.giving_back(where, host.state), said.append)
        assert (where.knows_enabled(unit), where.knows_running(unit)) == (enabled, running)
    assert novascale.giving_back(where, host.state) == []


def test_a_place_of_one_that_was_uninstalled_meanwhile_is_forgotten(host: Host) -> None:
    host.vanilla("[Service]\nExecStart=/x --listen ws://127.0.0.1:1", "")
    where = Systemd(os.environ)
    found = novascale.find(where, host.home)
    assert found is not None
    steps.perform(novascale.taking(where, found, host.state), lambda _text: None)
    (host.units / found.unit).unlink()
    back = novascale.giving_back(where, host.state)
    assert back[-1] == Remove(host.state / novascale.RECORD)
    assert not any(isinstance(step, Run) for step in back)
    (host.state / novascale.RECORD).write_text("{")
    with pytest.raises(novascale.NovascaleError, match="can't be read"):
        novascale.giving_back(where, host.state)


# -- the watchdog ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environ", "seconds"),
    [
        ({"WATCHDOG_USEC": "60000000"}, 15.0),
        ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": str(os.getpid())}, 15.0),
        ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": "1"}, None),
        ({}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_how_often_the_watchdog_wants_a_word(
    environ: dict[str, str], seconds: float | None
) -> None:
    assert systemd_notify.interval(environ) == seconds


async def test_the_watchdog_hears_nothing_of_an_app_server_that_never_settles(
    autojump_clock: trio.testing.MockClock,
) -> None:
    state = AppServerState.READY
    told: list[float] = []

    def tell(text: str) -> None:
        assert text == "WATCHDOG=1"
        told.append(trio.current_time())

    async with trio.open_nursery() as nursery:
        environ = {"WATCHDOG_USEC": "60000000"}
        nursery.start_soon(systemd_notify.keep, environ, lambda: state, tell)
        await trio.sleep(95)
        assert len(told) == 7
        for other in (AppServerState.DOWN, AppServerState.READY):
            state = other
            await trio.sleep(systemd_notify.UNSETTLED_FOR * 2)
            assert trio.current_time() - told[-1] <= 15
        state, since = AppServerState.STARTING, trio.current_time()
        with structlog.testing.capture_logs() as logs:
            await trio.sleep(systemd_notify.UNSETTLED_FOR * 3)
        assert told[-1] - since <= systemd_notify.UNSETTLED_FOR
        assert [each["event"] for each in logs] == [
            "the app-server doesn't settle: waiting for systemd to start the broker anew"
        ]
        state = AppServerState.READY
        await trio.sleep(31)
        assert trio.current_time() - told[-1] <= 30
        nursery.cancel_scope.cancel()
