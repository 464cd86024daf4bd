"""The metrics, in Prometheus' format: read from the broker's state at each scrape.

On the way of a message only a few plain integers are counted for them (``Traffic``,
``State.counts``, ``Histogram``). Labels have few values: no client, thread or path is one.

Used by ``nursery``, which loads this module late. It reads state and changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import attrs
import trio
from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

import mux
from mux.access.devices import DeviceRegistry
from mux.access.throttle import LoginThrottle
from mux.core.features.approvals.server_requests import LATE
from mux.core.features.notices.notice_escalation import REASONS
from mux.core.reports.figures import Figures, figures
from mux.dispatch.dispatcher import Dispatcher
from mux.downstream.http.request import Exposition
from mux.push.queue import State as Push
from mux.push.sender import Pushes
from mux.server.observability import stderr
from mux.storage.audit_log import Audit
from mux.storage.journal import Store
from mux.upstream.process import Upstream

OUTCOMES: Final = {
    "accepted": "approval/answered",
    "kept": "approval/voted",
    "abstained": "approval/abstained",
    "late": LATE,
    "refused": "answer/refused",
}
"""The label of each outcome of an answer to an approval, and the core's count that it reads."""


ENDS: Final[tuple[Push, ...]] = ("sent", "given up", "expired", "withdrawn", "replaced")


@attrs.define(eq=False, repr=False)
class Metrics(Collector):
    """All metrics of one broker."""

    dispatcher: Dispatcher
    upstream: Upstream
    store: Store
    audit: Audit
    throttle: LoginThrottle
    pushes: Pushes
    book: DeviceRegistry
    _registry: CollectorRegistry = attrs.field(factory=CollectorRegistry)

    def __attrs_post_init__(self) -> None:
        self._registry.register(self)
        # CPU, memory and descriptors of both processes; nothing where there is no /proc.
        ProcessCollector(registry=self._registry)
        ProcessCollector("appmux_app_server", self._app_server, registry=self._registry)

    def expose(self, accept: str) -> Exposition:
        """Return all metrics as of now, in the format that ``accept`` (HTTP's header) asks for."""
        encode, content_type = choose_encoder(accept)
        return Exposition(encode(self._registry).decode(), content_type)

    def describe(self) -> list[Metric]:
        """Return nothing; else the registry would collect at once, before there is any state."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yield one family of metrics after another."""
        core = figures(self.dispatcher.broker)
        yield from self._of_app_server(core)
        yield from self._of_clients(core)
        yield from self._of_messages(core)
        yield from self._of_approvals(core)
        yield from self._of_journal(core)
        yield from self._of_pushes()
        yield from self._of_refusals(core)
        yield from self._of_notices(core)
        yield from self._of_log()

    def _app_server(self) -> int | str:
        return self.upstream.pid or "none"

    def _of_app_server(self, core: Figures) -> Iterator[Metric]:
        version = core.codex or "unknown"
        yield InfoMetricFamily(
            "appmux_build", "What runs.", {"version": mux.__version__, "codex": version}
        )
        up = core.app_server_ready
        yield _gauge("app_server_up", "Whether the app-server can be used.", up)
        generation = core.generation
        yield _gauge("app_server_generation", "Its lives so far.", generation)
        yield _counter("app_server_restarts", "Its lives after the first.", max(0, generation - 1))
        requests = GaugeMetricFamily(
            "appmux_requests",
            "Requests of clients: in_flight to the app-server, waiting there for something outside"
            " (a command's end), queued here.",
            labels=["state"],
        )
        requests.add_metric(["in_flight"], core.in_flight)
        requests.add_metric(["waiting"], core.waiting)
        requests.add_metric(["queued"], core.queued)
        yield requests

    def _of_clients(self, core: Figures) -> Iterator[Metric]:
        attached = GaugeMetricFamily(
            "appmux_clients",
            "Clients: attached before their handshake, ready after it.",
            labels=["state"],
        )
        for which, number in core.clients.items():
            attached.add_metric([which.value], number)
        yield attached
        yield _counter(
            "clients_attached",
            "Clients past their handshake.",
            core.counts.get("client/attached", 0),
        )
        yield _gauge("clients_behind", "Clients that read on from the journal.", len(core.lags))
        yield _gauge(
            "client_lag_entries_max", "Entries to the head, of the client that lags most.",
            max(core.lags, default=0),
        )  # fmt: skip
        owed = self.dispatcher.owed()
        yield _gauge("client_owed_bytes", "Bytes that all clients are owed.", sum(owed))
        yield _gauge(
            "client_owed_bytes_max", "Bytes that one client is owed, at most.", max(owed, default=0)
        )
        followed = core.threads_followed
        yield _gauge("threads_followed", "Threads that some client follows.", followed)
        yield _gauge("turns_running", "Turns that run.", core.turns_running)

    def _of_messages(self, core: Figures) -> Iterator[Metric]:
        traffic = self.dispatcher.traffic
        messages = CounterMetricFamily(
            "appmux_messages",
            "Messages, each to several clients counted as often.",
            labels=["direction"],
        )
        messages.add_metric(["from_clients"], traffic.from_clients)
        messages.add_metric(["to_app_server"], traffic.to_app_server)
        messages.add_metric(["from_app_server"], traffic.from_app_server)
        messages.add_metric(["to_clients"], traffic.to_clients)
        yield messages
        yield _counter(
            "delivered_bytes", "Bytes put into clients' outboxes.", traffic.bytes_to_clients
        )
        yield _counter(
            "turn_requests",
            "Turns started, steered, interrupted.",
            core.counts.get("turn/asked", 0),
        )

    def _of_approvals(self, core: Figures) -> Iterator[Metric]:
        waiting = core.approvals_since
        yield _gauge("approvals_pending", "Approvals that wait for an answer.", len(waiting))
        age = trio.current_time() - min(waiting) if waiting else 0.0
        yield _gauge("approvals_oldest_seconds", "How long the oldest of them has waited.", age)
        yield _counter("approvals", "Approvals asked for.", core.counts.get("approval/raised", 0))
        answers = CounterMetricFamily(
            "appmux_answers", "Answers of clients to approvals.", labels=["outcome"]
        )
        for outcome, kind in OUTCOMES.items():
            answers.add_metric([outcome], core.counts.get(kind, 0))
        yield answers

    def _of_journal(self, core: Figures) -> Iterator[Metric]:
        facts = self.store.status()
        yield _gauge("journal_bytes", "What the journal takes on disk.", _number(facts["bytes"]))
        yield _counter("journal_seq", "The last number given, in its epoch.", core.head)
        unwritten = _number(facts["unwrittenEntries"])
        yield _gauge("journal_unwritten_entries", "Entries that are in memory alone.", unwritten)
        writes = self.store.writes
        yield HistogramMetricFamily(
            "appmux_journal_write_seconds",
            "How long writing entries to disk took.",
            writes.buckets(),
            writes.total,
        )
        trouble = GaugeMetricFamily(
            "appmux_disk_trouble", "Whether something can't be written.", labels=["what"]
        )
        trouble.add_metric(["journal"], self.store.trouble is not None)
        trouble.add_metric(["audit"], self.audit.trouble is not None)
        trouble.add_metric(["devices"], self.book.file.trouble is not None)
        trouble.add_metric(["pushes"], self.pushes.keeper.trouble is not None)
        yield trouble

    def _of_pushes(self) -> Iterator[Metric]:
        queue = self.pushes.queue
        yield _gauge("pushes_queued", "Pushes that aren't sent yet.", len(queue.waiting()))
        yield _gauge(
            "pushes_oldest_seconds", "How long the oldest of them has waited.", self.pushes.oldest
        )
        ended = CounterMetricFamily("appmux_pushes", "Pushes, by how they ended.", labels=["end"])
        for end in ENDS:
            ended.add_metric([end.replace(" ", "_")], queue.ended[end])
        yield ended
        yield _gauge(
            "push_services_faulty", "Push services that can't be used.", self.pushes.faulty
        )

    def _of_notices(self, core: Figures) -> Iterator[Metric]:
        for name, kind, text in (
            ("notices_raised", "notice/raised", "Things that deserved a notice."),
            ("notices_sent", "notice/sent", "Notices told to a device, each device counted."),
        ):
            yield _counter(name, text, core.counts.get(kind, 0))
        suppressed = CounterMetricFamily(
            "appmux_notices_suppressed", "Notices not told, by why.", labels=["reason"]
        )
        for reason in REASONS:
            count = core.counts.get(f"notice/suppressed/{reason}", 0)
            suppressed.add_metric([reason], count)
        yield suppressed

    def _of_refusals(self, core: Figures) -> Iterator[Metric]:
        yield _counter(
            "authentication_failures", "Connections of which nobody knows who.", self.throttle.total
        )
        refused = core.counts.get("request/refused", 0)
        yield _counter("requests_refused", "Requests that lacked a scope.", refused)

    def _of_log(self) -> Iterator[Metric]:
        dropped = _number(stderr.status()["droppedLines"])
        yield _counter("log_lines_dropped", "Lines of the log that could not be written.", dropped)


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"appmux_{name}", text, value=value)


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(f"appmux_{name}", text, value=value)


def _number(value: object) -> float:
    assert isinstance(value, int | float)
    return value
