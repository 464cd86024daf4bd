"""The core's part of the metrics, as numbers.

``server.observability.metrics`` asks for them at each scrape, and gives them names and labels.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from mux.core.broker import Broker
from mux.core.protocol.rules import OfferTo
from mux.core.state.app_server import AppServerState
from mux.core.state.clients.client import ClientState


class Figures(msgspec.Struct, frozen=True):
    """The broker's counts, as of now."""

    codex: str
    """The app-server's version; empty if it isn't known."""
    app_server_ready: bool
    generation: int
    in_flight: int
    """Requests that the app-server works at."""
    waiting: int
    """Requests that wait there for something outside."""
    queued: int
    """Requests that wait here for their turn."""
    clients: dict[ClientState, int]
    lags: list[int]
    """The entries to the journal's head, of each client that is behind."""
    threads_followed: int
    turns_running: int
    approvals_since: list[float]
    """The moment of each approval that waits for an answer, on the broker's clock."""
    head: int
    """The last number that the journal gave."""
    counts: Mapping[str, int]
    """What is counted as it happens (see ``State.count``)."""


def figures(broker: Broker) -> Figures:
    """Return the figures of a broker."""
    state = broker.state
    clients, threads = state.clients.values(), state.threads.known.values()
    head, flow = state.journal.head, state.scheduler
    return Figures(
        codex=state.appserver.version,
        app_server_ready=state.appserver.state is AppServerState.READY,
        generation=state.appserver.generation,
        in_flight=flow.in_flight,
        waiting=len(flow.upstream) - flow.in_flight,
        queued=flow.queued,
        clients={which: sum(each.state is which for each in clients) for which in ClientState},
        lags=[head - each.backlog.cursor for each in clients if each.backlog is not None],
        threads_followed=sum(bool(each.followers) for each in threads),
        turns_running=sum(each.running.turn is not None for each in threads),
        approvals_since=[
            each.since
            for each in state.pending_requests.pending()
            if each.rule.offer_to is OfferTo.FOLLOWERS and not each.answered
        ],
        head=head,
        counts=state.counts,
    )
