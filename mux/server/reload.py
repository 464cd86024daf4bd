"""Reload: secrets and certificate are read again after a SIGHUP; nobody is disconnected.

What can't be used changes nothing, and is said in the log and the audit log.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import structlog
import trio

from mux.access.authentication import Authenticator
from mux.core.part import Part
from mux.downstream.sockets.tls import Certificate
from mux.errors import AppmuxError
from mux.storage.audit_log import Audit

RELOAD_SECONDS = 10.0
"""Deadline for reading secrets and certificate again; from a disk it takes a millisecond."""

log = structlog.get_logger()


class Reload(Part):
    """Reads again what may change while the broker runs."""

    authenticator: Authenticator
    certificate: Certificate | None
    audit: Audit
    _asked: trio.Event = msgspec.field(default_factory=trio.Event)

    def ask(self) -> None:
        """Have `run` read again."""
        self._asked.set()

    async def run(self) -> None:
        """Read again each time that it is asked for, until cancelled."""
        while True:
            await self._asked.wait()
            self._asked = trio.Event()
            await self.read_again("secrets", self.authenticator.read_again)
            if self.certificate is not None:
                await self.read_again("certificate", self.certificate.read_again)

    async def read_again(self, what: str, read: Callable[[], Callable[[], None]]) -> None:
        """Call ``read`` in a thread, and the function that it returns."""
        try:
            # A file server that doesn't answer holds up only the thread.
            with trio.fail_after(RELOAD_SECONDS):
                go_by_it = await trio.to_thread.run_sync(read, abandon_on_cancel=True)
            go_by_it()
        except (AppmuxError, trio.TooSlowError) as failure:
            reason = str(failure) or f"no answer within {RELOAD_SECONDS:.0f} s"
            log.error(f"{what} not read again, what was there stays", why=reason)
            self.audit.record("config/reload-failed", {"what": what, "why": reason})
        else:
            log.info(f"{what} read again")
            self.audit.record("config/reloaded", {"what": what})
