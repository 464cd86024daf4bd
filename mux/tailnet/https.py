"""Runs https on the Tailnet: the listeners for the host's name, and their certificate.

    run
    ├─ refresh  asks tailscaled who we are, opens and closes listeners, renews the certificate
    └─ one task a listener

The task refreshes once a minute, and whenever a status is requested. Without the operator's consent
to the machine's present name it opens nothing, and only reports.

A renewed certificate takes the old one's place in what the listeners have: new connections get it,
and none ends. A changed name ends the old one: its listeners are closed, its pages told.

Used by ``server``.
"""

from __future__ import annotations

import errno
import ipaddress
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final, Protocol

import msgspec
import structlog
import trio

from mux import documents
from mux.config.addresses import Address, TcpAddress
from mux.config.model import Tailnet
from mux.core.part import Part, later
from mux.downstream import listener
from mux.downstream.http.origins import origin_of
from mux.downstream.listener import Listener
from mux.downstream.sockets.tls import Certificate
from mux.downstream.sockets.unix_socket import ListenError
from mux.errors import AppmuxError
from mux.tailnet import choice
from mux.tailnet.node import Node, TailscaledError, Trouble
from mux.tailnet.renewal import Renewal, ask
from mux.tailnet.renewal import node as node_of

REFRESH_SECONDS: Final = 60.0
"""Seconds between two questions to tailscaled: a name changes once a year."""

SOON_SECONDS: Final = 10.0
"""Seconds until the next question while something is missing that may come by itself: at the boot
Tailscale comes up after us."""

NOT_LISTENED: Final = (
    "let `tailnet.port` take another port; where Tailscale has no network interface (userspace"
    " networking), put `tailscale serve` before the broker instead"
    f" ({documents.page('proxy')})"
)

ABSENT: Final = frozenset({errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT})
"""Errors of an address that the machine hasn't (yet): it may do without IPv6, say."""

SOCKET_PREFIX: Final = "tailnet "
"""The prefix of the names under which the supervisor holds our sockets; the address follows."""

MOVED: Final = 4410
"""Close code of a page whose origin has ended: another address has to be opened."""

log = structlog.get_logger()

Serve = Callable[[Listener], Awaitable[object]]
"""Serves a listener until it is cancelled."""


class Sockets(Protocol):
    """Holds listening sockets for the next broker (``server.handover``)."""

    def left(self, beginning: str) -> list[str]:
        """Return the names of an earlier broker's sockets that have this beginning."""

    def reopened(
        self, name: str, address: Address, certificate: Certificate | None
    ) -> Listener | None:
        """Return an earlier broker's listener of that name; None if it left none."""

    def hold(self, name: str, opened: Listener) -> None:
        """Hold a listener for the next broker, under a name."""

    def release(self, opened: Listener) -> None:
        """Hold a listener no more."""


class TailnetHttps(Part):
    """https on the Tailnet of one broker. Made by ``open``."""

    settings: Tailnet
    state_dir: Path
    sockets: Sockets
    clock: Callable[[], float]
    record: Callable[[str, dict[str, object]], None]
    """Puts a record (kind, fields) into the audit log."""
    announce: Callable[[], None] = lambda: None
    """Writes down where the broker listens. Blocks."""
    ended: Callable[[str, str], None] = lambda _origin, _why: None
    """Called with an origin that has ended, and the reason, for its pages."""
    moved: Callable[[str, str], None] = lambda _origin, _there: None
    """Called, more than once, with an origin that has ended for good, and the one that follows."""
    chosen: str | None = None
    """The name that the operator said yes to; None: https is off."""
    listeners: dict[str, Listener] = msgspec.field(default_factory=dict)
    """Those that are open, by address."""
    renewal: Renewal = later()
    """The certificate."""
    node: Node | None = None
    """What tailscaled said last."""
    trouble: Trouble | None = None
    _scopes: dict[str, trio.CancelScope] = msgspec.field(default_factory=dict)
    _nursery: trio.Nursery | None = None
    _serve: Serve | None = None
    _news: bool = False
    """True while listeners have come or gone that weren't announced."""
    _wake: trio.Event = msgspec.field(default_factory=trio.Event)
    _waiting: list[trio.Event] = msgspec.field(default_factory=list)

    @classmethod
    def open(
        cls,
        settings: Tailnet,
        state_dir: Path,
        sockets: Sockets,
        clock: Callable[[], float],
        record: Callable[[str, dict[str, object]], None],
    ) -> TailnetHttps:
        """Read the choice, and go on with what an earlier broker had. Blocks."""
        made = cls(settings, state_dir, sockets, clock, record)
        try:
            made.chosen = choice.read(state_dir)
        except AppmuxError as failure:
            log.error("no https on the Tailnet", why=str(failure))
        if made.chosen is not None:
            made.renewal.load(made.chosen)
            made._adopt()
        return made

    def __post_init__(self) -> None:
        self.renewal = Renewal(self.state_dir, self.settings.socket, self.clock)

    def _adopt(self) -> None:
        """Listen on the sockets that an earlier broker listened on, if there is a certificate."""
        if (held := self.renewal.held) is None:
            return
        for name in self.sockets.left(SOCKET_PREFIX):
            address = _address(
                name.removeprefix(SOCKET_PREFIX).rpartition(":")[0], self.settings.port
            )
            if name != f"{SOCKET_PREFIX}{address}":  # of another port
                continue
            found = self.sockets.reopened(name, address, held.served)
            if found is not None:
                self._opened(str(address.ip), address, found)

    # -- for others ----------------------------------------------------------------------------

    @property
    def origin(self) -> str | None:
        """The origin of the page by our name, while it is served; else None."""
        return self._origin if self.listeners else None

    @property
    def urls(self) -> list[str]:
        """The URL to connect to by our name, once, while it is served."""
        return list(dict.fromkeys(each.url for each in self.listeners.values()))

    @property
    def _origin(self) -> str:
        return origin_of("https", self.chosen or "", self.settings.port)

    def status(self) -> dict[str, Any]:
        """Return ``tailnet`` of ``mux/status``."""
        node, held = self.node, self.renewal.held
        return {
            "enabled": self.chosen is not None,
            "name": self.chosen or (node.name if node is not None else "") or None,
            "url": f"{self.origin}/" if self.origin else None,
            "addresses": list(self.listeners),
            "certificateUntil": None if held is None else held.until,
            "trouble": None if self.trouble is None else self.trouble.text,
            "remedy": None if self.trouble is None else self.trouble.remedy,
        }

    async def refresh(self) -> dict[str, Any]:
        """Ask tailscaled now, act on the answer, and return the status after that."""
        done = trio.Event()
        self._waiting.append(done)
        self._wake.set()
        await done.wait()
        return self.status()

    async def enable(self, name: str) -> dict[str, Any]:
        """Serve https by this name, which tailscaled must have for us. Raises ``AppmuxError``.

        What is in the way, and may change, is in the status that is returned.
        """
        node = await ask(node_of, self.settings.socket)
        if name != node.name:  # they said yes to another
            raise TailscaledError(
                f"in the tailnet this machine is called {node.name or 'nothing'}, not {name}",
                "`appmux tailnet enable` asks again",
            )
        await trio.to_thread.run_sync(choice.write, self.state_dir, name)
        if self.chosen not in (None, name):
            self._moved(self.chosen, name)
        self._choose(name)
        return await self.refresh()

    async def disable(self) -> dict[str, Any]:
        """End https, and forget the certificate. Raises ``AppmuxError``."""
        await trio.to_thread.run_sync(choice.remove, self.state_dir)
        self._end("https on the Tailnet was switched off on the host")
        self._choose(None)
        await trio.to_thread.run_sync(self.renewal.remove)  # it may have come meanwhile
        return await self.refresh()

    def _choose(self, name: str | None) -> None:
        if name != self.chosen:
            self.record("tailnet/https", {"name": name})
            log.info("https on the Tailnet is " + ("off" if name is None else "on"), name=name)
            self.chosen, self.trouble = name, None
            self.renewal.held = None
        self.renewal.order_at_once()

    # -- the task ------------------------------------------------------------------------------

    async def run(self, serve: Serve) -> None:
        """Keep https as chosen until cancelled. ``serve`` serves a listener."""
        async with trio.open_nursery() as nursery:
            self._nursery, self._serve = nursery, serve
            for ip in self.listeners:
                self._start(ip)
            while True:
                self._wake, waiting, self._waiting = trio.Event(), self._waiting, []
                if self.chosen is not None or waiting:
                    await self._refresh()
                if self._news:
                    self._news = False
                    await trio.to_thread.run_sync(self.announce)
                for event in waiting:
                    event.set()
                with trio.move_on_after(self._pause()):
                    await self._wake.wait()

    def _pause(self) -> float:
        if self.chosen is None:
            return float("inf")
        return SOON_SECONDS if not self.listeners else REFRESH_SECONDS

    async def _refresh(self) -> None:
        try:
            self.node = node = await ask(node_of, self.settings.socket)
            chosen = self.chosen
            if chosen is not None and node.name not in ("", chosen):
                self._moved(chosen, node.name)
                return
            node.require_https()
            if chosen is not None:
                await self._ensure(chosen, node.addresses)
        except TailscaledError as failure:
            self._report(Trouble(str(failure), failure.remedy))
        except ListenError as failure:
            self._report(Trouble(str(failure), NOT_LISTENED))
        except AppmuxError as failure:
            self._report(Trouble(str(failure), "`appmux doctor` looks for the cause"))
        else:
            self._report(self.renewal.late())
        if self.renewal.drop_if_over():
            self._close_all()  # whoever connects would only be refused by their browser

    async def _ensure(self, name: str, addresses: tuple[str, ...]) -> None:
        """Make sure of a certificate and of the listeners. Raises ``AppmuxError``."""
        try:
            await self.renewal.ensure(name, lambda: self.chosen == name)
        except AppmuxError:
            self._open(addresses)  # the certificate that is held may last for weeks
            raise
        self._open(addresses)

    # -- listeners -----------------------------------------------------------------------------

    def _open(self, addresses: tuple[str, ...]) -> None:
        """Listen on each of these addresses, and on no other. Raises ``ListenError``.

        One that the machine hasn't is no failure while there is another.
        """
        for ip in [each for each in self.listeners if each not in addresses]:
            self._close(ip)
        absent = failed = None
        for ip in addresses:
            if ip in self.listeners or (held := self.renewal.held) is None:
                continue
            address = _address(ip, self.settings.port)
            try:
                opened = listener.open_tcp(address)
            except ListenError as failure:
                missing = getattr(failure.__cause__, "errno", None) in ABSENT
                absent, failed = (failure, failed) if missing else (absent, failure)
                continue
            opened.encrypt(held.served)
            self._opened(ip, address, opened)
            self._start(ip)
        failed = failed or (None if self.listeners else absent)
        if failed is not None:
            raise failed

    def _opened(self, ip: str, address: TcpAddress, opened: Listener) -> None:
        assert self.chosen is not None
        opened.origin = self._origin
        opened.url = f"wss://{self.chosen}:{self.settings.port}"
        self.listeners[ip] = opened
        self.sockets.hold(f"{SOCKET_PREFIX}{address}", opened)
        self._news = True
        log.info("listening on the Tailnet", url=f"{self._origin}/", address=str(address))

    def _start(self, ip: str) -> None:
        assert self._nursery is not None
        assert self._serve is not None
        self._scopes[ip] = trio.CancelScope()
        self._nursery.start_soon(self._served, self._serve, self.listeners[ip], self._scopes[ip])

    async def _served(self, serve: Serve, each: Listener, scope: trio.CancelScope) -> None:
        with scope:
            await serve(each)

    def _close(self, ip: str) -> None:
        closed = self.listeners.pop(ip)
        self.sockets.release(closed)
        if (scope := self._scopes.pop(ip, None)) is not None:
            scope.cancel()
        else:  # it isn't served yet
            closed.listening.socket.close()
        self._news = True
        log.info("listening on the Tailnet no longer", address=ip)

    def _close_all(self) -> None:
        for ip in list(self.listeners):
            self._close(ip)

    # -- another name --------------------------------------------------------------------------

    def _moved(self, old: str, new: str) -> None:
        """Say that the machine has another name. The operator has to say yes to that one, too."""
        if self.listeners:
            self.record("tailnet/renamed", {"from": old, "to": new})
        origin, new_origin = self._origin, origin_of("https", new, self.settings.port)
        self._end(f"the host has another name: pair this device at {new_origin}/")
        self.moved(origin, new_origin)
        self._report(Trouble(
            f"this machine is called {new} in the tailnet now: https at {old} has ended",
            "run `appmux tailnet enable` for the new name (it becomes public, as the old one did),"
            " then `appmux pair` for each browser",
        ))  # fmt: skip

    def _end(self, why: str) -> None:
        """Close the listeners, and end the connections of the origin's pages."""
        if self.listeners:
            origin = self._origin
            self._close_all()
            self.ended(origin, why)

    def _report(self, trouble: Trouble | None) -> None:
        if self.chosen is None:
            pass  # nobody wants it
        elif trouble is not None and trouble != self.trouble:
            log.error("no https on the Tailnet" if not self.listeners else "https on the Tailnet",
                      why=trouble.text, remedy=trouble.remedy)  # fmt: skip
        elif trouble is None and self.trouble is not None:
            log.info("https on the Tailnet is well again", url=self.origin)
        self.trouble = trouble


def _address(ip: str, port: int) -> TcpAddress:
    return TcpAddress(ipaddress.ip_address(ip.strip("[]")), port, tls=True)
