"""The ledger: each thing that was raised, each decision about it, each push that was made of it.

So nothing is told again after a restart, and ``appmux notices --why`` can say what became of what.
Written at once and from the one task that decides: notices are rare, a commit takes a tenth of a
millisecond (it doesn't wait for the disk), and one that was raised isn't lost by a kill. A disk
that takes nothing never stops the broker: then the ledger is in memory, and says so.

Hands to: ``delivery``, what earlier lives told. Hears from: ``delivery``.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final

import attrs
import structlog

from mux.core.policy.notice import Notice
from mux.storage import sqlite
from mux.storage.sqlite import Form

FILE: Final = "notices.sqlite3"

MOST_THINGS: Final = 2000
KEPT_SECONDS: Final = 30 * 86_400.0
"""What is older, or past that number, is forgotten. Nothing is repeated after so long."""

FORGOTTEN_AT_ONCE: Final = 4
"""Things, at most, that are forgotten when one is raised: so many that it keeps up, and so few that
nobody waits for it."""

FREE_PAGES: Final = 256
"""Free pages that are kept, as they are soon written again: 1 MiB."""

STEP_PAGES: Final = 16
"""Given back when something is forgotten: a tenth of a millisecond."""

ALL_PAGES: Final = 2**31 - 1
"""At the start."""

MOST_STEPS: Final = 64
"""Of one thing: a client that comes and goes all night must not fill the disk."""

BUSY_MILLISECONDS: Final = 50
"""Waited for an operator's ``sqlite3``, who must not make everybody wait."""

log = structlog.get_logger()


def _first(connection: sqlite3.Connection) -> None:
    for statement in (
        """CREATE TABLE thing (
            thing TEXT PRIMARY KEY, kind TEXT NOT NULL, thread TEXT, turn TEXT,
            title TEXT NOT NULL, line TEXT NOT NULL, request INTEGER, method TEXT NOT NULL,
            raised REAL NOT NULL, over REAL, why TEXT
        )""",
        """CREATE TABLE step (
            n INTEGER PRIMARY KEY, thing TEXT NOT NULL, at REAL NOT NULL, what TEXT NOT NULL,
            device TEXT NOT NULL, why TEXT NOT NULL
        )""",
        "CREATE INDEX step_thing ON step (thing)",
        """CREATE TABLE push (
            id TEXT PRIMARY KEY, thing TEXT NOT NULL, device TEXT NOT NULL, at REAL NOT NULL
        )""",
        "CREATE INDEX push_thing ON push (thing, device)",
        "CREATE TABLE secret (value BLOB NOT NULL)",
        "INSERT INTO secret VALUES (randomblob(32))",
    ):
        connection.execute(statement)


def _second(connection: sqlite3.Connection) -> None:
    connection.execute("CREATE INDEX thing_raised ON thing (raised)")


FORM: Final = Form(
    what="the ledger of notices",
    application=int.from_bytes(b"amxn"),
    migrations=(_first, _second),
    without="notices of before may come once more",
)


@attrs.frozen
class Thing:
    """One thing as it stands in the ledger. Times in Unix seconds."""

    thing: str
    kind: Any
    thread: str | None
    turn: str | None
    title: str
    line: str
    request: int | None
    method: str
    raised: float
    over: float | None
    why: str | None

    def notice(self) -> Notice:
        """The notice of it, without what only the app-server can say."""
        return Notice(
            self.thing, self.kind, self.thread, self.turn, self.title, self.line, self.request,
            self.method,
        )  # fmt: skip


@attrs.frozen
class Step:
    """One decision. ``device``: a key; empty for all."""

    at: float
    what: str
    device: str
    why: str


_COLUMNS = ", ".join(field.name for field in attrs.fields(Thing))


@attrs.define(eq=False, repr=False)
class Ledger:
    """The ledger of one broker. Made by ``open``. ``trouble``: for people, why it isn't on disk."""

    path: Path
    clock: Callable[[], float]
    connection: sqlite3.Connection
    trouble: str | None = None
    _in_memory: bool = False
    _count: int = 0

    @classmethod
    def open(cls, state_dir: Path, clock: Callable[[], float]) -> Ledger:
        """That of a state directory. Raises ``StoreError`` if a newer appmux made it."""
        path = state_dir / FILE
        trouble = None
        try:
            connection = _connect(path)
        except (sqlite3.Error, OSError) as failure:
            trouble = _trouble(path, failure)
            log.error(trouble)
            connection = sqlite3.connect(":memory:", isolation_level=None)
            for migration in FORM.migrations:
                migration(connection)
        connection.execute(f"PRAGMA busy_timeout = {BUSY_MILLISECONDS}")
        opened = cls(path, clock, connection, trouble, in_memory=trouble is not None)
        opened._tidy()
        return opened

    def close(self) -> None:
        """Let go of the file."""
        self.connection.close()

    # -- what happens ------------------------------------------------------------------------------

    def raised(self, notice: Notice) -> None:
        """It is there, if it wasn't."""
        self._write(
            f"INSERT OR IGNORE INTO thing ({_COLUMNS})"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, NULL, NULL)",
            notice.subject, notice.kind, notice.thread, notice.turn, notice.title, notice.line,
            notice.request, notice.method, self.clock(),
        )  # fmt: skip
        self._count += 1  # at most: it may have been there
        self._forget_some()

    def step(self, thing: str, what: str, reason: str, device: str = "") -> None:
        """A decision, and its reason."""
        self._write(
            "INSERT INTO step (thing, at, what, device, why) SELECT ?, ?, ?, ?, ?"
            " WHERE (SELECT count(*) FROM step WHERE thing = ?) < ?"
            " AND EXISTS (SELECT 1 FROM thing WHERE thing = ?)",
            thing, self.clock(), what, device, reason, thing, MOST_STEPS, thing,
        )  # fmt: skip

    def pushed(self, id: str, thing: str, device: str) -> None:
        """A push of it was made for a device."""
        self._write("INSERT INTO push VALUES (?, ?, ?, ?)", id, thing, device, self.clock())

    def over(self, thing: str, reason: str) -> None:
        """It stands no more."""
        self._write(
            "UPDATE thing SET over = ?, why = ? WHERE thing = ? AND over IS NULL",
            self.clock(), reason, thing,
        )  # fmt: skip

    def _write(self, statement: str, *values: object) -> None:
        try:
            self.connection.execute(statement, values)
        except sqlite3.Error as failure:
            self._failed(failure)
        else:
            if self.trouble and not self._in_memory and self.path.exists():
                self.trouble = None

    def _failed(self, failure: sqlite3.Error) -> None:
        trouble = _trouble(self.path, failure)
        if trouble != self.trouble:
            self.trouble = trouble
            log.error(trouble)

    def _forget_some(self) -> None:
        """Forget the oldest things, if they are too many or too old: a few, each by its index."""
        limit = self.clock() - KEPT_SECONDS
        oldest = self._read(
            "SELECT thing, raised FROM thing ORDER BY raised LIMIT ?", FORGOTTEN_AT_ONCE
        )
        if self._count > MOST_THINGS:
            self._count = self._number()
        surplus = self._count - MOST_THINGS
        gone = [
            (thing,)
            for place, (thing, raised) in enumerate(oldest)
            if place < surplus or raised < limit
        ]
        if not gone:
            return
        try:
            with sqlite.transaction(self.connection):
                for table in ("thing", "step", "push"):
                    self.connection.executemany(f"DELETE FROM {table} WHERE thing = ?", gone)
            self._count -= len(gone)
            self._shrink(STEP_PAGES)
        except sqlite3.Error as failure:
            self._failed(failure)

    def _tidy(self) -> None:
        """Forget all that is too old or too much: at the start, where nobody waits for it."""
        self._write(
            "DELETE FROM thing WHERE raised < ? OR thing IN"
            " (SELECT thing FROM thing ORDER BY raised DESC LIMIT -1 OFFSET ?)",
            self.clock() - KEPT_SECONDS, MOST_THINGS,
        )  # fmt: skip
        for table in ("step", "push"):
            self._write(f"DELETE FROM {table} WHERE thing NOT IN (SELECT thing FROM thing)")
        self._count = self._number()
        try:
            self._shrink(ALL_PAGES)
        except sqlite3.Error as failure:
            self._failed(failure)

    def _shrink(self, pages: int) -> None:
        if sqlite.free_pages(self.connection) > FREE_PAGES:
            sqlite.give_back(self.connection, pages)

    def _number(self) -> int:
        """How many things there are."""
        return sum(row[0] for row in self._read("SELECT count(*) FROM thing"))

    # -- what was ----------------------------------------------------------------------------------

    def secret(self) -> bytes:
        """Random, the same as long as the ledger lives."""
        return bytes(self._read("SELECT value FROM secret")[0][0])

    def known(self) -> tuple[str, ...]:
        """Every thing, the oldest first."""
        return tuple(row[0] for row in self._read("SELECT thing FROM thing ORDER BY raised"))

    def things(self, limit: int) -> list[Thing]:
        """The newest first."""
        rows = self._read(
            f"SELECT {_COLUMNS} FROM thing ORDER BY raised DESC, rowid DESC LIMIT ?", limit
        )
        return [Thing(*row) for row in rows]

    def standing(self) -> list[Thing]:
        """Those that aren't over and went to somebody, the oldest first."""
        rows = self._read(
            f"SELECT {_COLUMNS} FROM thing WHERE over IS NULL AND"
            " EXISTS (SELECT 1 FROM push WHERE push.thing = thing.thing) ORDER BY raised"
        )
        return [Thing(*row) for row in rows]

    def standing_at(self, device: str, thread: str | None) -> list[str]:
        """The things of a thread that stand at a device, the oldest first."""
        rows = self._read(
            "SELECT thing FROM thing WHERE over IS NULL AND thread IS ? AND EXISTS"
            " (SELECT 1 FROM push WHERE push.thing = thing.thing AND device = ?) ORDER BY raised",
            thread, device,
        )  # fmt: skip
        return [row[0] for row in rows]

    def devices(self, thing: str) -> list[str]:
        """To whom it went."""
        rows = self._read("SELECT DISTINCT device FROM push WHERE thing = ? ORDER BY at", thing)
        return [row[0] for row in rows]

    def pushes(self, thing: str) -> list[tuple[str, str]]:
        """The pushes that were made of it: id and device."""
        return self._read("SELECT id, device FROM push WHERE thing = ? ORDER BY at", thing)

    def steps(self, thing: str) -> list[Step]:
        """Every decision about it."""
        rows = self._read(
            "SELECT at, what, device, why FROM step WHERE thing = ? ORDER BY n", thing
        )
        return [Step(*row) for row in rows]

    def of_push(self, id: str, devices: Iterable[str]) -> Thing | None:
        """The thing behind a push that one of these devices got."""
        columns = ", ".join(f"thing.{field.name}" for field in attrs.fields(Thing))
        rows = self._read(
            f"SELECT push.device, {columns} FROM push JOIN thing USING (thing) WHERE push.id = ?",
            id,
        )
        return next((Thing(*row[1:]) for row in rows if row[0] in devices), None)

    def _read(self, statement: str, *values: object) -> list[Any]:
        try:
            return self.connection.execute(statement, values).fetchall()
        except sqlite3.Error as failure:
            log.error(_trouble(self.path, failure))
            return []


def _connect(path: Path) -> sqlite3.Connection:
    try:
        return sqlite.connect(path, FORM)
    except (sqlite.Broken, sqlite3.DatabaseError) as failure:
        if not sqlite.is_broken(failure):
            raise
        aside = sqlite.move_aside(path, time.time())
        log.error("the ledger of notices is broken; a new one is begun", kept=str(aside))
        return sqlite.connect(path, FORM)


def _trouble(path: Path, failure: BaseException) -> str:
    return (
        f"the ledger of notices {path} can't be written ({failure}):"
        f" {sqlite.advice(path, failure)}; what is told now may be told again after a restart"
    )
