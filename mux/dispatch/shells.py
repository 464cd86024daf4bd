"""The shells of one broker, as the dispatcher uses them. None of their methods waits.

Used by: ``dispatcher``, which carries out commands with them; ``server``, which makes the record.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Protocol

import msgspec
import structlog

from mux.core.commands import (
    AnswerOutside,
    Command,
    GiveUp,
    KillUpstream,
    LoadExperimentalSchema,
    Log,
    LogNoticeDecision,
    NoticeAnswerJudged,
    Notify,
    ReadJournal,
    Record,
    RenewBroker,
    Resolve,
    SaveState,
    StartUpstream,
    StopUpstream,
    Withdraw,
)
from mux.core.policy.principal import ClientId, Principal
from mux.core.protocol.journal_entry import Entry

DEFERRED: Final = object()
"""The result of a request that the shells will answer later, by ``Dispatcher.answered``."""

log = structlog.get_logger()


class AppServer(Protocol):
    """The app-server's process."""

    def send(self, line: bytes) -> None:
        """Write one line to its stdin, behind those before it."""

    def start(self, after: float) -> None:
        """Start a process after so many seconds; if one is being waited for, the new time holds."""

    def stop(self) -> None:
        """Ask the process to end."""

    def kill(self, reason: str) -> None:
        """End the process at once; ``reason`` is for the log."""


class ConnectionWatcher(Protocol):
    """Called for each client that comes and goes."""

    def came(self, client: ClientId, principal: Principal, peer: str) -> None:
        """Note that a client has come; ``peer`` is its address."""

    def left(self, client: ClientId) -> None:
        """Forget a client."""


class EntryStore(Protocol):
    """Stores entries in the journal, in the order of their numbers."""

    def __call__(self, *entries: Entry) -> None: ...


class NoticeSink(Protocol):
    """Turns the core's commands about notices into pushes."""

    def notify(self, command: Notify) -> None:
        """Push a notice to its recipients."""

    def withdraw(self, command: Withdraw) -> None:
        """Take a notice back from devices."""

    def explain(self, command: LogNoticeDecision) -> None:
        """Keep a decision about a notice, for `appmux notices --why`."""

    def judged(self, command: NoticeAnswerJudged) -> None:
        """Record how an answer that came by a push was judged."""

    def clock_moved(self) -> None:
        """Compute times of day again: the wall clock has jumped."""


class Shells(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """All that a dispatcher needs of its shells. A field that is forgotten is a type error."""

    app_server: AppServer
    connections: ConnectionWatcher
    notices: NoticeSink
    save: Callable[[str, bytes | None], None]
    """Keeps a value for the next broker, under a key."""
    keep: EntryStore
    read_journal: Callable[[ReadJournal], None]
    """Has entries read from disk for a client that is behind."""
    record: Callable[[str, dict[str, object]], None]
    """Puts a record (kind and fields) into the audit log."""
    resolve: Callable[[Resolve], None]
    """Has paths resolved, in the background."""
    load_experimental_schema: Callable[[], None]
    """Has it found out, in the background, what is experimental."""
    answer: Callable[[AnswerOutside], object]
    """Returns the result of a request that the shells answer, or ``DEFERRED``. Raises
    ``AppmuxError`` with what is wrong."""
    status: Callable[[], dict[str, Any]]
    """Returns what only the server adds to a report (pid, listeners)."""
    renew: Callable[[], None]
    """Ends the broker, for the next one."""
    give_up: Callable[[str], None]
    """Ends the broker, with a reason."""

    def perform(self, command: Command) -> None:
        """Carry out a command that concerns no client's connection."""
        match command:
            case SaveState(key, value):
                self.save(key, value)
            case Log(level, event, fields):
                getattr(log, level)(event, **fields)
            case Record(kind, fields):
                self.record(kind, fields)
            case ReadJournal():
                self.read_journal(command)
            case Resolve():
                self.resolve(command)
            case Notify() | Withdraw() | LogNoticeDecision() | NoticeAnswerJudged():
                self._perform_on_notices(command)
            case RenewBroker():
                self.renew()
            case GiveUp(reason):
                self.give_up(reason)
            case _:
                self._perform_on_app_server(command)

    def _perform_on_notices(
        self, command: Notify | Withdraw | LogNoticeDecision | NoticeAnswerJudged
    ) -> None:
        match command:
            case Notify():
                self.notices.notify(command)
            case Withdraw():
                self.notices.withdraw(command)
            case LogNoticeDecision():
                self.notices.explain(command)
            case NoticeAnswerJudged():
                self.notices.judged(command)

    def _perform_on_app_server(self, command: Command) -> None:
        match command:
            case StartUpstream(after):
                self.app_server.start(after)
            case StopUpstream():
                self.app_server.stop()
            case KillUpstream(reason):
                self.app_server.kill(reason)
            case LoadExperimentalSchema():
                self.load_experimental_schema()
            case _:
                raise TypeError(f"no such command: {command!r}")
