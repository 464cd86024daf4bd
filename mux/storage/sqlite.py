"""SQLite files of ours: how one is opened and migrated, and what becomes of one that can't be used.

Everything here blocks: outside of the start it is called in a worker thread.

Used by: ``journal_schema``, ``push.queue_file`` and ``notices.ledger``, each with its own ``Form``.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import sqlite3
import time
import urllib.parse
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec

from mux.errors import AppmuxError
from mux.posix import private_file

BUSY_SECONDS = 2.0
"""How long to wait for a lock. Reader and writer of one broker hardly meet; an operator's
``sqlite3`` may hold one."""

WAL_BYTES = 16 * 1024 * 1024
"""Bytes that the write-ahead log may keep on disk once its pages are in the file. SQLite moves them
there at 4 MiB, so the log grows further only in a burst."""

KEPT_BROKEN = 2
"""How many broken files are kept, for whoever wants to know why. Each may be as big as the
journal."""


SIDE_FILES = ("-wal", "-shm", "-journal")
"""Suffixes of the files that SQLite keeps beside a file, and opens by itself."""


class StoreError(AppmuxError):
    """A file of ours can't be used, or not now. The text says why and what to do."""


class BrokenFile(sqlite3.DatabaseError):
    """The file isn't one of this form, or isn't whole. It is to be moved aside."""


class FileReplaced(OSError):
    """The open file no longer is the one under its name."""


class Form(msgspec.Struct, frozen=True):
    """The format of a file."""

    what: str
    """Names the content, for errors."""
    application: int
    """Four letters in the file's header, so that a foreign or garbled file isn't taken for one of a
    newer version."""
    migrations: Sequence[Callable[[sqlite3.Connection], None]]
    """Each migration takes the file one version further, in a transaction of its own; the first
    begins with an empty file. A file's version is the number of migrations it has seen (``PRAGMA
    user_version``)."""
    without: str
    """Says what is lost without the file, for errors."""
    forgets: bool = False
    """True if deleted content must be nowhere on the disk, at the cost of some writes."""


def connect(path: Path, form: Form) -> sqlite3.Connection:
    """Open the file for writing; make or migrate it as needed.

    Raises ``StoreError`` if a newer appmux made it (nothing is changed then), ``BrokenFile`` if it
    is to be moved aside, other ``sqlite3.Error`` or ``OSError`` if it can't be opened now.
    """
    for beside in SIDE_FILES:
        private_file.check(path.with_name(path.name + beside))
    if private_file.check(path):
        _refuse_newer(path, form)
    else:
        # SQLite would make a file that anybody may read. Its side files take over this one's mode.
        os.close(private_file.open_file(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    connection = open_file(path, "rw")
    try:
        # Needed so that the file can shrink. Has an effect only before there is a table.
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        connection.execute("PRAGMA journal_mode = WAL")
        # With NORMAL a commit doesn't wait for the disk. It survives a kill of the process, not a
        # power cut; the file stays whole after both.
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute(f"PRAGMA journal_size_limit = {WAL_BYTES}")
        # With FAST, deleted rows are overwritten only where that costs no further write.
        connection.execute(f"PRAGMA secure_delete = {'ON' if form.forgets else 'FAST'}")
        _migrate(connection, form)
    except BaseException:
        connection.close()
        raise
    return connection


def open_file(path: Path, mode: str) -> sqlite3.Connection:
    """Open a connection, to be used by one worker thread at a time.

    Raises ``sqlite3.Error`` if there is no file.
    """
    return sqlite3.connect(
        f"file:{urllib.parse.quote(str(path))}?mode={mode}",
        uri=True,
        timeout=BUSY_SECONDS,
        isolation_level=None,  # transactions are begun and ended explicitly
        check_same_thread=False,  # one worker thread at a time, not always the same
    )


def _refuse_newer(path: Path, form: Form) -> None:
    connection = open_file(path, "ro")
    try:
        (ours,) = connection.execute("PRAGMA application_id").fetchone()
        version = _version(connection)
    finally:
        connection.close()
    if ours == form.application and version > len(form.migrations):
        raise StoreError(
            f"{form.what} {path} was made by a newer appmux: its format is {version}, and this"
            f" appmux knows those up to {len(form.migrations)}; nothing was changed; install that"
            " appmux again, or name another --state-dir, or move the file away"
            f" ({form.without})"
        )


def _version(connection: sqlite3.Connection) -> int:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    return int(version)


def _migrate(connection: sqlite3.Connection, form: Form) -> None:
    version = _version(connection)
    if version > len(form.migrations):
        raise BrokenFile("its header is garbled")
    for number, migration in enumerate(form.migrations[version:], start=version + 1):
        connection.execute("BEGIN IMMEDIATE")
        try:
            migration(connection)
            connection.execute(f"PRAGMA application_id = {form.application}")
            connection.execute(f"PRAGMA user_version = {number}")
            connection.execute("COMMIT")
        except sqlite3.OperationalError as failure:
            connection.execute("ROLLBACK")
            if code(failure) == sqlite3.SQLITE_ERROR:  # its tables aren't those of its version
                raise BrokenFile(str(failure)) from failure
            raise


@contextlib.contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Run the block in one transaction: all of it is written, or nothing."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        # A failed commit has often ended the transaction already.
        with contextlib.suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        raise


def empty_log(connection: sqlite3.Connection) -> bool:
    """Move the write-ahead log's content into the file and cut the log to nothing.

    Returns whether that worked; it doesn't while somebody reads. Raises ``sqlite3.Error``.
    """
    busy, _pages, _moved = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    return not busy


def free_pages(connection: sqlite3.Connection) -> int:
    """Return how many pages of the file hold nothing."""
    return int(connection.execute("PRAGMA freelist_count").fetchone()[0])


def give_back(connection: sqlite3.Connection, pages: int) -> None:
    """Give up to ``pages`` free pages back to the file system, in one transaction."""
    # `execute` makes one step of a statement without columns, which would free only one page.
    connection.executescript(f"PRAGMA incremental_vacuum({pages})")


def code(failure: BaseException) -> int | None:
    """Return SQLite's primary result code, or None if the failure has none."""
    extended: int | None = getattr(failure, "sqlite_errorcode", None)
    return None if extended is None else extended & 0xFF


def is_broken(failure: BaseException) -> bool:
    """Return whether the file itself is at fault: trying again won't help, a new file will."""
    if isinstance(failure, BrokenFile):
        return True
    if not isinstance(failure, sqlite3.DatabaseError):
        return False
    extended = getattr(failure, "sqlite_errorcode", None)
    return (
        code(failure) in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
        or extended == sqlite3.SQLITE_IOERR_SHORT_READ  # the file was cut off while open
        or (extended is None and "UTF-8" in str(failure))  # text that isn't valid
    )


def advice(path: Path, failure: BaseException) -> str:
    """Say, for people, what to do about a failure to write to this file."""
    number = failure.errno if isinstance(failure, OSError) else None
    if is_broken(failure):
        return "it is moved aside, and a new one begun"
    if isinstance(failure, FileReplaced):
        return "a new one is begun"
    if isinstance(failure, private_file.UnfitError):
        return f"see after {failure.filename}"
    if code(failure) == sqlite3.SQLITE_FULL or number in {errno.ENOSPC, errno.EDQUOT}:
        return "free some space on its disk"
    if code(failure) == sqlite3.SQLITE_IOERR and _is_full(path):  # a side file couldn't grow
        return "free some space on its disk"
    if code(failure) in {sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM} or (
        number in {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.ENOENT}
    ):
        return "make its directory one that this user can write in"
    return "look after its disk"


def _is_full(path: Path) -> bool:
    try:
        return shutil.disk_usage(path.parent).free < WAL_BYTES
    except OSError:
        return False


def move_aside(path: Path, now: float) -> Path:
    """Rename the file and its write-ahead log to ``….broken-<UTC>``, and return the new path.

    Only the newest ``KEPT_BROKEN`` of these stay. Raises ``OSError``.
    """
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now))
    aside = path.with_name(f"{path.name}.broken-{stamp}")
    path.replace(aside)
    wal = path.with_name(f"{path.name}-wal")
    if wal.exists():
        wal.replace(aside.with_name(f"{aside.name}-wal"))
    path.with_name(f"{path.name}-shm").unlink(missing_ok=True)
    set_aside = [each for each in path.parent.glob(f"{path.name}.broken-*Z") if each != aside]
    for old in sorted(set_aside, reverse=True)[KEPT_BROKEN - 1 :]:
        for suffix in ("", "-wal"):
            old.with_name(old.name + suffix).unlink(missing_ok=True)
    return aside


def identity(path: Path) -> tuple[int, int]:
    """Return device and inode of the file, which tell it from another one that has its name by now.

    Returns (0, 0) if there is no file.
    """
    try:
        status = path.stat()
    except FileNotFoundError:
        return 0, 0
    return status.st_dev, status.st_ino
