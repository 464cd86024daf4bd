"""Uploads: announced, received piece by piece, checked, and put where the agent finds them.

An upload belongs to the principal that began it; to all others it isn't there. One connection at a
time writes to it: a newer one takes over, as the older one may be a connection that is lost and
doesn't know it yet. How far an upload is says the length of its file, whatever happened.

Used by ``web``, which speaks HTTP (tus 1.0.0). Tells ``placed`` of each file that lies in place.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from http import HTTPStatus
from pathlib import Path
from typing import Final, Literal, TypeVar

import attrs
import structlog
import trio

from mux.core.events import FilePlaced
from mux.core.policy.principal import Principal
from mux.errors import AppmuxError
from mux.files import limits, names
from mux.files.placing import UPLOADS, place
from mux.files.spool import Description, Spool, new_id

WRITE_BYTES: Final = 256 * 1024
"""Bytes written at once, in a thread: half a millisecond, beside a tenth of one for the way."""

OWN_FOLDER: Final = "files"
"""The folder of files that have no thread's directory to go to, in the state directory."""

CHECKSUM_MISMATCH: Final = 460
"""The tus protocol's own status."""

Algorithm = Literal["sha1", "sha256"]

T = TypeVar("T")

log = structlog.get_logger()


class UploadError(AppmuxError):
    """An upload, or a part of one, isn't taken; ``status`` is HTTP's."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


@attrs.define(eq=False)
class Upload:
    """An upload, unfinished or just finished."""

    about: Description
    offset: int = 0
    """Bytes that have come."""
    touched: float = 0.0
    """When somebody last went on with it, in Unix seconds."""
    placed: FilePlaced | None = None
    """Its file, once it is finished."""
    _scope: trio.CancelScope | None = None
    """Of the connection that writes to it now."""
    _free: trio.Event = attrs.field(factory=trio.Event)
    _digest: hashlib._Hash | None = attrs.field(factory=hashlib.sha256)
    """Of all that has come; None where a part of it was written without us."""

    @property
    def whole(self) -> bool:
        """True if all bytes have come."""
        return self.offset == self.about.length

    def expires(self) -> float:
        """Return when it is dropped, in Unix seconds."""
        finished = self.placed is not None
        return self.touched + (limits.FINISHED_SECONDS if finished else limits.UNFINISHED_SECONDS)


@attrs.define(eq=False, repr=False)
class Uploads:
    """All uploads of one broker."""

    spool: Spool
    directory_of: Callable[[str], str]
    """Returns a thread's directory; empty if that isn't known."""
    placed: Callable[[FilePlaced], None]
    """Told of each file that lies in place."""
    in_threads: bool = True
    """True if files go into their thread's directory."""
    clock: Callable[[], float] = time.time
    _uploads: dict[str, Upload] = attrs.field(factory=dict)
    _loaded: bool = False

    # -- beginning ---------------------------------------------------------------------------------

    async def load(self) -> None:
        """Take in what the broker before had taken, once."""
        if self._loaded:
            return
        uploads = await trio.to_thread.run_sync(self.spool.load)
        if not self._loaded:  # another request may have been quicker
            self._loaded = True
            now = self.clock()
            for id, (about, size) in uploads.items():
                self._uploads[id] = Upload(about, size, now, digest=None)

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
        self._drop_expired()
        self._require_room(principal, length)
        free = await trio.to_thread.run_sync(self.spool.free)
        if length > free:
            raise UploadError(
                HTTPStatus.INSUFFICIENT_STORAGE,
                f"the host's disk has no room for {length} bytes: it would be left with less than"
                f" {limits.FREE_BYTES // limits.MIB} MiB",
            )
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
        )
        await self._on_disk(self.spool.begin, about)
        upload = self._uploads[about.id] = Upload(about, 0, self.clock())
        if not length:
            await self._finish(upload)
        return upload

    def _require_room(self, principal: Principal, length: int) -> None:
        if length > limits.FILE_BYTES:
            most = limits.FILE_BYTES // limits.MIB
            raise UploadError(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"a file may have {most} MiB at most"
            )
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
                HTTPStatus.INSUFFICIENT_STORAGE,
                f"all unfinished uploads may have {most} GiB at most: finish or delete some",
            )

    def _drop_expired(self) -> None:
        now = self.clock()
        for id, each in list(self._uploads.items()):
            if each.expires() <= now:
                self._forget(id, each)

    def _forget(self, id: str, upload: Upload) -> None:
        del self._uploads[id]
        if upload._scope is not None:
            upload._scope.cancel()
        self.spool.remove(id)

    # -- going on ----------------------------------------------------------------------------------

    async def find(self, principal: Principal, id: str) -> Upload:
        """Return a principal's upload. Raises ``UploadError``: 404, 410 once it has expired."""
        await self.load()
        upload = self._uploads.get(id)
        if upload is None or upload.about.owner != principal.key:
            raise UploadError(HTTPStatus.NOT_FOUND, "there is no such upload")
        if upload.expires() <= self.clock():
            self._forget(id, upload)
            raise UploadError(HTTPStatus.GONE, "this upload has expired: begin it anew")
        return upload

    async def take_over(self, upload: Upload) -> None:
        """End the connection that writes to an upload, if there is one; then its offset stands."""
        while upload._scope is not None:
            upload._scope.cancel()
            await upload._free.wait()

    async def receive(
        self,
        upload: Upload,
        offset: int,
        pieces: AsyncIterator[bytes],
        checksum: tuple[Algorithm, bytes] | None = None,
    ) -> None:
        """Write what comes to the end of an upload; finish it once it is whole.

        With a ``checksum`` (algorithm and digest) all that comes counts, or nothing. Raises
        ``UploadError``; whatever ``pieces`` raises passes, and what came before stays.
        """
        await self.take_over(upload)
        if upload.placed is not None or offset != upload.offset:
            raise UploadError(
                HTTPStatus.CONFLICT, f"the upload is at {upload.offset}, not at {offset}"
            )
        upload._free = trio.Event()
        try:
            with trio.CancelScope() as upload._scope:
                await self._write(upload, pieces, checksum)
            if upload._scope.cancelled_caught:
                raise UploadError(
                    HTTPStatus.CONFLICT, "another connection goes on with this upload"
                )
        finally:
            upload.touched, upload._scope = self.clock(), None
            upload._free.set()
        if upload.whole:
            await self._finish(upload)

    async def _write(
        self,
        upload: Upload,
        pieces: AsyncIterator[bytes],
        checksum: tuple[Algorithm, bytes] | None,
    ) -> None:
        begin, right = upload.offset, False
        check = None if checksum is None else hashlib.new(checksum[0])
        file = await self._on_disk(_to_append, str(self.spool.data(upload.about.id)))
        try:
            async for batch in _batches(pieces, upload.about.length - begin):
                await self._on_disk(_append, file, batch, upload._digest, check)
                upload.offset = os.fstat(file).st_size
            right = check is None or checksum is None or check.digest() == checksum[1]
        finally:
            if check is not None and not right:
                os.ftruncate(file, begin)
                upload._digest = None
            upload.offset = os.fstat(file).st_size
            os.close(file)
        if not right:
            raise UploadError(CHECKSUM_MISMATCH, "the checksum isn't that of the bytes that came")

    async def _on_disk(self, function: Callable[..., T], *arguments: object) -> T:
        """Call a function in a thread. Raises ``UploadError`` if the disk doesn't take it."""
        try:
            return await trio.to_thread.run_sync(function, *arguments)
        except OSError as failure:
            log.warning("an upload can't be written", error=failure.strerror)
            text = f"the host's disk doesn't take it ({failure.strerror}): go on later"
            raise UploadError(HTTPStatus.INSUFFICIENT_STORAGE, text) from failure

    async def drop(self, upload: Upload) -> None:
        """Give up an upload, or forget a finished one. Its file in place stays."""
        await self.take_over(upload)
        if self._uploads.get(upload.about.id) is upload:
            self._forget(upload.about.id, upload)

    # -- the end -----------------------------------------------------------------------------------

    async def _finish(self, upload: Upload) -> None:
        about = upload.about
        if upload._digest is not None:
            digest = upload._digest.hexdigest()
        else:
            digest = await self._on_disk(self.spool.digest, about.id)
        if about.sha256 and digest != about.sha256:
            self._forget(about.id, upload)
            raise UploadError(
                CHECKSUM_MISMATCH, "the whole file isn't the one that was announced: begin it anew"
            )
        directory = self.directory_of(about.thread) if about.thread and self.in_threads else ""
        with trio.CancelScope(shield=True):  # it is moved, or not, whoever still waits for it
            path = Path(await self._on_disk(self._place, about, directory))
        upload.touched = self.clock()
        upload.placed = FilePlaced(
            path=str(path),
            name=path.name,
            bytes=about.length,
            sha256=digest,
            thread=about.thread,
            owner=about.owner,
            by=about.by,
            type=about.type,
        )
        self.spool.remove(about.id)
        self.placed(upload.placed)

    def _place(self, about: Description, directory: str) -> str:
        """Move a whole file to its place, and return its path. Called in a thread."""
        data = self.spool.data(about.id)
        if directory:
            with suppress(OSError):  # it is gone, or isn't ours to write
                return place(data, about.name, directory, UPLOADS)
        folder = self.spool.folder.parent
        return place(data, about.name, str(folder), OWN_FOLDER, names.safe(about.thread or "none"))


def _to_append(path: str) -> int:
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC)


def _append(
    file: int, batch: bytes, digest: hashlib._Hash | None, check: hashlib._Hash | None
) -> None:
    with memoryview(batch) as view:
        written = 0
        while written < len(view):
            count = os.write(file, view[written:])
            for each in (digest, check):
                if each is not None:
                    each.update(view[written : written + count])
            written += count


async def _batches(pieces: AsyncIterator[bytes], room: int) -> AsyncIterator[bytes]:
    """Yield pieces joined to a size that is worth a thread.

    Raises ``UploadError`` past ``room``. If the connection breaks, what came is yielded first.
    """
    batch: list[bytes] = []
    size = 0
    try:
        async for piece in pieces:
            room -= len(piece)
            if room < 0:
                raise UploadError(
                    HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "more bytes came than were announced"
                )
            batch.append(piece)
            size += len(piece)
            if size >= WRITE_BYTES:
                yield b"".join(batch)
                batch, size = [], 0
    except OSError:
        if batch:
            yield b"".join(batch)
        raise
    if batch:
        yield b"".join(batch)
