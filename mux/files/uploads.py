"""Uploads: announced, received piece by piece, checked, and put where the agent finds them.

An upload belongs to the principal that began it; to all others it isn't there. One connection at a
time writes to it: a newer one takes over, as the older one may be a connection that is lost and
doesn't know it yet. How far an upload is says the length of its file, whatever happened.

Used by ``web``, which speaks HTTP (tus 1.0.0). Tells ``placed`` of each file that lies in place.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Final, TypeVar

import msgspec
import structlog
import trio
from msgspec import structs

from mux.core.events import FilePlaced
from mux.core.part import Part
from mux.core.policy.principal import Principal
from mux.files import limits, names
from mux.files.errors import CHECKSUM_MISMATCH, NO_ROOM, TOO_MUCH, UploadError
from mux.files.placing import UPLOADS, place
from mux.files.spool import Description, Spool, new_id
from mux.files.writer import Algorithm, UploadWriter, refused_by_disk

OWN_FOLDER: Final = "files"
"""The folder of files that have no thread's directory to go to, in the state directory."""

More = Callable[[Callable[[memoryview], None]], Awaitable[bool]]
"""Receives bytes and gives them to a function, in a thread. Returns False once there are no more.
Raises ``OSError`` if the connection breaks, after it has given what came."""

T = TypeVar("T")

log = structlog.get_logger()


class Upload(msgspec.Struct, eq=False):
    """An upload, unfinished or just finished."""

    about: Description
    offset: int = 0
    """Bytes that have come."""
    touched: float = 0.0
    """When somebody last went on with it, in Unix seconds."""
    _scope: trio.CancelScope | None = None
    """The scope of the connection that writes to it now."""
    _free: trio.Event = msgspec.field(default_factory=trio.Event)
    digest: hashlib._Hash | None = msgspec.field(default_factory=hashlib.sha256)
    """The digest of all that has come; None where a part of it was written without us."""

    @property
    def whole(self) -> bool:
        """True if all bytes have come."""
        return self.offset == self.about.length

    @property
    def placed(self) -> FilePlaced | None:
        """The file of a finished upload; None before."""
        about = self.about
        if not about.path:
            return None
        return FilePlaced(
            path=about.path,
            name=Path(about.path).name,
            bytes=about.length,
            sha256=about.sha256,
            thread=about.thread,
            owner=about.owner,
            by=about.by,
            type=about.type,
        )

    def expires(self) -> float:
        """Return when it is dropped, in Unix seconds."""
        seconds = limits.FINISHED_SECONDS if self.about.path else limits.UNFINISHED_SECONDS
        return self.touched + seconds


class Uploads(Part):
    """All uploads of one broker."""

    spool: Spool
    directory_of: Callable[[str], str]
    """Returns a thread's directory; empty if that isn't known."""
    placed: Callable[[FilePlaced], None]
    """Told of each file that lies in place."""
    may: Callable[[Principal], bool] = lambda _principal: True
    """Returns whether a principal still may upload: it may have been shut out meanwhile."""
    in_threads: bool = True
    """True if files go into their thread's directory."""
    clock: Callable[[], float] = time.time
    _uploads: dict[str, Upload] = msgspec.field(default_factory=dict)
    """Uploads by id, the oldest first."""
    _loaded: bool = False

    async def run(self) -> None:
        """Drop what has expired, and finish what is whole, until cancelled."""
        while True:
            await trio.sleep(limits.SWEEP_SECONDS)
            try:
                await self.sweep()
            except UploadError:
                continue  # the disk; it is in the log

    async def sweep(self) -> None:
        """Drop what has expired, and finish what is whole. Raises ``UploadError``."""
        await self.load()
        await self._drop_expired()
        for upload in [each for each in self._uploads.values() if each.whole]:
            with suppress(UploadError):  # it is another file than was announced: it has gone
                await self._complete(upload)

    # -- beginning ---------------------------------------------------------------------------------

    async def load(self) -> None:
        """Restore what the broker before had taken, once. Raises ``UploadError``."""
        if self._loaded:
            return
        found = await self._on_disk(self.spool.load)
        if not self._loaded:  # another request may have been quicker
            self._loaded = True
            for each in found:
                upload = Upload(each.about, each.size, each.touched, digest=None)
                self._uploads[each.about.id] = upload

    async def begin(
        self,
        principal: Principal,
        length: int,
        *,
        name: str,
        thread: str | None,
        type: str = "",
        sha256: str = "",
    ) -> Upload:
        """Announce an upload. Raises ``UploadError``."""
        await self.load()
        await self._drop_expired()
        free = await self._on_disk(self.spool.free)
        self._require_room(principal, length, free)
        about = Description(
            id=new_id(),
            owner=principal.key,
            by=principal.name,
            name=names.safe(name),
            length=length,
            created=self.clock(),
            thread=thread,
            type=type,
            sha256=sha256,
            directory=self.directory_of(thread) if thread else "",
        )
        upload = self._uploads[about.id] = Upload(about, 0, self.clock())
        try:
            await self._on_disk(self.spool.begin, about)
        except BaseException:
            del self._uploads[about.id]
            raise
        if not length:
            await self._complete(upload)
        return upload

    def _require_room(self, principal: Principal, length: int, free: int) -> None:
        if length > limits.FILE_BYTES:
            most = limits.FILE_BYTES // limits.MIB
            raise UploadError(TOO_MUCH, f"a file may have {most} MiB at most")
        waiting = [each for each in self._uploads.values() if each.placed is None]
        own = sum(each.about.owner == principal.key for each in waiting)
        if len(waiting) >= limits.UNFINISHED or own >= limits.UNFINISHED_OF_DEVICE:
            raise UploadError(
                HTTPStatus.TOO_MANY_REQUESTS,
                "too many unfinished uploads: finish or delete some, or wait until they expire",
            )
        if sum(each.about.length for each in waiting) + length > limits.UNFINISHED_BYTES:
            most = limits.UNFINISHED_BYTES // limits.GIB
            raise UploadError(
                NO_ROOM,
                f"all unfinished uploads may have {most} GiB at most: finish or delete some",
            )
        if sum(each.about.length - each.offset for each in waiting) + length > free:
            raise UploadError(
                NO_ROOM,
                f"the host's disk has no room for {length} bytes: with what else is on its way it"
                f" would be left with less than {limits.FREE_BYTES // limits.MIB} MiB",
            )

    async def _drop_expired(self) -> None:
        now = self.clock()
        finished = [each for each in self._uploads.values() if each.about.path]
        old = [each for each in self._uploads.values() if each.expires() <= now]
        for upload in {*old, *finished[: -limits.FINISHED]}:
            await self.drop(upload)

    # -- going on ----------------------------------------------------------------------------------

    async def find(self, principal: Principal, id: str) -> Upload:
        """Return a principal's upload. Raises ``UploadError``: 404, 410 once it has expired."""
        await self.load()
        upload = self._uploads.get(id)
        if upload is None or upload.about.owner != principal.key:
            raise UploadError(HTTPStatus.NOT_FOUND, "there is no such upload")
        if upload.expires() <= self.clock():
            await self.drop(upload)
            raise UploadError(HTTPStatus.GONE, "this upload has expired: begin it anew")
        if upload.whole:
            await self._complete(upload)
        return upload

    async def take_over(self, upload: Upload) -> None:
        """End the connection that writes to an upload, if there is one; then its offset stands."""
        while upload._scope is not None:
            upload._scope.cancel()
            await upload._free.wait()

    async def receive(
        self,
        upload: Upload,
        principal: Principal,
        offset: int,
        more: More,
        checksum: tuple[Algorithm, bytes] | None = None,
    ) -> None:
        """Write what comes to the end of an upload; finish it once it is whole.

        With a ``checksum`` (algorithm and digest) all that comes counts, or nothing. Raises
        ``UploadError``; whatever ``more`` raises passes, and what came before stays.
        """
        await self.take_over(upload)
        if upload.placed is not None or offset != upload.offset:
            raise UploadError(
                HTTPStatus.CONFLICT, f"the upload is at {upload.offset}, not at {offset}"
            )
        with self._held(upload) as scope, scope:
            await self._write(upload, principal, more, checksum)
            if upload.whole:
                await self._finish(upload)
        if scope.cancelled_caught:
            raise UploadError(HTTPStatus.CONFLICT, "another connection goes on with this upload")

    @contextmanager
    def _held(self, upload: Upload) -> Iterator[trio.CancelScope]:
        """Hold an upload exclusively. The scope is cancelled when another connection takes over."""
        upload._free = trio.Event()
        upload._scope = trio.CancelScope()
        try:
            yield upload._scope
        finally:
            upload.touched, upload._scope = self.clock(), None
            upload._free.set()

    async def _write(
        self,
        upload: Upload,
        principal: Principal,
        more: More,
        checksum: tuple[Algorithm, bytes] | None,
    ) -> None:
        about, whole = upload.about, False
        data = self.spool.data(about.id)
        writer = UploadWriter(data, about.length, upload.digest, checksum, self.spool.free)
        if checksum is not None:
            await self._on_disk(self.spool.distrust, about.id, upload.offset)
        await self._on_disk(writer.open)
        try:
            going = True
            while going:
                going = await more(writer.write)
                upload.offset, upload.touched = writer.at, self.clock()
                if not self.may(principal):
                    raise UploadError(HTTPStatus.UNAUTHORIZED, "you may not upload here any more")
            whole = True
        finally:
            try:
                with trio.CancelScope(shield=True):
                    await self._on_disk(partial(writer.close, whole=whole))
                if checksum is not None:
                    self.spool.trust(about.id)
            finally:
                upload.offset, upload.digest = writer.at, writer.digest

    async def drop(self, upload: Upload) -> None:
        """Give up an upload, or forget a finished one. Its file in place stays."""
        await self.take_over(upload)
        if self._uploads.get(upload.about.id) is upload:
            del self._uploads[upload.about.id]
            # A large file takes the disk a while.
            await self._on_disk(self.spool.remove, upload.about.id)

    async def _on_disk(self, function: Callable[..., T], *arguments: object) -> T:
        """Call a function in a thread. Raises ``UploadError`` if the disk doesn't take it."""
        try:
            return await trio.to_thread.run_sync(function, *arguments)
        except OSError as failure:
            raise refused_by_disk(failure) from failure

    # -- the end -----------------------------------------------------------------------------------

    async def _complete(self, upload: Upload) -> None:
        """Finish an upload that is whole, if nobody did: a broker may have been killed before."""
        await self.take_over(upload)
        if upload.placed is None:
            with self._held(upload):
                await self._finish(upload)

    async def _finish(self, upload: Upload) -> None:
        about = upload.about
        if upload.digest is not None:
            digest = upload.digest.hexdigest()
        else:
            digest = await self._on_disk(self.spool.digest, about.id)
        if about.sha256 not in {"", digest}:
            del self._uploads[about.id]
            await self._on_disk(self.spool.remove, about.id)
            raise UploadError(
                CHECKSUM_MISMATCH, "the whole file isn't the one that was announced: begin it anew"
            )
        with trio.CancelScope(shield=True):  # it gets its place, or not, whoever waits for it
            path = await self._on_disk(self._place, about, self._directory(about))
            upload.about = structs.replace(about, path=path, sha256=digest)
            assert upload.placed is not None
            self.placed(upload.placed)
            # Last: a broker that is killed before does all of it again, with the same outcome.
            await self._on_disk(self.spool.settle, upload.about)

    def _directory(self, about: Description) -> str:
        """Return the directory that a file is to go to; empty for the state directory."""
        if not about.thread or not self.in_threads:
            return ""
        return self.directory_of(about.thread) or about.directory

    def _place(self, about: Description, directory: str) -> str:
        """Give a whole file its place, and return its path. Called in a thread."""
        data = self.spool.data(about.id)
        if directory:
            try:
                return place(data, about.name, directory, UPLOADS)
            except OSError as failure:  # it is gone, isn't ours to write, or has a link in it
                log.warning(
                    "an upload can't be put into its thread's directory",
                    directory=directory,
                    error=failure.strerror,
                )
        folder = self.spool.folder.parent
        return place(data, about.name, str(folder), OWN_FOLDER, names.safe(about.thread or "none"))
