"""`downstream.sockets.tls`, `streams`: a certificate's files, TLS on a listener, clients that take
nothing."""

from __future__ import annotations

import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import structlog
import trio
import trio.testing
from cryptography.hazmat.primitives import serialization

from mux.config.addresses import parse_listen_url
from mux.config.model import Tls
from mux.downstream import listener
from mux.downstream.listener import Listener, open_listener
from mux.downstream.sockets import streams
from mux.downstream.sockets.streams import Patient
from mux.downstream.sockets.tls import Certificate, TlsError, open_certificate
from mux.downstream.sockets.unauthenticated import Slot
from mux.downstream.sockets.unix_socket import ListenError
from tests.certificates import Issued, issue
from tests.end_to_end.peer import plainly

PATIENCE = 20.0
WSS = parse_listen_url("wss://127.0.0.1:0", Path("/"))


# --- The files ------------------------------------------------------------------------------------


def test_without_files_there_is_no_certificate() -> None:
    assert open_certificate(Tls()) is None


def test_one_file_alone_is_an_error(tmp_path: Path) -> None:
    issued = issue(tmp_path)
    with pytest.raises(TlsError, match="`--tls-cert` needs `--tls-key`"):
        open_certificate(Tls(cert=issued.cert))
    with pytest.raises(TlsError, match="`--tls-key` needs `--tls-cert`"):
        open_certificate(Tls(key=issued.key))


def _encrypted(issued: Issued) -> None:
    key = serialization.load_pem_private_key(issued.key.read_bytes(), None)
    issued.key.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )


def _of_another(issued: Issued) -> None:
    issue(issued.key.parent, name="another").key.replace(issued.key)


def _mode(issued: Issued) -> None:
    issued.key.unlink()
    issued.key.mkdir()


BROKEN: dict[str, tuple[Callable[[Issued], object], str]] = {
    "no certificate": (
        lambda issued: issued.cert.unlink(),
        "can't read the TLS certificate .*No such",
    ),
    "no key": (lambda issued: issued.key.unlink(), "can't read the TLS key .*No such"),
    "a directory": (_mode, "can't read the TLS key .*directory"),
    "an empty certificate": (lambda issued: issued.cert.write_bytes(b""), "holds no .*CERTIFICATE"),
    "DER": (lambda issued: issued.key.write_bytes(b"\x30\x82\x01"), "holds no .*PRIVATE KEY"),
    "the files swapped": (
        lambda issued: issued.cert.write_bytes(issued.key.read_bytes()),
        "holds no .*CERTIFICATE",
    ),
    "a cut certificate": (
        lambda issued: issued.cert.write_bytes(issued.cert.read_bytes()[:200]),
        "can't be used",
    ),
    "a cut key": (
        lambda issued: issued.key.write_bytes(issued.key.read_bytes()[:100]),
        "can't be used",
    ),
    "another's key": (_of_another, "isn't the key of the certificate"),
    "an encrypted key": (_encrypted, "is encrypted; write it without"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_files_that_cannot_be_used(name: str, tmp_path: Path) -> None:
    issued = issue(tmp_path)
    certificate = open_certificate(Tls(issued.cert, issued.key))
    assert certificate is not None
    before = certificate.context
    spoil, told = BROKEN[name]
    spoil(issued)
    with pytest.raises(TlsError, match=told) as raised:
        open_certificate(Tls(issued.cert, issued.key))
    assert str(tmp_path) in str(raised.value)
    with pytest.raises(TlsError, match=told):
        certificate.read_again()()
    assert certificate.context is before


# --- A listener under TLS -------------------------------------------------------------------------


@pytest.fixture
def issued(tmp_path: Path) -> Issued:
    return issue(tmp_path)


@pytest.fixture
def certificate(issued: Issued) -> Certificate:
    found = open_certificate(Tls(issued.cert, issued.key))
    assert found is not None
    return found


async def test_a_wss_listener_needs_a_certificate() -> None:
    with pytest.raises(ListenError, match=r"wss://127.0.0.1:\d+ without a certificate"):
        await open_listener(WSS)


def test_an_inherited_socket_gets_the_configured_scheme(certificate: Certificate) -> None:
    inherited = Listener("ws://127.0.0.1:4500", "ws", None)  # type: ignore[arg-type]
    other = Listener("ws://127.0.0.1:4501", "ws", None)  # type: ignore[arg-type]
    addresses = [parse_listen_url("wss://127.0.0.1:4500", Path("/"))]
    listener.configure_inherited([inherited, other], addresses, certificate)
    assert [each.url for each in (inherited, other)] == [
        "wss://127.0.0.1:4500",
        "ws://127.0.0.1:4501",
    ]
    assert inherited.certificate is certificate
    assert other.certificate is None


def test_an_inherited_socket_is_local_if_the_settings_say_so() -> None:
    inherited = Listener("ws://127.0.0.1:4500", "ws", None)  # type: ignore[arg-type]
    other = Listener("ws://127.0.0.1:4501", "ws", None)  # type: ignore[arg-type]
    urls = ["ws+local://127.0.0.1:4500", "ws://127.0.0.1:4501", "ws://127.0.0.1:4500"]
    addresses = [parse_listen_url(url, Path("/")) for url in urls]  # each inherited one has its own
    listener.configure_inherited([inherited, other], addresses, None)
    assert (inherited.local, other.local) == (True, False)


async def _echo(stream: trio.abc.HalfCloseableStream, _address: str, _place: Slot) -> None:
    async for piece in stream:
        await stream.send_all(piece)


@asynccontextmanager
async def _serving(certificate: Certificate) -> AsyncIterator[Listener]:
    opened = await open_listener(WSS, certificate)
    with plainly():
        async with trio.open_nursery() as connections:
            await connections.start(listener.serve, opened, _echo, connections)
            yield opened
            connections.cancel_scope.cancel()


async def _bare(opened: Listener) -> trio.SocketStream:
    assert opened.url.startswith("wss://127.0.0.1:")
    return await trio.open_tcp_stream("127.0.0.1", int(opened.url.rpartition(":")[2]))


@asynccontextmanager
async def _talk(
    opened: Listener, context: ssl.SSLContext
) -> AsyncIterator[trio.SSLStream[trio.SocketStream]]:
    """A client past its TLS handshake, to which the listener has echoed a word."""
    async with await _bare(opened) as bare:
        stream = trio.SSLStream(bare, context, server_hostname="127.0.0.1", https_compatible=True)
        with trio.fail_after(PATIENCE):
            await stream.do_handshake()
            await stream.send_all(b"word")
            assert await stream.receive_some() == b"word"
        yield stream


async def test_it_speaks_tls_1_2_and_newer(issued: Issued, certificate: Certificate) -> None:
    async with _serving(certificate) as opened:
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            context = issued.trusting()
            context.minimum_version = context.maximum_version = version
            context.set_alpn_protocols(["h2", "http/1.1"])
            async with _talk(opened, context) as stream:
                assert stream.version() == version.name.replace("_", ".", 1).replace("_", ".")
                assert stream.selected_alpn_protocol() == "http/1.1"


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated:DeprecationWarning")
async def test_it_speaks_nothing_older(issued: Issued, certificate: Certificate) -> None:
    context = issued.trusting()
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    async with _serving(certificate) as opened:
        with structlog.testing.capture_logs() as logged, pytest.raises(trio.BrokenResourceError):
            async with _talk(opened, context):
                pass
    assert "UNSUPPORTED_PROTOCOL" in logged[0]["why"]


async def test_who_speaks_no_tls_is_shut_out_and_nobody_else(
    issued: Issued, certificate: Certificate
) -> None:
    async with _serving(certificate) as opened:
        with structlog.testing.capture_logs() as logged:
            async with await _bare(opened) as stream:
                with trio.fail_after(PATIENCE):
                    await stream.send_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
                    said = b""
                    while piece := await stream.receive_some():
                        said += piece
        assert said.startswith(b"HTTP/1.1 400 ")  # who mistyped the address is told so
        assert said.endswith(b"\r\n\r\nhttps is needed here\n")
        assert [each["event"] for each in logged] == ["answered over HTTP"]
        async with _talk(opened, issued.trusting()):
            pass


async def test_a_handshake_that_never_comes_ends(
    certificate: Certificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "HANDSHAKE_DEADLINE", 0.05)
    async with _serving(certificate) as opened, await _bare(opened) as silent:
        with trio.fail_after(PATIENCE):
            assert await silent.receive_some() == b""


async def test_new_connections_get_the_new_certificate_and_old_ones_go_on(
    issued: Issued, certificate: Certificate
) -> None:
    async with _serving(certificate) as opened, _talk(opened, issued.trusting()) as old:
        renewed = issue(issued.cert.parent)
        certificate.read_again()()
        async with _talk(opened, renewed.trusting()):
            pass
        with pytest.raises(trio.BrokenResourceError) as refused:
            async with _talk(opened, issued.trusting()):
                pass
        assert "CERTIFICATE_VERIFY_FAILED" in str(refused.value.__cause__)
        await old.send_all(b"still")
        assert await old.receive_some() == b"still"


# --- A client that takes nothing ------------------------------------------------------------------

MUCH = b"x" * (4 * 1024 * 1024)
SOME = 512 * 1024
PAUSE = streams.STALL_DEADLINE / 10


def _narrow() -> tuple[trio.SocketStream, trio.SocketStream]:
    """Two ends that hold little between them."""
    near, far = socket.socketpair()
    near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    near.setblocking(False)
    far.setblocking(False)
    return tuple(trio.SocketStream(trio.socket.from_stdlib_socket(end)) for end in (near, far))  # type: ignore[return-value]


async def _read_slowly(stream: trio.abc.ReceiveStream, pause: float, taken: list[int]) -> None:
    async for piece in stream:
        taken.append(len(piece))
        await trio.sleep(pause)


@pytest.mark.parametrize("encrypted", [False, True])
async def test_a_slow_client_is_not_cut_and_a_stalled_one_is(
    encrypted: bool,
    issued: Issued,
    certificate: Certificate,
    autojump_clock: trio.testing.MockClock,
) -> None:
    """By a clock of its own: on the machine's, one that stands still for a while is a stall."""
    near, far = _narrow()
    writer: trio.abc.HalfCloseableStream = Patient(near.socket)
    reader: trio.abc.Stream = far
    if encrypted:
        writer = streams.Encrypted(writer, certificate.context)
        reader = trio.SSLStream(
            far, issued.trusting(), server_hostname="127.0.0.1", https_compatible=True
        )
        async with trio.open_nursery() as nursery:
            nursery.start_soon(writer.shake_hands)
            nursery.start_soon(reader.do_handshake)
        await reader.send_all(b"x")  # what the client's side of TLS still had to say, is said
        assert await writer.receive_some() == b"x"
    taken: list[int] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_read_slowly, reader, PAUSE, taken)
        began = trio.current_time()
        await writer.send_all(MUCH[:SOME])
        assert trio.current_time() - began > 2 * streams.STALL_DEADLINE
        nursery.cancel_scope.cancel()
    assert 0 < sum(taken) <= SOME
    with structlog.testing.capture_logs() as logged, pytest.raises(trio.BrokenResourceError):
        await writer.send_all(MUCH)
    assert [each["event"] for each in logged] == ["client given up: its socket takes nothing"]
    await trio.aclose_forcefully(writer)
    await trio.aclose_forcefully(reader)


@pytest.mark.parametrize("closed_by", ["us", "them"])
async def test_a_closed_socket_is_told_as_streams_tell_it(closed_by: str) -> None:
    near, far = _narrow()
    patient = Patient(near.socket)
    wanted = trio.BrokenResourceError if closed_by == "them" else trio.ClosedResourceError
    async with trio.open_nursery() as nursery:
        nursery.start_soon((far if closed_by == "them" else patient).aclose)
        with pytest.raises(wanted):
            await patient.send_all(MUCH)
    with pytest.raises(wanted):
        await patient.send_all(b"more")
    await trio.aclose_forcefully(near)
    await trio.aclose_forcefully(far)
