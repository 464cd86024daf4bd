"""Orders the certificate, keeps it, renews it in time, and reports a renewal that is late.

Used by ``https``, from its one task.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

import attrs
import structlog
import trio

from mux.core.part import Part
from mux.errors import AppmuxError
from mux.tailnet.node import BUSY, RESTART, Node, TailscaledError, Trouble
from mux.text import day

if TYPE_CHECKING:
    from mux.tailnet.certificate import TailnetCertificate

ORDER_SECONDS: Final = 3600.0
"""Seconds until a certificate is ordered again, after that failed at the authority: it lets nobody
try more often than five times an hour."""

ANSWER_SECONDS: Final = 180.0
"""Seconds after which an answer isn't waited for any more, however it trickles in: longer than each
way to tailscaled has."""

log = structlog.get_logger()

_T = TypeVar("_T")


async def ask(what: Callable[..., _T], *arguments: object) -> _T:
    """Ask tailscaled in a thread; it may hang. Raises ``TailscaledError``."""
    with trio.move_on_after(ANSWER_SECONDS):
        return await trio.to_thread.run_sync(what, *arguments, abandon_on_cancel=True)
    raise TailscaledError("tailscaled's answer has no end", RESTART)


def node(socket: Path | None) -> Node:
    """Ask tailscaled, found anew each time, who we are. Blocks. Raises ``TailscaledError``."""
    from mux.tailnet import tailscaled  # noqa: PLC0415 (an HTTP client, if it is wanted)

    return tailscaled.find(socket).node()


def _order(socket: Path | None, name: str, valid_for: float) -> bytes:
    from mux.tailnet import tailscaled  # noqa: PLC0415 (as above)

    return tailscaled.find(socket).certificate(name, valid_for)


class Renewal(Part):
    """The certificate of one broker's name in the Tailnet."""

    state_dir: Path
    socket: Path | None
    """The socket of tailscaled, if the settings name one."""
    clock: Callable[[], float]
    held: TailnetCertificate | None = None
    """The certificate that is served; None if there is none."""
    _order_at: float = 0.0
    """No certificate is ordered before this moment (Unix seconds)."""
    _refused: AppmuxError | None = None
    """The reason why the last order failed; None if it didn't."""

    def load(self, name: str) -> None:
        """Load the kept certificate of a name, if there is one. Blocks."""
        from mux.tailnet import certificate  # noqa: PLC0415 (cryptography, if it is wanted)

        self.held = certificate.load(self.state_dir, name, self.clock())

    def remove(self) -> None:
        """Remove the kept certificate with its key. Blocks."""
        from mux.tailnet import certificate  # noqa: PLC0415 (as above)

        try:
            certificate.remove(self.state_dir)
        except OSError as failure:
            log.error("the Tailnet's certificate can't be removed", why=failure.strerror)

    def order_at_once(self) -> None:
        """Skip the wait after an order that failed, since a person asked."""
        self._refused, self._order_at = None, 0.0

    async def ensure(self, name: str, still_wanted: Callable[[], bool]) -> None:
        """Get a certificate if there is none, or a newer one if it is time for that.

        Raises ``AppmuxError``: what is held then stays.
        """
        from mux.tailnet import certificate  # noqa: PLC0415 (as above)

        now, held = self.clock(), self.held
        if held is not None and now < held.renew_from:
            return
        if now < self._order_at:
            if self._refused is not None:
                raise self._refused
            return
        needed = certificate.RENEW_BEFORE if held is None else held.until - held.renew_from
        try:
            pem = await ask(_order, self.socket, name, needed)
            got = await trio.to_thread.run_sync(certificate.keep, self.state_dir, pem, name, now)
        except AppmuxError as failure:
            if not (isinstance(failure, TailscaledError) and failure.again_soon):
                self._refused, self._order_at = failure, now + ORDER_SECONDS
            raise
        self._refused = None
        if not still_wanted():  # it was switched off meanwhile
            await trio.to_thread.run_sync(self.remove)
        elif held is None:
            self.held = got
        elif got.until == held.until:  # an older tailscaled renews later, by itself
            self._order_at = now + ORDER_SECONDS
            return
        else:
            held.served.context = got.served.context
            self.held = attrs.evolve(got, served=held.served)
        log.info("the Tailnet's certificate", name=name, until=day(got.until))

    def late(self) -> Trouble | None:
        """Return the trouble of a renewal that is late; None if it isn't."""
        held = self.held
        if held is None or self.clock() < held.late_from:
            return None
        text = f"the certificate of {held.name} ends in {held.days_left(self.clock()):.0f} days"
        return Trouble(f"{text}, and tailscaled has no newer one", BUSY)

    def drop_if_over(self) -> bool:
        """Drop the certificate if it has ended; return whether it has."""
        over = self.held is not None and self.held.until <= self.clock()
        if over:
            self.held = None
        return over
