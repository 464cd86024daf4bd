"""The shells' part of a handover: what an earlier broker left is found, checked and read.

The supervisor hands on the app-server's pipes and the listening sockets; the state directory has
the rest (``storage.broker_state``). Where the two don't belong together, or the state can't be
read, the app-server is ended in order and another one started: as without a handover.

Used by ``serve``.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import structlog
import trio

from mux.config.addresses import Address
from mux.core.events import UpstreamHandedOver
from mux.core.part import Part
from mux.core.protocol.journal_entry import Entry
from mux.core.state import durable
from mux.downstream import listener
from mux.downstream.listener import Listener
from mux.downstream.sockets.tls import Certificate
from mux.downstream.sockets.unix_socket import ListenError
from mux.storage import broker_state
from mux.storage.broker_state import EPOCH, BrokerState, Saved
from mux.storage.journal import Store, StoreError
from mux.storage.journal_writer import Rest
from mux.upstream.process import PROCESS, Inheritance, end
from mux.upstream.supervised import Supervision

REPLAYED_BYTES = 64 * 1024 * 1024
"""Most bytes of the journal that are read for the items that run; a day's work of one agent."""

log = structlog.get_logger()


def ignore_save(_key: str, _value: bytes | None) -> None:
    """Keep nothing: there is no supervisor, so no next broker."""


class InheritedState(Part):
    """The things that an earlier broker left, and that can be gone on with."""

    saved: Saved

    @property
    def rest(self) -> Rest:
        """Return the entries that it hadn't written into the journal."""
        epoch = self.saved.values.get(EPOCH, b"").decode()
        return Rest(epoch, self.saved.entries)


class KeptState(Part):
    """The things that this broker keeps for the next one, and has of an earlier one."""

    state: BrokerState
    inheritance: Inheritance | None
    clients: int
    """No client number up to this one is used again."""


def left_behind(supervision: Supervision | None, state_dir: Path) -> InheritedState | None:
    """Return what an earlier broker left; None if there is nothing, or it can't be gone on with.

    Blocks.
    """
    if supervision is None or supervision.left is None:
        return None
    running = supervision.left
    try:
        saved = broker_state.load(state_dir / broker_state.FILE)
        if saved is None:
            raise ValueError("there is none, or of another version")
        if saved.values.get(PROCESS) != supervision.mark(running.pid, running.generation):
            raise ValueError("it is of another app-server")
        durable.running_since(saved.values)
    except (OSError, ValueError) as failure:
        supervision.trouble = f"what the broker before had saved can't be used: {failure}"
        log.error("a new app-server is started", why=supervision.trouble)
        return None
    return InheritedState(saved)


async def begin(supervision: Supervision, left: InheritedState | None, store: Store) -> KeptState:
    """Begin to keep state, and take over what an earlier broker left."""
    path = store.directory / broker_state.FILE
    if left is None:
        if supervision.left is not None:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(supervision.run)
                await end(supervision.adopt(supervision.left))
                nursery.cancel_scope.cancel()
        return KeptState(BrokerState.begin(path, store, None), None, 0)
    saved = left.saved
    state = BrokerState.begin(path, store, saved)
    running = supervision.left
    assert running is not None
    event = UpstreamHandedOver(
        running.generation, saved.values, await _running_entries(store, saved)
    )
    inheritance = Inheritance(
        supervision.adopt(running), running.generation, event, saved.read, saved.cut
    )
    clients = max(
        (durable.decode(v, int) for k, v in saved.values.items() if k == "clients/"), default=0
    )
    return KeptState(state, inheritance, clients)


async def _running_entries(store: Store, saved: Saved) -> tuple[Entry, ...]:
    """Read from the journal what the threads that run have streamed."""
    since = durable.running_since(saved.values)
    if not since:
        return ()
    entries: list[Entry] = []
    after, size = min(since.values()), 0
    try:
        while size < REPLAYED_BYTES:
            part = await store.read(after, store.next_seq - 1, since.keys(), REPLAYED_BYTES)
            entries += part
            size += sum(len(each.message) for each in part)
            if not part or part[-1].seq >= store.next_seq - 1 or size >= REPLAYED_BYTES:
                break
            after = part[-1].seq
    except StoreError as failure:
        log.warning("what runs can't be read from the journal", why=str(failure))
    return tuple(entries)


LOCK = "lock"
"""Stands in the place of an address for the lock of the state directory."""


class Sockets(Part):
    """The listening sockets that an earlier broker left, and those that the next one is left.

    The lock of the state directory goes the same way: nobody else gets it between two brokers.
    """

    supervision: Supervision | None
    _left: dict[str, list[int]] = msgspec.field(default_factory=dict)
    _held: dict[int, str] = msgspec.field(default_factory=dict)
    """By descriptor: the address as it was asked for."""
    _settled: bool = False

    def __post_init__(self) -> None:
        for name, descriptor in self.supervision.listeners if self.supervision else ():
            self._left.setdefault(name, []).append(descriptor)

    def has(self, name: str) -> bool:
        """Return whether an earlier broker had a listener for this address."""
        return bool(self._left.get(name))

    def reopened(
        self, name: str, address: Address, certificate: Certificate | None
    ) -> Listener | None:
        """Return the listener that an earlier broker had for this address; None if it had none."""
        inherited = self._left.get(name)
        if not inherited:
            return None
        try:
            return listener.reopen(address, inherited.pop(0), certificate)
        except (ListenError, OSError) as failure:
            log.warning("a listening socket isn't gone on with", why=str(failure))
            return None

    def left(self, beginning: str) -> list[str]:
        """Return what an earlier broker asked for that begins so, and had a listener for."""
        return [name for name in self._left if self.has(name) and name.startswith(beginning)]

    def lock(self) -> int | None:
        """Return the descriptor of the state directory's lock that an earlier broker left."""
        inherited = self._left.pop(LOCK, None)
        return inherited[0] if inherited else None

    def hold_lock(self, descriptor: int) -> None:
        """Have the lock of the state directory held for the next broker."""
        self._held[descriptor] = LOCK
        self._report()

    def hold(self, name: str, opened: Listener) -> None:
        """Have a listener held for the next broker."""
        if self.supervision is not None:
            opened.is_followed = self.supervision.is_followed
        self._held[opened.listening.socket.fileno()] = name
        self._report()

    def release(self, opened: Listener) -> None:
        """Have a listener held no longer. Call it before the listener is closed."""
        self._held.pop(opened.listening.socket.fileno(), None)
        self._report()

    def let_go(self) -> None:
        """Close what nobody has gone on with, and tell the supervisor what to hold."""
        for descriptors in self._left.values():
            for descriptor in descriptors:
                os.close(descriptor)
        self._left.clear()
        self._settled = True
        self._report()

    def _report(self) -> None:
        if self._settled and self.supervision is not None:
            self.supervision.hold([(name, each) for each, name in self._held.items()])
