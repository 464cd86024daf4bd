"""`appmux doctor` in each broken state, and in good health.

The states are real: locks held and sockets opened by child processes, brokers stopped and killed,
full disks where the tests may mount one.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path

import pytest
import trio

from mux.cli.doctor import addresses, report
from mux.cli.doctor import host as checks_host
from mux.cli.doctor.finding import Finding
from mux.config.codex_binary import find_codex
from mux.config.load import load
from mux.config.locate import ADDRESS
from mux.host import codex_login, processes
from mux.host.steps import Runner
from mux.storage.state_dir import LOCK
from tests.end_to_end.brokered import brokered, client
from tests.end_to_end.native import Native, codex_bin, native_stdio, native_unix
from tests.end_to_end.peer import RpcError, connect_unix
from tests.end_to_end.scenes import onlooker, status_shows
from tests.host.machine import Host, host

__all__ = ["host"]

PATIENCE = 40.0

HOLD = """
import fcntl, socket, sys
kind, place = sys.argv[1:]
if kind == "lock":
    held = open(place, "a+")
    fcntl.flock(held, fcntl.LOCK_EX)
elif kind == "unix":
    held = socket.socket(socket.AF_UNIX)
    held.bind(place)
    held.listen()
else:
    held = socket.create_server(("127.0.0.1", int(place)))
print("held", flush=True)
sys.stdin.read()
"""


@contextmanager
def holding(kind: str, place: object) -> Iterator[int]:
    """A child process that holds a lock or an address until the end; its pid."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, kind, str(place)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "held\n"
        try:
            yield child.pid
        finally:
            child.kill()


async def examined(environ: dict[str, str] | None = None) -> dict[str, Finding]:
    """The findings by what they are about, in this environment or one changed so."""
    os.environ.update(environ or {})  # until the test's end: some places are looked up in it
    found = await report.examine({}, None, dict(os.environ))
    return {each.about: each for each in found}


def port() -> int:
    return int(os.environ["APPMUX_LISTEN"].rpartition(":")[2])


# -- whom the listeners believe --------------------------------------------------------------------


def trusted(**environ: str) -> dict[str, Finding]:
    whole = dict(os.environ) | environ
    return {each.about: each for each in addresses.trust(load({}, whole).config, whole)}


async def test_an_open_listener_lets_the_agent_in(host: Host) -> None:
    found = (await examined())["open door"]
    assert found.verdict == "note"
    assert f"ws://127.0.0.1:{port()}" in found.says
    assert "open door" not in trusted(APPMUX_AUTH_MODE="device-token")
    assert "open door" not in trusted(APPMUX_LISTEN="unix://")


@pytest.mark.parametrize(
    ("said", "named"),
    [
        ("[sandbox_workspace_write]\nnetwork_access = true", "network_access"),
        ('sandbox_mode = "danger-full-access"', "sandbox_mode"),
        ("[profiles.p.sandbox_workspace_write]\nnetwork_access = true", "network_access"),
        ("[sandbox_workspace_write]\nnetwork_access = false", None),
        ("sandbox_workspace_write = 1\nprofiles = 2", None),
        ("no TOML", None),
        (None, None),
    ],
)
def test_a_sandbox_with_network_reaches_the_broker(
    tmp_path: Path, said: str | None, named: str | None
) -> None:
    if said is not None:
        (tmp_path / "config.toml").write_text(said)
    found = trusted(CODEX_HOME=str(tmp_path)).get("agent")
    assert (found is None) == (named is None)
    if found is not None and named is not None:
        assert found.verdict == "note"
        assert named in found.says


@pytest.mark.parametrize(
    ("listen", "verdict"),
    [
        ("ws://127.0.0.1:14500", "wrong"),
        ("ws://100.64.0.7:14500", "wrong"),
        ("unix://,ws://127.0.0.1:14500", "note"),
        ("ws+local://127.0.0.1:14500", None),
        ("unix://", None),
    ],
)
@pytest.mark.parametrize(
    "rule",
    [
        {"APPMUX_APPROVALS_POLICY": "local"},
        {"APPMUX_APPROVALS_RULES": '[{policy = "local", command = "ls"}]'},
    ],
)
def test_local_where_no_listener_is(listen: str, verdict: str | None, rule: dict[str, str]) -> None:
    found = trusted(APPMUX_LISTEN=listen, **rule).get("local")
    assert (found.verdict if found else None) == verdict
    if found is not None:
        assert "ws+local://IP:PORT" in found.remedy


def test_without_a_rule_nobody_needs_to_be_local() -> None:
    assert "local" not in trusted(APPMUX_LISTEN="ws://127.0.0.1:14500")


# -- codex and settings ----------------------------------------------------------------------------


async def test_no_codex(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APPMUX_CODEX_BIN", str(host.root / "gone"))
    found = (await examined())["codex"]
    assert found.verdict == "wrong"
    assert "doesn't exist" in found.says
    assert "npm install -g @openai/codex" in found.remedy


async def test_something_else_in_the_place_of_codex(host: Host) -> None:
    host.codex.write_text("#!/bin/sh\necho hello\n")
    found = (await examined())["codex"]
    assert found.verdict == "wrong"
    assert "is not codex" in found.says


async def test_not_logged_in(host: Host) -> None:
    found = (await examined())["login"]
    assert (found.verdict, found.remedy) == ("wrong", codex_login.LOG_IN)


async def test_settings_that_cannot_be_read(host: Host) -> None:
    host.settings.parent.mkdir(parents=True)
    host.settings.write_text("lissten = 1\n")
    found = await examined()
    assert list(found) == ["settings"]
    assert found["settings"].verdict == "wrong"
    assert "did you mean listen?" in found["settings"].says


async def test_methods_that_nobody_has_looked_at(host: Host) -> None:
    schema = {
        "oneOf": [
            {"properties": {"method": {"enum": [name]}}} for name in ("turn/start", "brand/new")
        ]
    }
    (host.root / "schema").write_text(json.dumps(schema))
    host.codex.write_text(
        "#!/bin/sh\n"
        "[ $1 = --version ] && echo codex-cli 1.2.3 && exit\n"
        f"while [ $1 != --out ]; do shift; done; cp {host.root}/schema $2/ClientRequest.json\n"
    )
    found = (await examined())["methods"]
    assert found.verdict == "note"
    assert found.facts == {"of": 2, "unknown": ["brand/new"]}


async def test_the_real_codex_tells_its_methods(host: Host) -> None:
    pytest.importorskip("codex_cli_bin")
    real = find_codex(None, {"PATH": os.devnull})
    found = await examined({"APPMUX_CODEX_BIN": str(real)})
    assert found["methods"].facts["of"] > 100
    assert "turn/start" not in found["methods"].facts["unknown"]
    left = [path for path in host.home.rglob("*") if path.is_file()]
    assert left == [], "a look leaves nothing behind"


# -- the broker ------------------------------------------------------------------------------------


async def test_no_broker(host: Host) -> None:
    found = await examined()
    assert found["broker"].verdict == "wrong"
    assert "none runs on" in found["broker"].says
    assert found["control socket"] == Finding(
        "control socket", "well", "free", facts={"address": str(host.control), "pids": []}
    )


async def test_a_broker_that_was_killed(host: Host) -> None:
    host.state.mkdir(parents=True)
    (host.state / LOCK).write_text("1")
    (host.state / ADDRESS).write_text('{"pid": 1, "listeners": ["unix:///nowhere.sock"]}')
    found = (await examined())["broker"]
    assert found.verdict == "wrong"
    assert "the last one on" in found.says


async def test_one_that_has_the_directory_and_says_nothing(host: Host) -> None:
    host.state.mkdir(parents=True)
    with holding("lock", host.state / LOCK) as pid:
        found = (await examined())["broker"]
    assert found.verdict == "wrong"
    assert f"process {pid} (" in found.says
    assert f"`kill {pid}`" in found.remedy


async def test_good_health_and_then_a_broker_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    async with brokered() as broker, client(broker, "one") as peer:
        environ = of(broker)
        thread = await peer.start_thread(broker.home.work)
        await peer.run_turn(thread, "hi")
        found = await examined(environ)
        wrong = [each for each in found.values() if each.verdict == "wrong"]
        assert wrong == []
        assert found["broker"].facts == {"pid": broker.broker_pid, "clients": 1}
        assert found["app-server"].facts["state"] == "ready"
        assert found["control socket"].says == "the broker listens there"
        # The real app-server's lock is where we look for it, and is known as the broker's own.
        assert found["threads"].facts == {"loaded": 1}
        pid = broker.broker_pid
        os.kill(pid, signal.SIGSTOP)
        monkeypatch.setattr("mux.cli.common.broker.ANSWER_DEADLINE", 0.2)
        found = await examined(environ)
        os.kill(pid, signal.SIGCONT)
    assert found["broker"].verdict == "wrong"
    assert f"process {pid} (" in found["broker"].says
    assert "kill -9" in found["broker"].remedy


def of(broker: Native, state: Path | None = None) -> dict[str, str]:
    """The environment in which the broker's settings are those that it runs with."""
    announced = state or next(broker.home.home.rglob(ADDRESS)).parent
    return broker.home.environ() | {
        "APPMUX_LISTEN": f"unix://,{broker.url}",
        "APPMUX_CODEX_BIN": str(codex_bin()),
        "APPMUX_STATE_DIR": str(announced),
    }


async def test_an_app_server_that_is_down() -> None:
    environ = {"APPMUX_LIMITS_DEATHS_IN_A_MINUTE": "1"}
    async with brokered(environ=environ) as broker, client(broker, "one") as peer:
        generation, state = 0, ""
        with trio.fail_after(PATIENCE):
            while state != "down":
                server = (await peer.request("mux/status"))["appServer"]
                state = server["state"]
                if server["generation"] != generation and server["pid"]:
                    generation = server["generation"]
                    os.kill(server["pid"], signal.SIGKILL)
        found = (await examined(of(broker)))["app-server"]
    assert found.verdict == "wrong"
    assert "is down" in found.says
    assert found.remedy == "`appmux restart` tries again"


# -- addresses -------------------------------------------------------------------------------------


async def test_somebody_else_has_the_addresses(host: Host) -> None:
    host.control.parent.mkdir(parents=True)
    # Codex's own daemon puts a symlink there.
    real = host.root / "real.sock"
    host.control.symlink_to(real)
    with holding("unix", real) as on_unix, holding("tcp", port()) as on_tcp:
        found = await examined()
    at_port = found[f"ws://127.0.0.1:{port()}"]
    for each, pid in ((found["control socket"], on_unix), (at_port, on_tcp)):
        assert each.verdict == "wrong"
        assert f"process {pid} (" in each.says
        assert "since " in each.says
        assert f"`kill {pid}`" in each.remedy
        assert each.facts["pids"] == [pid]


async def test_another_broker_of_ones_own_is_named_and_never_to_be_killed(tmp_path: Path) -> None:
    async with brokered() as broker:
        found = await examined(of(broker, tmp_path) | {"APPMUX_LISTEN": broker.url})
        at_port = found[broker.url]
    state = broker.home.home / ".local" / "state" / "appmux"
    assert at_port.verdict == "wrong"
    words = f"another appmux of yours listens there: state directory {state}, process "
    assert at_port.says.startswith(words)
    assert "kill" not in at_port.remedy
    assert f"appmux status --state-dir {state}" in at_port.remedy


async def test_a_broker_that_was_started_with_flags_is_judged_by_these() -> None:
    async with brokered("--ws-auth", "device-token") as broker:
        found = await examined(of(broker))
        assert found[broker.url].verdict == "well"
        assert "open door" not in found
        assert "listen" in found["settings in force"].says
        assert "auth.mode (flag --ws-auth)" in found["settings in force"].says


async def test_all_is_judged_by_the_settings_that_the_broker_was_started_with(
    tmp_path: Path,
) -> None:
    """What is wrong with the present ones is told as what a restart would bring."""
    token = tmp_path / "token"
    token.write_text("a-token-of-a-test")
    token.chmod(0o600)
    auth = ("--ws-auth", "capability-token", "--ws-token-file", str(token))
    async with brokered(*auth, environ={"APPMUX_APPROVALS_POLICY": "local"}) as broker:
        found = await examined(of(broker))
        assert found["credentials"].verdict == "well"
        assert found["local"].verdict == "note"
        token.chmod(0o644)
        found = await examined(of(broker))
        assert found["credentials"].verdict == "wrong"
        present = {"APPMUX_AUTH_MODE": "capability-token", "APPMUX_AUTH_TOKEN_FILE": "/nowhere"}
        found = await examined(of(broker) | present)
        assert found["credentials, after a restart"].verdict == "wrong"
        assert "/nowhere" in found["credentials, after a restart"].says
        # And while the present ones can't be read, the running broker is looked at all the same.
        found = await examined(of(broker) | {"APPMUX_LIMITS_IN_FLIGHT": "many"})
        assert found["settings"].verdict == "wrong"
        assert found[broker.url].verdict == "well"


async def test_an_address_that_this_machine_has_not(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("APPMUX_LISTEN", "ws://203.0.113.7:14500")
    monkeypatch.setenv("APPMUX_AUTH_MODE", "capability-token")
    found = (await examined())["ws://203.0.113.7:14500"]
    assert (found.verdict, found.says) == ("wrong", "this machine has no such address now")


async def test_an_open_door(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APPMUX_LISTEN", "ws://0.0.0.0:14500")
    found = (await examined())["listen"]
    assert found.verdict == "wrong"
    assert "without auth" in found.says


# -- threads ---------------------------------------------------------------------------------------


async def test_a_thread_that_another_codex_has_loaded() -> None:
    """The error that people see natively, and who causes it."""
    async with native_stdio() as other:
        await other.peer.initialize("one")
        thread = await other.peer.start_thread(other.home.work)
        await other.peer.run_turn(thread, "hi")
        async with native_stdio(home=other.home) as second:
            await second.peer.initialize("two")
            with pytest.raises(RpcError, match="already has an active writer"):
                await second.peer.request("thread/resume", {"threadId": thread})
        found = (await examined(other.home.environ()))[f"thread {thread}"]
        pid = other.process.pid
        assert found.verdict == "wrong"
        assert f"process {pid} (" in found.says
        assert "already has an active writer" in found.says
        assert f"`kill {pid}`" in found.remedy
        assert found.facts["pids"] == [pid]
        assert abs(found.facts["since"] - time.time()) < 3600


async def test_codexs_own_on_the_control_socket_is_never_to_be_killed() -> None:
    async with native_unix() as own, connect_unix(own.socket) as peer:
        await peer.initialize("one")
        thread = await peer.start_thread(own.home.work)
        await peer.run_turn(thread, "hi")
        found = await examined(own.home.environ())
        for about in ("control socket", f"thread {thread}"):
            assert found[about].verdict == "wrong"
            assert f"process {own.process.pid} (" in found[about].says
            assert "`appmux serve --take-over`" in found[about].remedy
            assert "kill" not in found[about].remedy
        assert "a `codex app-server` that somebody started by hand" in found["control socket"].says


async def test_a_lock_that_nobody_holds_is_no_trouble(host: Host) -> None:
    locks = host.home / ".codex" / "thread-writer-locks"
    locks.mkdir(parents=True)
    (locks / "free.lock").write_text("")
    with (locks / "read.lock").open("w"), holding("lock", locks / "held.lock") as pid:
        found = await examined()
    about = [name for name in found if name.startswith("thread")]
    assert about == ["thread held"]
    assert found["thread held"].facts["pids"] == [pid]


def test_a_lock_whose_taker_has_gone_but_left_it_to_a_child(tmp_path: Path) -> None:
    """A lock belongs to the open file, which a child inherits: no table of the kernel's says so."""
    path = tmp_path / "x.lock"
    with path.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with subprocess.Popen(
            ["sleep", "600"], pass_fds=[held.fileno()], stdin=subprocess.DEVNULL
        ) as child:
            held.close()
            assert [each.pid for each in processes.of_locks([path])[path]] == [child.pid]
            child.kill()
    assert processes.of_locks([path]) == {}


# -- disk and clock --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"), [("size=2m", " MiB free"), ("size=1g,ro", "can't be written")]
)
async def test_a_disk_that_is_full_or_read_only(host: Host, options: str, words: str) -> None:
    host.state.mkdir(parents=True)
    with mounted(host.state, options):
        found = (await examined())["disk (state directory)"]
    assert found.verdict == "wrong"
    assert words in found.says


@contextmanager
def mounted(place: Path, options: str) -> Iterator[None]:
    mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting needs root")
    try:
        yield
    finally:
        subprocess.run(["umount", str(place)], check=True)


async def test_a_journal_that_cannot_be_written(tmp_path: Path) -> None:
    with mounted(tmp_path, "size=16k"):
        async with brokered("--state-dir", str(tmp_path)) as broker:
            found = (await examined(of(broker, tmp_path)))["journal"]
    assert found.verdict == "wrong"
    assert "not written" in found.says


async def test_a_clock_that_is_behind(host: Host) -> None:
    host.state.mkdir(parents=True)
    file = host.state / "journal.sqlite3"
    file.write_text("")
    os.utime(file, (time.time() + 9000, time.time() + 9000))
    found = (await examined())["clock"]
    assert found.verdict == "wrong"
    assert str(file) in found.says


def test_a_file_that_vanishes_while_the_clock_is_looked_at_is_no_trouble(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a broker's do at any moment: those of SQLite, and of what is written anew."""
    host.state.mkdir(parents=True)
    for name in ("one", "two", "three"):
        (host.state / name).touch()
    scandir = os.scandir

    @contextmanager
    def slowly(place: Path) -> Iterator[list[os.DirEntry[str]]]:
        with scandir(place) as entries:
            found = list(entries)
        (place / "two").unlink(missing_ok=True)
        yield found

    with monkeypatch.context() as patched:
        patched.setattr(os, "scandir", slowly)
        assert checks_host.clock(load({}, {}), os.environ).about == "clock"
    assert not (host.state / "two").exists()


def test_a_clock_that_nobody_sets(host: Host) -> None:
    def timedatectl(argv: Sequence[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(argv, 0, "no\n", "")

    found = checks_host.clock(load({}, {}), os.environ, timedatectl)
    assert (found.verdict, found.says) == ("note", "not synchronized")


# -- the service -----------------------------------------------------------------------------------


async def test_the_service(host: Host) -> None:
    assert (await examined())["service"].says == "not installed"
    await appmux("service", "install", "--yes")
    assert (await examined())["service"].verdict == "well"
    os.environ["APPMUX_LIMITS_DRAIN"] = "33"
    found = (await examined())["service"]
    assert (found.verdict, found.remedy) == ("note", "`appmux service install`")
    host.put("appmux.service", enabled=True, running=False)
    found = (await examined())["service"]
    assert (found.verdict, found.says) == ("wrong", "installed, but stopped")
    assert found.remedy == "`appmux service start`"
    (host.units / "appmux.service").write_text("[Service]\n")
    found = (await examined())["service"]
    assert "isn't appmux's" in found.says


@pytest.fixture(autouse=True)
def _environment() -> Iterator[None]:
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


async def test_novascales_service_beside_the_broker(host: Host) -> None:
    host.vanilla("[Service]\nExecStart=/x --listen ws://127.0.0.1:1", "")
    found = (await examined())["NovaScale"]
    assert found.verdict == "wrong"
    assert "`appmux setup` takes its place" in found.remedy
    host.put("novascale-codex.service", enabled=False, running=False)
    assert "NovaScale" not in await examined()


# -- what is printed -------------------------------------------------------------------------------


async def appmux(*args: str, status: int = 0) -> str:
    """One command as a person runs it."""
    done = await trio.run_process(
        [sys.executable, "-m", "mux", *args],
        capture_stdout=True,
        check=False,
        stdin=b"",
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.returncode == status, done.stdout
    return done.stdout.decode()


async def test_exit_status_and_output(host: Host) -> None:
    said = await appmux("doctor", status=1)
    assert "WRONG  login" in said
    assert "→ `codex login`" in said
    assert said.rstrip().endswith("2 wrong")
    told = json.loads(await appmux("doctor", "--json", status=1))
    assert told["well"] is False
    by_name = {each["about"]: each for each in told["findings"]}
    assert by_name["broker"]["verdict"] == "wrong"
    assert by_name["codex"]["facts"]["version"] == "1.2.3"


async def test_exit_status_in_good_health() -> None:
    async with brokered() as broker:
        async with onlooker(broker) as peer:  # it listens before its app-server is ready
            await status_shows(peer, lambda report: report["appServer"]["state"] == "ready")
        os.environ.update(of(broker))
        assert (await appmux("doctor")).rstrip().endswith("all is well")
        assert json.loads(await appmux("doctor", "--json"))["well"] is True


# -- on a Mac, where lsof and ps tell --------------------------------------------------------------

LSTART = "Mon Nov 23 02:35:00 2026"


@pytest.fixture
def _mac(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes.sys, "platform", "darwin")  # type: ignore[attr-defined]


def macs(lsof: str) -> Runner:
    """Stand-ins for `lsof` and `ps`; there is no Mac to test on."""

    def run(argv: Sequence[str]) -> subprocess.CompletedProcess[str]:
        said = lsof if argv[0] == "lsof" else f"{LSTART} /usr/bin/codex app-server\n"
        return subprocess.CompletedProcess(argv, 0, said, "")

    return run


@pytest.mark.usefixtures("_mac")
def test_a_mac_tells_who_holds_a_lock(tmp_path: Path) -> None:
    held, free = tmp_path / "held.lock", tmp_path / "free.lock"
    held.touch()
    free.touch()
    said = f"p7\nccodex\nf3\nlW\nn{held}\nf4\nl \nn{free}\np8\ncless\nf3\nl \nn{held}\n"
    found = processes.of_locks([held, free, tmp_path / "absent"], macs(said))
    since = time.mktime(time.strptime(LSTART))
    assert found == {held: [processes.Process(7, "/usr/bin/codex app-server", since)]}


@pytest.mark.usefixtures("_mac")
def test_a_mac_tells_who_listens(tmp_path: Path) -> None:
    path = tmp_path / "x.sock"
    unix = f"p7\nccodex\nf3\nn{path}\nf4\nn->0x1234\n"
    assert [each.pid for each in processes.of_unix_path(path, macs(unix))] == [7]
    tcp = (
        "p9\ncnode\nf3\nn127.0.0.1:14500\np10\ncnode\nf3\nn10.0.0.1:14500\np11\ncx\nf1\nn*:14500\n"
    )
    found = processes.of_port(ip_address("127.0.0.1"), 14500, macs(tcp))
    assert [each.pid for each in found] == [9, 11]


# -- who listens, by the kernel's tables -----------------------------------------------------------


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("bound", ["127.0.0.1", "0.0.0.0", "::1", "::"])
def test_an_address_is_found_in_the_kernels_table(bound: str) -> None:
    family = socket.AF_INET6 if ":" in bound else socket.AF_INET
    try:
        server = socket.create_server((bound, 0), family=family)
    except OSError:
        pytest.skip("no IPv6 here")
    with server:
        number = server.getsockname()[1]
        asked = ip_address("::1" if family == socket.AF_INET6 else "127.0.0.1")
        assert [each.pid for each in processes.of_port(asked, number)] == [os.getpid()]
        other = processes.of_port(ip_address("127.0.0.9"), number)
        assert [each.pid for each in other] == ([os.getpid()] if bound in ("0.0.0.0", "::") else [])
    assert processes.of_port(asked, number) == []


@pytest.mark.skipif(shutil.which("sleep") is None, reason="no sleep")
def test_a_process_is_described() -> None:
    with subprocess.Popen(["sleep", "600"], stdin=subprocess.DEVNULL) as child:
        deadline = time.monotonic() + PATIENCE
        # Between fork and exec a process has no words of its own.
        while (found := processes.describe(child.pid)).command != "sleep 600":
            assert time.monotonic() < deadline, found
        parents = list(processes.ancestors(child.pid))
        child.kill()
    assert found.since is not None
    assert abs(found.since - time.time()) < 60
    assert parents[:2] == [child.pid, os.getpid()]
    gone = processes.describe(child.pid)
    assert (gone.command, gone.since) == ("?", None)
    assert str(processes.UNSEEN) == "a process of another user or container"
