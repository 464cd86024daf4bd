"""`mux.posix.private_file`: what may stand in the place of a file of ours, and who opens such
files."""

from __future__ import annotations

import ast
import errno
import os
import signal
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

import mux
from mux.access.authentication import open_auth
from mux.access.devices import COPY, FILE, open_registry
from mux.config import locate, model
from mux.downstream.sockets import tls
from mux.errors import AppmuxError
from mux.host.novascale import _token
from mux.notices.ledger import Ledger
from mux.notices.preferences import open_preferences
from mux.posix import private_file
from mux.posix.private_file import UnfitError
from mux.push import key_file
from mux.push.endpoints import open_endpoints
from mux.push.queue_file import QueueFile
from mux.push.services.vapid import open_vapid
from mux.storage import state_dir
from mux.storage.audit_writer import AuditWriter, PendingRecord
from mux.storage.journal import Store
from tests.certificates import issue

PATIENCE = 60
"""Seconds: who waits for a pipe's other end is ended by then."""

SECRET = "a secret of more than 32 bytes, as a shared one must be"


@pytest.fixture(autouse=True)
def never_waiting() -> Iterator[None]:
    """Ends a test that waits for somebody to open the other end of a pipe."""

    def waited(_number: int, _frame: object) -> None:
        raise AssertionError("it waited for a pipe")

    before = signal.signal(signal.SIGALRM, waited)
    signal.alarm(PATIENCE)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def a_pipe(path: Path) -> None:
    os.mkfifo(path)


def a_link(path: Path) -> None:
    target = path.parent / "target"
    target.write_text("what the link leads to")
    path.symlink_to(target)


def a_dangling_link(path: Path) -> None:
    path.symlink_to("nowhere")


def a_link_to_a_pipe(path: Path) -> None:
    os.mkfifo(path.parent / "pipe")
    path.symlink_to("pipe")


def a_link_to_a_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def a_socket(path: Path) -> None:
    os.mknod(path, stat.S_IFSOCK | 0o600)


def a_directory(path: Path) -> None:
    path.mkdir()


def somebody_elses(path: Path) -> None:
    path.write_text(SECRET)
    if os.geteuid() != 0:
        pytest.skip("only root can give a file away")
    os.chown(path, 12345, -1)


UNFIT = [a_pipe, a_link, a_dangling_link, a_socket, a_directory, somebody_elses]
"""In the place of a file of the state directory."""

UNFIT_SECRETS = [
    a_pipe,
    a_link_to_a_pipe,
    a_link_to_a_device,
    a_socket,
    a_directory,
    somebody_elses,
]
"""In the place of a file that the settings name: a link to a file is fine there."""


@contextmanager
def refused(path: Path) -> Iterator[None]:
    """An error of ours that names the path."""
    with pytest.raises((AppmuxError, OSError)) as caught:
        yield
    shown = f"{getattr(caught.value, 'filename', '')} {caught.value}"
    assert str(path) in shown
    assert any(word in shown for word in ("it is a", "it belongs to another user"))


# -- in the state directory ------------------------------------------------------------------------


def _book(state: Path) -> None:
    open_registry(state, lambda: 0.0)


def _copy(state: Path) -> None:
    (state / FILE).write_text("damaged")
    open_registry(state, lambda: 0.0)


def _store(state: Path) -> None:
    store = Store.open(state, max_bytes=10**6, max_age=1e6)
    raise OSError(store.trouble)


def _ledger(state: Path) -> None:
    raise OSError(Ledger.open(state, lambda: 0.0).trouble)


def _audit(state: Path) -> None:
    writer = AuditWriter(state / "audit", max_bytes=10**6, max_age=1e9)
    writer.work([PendingRecord(0.0, "x", {})])


OPENERS: dict[str, Callable[[Path], Any]] = {
    FILE: _book,
    COPY: _copy,
    "push.json": lambda state: open_endpoints(state, lambda: 0.0),
    "notices.json": lambda state: open_preferences(state, lambda: 0.0),
    "broker.lock": state_dir.claim,
    "vapid.pem": lambda state: open_vapid(model.WebPush(), state),
    "pushes.sqlite3": lambda state: QueueFile(state / "pushes.sqlite3").load(),
    "pushes.sqlite3-wal": lambda state: QueueFile(state / "pushes.sqlite3").load(),
    "journal.sqlite3": _store,
    "notices.sqlite3": _ledger,
    "audit/head.json": _audit,
    "audit/2026-01-01-000000000001.jsonl": _audit,
}


@pytest.mark.parametrize("make", UNFIT)
@pytest.mark.parametrize("name", OPENERS)
def test_what_is_no_file_of_ours_is_refused_by_its_name(
    name: str, make: Callable[[Path], None], tmp_path: Path
) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    make(path)
    reading_alone = name.startswith("audit/") and make is somebody_elses
    if reading_alone:
        return  # whoever reads the chain sees by its digests what was changed
    with refused(path):
        OPENERS[name](tmp_path)
    if make is a_link:
        assert (path.parent / "target").read_text() == "what the link leads to"


@pytest.mark.parametrize("make", [a_pipe, a_link, a_socket, a_directory])
def test_a_broker_whose_address_cannot_be_read_is_none(
    make: Callable[[Path], None], tmp_path: Path
) -> None:
    make(tmp_path / locate.ADDRESS)
    assert locate.announced(tmp_path) is None


def test_an_address_is_announced_through_no_link(tmp_path: Path) -> None:
    claimed = state_dir.claim(tmp_path)
    for name in (locate.ADDRESS, f"{locate.ADDRESS}.new"):
        (tmp_path / name).symlink_to("elsewhere")
    claimed.announce(["ws://127.0.0.1:1"])
    assert locate.announced(tmp_path) == ["ws://127.0.0.1:1"]
    assert not (tmp_path / "elsewhere").exists()
    claimed.release()


# -- secrets that the settings name ----------------------------------------------------------------


def _auth(path: Path) -> None:
    open_auth(model.Auth(mode="capability-token", token_file=path))


def _shared(path: Path) -> None:
    open_auth(model.Auth(mode="signed-bearer-token", shared_secret_file=path))


def _tls_key(path: Path) -> None:
    issued = issue(path.parent)
    tls.open_certificate(model.Tls(cert=issued.cert, key=path))


SECRETS: dict[str, Callable[[Path], Any]] = {
    "token": _auth,
    "shared secret": _shared,
    "TLS key": _tls_key,
    "push key": lambda path: key_file.read(path, "push.x.key_file"),
    "NovaScale's token": _token,
}


@pytest.mark.parametrize("make", UNFIT_SECRETS)
@pytest.mark.parametrize("name", SECRETS)
def test_a_secret_that_is_no_file_of_ours_is_refused_by_its_name(
    name: str, make: Callable[[Path], None], tmp_path: Path
) -> None:
    path = tmp_path / "secret"
    make(path)
    if name == "push key":  # whose rule is stricter
        with pytest.raises(AppmuxError, match=str(path)):
            SECRETS[name](path)
        return
    with refused(path):
        SECRETS[name](path)


def test_a_secret_may_be_mounted_as_a_link(tmp_path: Path) -> None:
    (tmp_path / "..data").mkdir()
    (tmp_path / "..data" / "token").write_text(SECRET)
    (tmp_path / "token").symlink_to("..data/token")
    _auth(tmp_path / "token")
    _shared(tmp_path / "token")


def test_a_certificate_is_no_pipe_and_may_be_anybodys(tmp_path: Path) -> None:
    issued = issue(tmp_path)
    wanted = model.Tls(cert=issued.cert, key=issued.key)
    if os.geteuid() == 0:
        os.chown(issued.cert, 12345, -1)
    assert tls.open_certificate(wanted)
    issued.cert.unlink()
    os.mkfifo(issued.cert)
    with refused(issued.cert):
        tls.open_certificate(wanted)


def test_what_is_too_long_is_no_secret(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_bytes(b"x" * private_file.MOST_OF_A_SECRET)
    assert len(private_file.read_secret(path)) == private_file.MOST_OF_A_SECRET
    path.write_bytes(b"x" * (private_file.MOST_OF_A_SECRET + 1))
    with pytest.raises(UnfitError, match="has more than 65536 bytes") as caught:
        private_file.read_secret(path)
    assert caught.value.filename == str(path)


def test_of_what_is_too_long_no_more_is_read_than_shows_it(tmp_path: Path) -> None:
    """The pipe's writer stays, so that whoever wants one byte more waits for it."""
    reader, writer = os.pipe()
    os.write(writer, b"x" * 11)
    with pytest.raises(UnfitError, match="has more than 10 bytes") as caught:
        private_file._read(reader, tmp_path, 10)
    assert caught.value.filename == str(tmp_path)
    os.close(writer)


# -- modes and owners ------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666, 0o777])
def test_a_loose_mode_of_our_own_is_mended_with_a_word(mode: int, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("x")
    path.chmod(mode)
    with capture_logs() as logs:
        assert private_file.read(path) == b"x"
    assert stat.S_IMODE(path.stat().st_mode) == mode & ~0o022
    text = "others could write there; now they can't (`chmod go-w`)"
    word = {"event": text, "path": str(path), "log_level": "warning"}
    assert logs == [word]
    with capture_logs() as logs:
        private_file.read(path)
    assert not logs
    path.chmod(mode)
    with capture_logs() as logs:
        assert private_file.check(path) is True
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert logs == [word]


def test_a_file_that_another_library_opens_is_made_private(tmp_path: Path) -> None:
    path = tmp_path / "file"
    assert private_file.check(path) is False
    path.write_text("x")
    for mode in (0o644, 0o600, 0o400):
        path.chmod(mode)
        with capture_logs() as logs:
            assert private_file.check(path) is True
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert not logs


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another than root here")
def test_the_mode_of_roots_file_is_roots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    path.write_text("x")
    path.chmod(0o644)
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    assert private_file.check(path) is True
    os.close(private_file.open_file(path, os.O_RDWR | os.O_CREAT))
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_a_secret_that_everybody_reads_is_told(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text(SECRET)
    for mode, told in ((0o644, True), (0o640, False), (0o600, False)):
        path.chmod(mode)
        with capture_logs() as logs:
            private_file.read_secret(path)
        text = "everybody on this host can read a secret: `chmod 600` its file"
        assert logs == [{"event": text, "path": str(path), "log_level": "warning"}] * told


def test_another_s_file_is_refused_and_root_s_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    path.write_text("x")
    path.chmod(0o600)
    owner = path.stat().st_uid
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    if owner == 0:
        assert private_file.read(path) == b"x"
        path.chmod(0o660)
        with pytest.raises(UnfitError, match="others may write there: `chmod go-w` it") as caught:
            private_file.read(path)
        assert caught.value.filename == str(path)
        os.chown(path, 12345, -1)
    with pytest.raises(UnfitError, match="belongs to another user"):
        private_file.read(path)
    assert private_file.read(path, foreign=True) == b"x"


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o777])
def test_the_umask_does_not_matter(mask: int, tmp_path: Path) -> None:
    before = os.umask(mask)
    try:
        state = tmp_path / "a" / "state"
        claimed = state_dir.claim(state)
        claimed.announce([])
        _audit(state)
        open_registry(state, lambda: 0.0).add("x", "paired", frozenset({"observe"}), "0" * 64)
        QueueFile(state / "pushes.sqlite3").load()
        claimed.release()
        Ledger.open(state, lambda: 0.0).close()
    finally:
        os.umask(before)
    made = [tmp_path / "a", state, *state.rglob("*")]
    assert len(made) > 8
    for each in made:
        wanted = 0o700 if each.is_dir() else 0o600
        assert stat.S_IMODE(each.stat().st_mode) == wanted, each


def test_a_state_directory_that_others_may_write_is_mended_with_a_word(tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir()
    state.chmod(0o777)
    with capture_logs() as logs:
        state_dir.claim(state).release()
    assert stat.S_IMODE(state.stat().st_mode) == 0o755
    assert [each["path"] for each in logs] == [str(state)]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_a_state_directory_of_another_is_refused(tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir()
    os.chown(state, 12345, -1)
    with pytest.raises(AppmuxError, match=rf"{state}: it belongs to another user \(uid 12345\)"):
        state_dir.claim(state)


def test_a_state_directory_may_be_a_link_and_no_file(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to("there")
    state_dir.claim(tmp_path / "link").release()
    (tmp_path / "file").write_text("")
    with pytest.raises(AppmuxError, match="it is a file, where a directory belongs"):
        state_dir.claim(tmp_path / "file")
    with pytest.raises(UnfitError, match="it is a symbolic link, where a directory") as caught:
        private_file.make_directory(tmp_path / "link")
    assert caught.value.filename == str(tmp_path / "link")


def test_a_directory_that_another_makes_meanwhile_is_none_the_worse(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mkdir = Path.mkdir

    def also_made(path: Path, mode: int = 0o777) -> None:
        mkdir(path, mode)
        if path.name == "a":
            raise FileExistsError(path)

    monkeypatch.setattr(Path, "mkdir", also_made)
    private_file.make_directory(tmp_path / "a" / "b" / "c")
    assert (tmp_path / "a" / "b" / "c").is_dir()


def test_what_is_put_in_a_directorys_place_meanwhile_is_not_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was looked at; whatever stands there when it is opened, the flags judge once more."""
    opened: list[int] = []
    modes: list[int] = []
    os_open = os.open

    def spy(path: Path, flags: int, *mode: int) -> int:
        opened.append(flags)
        modes.extend(mode)
        return os_open(path, flags, *mode)

    monkeypatch.setattr(os, "open", spy)
    private_file.make_directory(tmp_path)
    private_file.make_directory(tmp_path, links=True)
    private_file.sync_directory(tmp_path)
    always = os.O_RDONLY | os.O_DIRECTORY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
    assert opened == [always | os.O_NOFOLLOW, always, always]
    (tmp_path / "file").write_text("x")
    (tmp_path / "file").chmod(0o600)
    del opened[:]
    private_file.read(tmp_path / "file")
    private_file.read(tmp_path / "file", links=True)
    assert opened == [always & ~os.O_DIRECTORY | os.O_NOFOLLOW, always & ~os.O_DIRECTORY]
    assert modes == [0o600] * 2, "never open to others, not even before its mode is looked at"
    (tmp_path / "directory").mkdir()
    there = (tmp_path / "file").stat()
    monkeypatch.setattr(Path, "lstat", lambda _path: there)
    with pytest.raises(UnfitError, match="it is a directory, where a file belongs") as caught:
        private_file.read(tmp_path / "directory")
    assert caught.value.filename == str(tmp_path / "directory")
    assert caught.value.errno == errno.EINVAL


def test_a_file_of_state_has_its_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(private_file, "MOST_BYTES", 10)
    path = tmp_path / "file"
    path.write_bytes(b"x" * 10)
    assert private_file.read(path) == b"x" * 10
    path.write_bytes(b"x" * 11)
    with pytest.raises(UnfitError, match="has more than 10 bytes") as caught:
        private_file.read(path)
    assert caught.value.filename == str(path)


# -- one way in ------------------------------------------------------------------------------------

OTHER_FILES = {
    "cli.doctor.addresses": "codex's own settings, for the doctor",
    "cli.doctor.credentials": "a certificate, which is no secret",
    "cli.doctor.host": "what codex writes for the doctor",
    "cli.threads.get": "the file that a person fetches",
    "cli.threads.put": "the file that a person brings",
    "config.codex_binary": "the start of a program, to see whose it is",
    "config.load": "the settings",
    "config.locate": "the settings",
    "demo.door": "the demo's own link",
    "demo.run": "the demo's picture and notes",
    "demo.stage": "the demo's own home",
    "files.beneath": "files of a thread, beneath its directory and without links",
    "files.placing": "people's files on their way into a thread's directory",
    "files.spool": "unfinished uploads, each made anew and for us alone",
    "files.writer": "an unfinished upload, without following links",
    "host.codex_login": "codex's own settings",
    "host.directories": "a directory, to learn its name as the file system spells it",
    "host.novascale": "NovaScale's unit and variables, which are no secrets",
    "host.processes": "/proc",
    "host.service": "unit files of the service manager",
    "host.terminals": "/proc",
    "host.unit_files": "the package's own data",
    "posix.private_file": "the one way in",
    "posix.standard_streams": "/dev/null, in the place of what is closed",
    "server.terminal": "/dev/tty, to see whether it has hung up",
    "stdio.codex_wrapper": "/proc",
    "supervisor.processes": "a pipe of its own",
    "supervisor.service_manager": "the kernel's: its control group, and the processes in that",
    "upstream.schema": "what codex generates, before it is kept",
}
"""Modules that open files by other means, and which: none of state, tokens, secrets or keys."""

OPENING = {"read_text", "read_bytes", "write_text", "write_bytes", "mkfifo"}


def opens_files(source: str) -> bool:
    """Whether a module opens files by itself."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        called = node.func
        if isinstance(called, ast.Name) and called.id == "open":
            return True
        if isinstance(called, ast.Attribute):
            of_core = isinstance(called.value, ast.Name) and called.value.id == "jsonrpc"
            if called.attr in OPENING and not of_core:
                return True
            of_os = isinstance(called.value, ast.Name) and called.value.id == "os"
            mode = node.args[:1] and isinstance(node.args[0], ast.Constant)
            if called.attr == "open" and (of_os or mode):
                return True
    return False


def test_every_other_module_opens_them_here() -> None:
    package = Path(mux.__file__).parent
    found = {
        ".".join(path.relative_to(package).with_suffix("").parts)
        for path in package.rglob("*.py")
        if "core" not in path.parts and opens_files(path.read_text())
    }
    assert found == set(OTHER_FILES)


@pytest.mark.parametrize(
    "source", ["open('x')", "p.open('rb')", "os.open(p, 0)", "p.read_text()", "p.write_bytes(b'')"]
)
def test_who_opens_a_file_is_found(source: str) -> None:
    assert opens_files(source)
    assert not opens_files("private_file.read(p)\nstore.open(p)\nLedger.open(state_dir)")


def test_the_stdio_door_needs_no_logger_for_it() -> None:
    code = "import sys, mux.config.locate; sys.exit('structlog' in sys.modules)"
    assert os.spawnv(os.P_WAIT, sys.executable, [sys.executable, "-c", code]) == 0
