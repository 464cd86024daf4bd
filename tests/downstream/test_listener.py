"""`downstream.listener` and `downstream.sockets.unix_socket`: URLs, sockets and paths, accepted
connections."""

# The file system is what these tests look at; nothing else runs meanwhile.
# ruff: noqa: ASYNC240

from __future__ import annotations

import fcntl
import hashlib
import multiprocessing
import os
import resource
import socket
import stat
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

import attrs
import pytest
import structlog
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from mux.config import locate
from mux.config.addresses import (
    Address,
    ListenUrlError,
    OpenDoorError,
    TcpAddress,
    UnixAddress,
    parse_listen_url,
    refuse_open_door,
)
from mux.config.locate import LONGEST_ADDRESS
from mux.downstream.listener import Listener, open_listener, serve
from mux.downstream.sockets import socket_directory, unix_socket
from mux.downstream.sockets.streams import Listening, Patient
from mux.downstream.sockets.unauthenticated import (
    MOST,
    MOST_OF_ADDRESS,
    TOLD_EVERY,
    Slot,
    Unauthenticated,
)
from mux.downstream.sockets.unix_socket import ListenError
from tests.end_to_end.peer import PATIENCE
from tests.ports import kept_port

HOME = Path("/the/codex/home")
ANY_PORT = TcpAddress(ip_address("127.0.0.1"), 0)

# -- URLs ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "ip", "port"),
    [
        ("ws://127.0.0.1:0", "127.0.0.1", 0),
        ("ws://0.0.0.0:65535", "0.0.0.0", 65535),
        ("ws://[::1]:14500", "::1", 14500),
        ("ws://[2001:db8::1]:1", "2001:db8::1", 1),
        ("ws://127.0.0.1:00", "127.0.0.1", 0),
    ],
)
def test_tcp_urls(url: str, ip: str, port: int) -> None:
    assert parse_listen_url(url, HOME) == TcpAddress(ip_address(ip), port)


@pytest.mark.parametrize(
    "url",
    [
        "ws://",
        "ws://localhost:1",
        "ws://127.0.0.1",
        "ws://127.0.0.1:",
        "ws://127.0.0.1:0/",
        "ws://127.0.0.1:0 ",
        "ws://127.0.0.1:65536",
        "ws://127.0.0.1:+1",
        "ws://127.0.0.1:٣",
        "ws://127.0.0.01:0",
        "ws://127.0.0:0",
        "ws://::1:0",
        "ws://[127.0.0.1]:0",
        "ws://[::1:0",
        "ws://127.0.0.1:" + "9" * 5000,
    ],
)
def test_wrong_tcp_urls(url: str) -> None:
    with pytest.raises(ListenUrlError) as raised:
        parse_listen_url(url, HOME)
    assert str(raised.value) == f"invalid websocket --listen URL `{url}`; expected `ws://IP:PORT`"
    assert raised.value.exit_status == 2


def test_wss_urls() -> None:
    address = parse_listen_url("wss://[::1]:4500", HOME)
    assert isinstance(address, TcpAddress)
    assert (address.url, str(address), address.tls) == ("wss://[::1]:4500", "[::1]:4500", True)
    with pytest.raises(ListenUrlError, match="`wss://localhost:1`; expected `wss://IP:PORT`"):
        parse_listen_url("wss://localhost:1", HOME)
    everywhere = parse_listen_url("wss://0.0.0.0:4500", HOME)
    with pytest.raises(OpenDoorError, match="without auth"):
        refuse_open_door([everywhere], None)


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("ws+local://127.0.0.1:4500", "ws://127.0.0.1:4500"),
        ("ws+local://[::1]:0", "ws://[::1]:0"),
        ("wss+local://127.0.0.1:4500", "wss://127.0.0.1:4500"),
    ],
)
def test_who_comes_at_a_loopback_listener_may_be_said_to_be_local(url: str, told: str) -> None:
    address = parse_listen_url(url, HOME)
    assert isinstance(address, TcpAddress)
    assert (address.local, address.url) == (True, told)
    plain = parse_listen_url(told, HOME)
    assert isinstance(plain, TcpAddress)
    assert not plain.local
    assert plain == address  # the same place


@pytest.mark.parametrize("ip", ["0.0.0.0", "192.168.1.2", "100.64.0.7", "[::]", "[fd7a::1]"])
def test_no_other_listener_can_be_local(ip: str) -> None:
    with pytest.raises(ListenUrlError, match=r"only a loopback address can be `\+local`"):
        parse_listen_url(f"ws+local://{ip}:4500", HOME)


def test_local_is_said_in_no_other_way() -> None:
    for url in ("unix+local:///x", "ws+LOCAL://127.0.0.1:1", "ws://127.0.0.1:1?local=yes"):
        with pytest.raises(ListenUrlError):
            parse_listen_url(url, HOME)


async def test_an_open_listener_is_as_its_address_says() -> None:
    for url, local in (("ws+local://127.0.0.1:0", True), ("ws://127.0.0.1:0", False)):
        opened = await open_listener(parse_listen_url(url, HOME))
        assert opened.local is local
        assert opened.url.startswith("ws://127.0.0.1:")
        await opened.aclose()


@pytest.mark.parametrize(
    "url", ["", "foo", "WS://127.0.0.1:0", "wsss://1.2.3.4:5", "unix:/x", "stdio://", "unix://a\0b"]
)
def test_unsupported_urls(url: str) -> None:
    with pytest.raises(ListenUrlError) as raised:
        parse_listen_url(url, HOME)
    expected = "expected `unix://`, `unix://PATH`, `ws://IP:PORT`, `wss://IP:PORT`"
    assert str(raised.value) == f"unsupported --listen URL `{url}`; {expected}"


def test_unix_urls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    control = "app-server-control/app-server-control.sock"
    assert parse_listen_url("unix://", HOME) == UnixAddress(HOME / control, control=True)
    assert parse_listen_url("unix://", Path("rel")).path == tmp_path / "rel" / control  # type: ignore[union-attr]
    assert parse_listen_url("unix:///a b", HOME) == UnixAddress(Path("/a b"))
    assert parse_listen_url("unix://x/y.sock", HOME) == UnixAddress(tmp_path / "x/y.sock")


@given(ip=st.ip_addresses(), port=st.integers(min_value=0, max_value=65535))
def test_an_address_reads_as_it_is_written(ip: IPv4Address | IPv6Address, port: int) -> None:
    address = TcpAddress(ip, port)
    assert parse_listen_url(f"ws://{address}", HOME) == address


@given(url=st.text() | st.text().map("ws://".__add__))
def test_any_text_is_an_address_or_an_error(url: str) -> None:
    try:
        address = parse_listen_url(url, HOME)
    except ListenUrlError:
        return
    assert url.startswith(("ws://", "unix://"))
    assert str(address)


@pytest.mark.parametrize(
    ("text", "reachable"),
    [
        ("127.0.0.1:1", False),
        ("127.9.9.9:1", False),
        ("[::1]:1", False),
        ("0.0.0.0:18099", True),
        ("192.168.0.1:1", True),
        ("[::]:1", True),
        ("[::ffff:7f00:1]:1", True),
    ],
)
def test_what_others_can_reach_needs_auth(text: str, reachable: bool) -> None:
    addresses: list[Address] = [
        UnixAddress(Path("/x")),
        ANY_PORT,
        parse_listen_url(f"ws://{text}", HOME),
    ]
    refuse_open_door(addresses, "capability-token")
    if not reachable:
        refuse_open_door(addresses, None)
        return
    with pytest.raises(OpenDoorError) as raised:
        refuse_open_door(addresses, None)
    assert str(raised.value) == (
        f"refusing to start non-loopback websocket listener {text} without auth;"
        " configure `--ws-auth device-token` (paired devices alone), `--ws-auth"
        " capability-token` or `--ws-auth signed-bearer-token`"
    )


# -- TCP -------------------------------------------------------------------------------------------


async def test_tcp_shows_its_real_port_and_says_when_it_is_taken() -> None:
    first = await open_listener(ANY_PORT)
    port = int(first.url.rpartition(":")[2])
    assert first.url == f"ws://127.0.0.1:{port}"
    assert first.kind == "ws"
    assert port > 0
    with pytest.raises(ListenError, match=rf"{first.url}: Address already in use; .* stop it, or"):
        await open_listener(TcpAddress(ip_address("127.0.0.1"), port))
    await first.aclose()
    with kept_port() as port:
        for _ in range(2):
            await (await open_listener(TcpAddress(ip_address("127.0.0.1"), port))).aclose()


async def test_tcp_on_an_address_of_another_machine() -> None:
    with pytest.raises(ListenError, match=r"ws://192\.0\.2\.1:0: .*no such address"):
        await open_listener(TcpAddress(ip_address("192.0.2.1"), 0))


# -- unix sockets ----------------------------------------------------------------------------------


@pytest.fixture
def path() -> Iterator[Path]:
    """A socket's path, shorter than pytest's own directories are."""
    with tempfile.TemporaryDirectory(prefix="am") as directory:
        yield Path(directory, "x.sock")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


async def connects(path: Path) -> bool:
    try:
        stream = await trio.open_unix_socket(path)
    except OSError:
        return False
    await stream.aclose()
    return True


async def test_a_unix_socket_is_private_and_leaves_nothing_behind(path: Path) -> None:
    deep = path.parent / "a" / "b" / path.name
    former = os.umask(0)
    try:
        opened = await open_listener(UnixAddress(deep))
        assert os.umask(0) == 0  # as it was before
    finally:
        os.umask(former)
    assert (opened.url, opened.kind) == (f"unix://{deep}", "unix")
    assert stat.S_ISSOCK(deep.lstat().st_mode)
    assert [mode(each) for each in (deep, deep.parent, deep.parent.parent)] == [
        0o600,
        0o700,
        0o700,
    ]
    assert await connects(deep)
    await opened.aclose()
    assert list(deep.parent.iterdir()) == []
    await opened.aclose()


async def test_the_control_directory_is_made_private_and_others_are_left_alone(path: Path) -> None:
    path.parent.chmod(0o755)
    await (await open_listener(UnixAddress(path))).aclose()
    assert mode(path.parent) == 0o755
    await (await open_listener(UnixAddress(path, control=True))).aclose()
    assert mode(path.parent) == 0o700


async def test_a_directory_where_everybody_writes(path: Path) -> None:
    path.parent.chmod(0o777)
    with pytest.raises(ListenError, match=f"everybody may write there.*chmod o-w {path.parent}"):
        await open_listener(UnixAddress(path))
    path.parent.chmod(0o1777)  # sticky, like the directory for temporary files
    await (await open_listener(UnixAddress(path))).aclose()


@pytest.fixture
def long(path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A path that no socket's address has room for."""
    places = path.parent / "places"
    places.mkdir()
    monkeypatch.setattr(socket_directory, "SHORT_PLACES", places)
    return path.with_name("x" * (LONGEST_ADDRESS - len(os.fsencode(path.parent))))


async def test_a_socket_whose_path_is_too_long_is_elsewhere(long: Path) -> None:
    fits = long.with_name(long.name[1:])
    opened = await open_listener(UnixAddress(fits))
    assert stat.S_ISSOCK(fits.lstat().st_mode)
    await opened.aclose()
    umask = os.umask(0)
    try:
        opened = await open_listener(UnixAddress(long))
    finally:
        os.umask(umask)
    assert opened.url == f"unix://{long}"
    place = long.readlink()
    name = hashlib.sha256(os.fsencode(long.parent.resolve() / long.name)).hexdigest()
    assert (place.parent.name, place.name) == (f"codex-daemon-{os.geteuid()}", name)
    assert (mode(place.parent), mode(place)) == (0o700, 0o600)
    assert locate.address(long) == str(place)
    assert await connects(place)
    with pytest.raises(ListenError, match=rf"already in use at {long}: process {os.getpid()} "):
        await open_listener(UnixAddress(long))
    await opened.aclose()
    assert not list(place.parent.iterdir()), "nothing stays"
    assert not list(long.parent.glob("x*"))


async def test_what_is_left_elsewhere_is_replaced_and_what_lives_there_is_not(
    long: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unix_socket, "STARTING_PATIENCE", 0.1)
    place = socket_directory.short_place(long)
    place.parent.mkdir(mode=0o777)
    place.parent.chmod(0o777)
    leave_stale(place)
    for link in (False, True):
        if link:
            long.symlink_to(place)
            leave_stale(place)
        opened = await open_listener(UnixAddress(long))
        assert await connects(place)
        assert mode(place.parent) == 0o700
        await opened.aclose()
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(place))
        other.listen()
        with pytest.raises(ListenError, match=f"process {os.getpid()} listens there"):
            await open_listener(UnixAddress(long))
        assert not long.is_symlink()

        monkeypatch.setattr(unix_socket, "STARTING_PATIENCE", 5.0)
        ending = threading.Timer(0.1, other.close)  # as a codex does that has removed its link
        ending.start()
        opened = await open_listener(UnixAddress(long))
        ending.join()
        assert await connects(place)
        await opened.aclose()


async def test_somebody_elses_directory_for_long_paths(long: Path) -> None:
    place = socket_directory.short_place(long)
    place.parent.symlink_to(long.parent)
    with pytest.raises(ListenError, match="it belongs to somebody else"):
        await open_listener(UnixAddress(long))
    place.parent.unlink()
    if os.geteuid() == 0:
        place.parent.mkdir()
        os.chown(place.parent, 12345, -1)
        with pytest.raises(ListenError, match="it belongs to somebody else"):
            await open_listener(UnixAddress(long))


async def test_codexs_lock_elsewhere_is_waited_for(
    long: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unix_socket, "STARTING_PATIENCE", 0.1)
    place = socket_directory.short_place(long)
    place.parent.mkdir()
    with place.with_name(f"{place.name}.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(ListenError, match="is just starting there; try again"):
            await open_listener(UnixAddress(long))
    opened = await open_listener(UnixAddress(long))
    with place.with_name(f"{place.name}.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)  # it isn't kept from Codex
    await opened.aclose()


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("elsewhere")])
async def test_what_stands_in_the_place_of_the_lock(
    path: Path, make: Callable[[Path], None]
) -> None:
    lock = path.with_name("x.sock.lock")
    make(lock)
    with pytest.raises(ListenError, match=rf"it is a .*, where a file belongs \({lock}\)"):
        await open_listener(UnixAddress(path))
    assert not path.with_name("elsewhere").exists()


async def test_the_umask_does_not_matter(path: Path) -> None:
    before = os.umask(0o777)
    try:
        opened = await open_listener(UnixAddress(path.with_name("new") / "x.sock", control=True))
    finally:
        os.umask(before)
    there = path.with_name("new")
    assert (mode(there), mode(there / "x.sock")) == (0o700, 0o600)
    assert mode(there / "x.sock.lock") == mode(there / unix_socket.STARTUP_LOCK) == 0o600
    await opened.aclose()


def leave_stale(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
        left.listen()


async def test_a_stale_socket_is_replaced(path: Path) -> None:
    leave_stale(path)
    opened = await open_listener(UnixAddress(path))
    assert mode(path) == 0o600
    assert await connects(path)
    await opened.aclose()


@pytest.mark.parametrize("stale", [False, True])
async def test_a_symlink_to_nothing_or_a_stale_socket_is_replaced(path: Path, stale: bool) -> None:
    target = path.with_name("target")
    if stale:
        leave_stale(target)
    path.symlink_to(target)
    opened = await open_listener(UnixAddress(path))
    assert not path.is_symlink()
    assert await connects(path)
    await opened.aclose()
    assert target.exists() == stale


@pytest.mark.parametrize("by_symlink", [False, True])
async def test_a_live_listener_keeps_its_path(path: Path, by_symlink: bool) -> None:
    place = path.with_name("target") if by_symlink else path
    with socket.socket(socket.AF_UNIX) as live:
        live.bind(str(place))
        live.listen()
        if by_symlink:
            path.symlink_to(place)
        with pytest.raises(ListenError) as raised:
            await open_listener(UnixAddress(path))
        assert f"app-server control socket is already in use at {path}" in str(raised.value)
        assert "`appmux serve --take-over`" in str(raised.value)
        if sys.platform == "linux":
            assert f"process {os.getpid()} listens there" in str(raised.value)
        assert await connects(path)
        assert path.is_symlink() == by_symlink


async def test_a_listener_with_a_full_queue_is_live_too(path: Path) -> None:
    with (
        socket.socket(socket.AF_UNIX) as live,
        socket.socket(socket.AF_UNIX) as one,
    ):
        live.bind(str(path))
        live.listen(0)
        one.connect(str(path))
        with pytest.raises(ListenError, match="already in use"):
            await open_listener(UnixAddress(path))


@pytest.mark.parametrize("kind", ["file", "directory", "symlink"])
async def test_what_is_no_socket_is_left_alone(path: Path, kind: str) -> None:
    if kind == "directory":
        path.mkdir()
    else:
        place = path.with_name("target") if kind == "symlink" else path
        place.write_text("precious")
        if kind == "symlink":
            path.symlink_to(place)
    with pytest.raises(ListenError) as raised:
        await open_listener(UnixAddress(path))
    text = f"app-server control socket path exists and is not a socket: {path}; move it away"
    assert text in str(raised.value)
    assert path.is_dir() if kind == "directory" else path.read_text() == "precious"
    assert not path.with_name("x.sock.lock").exists()


async def test_a_directory_that_is_none(path: Path) -> None:
    path.write_text("")
    with pytest.raises(ListenError, match=rf"can't listen on unix://{path}/x: .*{path}"):
        await open_listener(UnixAddress(path / "x"))


async def test_closing_leaves_the_path_to_whoever_has_it_now(path: Path) -> None:
    opened = await open_listener(UnixAddress(path))
    path.unlink()
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        other.listen()
        await opened.aclose()
        assert await connects(path)


async def test_the_lock_holds_where_the_socket_was_removed(path: Path) -> None:
    opened = await open_listener(UnixAddress(path))
    path.unlink()
    with pytest.raises(ListenError, match="already in use"):
        await open_listener(UnixAddress(path))
    await opened.aclose()
    await (await open_listener(UnixAddress(path))).aclose()


def contend(path: Path, rounds: int, start: object, failures: object) -> None:
    """In a process of its own: claim the path again and again, and look whether it is ours."""
    start.wait()  # type: ignore[attr-defined]
    for _ in range(rounds):
        try:
            opened = trio.run(open_listener, UnixAddress(path))
        except ListenError as error:
            if "already in use" not in str(error):
                failures.put(str(error))  # type: ignore[attr-defined]
            continue
        with socket.socket(socket.AF_UNIX) as client:
            try:
                client.connect(str(path))
                opened.listening.socket.accept()[0].close()
            except OSError as error:
                failures.put(f"the path led elsewhere: {error}")  # type: ignore[attr-defined]
        trio.run(opened.aclose)


def test_of_brokers_that_start_together_one_gets_the_path(path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    start, failures = spawn.Event(), spawn.SimpleQueue()
    contenders = [
        spawn.Process(target=contend, args=(path, 300, start, failures)) for _ in range(4)
    ]
    for each in contenders:
        each.start()
    start.set()
    for each in contenders:
        each.join()
    assert [each.exitcode for each in contenders] == [0] * 4
    assert failures.empty(), failures.get()
    assert list(path.parent.iterdir()) == []


# -- accepting -------------------------------------------------------------------------------------


async def echo(stream: trio.abc.HalfCloseableStream, address: str, _place: Slot) -> None:
    async for piece in stream:
        if piece == b"who":
            await stream.send_all(address.encode())
        elif piece == b"crash":
            raise ValueError("the crash")
        elif piece == b"crash twice":
            raise ExceptionGroup("both", [ValueError("one"), KeyError("two")])
        else:
            await stream.send_all(piece)


async def open_stream(listener: Listener) -> trio.SocketStream:
    if listener.kind == "unix":
        return await trio.open_unix_socket(listener.url.removeprefix("unix://"))
    return await trio.open_tcp_stream("127.0.0.1", int(listener.url.rpartition(":")[2]))


async def ask_once(listener: Listener, piece: bytes) -> bytes:
    async with await open_stream(listener) as stream:
        return await exchange(stream, piece)


async def exchange(stream: trio.SocketStream, piece: bytes) -> bytes:
    with trio.fail_after(PATIENCE):
        await stream.send_all(piece)
        return bytes(await stream.receive_some())


@pytest.mark.parametrize("crash", [b"crash", b"crash twice"])
async def test_a_crash_ends_its_connection_only(path: Path, crash: bytes) -> None:
    listener = await open_listener(UnixAddress(path))
    async with trio.open_nursery() as connections, trio.open_nursery() as loops:
        await loops.start(serve, listener, echo, connections)
        async with await open_stream(listener) as other:
            assert await exchange(other, b"a") == b"a"
            with structlog.testing.capture_logs() as logged:
                assert await ask_once(listener, crash) == b""
            assert [(each["event"], each["client"], each["exc_info"]) for each in logged] == [
                ("connection crashed", "unix", True)
            ]
            assert await exchange(other, b"b") == b"b"
            assert await ask_once(listener, b"c") == b"c"
        loops.cancel_scope.cancel()
        connections.cancel_scope.cancel()


async def test_a_crash_while_the_broker_stops_stays_behind_the_barrier() -> None:
    """Cancelled and an exception in one group: the one goes on, the other is logged."""
    listener = await open_listener(ANY_PORT)
    attached = trio.Event()

    async def crash_when_cancelled() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise ValueError("late")

    async def attend(stream: trio.abc.HalfCloseableStream, address: str, _place: Slot) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(crash_when_cancelled)
            nursery.start_soon(trio.sleep_forever)
            attached.set()

    with structlog.testing.capture_logs() as logged:
        async with trio.open_nursery() as connections, trio.open_nursery() as loops:
            await loops.start(serve, listener, attend, connections)
            async with await open_stream(listener):
                await attached.wait()
                loops.cancel_scope.cancel()
                connections.cancel_scope.cancel()
    assert [each["event"] for each in logged] == ["connection crashed"]


async def test_connections_outlive_the_accept_loop(path: Path) -> None:
    listener = await open_listener(UnixAddress(path))
    async with trio.open_nursery() as connections:
        async with trio.open_nursery() as loops:
            await loops.start(serve, listener, echo, connections)
            stream = await open_stream(listener)
            assert await exchange(stream, b"a") == b"a"
            loops.cancel_scope.cancel()
        assert not path.exists()
        assert await exchange(stream, b"b") == b"b"
        await stream.aclose()
        connections.cancel_scope.cancel()


def handed_over() -> Listener:
    """One whose socket somebody else has opened, without any options."""
    bound = socket.create_server(("127.0.0.1", 0))
    return Listener(f"ws://127.0.0.1:{bound.getsockname()[1]}", "ws", Listening(bound))


@pytest.mark.parametrize("ours", [True, False])
async def test_far_ends_have_names_and_tcp_sockets_are_tuned(ours: bool) -> None:
    listener = await open_listener(ANY_PORT) if ours else handed_over()
    options: dict[str, int] = {}

    async def attend(patient: trio.abc.HalfCloseableStream, address: str, place: Slot) -> None:
        assert isinstance(patient, Patient)
        stream = patient.socket
        for level, name in (
            (socket.SOL_SOCKET, "SO_KEEPALIVE"),
            (socket.IPPROTO_TCP, "TCP_NODELAY"),
            (socket.IPPROTO_TCP, "TCP_KEEPINTVL"),
            (socket.IPPROTO_TCP, "TCP_KEEPCNT"),
            (socket.IPPROTO_TCP, "TCP_NOTSENT_LOWAT"),
        ):
            options[name] = stream.getsockopt(level, getattr(trio.socket, name))
        if sys.platform == "linux":
            for name in ("TCP_KEEPIDLE", "TCP_USER_TIMEOUT"):
                options[name] = stream.getsockopt(socket.IPPROTO_TCP, getattr(socket, name))
        await echo(patient, address, place)

    async with trio.open_nursery() as connections, trio.open_nursery() as loops:
        await loops.start(serve, listener, attend, connections)
        async with await open_stream(listener) as stream:
            port = stream.socket.getsockname()[1]
            assert await exchange(stream, b"who") == f"127.0.0.1:{port}".encode()
        loops.cancel_scope.cancel()
        connections.cancel_scope.cancel()
    assert options.pop("SO_KEEPALIVE") > 0
    assert options.pop("TCP_NODELAY") > 0
    linux = {"TCP_KEEPIDLE": 60, "TCP_USER_TIMEOUT": 300_000} if sys.platform == "linux" else {}
    everywhere = {"TCP_KEEPINTVL": 15, "TCP_KEEPCNT": 4, "TCP_NOTSENT_LOWAT": 256 * 1024}
    assert options == everywhere | linux


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
async def test_another_users_connection_is_closed(path: Path) -> None:
    listener = await open_listener(UnixAddress(path))
    # Open to all, so that the file's mode isn't what keeps the other user out.
    path.parent.chmod(0o755)
    path.chmod(0o666)
    program = (
        "import os, socket, sys; os.setgroups([]); os.setuid(65534);"
        "s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); print(s.recv(9))"
    )
    async with trio.open_nursery() as connections, trio.open_nursery() as loops:
        await loops.start(serve, listener, echo, connections)
        with structlog.testing.capture_logs() as logged, trio.fail_after(PATIENCE):
            ended = await trio.run_process(
                [sys.executable, "-c", program, str(path)], capture_stdout=True
            )
        assert ended.stdout == b"b''\n"
        assert [(each["event"], each["uid"]) for each in logged] == [
            ("refused another user's connection", 65534)
        ]
        assert await ask_once(listener, b"a") == b"a"
        loops.cancel_scope.cancel()
        connections.cancel_scope.cancel()


def take_all_descriptors(stack: ExitStack, limit: int) -> None:
    """Leave this process without a free file descriptor until the stack is closed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    while True:
        try:
            stack.callback(os.close, os.dup(0))
        except OSError:
            return


async def test_out_of_file_descriptors_the_listener_waits(path: Path) -> None:
    """And says so once, however often it tries."""
    listener = await open_listener(UnixAddress(path))
    client = trio.socket.socket(socket.AF_UNIX)
    pending = Unauthenticated()
    async with trio.open_nursery() as connections, trio.open_nursery() as loops:
        await loops.start(serve, listener, echo, connections, pending)
        with (
            ExitStack() as taken,
            trio.fail_after(PATIENCE),
            structlog.testing.capture_logs() as logged,
        ):
            take_all_descriptors(taken, client.fileno() + 8)
            await client.connect(str(path))
            while pending.refused < 3:
                await trio.testing.wait_all_tasks_blocked()
        assert [(each["event"], each["why"]) for each in logged] == [
            ("connections refused", "Too many open files")
        ]
        async with trio.SocketStream(client) as stream:
            assert await exchange(stream, b"a") == b"a"
        loops.cancel_scope.cancel()
        connections.cancel_scope.cancel()


# -- connections that nobody knows yet -------------------------------------------------------------


@attrs.define
class Crowd:
    """Connections in their places, the oldest first; ``gone`` are those that had to go."""

    pending: Unauthenticated
    nursery: trio.Nursery
    places: list[Slot | None] = attrs.field(factory=list)
    gone: list[int] = attrs.field(factory=list)

    async def comes(self, address: str, descriptor: int = 10) -> int:
        number = len(self.places)

        async def stay(task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
            with self.pending.place(descriptor, address) as place:
                self.places.append(place)
                task_status.started()
                if place is not None:
                    await trio.sleep_forever()
            self.gone.append(number)

        await self.nursery.start(stay)
        await trio.testing.wait_all_tasks_blocked()
        return number

    def place(self, number: int) -> Slot:
        place = self.places[number]
        assert place is not None
        return place


@pytest.fixture
async def crowd(nursery: trio.Nursery) -> Crowd:
    return Crowd(Unauthenticated(held_back_from=8), nursery)


async def test_the_oldest_silent_one_goes_for_a_newcomer(crowd: Crowd) -> None:
    assert crowd.pending.most == 4
    for number in range(4):
        await crowd.comes(f"192.0.2.{number}:1", 5)
    crowd.place(0).has_request = True
    crowd.pending.known(crowd.place(2))  # it has said who it is, and counts no more
    await crowd.comes("192.0.2.8:1", 5)
    assert (crowd.gone, len(crowd.pending)) == ([], 4)
    await crowd.comes("192.0.2.9:1", 5)
    assert (crowd.gone, len(crowd.pending)) == ([1], 4)
    for number in (3, 4, 5):
        crowd.place(number).has_request = True
    refused = await crowd.comes("192.0.2.10:1", 5)
    assert crowd.places[refused] is None
    assert (sorted(crowd.gone), crowd.pending.refused) == ([1, refused], 2)


async def test_an_address_has_only_so_many(nursery: trio.Nursery) -> None:
    crowd = Crowd(Unauthenticated(held_back_from=10_000), nursery)
    assert crowd.pending.most == MOST
    other = await crowd.comes("[2001:db8:1::1]:1")
    first = await crowd.comes("[2001:db8::1]:1")
    for number in range(1, MOST_OF_ADDRESS):
        await crowd.comes(f"[2001:db8::{number:x}]:2")
    assert crowd.gone == []
    await crowd.comes("[2001:db8::ffff]:3")  # another address of the same network
    assert crowd.gone == [first]
    assert crowd.places[other] is not None
    for _ in range(MOST_OF_ADDRESS + 1):
        await crowd.comes("unix")
    assert crowd.gone == [first]


async def test_some_descriptors_are_held_back(crowd: Crowd) -> None:
    silent = await crowd.comes("192.0.2.1:1", 7)
    crowd.pending.known(crowd.place(await crowd.comes("192.0.2.2:1", 7)))
    await crowd.comes("192.0.2.3:1", 8)
    assert crowd.gone == [silent]
    crowd.place(2).has_request = True
    refused = await crowd.comes("unix", 8)
    assert crowd.places[refused] is None


async def test_it_is_told_once_a_minute(
    crowd: Crowd, autojump_clock: trio.testing.MockClock
) -> None:
    with structlog.testing.capture_logs() as logged:
        for _ in range(10):
            await crowd.comes("192.0.2.1:1", 8)
        assert [each["since_last_told"] for each in logged] == [1]
        await trio.sleep(TOLD_EVERY)
        await crowd.comes("192.0.2.1:1", 8)
        assert [each["since_last_told"] for each in logged] == [1, 10]
