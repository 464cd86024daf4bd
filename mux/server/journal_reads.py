"""Journal reads: entries that a client missed go from the disk to the core.

The command ``ReadJournal`` asks for them, by way of ``dispatcher``; the event ``JournalRead``
brings them. The event ``JournalExtent`` says which entries there are.
"""

from __future__ import annotations

import math

import msgspec
import structlog
import trio

from mux.core.commands import ReadJournal
from mux.core.events import JournalExtent, JournalRead, PastRemembered
from mux.core.part import Part
from mux.dispatch.dispatcher import Dispatcher
from mux.storage.journal import Store, StoreError

READ_AGAIN = 1.0
"""Seconds until entries that a client missed are read again, after reading them failed."""

log = structlog.get_logger()

_Channel = tuple[trio.MemorySendChannel[ReadJournal], trio.MemoryReceiveChannel[ReadJournal]]


class JournalReads(Part):
    """Reads entries for clients that are behind, one client after another."""

    store: Store
    dispatcher: Dispatcher
    _extent: JournalExtent | None = None
    """The extent as the core was last told."""
    _commands: _Channel = msgspec.field(
        default_factory=lambda: trio.open_memory_channel[ReadJournal](math.inf)
    )

    def read(self, command: ReadJournal) -> None:
        """Have entries read. Doesn't wait."""
        self._commands[0].send_nowait(command)

    def refresh_extent(self) -> None:
        """Tell the journal which deltas must stay, and the core which entries can be replayed."""
        self.store.running_floor = self.dispatcher.broker.running_floor
        extent = JournalExtent(self.store.epoch, self.store.earliest)
        if extent != self._extent:
            self._extent = extent
            self.dispatcher.handle(extent)

    async def remember(self) -> None:
        """Tell the core the last events of an earlier life, from which lists of threads are made.

        Without them lists show less: of a failure it is enough to be logged.
        """
        try:
            entries = await self.store.latest()
        except StoreError as failure:
            log.warning("lists show nothing of earlier turns", why=str(failure))
            return
        if entries:
            self.dispatcher.handle(PastRemembered(tuple(entries)))

    async def run(self) -> None:
        """Read what is asked for, until cancelled."""
        async for command in self._commands[1]:
            try:
                entries = await self.store.read(
                    command.after,
                    command.until,
                    command.threads,
                    command.max_bytes,
                    deltas=command.deltas,
                )
            except StoreError as failure:
                log.warning("a client that is behind has to wait", why=str(failure))
                await trio.sleep(READ_AGAIN)
                self.read(command)
                continue
            cut = sum(len(entry.message) for entry in entries) >= command.max_bytes
            until = entries[-1].seq if entries and cut else command.until
            # The extent first: if entries were pruned meanwhile, the core must know of the gap.
            self.refresh_extent()
            self.dispatcher.handle(JournalRead(command.client, tuple(entries), until, command.case))
