"""``mux/thread/digest``: what happened on a thread since a cursor, read from the journal."""

from __future__ import annotations

from typing import Final

import msgspec

from mux.core.extension.digest import Digest, DigestCommands, DigestParams
from mux.core.features.history.digest_summary import Summary
from mux.core.features.history.journal_sweep import JournalSweeps, Sweep
from mux.core.part import Part
from mux.core.protocol.envelope import jsonrpc
from mux.core.protocol.envelope.jsonrpc import ClientMessage
from mux.core.protocol.rules import OfferTo
from mux.core.state.clients.client import Client
from mux.core.state.state import State

METHOD: Final = "mux/thread/digest"


class Digests(Part):
    """Makes digests."""

    state: State
    sweeps: JournalSweeps

    def handle(self, client: Client, message: ClientMessage) -> None:
        """Begin the digest that a client asks for."""
        state, journal = self.state, self.state.journal
        try:
            params = _decoder.decode(message.params)
        except msgspec.DecodeError as wrong:
            text = f"`{message.method}`: {wrong}"
            state.error(client.id, message.id, jsonrpc.INVALID_REQUEST, text)
            return
        after, summary = params.after, Summary()
        # A cursor of another epoch is before all that there is.
        seq = None if after is None else (after.seq if after.epoch == journal.epoch else -1)
        self.sweeps.begin(
            client,
            message,
            message.thread or params.threadId,
            summary,
            done=lambda sweep: self._answer(sweep, summary),
            after=seq,
        )

    def _answer(self, sweep: Sweep, summary: Summary) -> None:
        state = self.state
        waiting = sum(
            request.rule.offer_to is OfferTo.FOLLOWERS and not request.answered
            for request in state.pending_requests.pending(sweep.thread)
        )
        digest = Digest(
            complete=sweep.complete and not summary.cut,
            epoch=state.journal.epoch,
            seq=sweep.until,
            turns=list(summary.turns.values()),
            files=list(summary.files.values()),
            commands=DigestCommands(summary.ran, summary.failed),
            decisions=summary.decisions,
            waiting=waiting,
            errors=summary.errors,
        )
        state.answer(sweep.client, jsonrpc.result(sweep.origin, digest), METHOD)


_decoder = msgspec.json.Decoder(DigestParams)
