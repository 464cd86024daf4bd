"""``/v1/files/of/TOKEN``: a thread's file, sent once.

Whoever has the URL may fetch it: it can't be guessed, is good for one file, and ends with it. The
answer is a stranger's content, so it may run nothing here: it is saved, unless it is a picture.
"""

from __future__ import annotations

import os
import re
from http import HTTPStatus
from typing import Final
from urllib.parse import quote

import attrs
import trio
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from mux.files.downloads import BrokenOffError, Download, Downloads
from mux.web.adapter import SEND_FILE

READ_BYTES: Final = 256 * 1024

STRETCH_BYTES: Final = 16 * 1024 * 1024
"""Bytes that are sent between two looks whether the file has changed."""

SHOWN: Final = frozenset({"image/png", "image/jpeg", "image/gif", "image/webp"})
"""Pictures that can run nothing. SVG isn't among them."""

SANDBOX: Final = "default-src 'none'; img-src 'self'; style-src 'none'; sandbox"

_RANGE: Final = re.compile(r"bytes=([0-9]{0,19})-([0-9]{0,19})")


@attrs.frozen
class DownloadRoutes:
    """Answers for one broker."""

    downloads: Downloads

    async def send(self, request: Request) -> Response:
        """Send a file, or the part that is asked for."""
        token = request.path_params["token"]
        download = self.downloads.find(token)
        if download is None:
            raise HTTPException(HTTPStatus.NOT_FOUND)
        tag = f'"{download.mark}"'
        headers = _headers(download, tag)
        if tag in request.headers.get("if-none-match", ""):
            return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
        begin, end = 0, download.bytes
        status = HTTPStatus.OK
        part = request.headers.get("range")
        if part is not None and request.headers.get("if-range", tag) == tag:
            byte_range = _byte_range(part, download.bytes)
            if byte_range is None:
                headers["Content-Range"] = f"bytes */{download.bytes}"
                return Response(
                    status_code=HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, headers=headers
                )
            begin, end = byte_range
            status = HTTPStatus.PARTIAL_CONTENT
            headers["Content-Range"] = f"bytes {begin}-{end - 1}/{download.bytes}"
        headers["Content-Length"] = str(end - begin)
        if request.method == "HEAD":
            return Response(status_code=status, headers=headers, media_type=download.type)
        download_part = _Part(self.downloads, token, download, begin, end)
        return _FileResponse(download_part, status, headers)


@attrs.frozen
class _Part:
    """A part of a file that is sent, and the URL under which it is."""

    downloads: Downloads
    token: str
    download: Download
    begin: int
    end: int


class _FileResponse(Response):
    """A part of a file, to its end or not at all."""

    def __init__(self, part: _Part, status: HTTPStatus, headers: dict[str, str]) -> None:
        super().__init__(None, status, headers, part.download.type)
        self.part = part

    async def __call__(self, scope: Scope, _receive: Receive, send: Send) -> None:
        """Send it. Raises ``BrokenOffError`` before the last piece of a file that has changed."""
        downloads, download = self.part.downloads, self.part.download
        at, end = self.part.begin, self.part.end
        begin = {"type": "http.response.start", "status": self.status_code}
        await send({**begin, "headers": self.raw_headers})
        download.busy += 1
        try:
            if SEND_FILE in scope["extensions"]:
                while (count := min(STRETCH_BYTES, end - at - READ_BYTES)) > 0:
                    part = {"file": download.file, "offset": at, "count": count, "more_body": True}
                    await send({"type": SEND_FILE, **part})
                    downloads.require_unchanged(download)
                    at += count
            while at < end:
                size = min(READ_BYTES, end - at)
                piece = await trio.to_thread.run_sync(os.pread, download.file, size, at)
                downloads.require_unchanged(download)
                if not piece:
                    raise BrokenOffError("the file is shorter than it was")
                at += len(piece)
                await send({"type": "http.response.body", "body": piece, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
            if end == download.bytes:
                downloads.drop(self.part.token)  # whoever has its end has had all of it
        finally:
            download.busy -= 1
            download.release()


def _headers(download: Download, tag: str) -> dict[str, str]:
    how = "inline" if download.type in SHOWN else "attachment"
    return {
        "ETag": tag,
        "Accept-Ranges": "bytes",
        "Cache-Control": "no-store",
        "Content-Disposition": f"{how}; filename*=UTF-8''{quote(download.name, safe='')}",
        "Content-Security-Policy": SANDBOX,
    }


def _byte_range(text: str, size: int) -> tuple[int, int] | None:
    """Read a ``Range`` of one part; None if it can't be satisfied. Other units mean the whole."""
    match = _RANGE.fullmatch(text.strip())
    if match is None:
        return 0, size
    first, last = match.groups()
    if not first:
        return (max(0, size - int(last)), size) if last and int(last) else None
    begin, end = int(first), min(int(last) + 1, size) if last else size
    return (begin, end) if begin < end else None
