"""The ledger: each subject that was raised, each decision about it, each push made for it.

With it, nothing is sent again after a restart, and ``appmux notices --why`` can explain each
decision. A *thing* is the subject of a notice (``Notice.subject``).

Writes happen at once, in the one task that decides: notices are rare, a commit takes a tenth of a
millisecond (it doesn't wait for the disk), and a thing that was raised isn't lost by a kill. A disk
that takes nothing never stops the broker: the ledger is then in memory, and says so.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final

import msgspec
import structlog

from mux.core.part import Part
from mux.core.policy.notice import Notice
from mux.storage import sqlite
from mux.storage.sqlite import Form

FILE: Final = "notices.sqlite3"

MOST_THINGS: Final = 2000
KEPT_SECONDS: Final = 30 * 86_400.0
"""Things that are older, or past the number ``MOST_THINGS``, are forgotten. Nothing is repeated
after so long."""

FORGOTTEN_AT_ONCE: Final = 4
"""How many things, at most, are forgotten when one is raised: enough to keep up, and few enough
that nobody waits for it."""

FREE_PAGES: Final = 256
"""Free pages that are kept, as they are soon written again: 1 MiB."""

STEP_PAGES: Final = 16
"""Pages given back when something is forgotten: a tenth of a millisecond."""

ALL_PAGES: Final = 2**31 - 1
"""Pages given back at the start: all."""

MOST_STEPS: Final = 64
"""Most steps of one thing: a client that comes and goes all night must not fill the disk."""

BUSY_MILLISECONDS: Final = 50
"""How long to wait for an operator's ``sqlite3``, which must not make everybody wait."""

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


def _third(connection: sqlite3.Connection) -> None:
    connection.execute("ALTER TABLE push ADD COLUMN arrived REAL")


def _fourth(connection: sqlite3.Connection) -> None:
    connection.execute("ALTER TABLE thing ADD COLUMN said TEXT NOT NULL DEFAULT ''")


FORM: Final = Form(
    what="the ledger of notices",
    application=int.from_bytes(b"amxn"),
    migrations=(_first, _second, _third, _fourth),
    without="notices of before may come once more",
)


class LedgerNotice(msgspec.Struct, frozen=True):
    """A thing as it stands in the ledger."""

    thing: str
    kind: Any
    thread: str | None
    turn: str | None
    title: str
    line: str
    request: int | None
    method: str
    raised: float
    """Unix seconds."""
    over: float | None
    """Unix seconds; None while it stands."""
    why: str | None
    """Why it is over; None while it stands."""
    said: str = ""
    """What the notice says below its title where it tells all. An earlier appmux kept none."""

    def notice(self) -> Notice:
        """Return its notice, without the fields that only the app-server can supply."""
        return Notice(
            self.thing, self.kind, self.thread, self.turn, self.title, self.line, self.request,
            self.method,
        )  # fmt: skip


class Step(msgspec.Struct, frozen=True):
    """A decision about a thing."""

    at: float
    """Unix seconds."""
    what: str
    device: str
    """A device's key; empty for all devices."""
    why: str


_COLUMNS = ", ".join(field.name for field in msgspec.structs.fields(LedgerNotice))


class Ledger(Part):
    """The ledger of one broker. Made by ``open``."""

    path: Path
    clock: Callable[[], float]
    connection: sqlite3.Connection
    trouble: str | None = None
    """For people: why the ledger isn't on disk. None: it is."""
    in_memory: bool = False
    _count: int = 0
    """The number of things, or more."""

    @classmethod
    def open(cls, state_dir: Path, clock: Callable[[], float]) -> Ledger:
        """Open the ledger of a state directory. Raises ``StoreError`` if a newer appmux made it."""
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
        """Close the file."""
        self.connection.close()

    # -- what happens ------------------------------------------------------------------------------

    def raised(self, notice: Notice, said: str = "") -> None:
        """Add the thing of a notice and what that says, unless the ledger has it."""
        self._write(
            f"INSERT OR IGNORE INTO thing ({_COLUMNS})"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, NULL, NULL, ?)",
            notice.subject, notice.kind, notice.thread, notice.turn, notice.title, notice.line,
            notice.request, notice.method, self.clock(), said,
        )  # fmt: skip
        self._count += 1  # an upper bound: the thing may have been there
        self._forget_some()

    def step(self, thing: str, what: str, reason: str, device: str = "") -> None:
        """Add a decision about a thing, and its reason."""
        self._write(
            "INSERT INTO step (thing, at, what, device, why) SELECT ?, ?, ?, ?, ?"
            " WHERE (SELECT count(*) FROM step WHERE thing = ?) < ?"
            " AND EXISTS (SELECT 1 FROM thing WHERE thing = ?)",
            thing, self.clock(), what, device, reason, thing, MOST_STEPS, thing,
        )  # fmt: skip

    def pushed(self, id: str, thing: str, device: str) -> None:
        """Add a push that was made for a device."""
        self._write("INSERT INTO push VALUES (?, ?, ?, ?, NULL)", id, thing, device, self.clock())

    def arrived(self, id: str, device: str) -> bool:
        """Note that a device got a push; return whether the push is that device's."""
        rows = self._read("SELECT device FROM push WHERE id = ?", id)
        if not rows or rows[0][0] != device:
            return False
        self._write(
            "UPDATE push SET arrived = ? WHERE id = ? AND arrived IS NULL", self.clock(), id
        )
        return True

    def over(self, thing: str, reason: str) -> None:
        """Mark a thing as over, unless it is already."""
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
            if self.trouble and not self.in_memory and self.path.exists():
                self.trouble = None

    def _failed(self, failure: sqlite3.Error) -> None:
        trouble = _trouble(self.path, failure)
        if trouble != self.trouble:
            self.trouble = trouble
            log.error(trouble)

    def _forget_some(self) -> None:
        """Forget a few of the oldest things, found by index, if they are too many or too old."""
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
        """Forget everything too old or too much; done at the start, where nobody waits for it."""
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
        """Return how many things there are."""
        return sum(row[0] for row in self._read("SELECT count(*) FROM thing"))

    # -- what was ----------------------------------------------------------------------------------

    def secret(self) -> bytes:
        """Return random bytes that stay the same as long as the file lives."""
        return bytes(self._read("SELECT value FROM secret")[0][0])

    def known(self) -> tuple[str, ...]:
        """Return the ids of all things, the oldest first."""
        return tuple(row[0] for row in self._read("SELECT thing FROM thing ORDER BY raised"))

    def newest(self, limit: int) -> list[LedgerNotice]:
        """Return the ``limit`` newest things, the newest first."""
        rows = self._read(
            f"SELECT {_COLUMNS} FROM thing ORDER BY raised DESC, rowid DESC LIMIT ?", limit
        )
        return [LedgerNotice(*row) for row in rows]

    def standing(self) -> list[LedgerNotice]:
        """Return the things that were pushed to a device and aren't over, the oldest first."""
        rows = self._read(
            f"SELECT {_COLUMNS} FROM thing WHERE over IS NULL AND"
            " EXISTS (SELECT 1 FROM push WHERE push.thing = thing.thing) ORDER BY raised"
        )
        return [LedgerNotice(*row) for row in rows]

    def standing_at(self, device: str, thread: str | None) -> list[str]:
        """Return the ids of a thread's things that stand at a device, the oldest first."""
        rows = self._read(
            "SELECT thing FROM thing WHERE over IS NULL AND thread IS ? AND EXISTS"
            " (SELECT 1 FROM push WHERE push.thing = thing.thing AND device = ?) ORDER BY raised",
            thread, device,
        )  # fmt: skip
        return [row[0] for row in rows]

    def devices(self, thing: str) -> list[str]:
        """Return the keys of the devices that a thing was pushed to."""
        rows = self._read("SELECT DISTINCT device FROM push WHERE thing = ? ORDER BY at", thing)
        return [row[0] for row in rows]

    def pushes(self, thing: str) -> list[tuple[str, str]]:
        """Return id and device of each push that was made for a thing."""
        return self._read("SELECT id, device FROM push WHERE thing = ? ORDER BY at", thing)

    def arrivals(self, thing: str) -> dict[str, float]:
        """Return when each push that was made for a thing arrived, as far as devices have said."""
        rows = self._read("SELECT id, arrived FROM push WHERE thing = ?", thing)
        return {id: at for id, at in rows if at is not None}

    def unheard(self, device: str, since: float, until: float) -> list[str]:
        """Return the pushes made for a device between two moments, if none of them arrived."""
        rows = self._read(
            "SELECT id, arrived FROM push WHERE device = ? AND at > ? ORDER BY at", device, since
        )
        if any(at is not None for _, at in rows):
            return []
        made = self._read(
            "SELECT id FROM push WHERE device = ? AND at > ? AND at < ?", device, since, until
        )
        return [row[0] for row in made]

    def standing_count(self, device: str, kinds: Iterable[str]) -> int:
        """Return how many things of these kinds stand at a device."""
        names = tuple(kinds)
        marks = ", ".join("?" * len(names))
        rows = self._read(
            f"SELECT count(*) FROM thing WHERE over IS NULL AND kind IN ({marks}) AND EXISTS"
            " (SELECT 1 FROM push WHERE push.thing = thing.thing AND device = ?)",
            *names, device,
        )  # fmt: skip
        return int(rows[0][0]) if rows else 0

    def steps(self, thing: str) -> list[Step]:
        """Return every decision about a thing, in order."""
        rows = self._read(
            "SELECT at, what, device, why FROM step WHERE thing = ? ORDER BY n", thing
        )
        return [Step(*row) for row in rows]

    def of_push(self, id: str, devices: Iterable[str]) -> LedgerNotice | None:
        """Return the thing behind a push that one of these devices got, or None."""
        columns = ", ".join(f"thing.{field.name}" for field in msgspec.structs.fields(LedgerNotice))
        rows = self._read(
            f"SELECT push.device, {columns} FROM push JOIN thing USING (thing) WHERE push.id = ?",
            id,
        )
        return next((LedgerNotice(*row[1:]) for row in rows if row[0] in devices), None)

    def _read(self, statement: str, *values: object) -> list[Any]:
        try:
            return self.connection.execute(statement, values).fetchall()
        except sqlite3.Error as failure:
            log.error(_trouble(self.path, failure))
            return []


def _connect(path: Path) -> sqlite3.Connection:
    try:
        return sqlite.connect(path, FORM)
    except (sqlite.BrokenFile, sqlite3.DatabaseError) as failure:
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
