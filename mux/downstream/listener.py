"""Listeners: from a ``--listen`` URL to accepted streams, over TCP, TLS and unix sockets.

Used by ``server``, whose handler gets each accepted stream with the peer's name, in a task of its
own. Unix paths are claimed in ``unix_socket``; sockets become streams in ``streams``.

The program's only crash barrier is here (``serve``): an exception of a connection's task is logged
and ends that connection, never the broker.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import sys
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Literal, NoReturn

import attrs
import msgspec
import structlog
import trio

from mux.config.addresses import Address, TcpAddress
from mux.downstream import encryption
from mux.downstream.sockets.peer import who_is_there
from mux.downstream.sockets.streams import Accepted, Listening, Patient
from mux.downstream.sockets.tls import Certificate
from mux.downstream.sockets.unauthenticated import Slot, Unauthenticated
from mux.downstream.sockets.unix_socket import Claim, ListenError, claim_path, reclaim_path

BACKLOG = 1024
"""Connections that the kernel queues until they are accepted. Every client of a full broker may
reconnect in the same moment."""

KEEPALIVE_IDLE = 60
KEEPALIVE_INTERVAL = 15
KEEPALIVE_COUNT = 4
"""TCP keepalive: probe after a minute of silence, then 4 times 15 s apart (seconds; count). That is
shorter than the NAT time-outs between a phone and us, and too rare to wake its radio for nothing.
"""

USER_TIMEOUT = 5 * 60 * 1000
"""Milliseconds that sent bytes may stay unacknowledged, or a peer's window shut. Where the system
has this option, it also decides when unanswered keepalives end a connection. Five minutes bridge a
lift, a tunnel, or a closed laptop."""

UNSENT_BYTES = 256 * 1024
"""Bytes that the kernel buffers for a client beyond those on their way. With more, a lagging client
only gets older bytes. With less, one read of the app-server's pipe is sent in many pieces, which
halves the rate to 256 clients."""

HANDED_ON = sys.platform == "linux"
"""True if an accepted socket inherits all options of the listening one, so that they needn't be set
on each. Systems other than Linux pass on only some."""

ACCEPT_AGAIN = 0.1
"""Seconds until the next try, after no descriptor was free to accept a connection with."""

_NO_ROOM = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
"""Errors of ``accept`` for want of a descriptor or of memory."""

INHERITED_VARIABLES = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")
FIRST_INHERITED = 3
"""The variables by which systemd passes sockets on (process, number, names), and the first
descriptor."""

log = structlog.get_logger()


# -- from an address to a listening socket ---------------------------------------------------------


class Listener(msgspec.Struct):
    """A bound socket that already queues connections, and how clients reach it."""

    url: str
    """The URL to connect to, with the real port or the absolute path."""
    kind: Literal["ws", "unix"]
    listening: Listening
    claim: Claim | None = None
    """The claim to a unix path that we bound ourselves; None for TCP and for inherited sockets."""
    certificate: Certificate | None = None
    """The certificate of a ``wss://`` listener."""
    tuned: bool = False
    """True if accepted sockets already have the options that ``_tune`` sets."""
    local: bool = False
    """True if the operator says that every TCP client is on this host (see ``TcpAddress``)."""
    origin: str = ""
    """The page's origin where that is by a name alone, which the certificate has; else empty."""
    is_followed: Callable[[], bool] = lambda: False
    """Whether the next broker goes on with this socket."""

    def announcement(self) -> list[str]:
        """Return the lines for stderr that name this listener, in the app-server's own words."""
        lines = [f"  listening on: {self.url}"]
        if self.kind == "ws":
            scheme, _, address = self.url.partition("://")
            http = "https" if scheme == "wss" else "http"
            lines += [f"  {path}: {http}://{address}/{path}" for path in ("readyz", "healthz")]
        return lines

    def encrypt(self, certificate: Certificate | None) -> None:
        """Make a ``ws://`` listener a ``wss://`` one.

        Raises ``ListenError`` if the certificate is None.
        """
        address = self.url.partition("://")[2]
        if certificate is None:
            raise ListenError(
                f"can't listen on wss://{address} without a certificate: give `--tls-cert` and"
                " `--tls-key`"
            )
        self.url, self.certificate = f"wss://{address}", certificate

    async def aclose(self) -> None:
        """Stop listening; remove the unix path if it is still this listener's. Idempotent.

        The path stays where the next broker goes on with this socket: nothing else leads to it.
        """
        if self.claim is not None and self.is_followed():
            self.claim.leave()
        elif self.claim is not None:
            self.claim.release()
        await self.listening.aclose()


async def open_listener(
    address: Address, certificate: Certificate | None = None, *, startup_held: bool = False
) -> Listener:
    """Bind and listen. Raises ``ListenError``, which says what is in the way.

    ``certificate`` is needed for ``wss://``; ``startup_held``: see ``unix_socket.claim_path``.
    """
    if isinstance(address, TcpAddress):
        listener = open_tcp(address)
        if address.tls:
            try:
                listener.encrypt(certificate)
            except ListenError:
                await listener.aclose()
                raise
        return listener
    claim = claim_path(
        address.path, control=address.control, backlog=BACKLOG, startup_held=startup_held
    )
    return Listener(
        url=f"unix://{address}",
        kind="unix",
        listening=Listening(claim.socket),
        claim=claim,
    )


def reopen(address: Address, descriptor: int, certificate: Certificate | None) -> Listener:
    """Listen on a socket that an earlier broker opened for this address.

    Raises ``ListenError``; the descriptor is closed then.
    """
    bound = socket.socket(fileno=descriptor)
    try:
        bound.listen(BACKLOG)  # nothing changes but whose it is, for who asks the kernel
        if isinstance(address, TcpAddress):
            url = f"ws://{attrs.evolve(address, port=bound.getsockname()[1])}"
            listener = Listener(url, "ws", Listening(bound), tuned=HANDED_ON, local=address.local)
            if address.tls:
                listener.encrypt(certificate)
            return listener
        claim = reclaim_path(address.path, bound)
    except BaseException:
        bound.close()
        raise
    return Listener(
        url=f"unix://{address}", kind="unix", listening=Listening(claim.socket), claim=claim
    )


def open_tcp(address: TcpAddress) -> Listener:
    """Bind and listen, without TLS yet (see ``encrypt``). Raises ``ListenError``."""
    family = socket.AF_INET if address.ip.version == 4 else socket.AF_INET6  # noqa: PLR2004
    try:
        bound = socket.socket(family, socket.SOCK_STREAM)
    except OSError as failure:  # a system without IPv6
        raise ListenError(_why_not(address, failure)) from failure
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            # [::] serves IPv4 too, as the app-server's own listener does on Linux.
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        if HANDED_ON:
            _set_options(bound.setsockopt)
        bound.bind((str(address.ip), address.port))
        bound.listen(BACKLOG)
    except OSError as failure:
        bound.close()
        raise ListenError(_why_not(address, failure)) from failure
    port = bound.getsockname()[1]
    url = f"ws://{attrs.evolve(address, port=port)}"
    return Listener(url, "ws", Listening(bound), tuned=HANDED_ON, local=address.local)


def inherited_listeners(environ: MutableMapping[str, str]) -> list[Listener]:
    """Take over the sockets that a service manager opened for this process (``sd_listen_fds(3)``).

    The variables that name them are removed from ``environ``: they aren't meant for the app-server.
    Raises ``ListenError`` for a descriptor that isn't a listening stream socket.
    """
    named = {name: environ.pop(name, "") for name in INHERITED_VARIABLES}
    if named["LISTEN_PID"] != str(os.getpid()):
        return []
    try:
        descriptors = range(FIRST_INHERITED, FIRST_INHERITED + int(named["LISTEN_FDS"]))
    except ValueError:
        raise ListenError(
            f"can't inherit sockets: LISTEN_FDS is {named['LISTEN_FDS']!r}, which is no number"
        ) from None
    return [_inherit(descriptor) for descriptor in descriptors]


def configure_inherited(
    inherited: Iterable[Listener], addresses: Iterable[Address], certificate: Certificate | None
) -> None:
    """Give each inherited listener what the configured URL of its address asks for.

    That is TLS for ``wss://``, and ``local`` for ``ws+local://``. Raises ``ListenError``.
    """
    tcp = [address for address in addresses if isinstance(address, TcpAddress)]
    for listener in inherited:
        meant = [address for address in tcp if str(address) == listener.url.partition("://")[2]]
        listener.local = any(address.local for address in meant)
        if any(address.tls for address in meant):
            listener.encrypt(certificate)


def _inherit(descriptor: int) -> Listener:
    try:
        os.set_inheritable(descriptor, False)
        inherited = socket.socket(fileno=descriptor)
    except OSError as failure:
        raise ListenError(
            f"can't inherit descriptor {descriptor}: {failure.strerror}; LISTEN_FDS counts one that"
            " isn't a socket"
        ) from failure
    name = inherited.getsockname()
    unix = inherited.family == socket.AF_UNIX
    if (
        inherited.type != socket.SOCK_STREAM
        or not inherited.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        or (unix and not str(name).startswith("/"))
        or not (unix or inherited.family in (socket.AF_INET, socket.AF_INET6))
    ):
        inherited.close()
        raise ListenError(
            f"can't inherit descriptor {descriptor}: it isn't a listening stream socket over TCP,"
            " or over a unix path; let the socket unit have only `ListenStream=` lines"
        )
    if unix:
        # No claim: the path belongs to the service manager, which also removes it.
        return Listener(url=f"unix://{name}", kind="unix", listening=Listening(inherited))
    address = TcpAddress(ipaddress.ip_address(name[0]), name[1])
    return Listener(url=f"ws://{address}", kind="ws", listening=Listening(inherited))


def _why_not(address: TcpAddress, failure: OSError) -> str:
    match failure.errno:
        case errno.EADDRINUSE:
            advice = (
                "; another program listens there (perhaps an appmux or a `codex app-server`):"
                " stop it, or choose another port"
            )
        case errno.EADDRNOTAVAIL:
            advice = "; this machine has no such address: use one that it has, or 127.0.0.1"
        case errno.EACCES:
            advice = "; choose a port above 1023"
        case _:
            advice = ""
    return f"can't listen on {address.url}: {failure.strerror}{advice}"


# -- from a listening socket to connections --------------------------------------------------------


async def serve(
    listener: Listener,
    handle_stream: Callable[[Accepted, str, Slot], Awaitable[object]],
    connection_nursery: trio.Nursery,
    unauthenticated: Unauthenticated | None = None,
    *,
    task_status: trio.TaskStatus[Listener] = trio.TASK_STATUS_IGNORED,
) -> NoReturn:
    """Accept until cancelled; then close the listener.

    Every stream becomes a task in ``connection_nursery`` that awaits ``handle_stream(stream,
    address, place)`` and closes the stream. ``address`` names the peer for people; ``place`` is its
    entry in ``unauthenticated``. Cancelling ``serve`` leaves those tasks alone.
    """
    pending = Unauthenticated() if unauthenticated is None else unauthenticated

    async def attend(stream: Patient) -> None:
        try:
            address = _admit_peer(stream.socket, listener)
            if address is None:
                return
            with pending.place(stream.fileno(), address) as place:
                if place is None:
                    return
                try:
                    prepared = await _prepare(stream, listener, address)
                    if prepared is not None:
                        await handle_stream(prepared, address, place)
                except* Exception:
                    log.exception("connection crashed", client=address, listener=listener.url)
        finally:
            await trio.aclose_forcefully(stream)

    try:
        task_status.started(listener)
        while True:
            try:
                stream = await listener.listening.accept()
            except OSError as failure:
                if failure.errno not in _NO_ROOM:
                    raise
                pending.no_descriptor(failure.strerror or str(failure))
                await trio.sleep(ACCEPT_AGAIN)
            else:
                connection_nursery.start_soon(attend, stream)
    finally:
        await listener.aclose()


def _admit_peer(accepted: trio.socket.SocketType, listener: Listener) -> str | None:
    """Prepare an accepted socket. Return its peer's name, or None if it is to be closed."""
    try:
        if listener.kind == "ws":
            if not listener.tuned:
                _set_options(accepted.setsockopt)
            host, port = accepted.getpeername()[:2]
            return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        uid = who_is_there(accepted.getsockopt).uid
    except OSError as failure:
        # The peer has disconnected already.
        log.debug("connection lost before its first byte", reason=failure.strerror)
        return None
    if uid is not None and uid != os.geteuid():
        log.warning("refused another user's connection", uid=uid, own_uid=os.geteuid())
        return None
    return "unix"


async def _prepare(patient: Patient, listener: Listener, address: str) -> Accepted | None:
    """Return the stream to read and write; None if it is over with the connection."""
    if listener.certificate is None:
        return patient
    return await encryption.begin(patient, listener.certificate, address, listener.origin)


def _set_options(set_option: Callable[[int, int, int], None]) -> None:
    set_option(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    set_option(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for names, amount in (
        # macOS calls the idle time TCP_KEEPALIVE.
        (("TCP_KEEPIDLE", "TCP_KEEPALIVE"), KEEPALIVE_IDLE),
        (("TCP_KEEPINTVL",), KEEPALIVE_INTERVAL),
        (("TCP_KEEPCNT",), KEEPALIVE_COUNT),
        (("TCP_USER_TIMEOUT",), USER_TIMEOUT),
        (("TCP_NOTSENT_LOWAT",), UNSENT_BYTES),
    ):
        known = (getattr(trio.socket, name, None) for name in names)  # more names than Python's
        option = next((each for each in known if each is not None), None)
        if option is not None:
            set_option(socket.IPPROTO_TCP, option, amount)
