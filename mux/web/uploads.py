"""``/v1/files``: uploads by the tus protocol, version 1.0.0, so that existing clients serve.

Core, and the extensions creation, creation-with-upload, checksum (``sha1``, ``sha256``, in a
header), expiration and termination. Whoever may drive may upload: with a device's token, by the
unix socket, or with a browser's short token. ``GET`` of a finished upload says where it lies; that
is our own.
"""

from __future__ import annotations

import base64
import binascii
import email.utils
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from http import HTTPStatus
from typing import Final

import attrs
import msgspec
import trio
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from mux.access.authentication import AuthError, local_user
from mux.core.policy.principal import Principal
from mux.downstream.http.http import hold_back
from mux.downstream.http.request import Request as PlainRequest
from mux.downstream.http.upgrade import authenticate
from mux.files import limits
from mux.files.errors import UploadError
from mux.files.uploads import More, Upload, Uploads
from mux.files.writer import Algorithm
from mux.web.adapter import POUR, REQUEST
from mux.web.transfer import PIECE_BYTES

VERSION: Final = "1.0.0"
EXTENSIONS: Final = "creation,creation-with-upload,checksum,expiration,termination"
ALGORITHMS: Final[Mapping[str, Algorithm]] = {"sha1": "sha1", "sha256": "sha256"}
OCTETS: Final = "application/offset+octet-stream"
PATH: Final = "/v1/files/"
TUS: Final = {"Tus-Resumable": VERSION, "Cache-Control": "no-store"}
NEEDS: Final = "drive"
UPLOAD_METHODS: Final = ["GET", "HEAD", "POST", "PATCH", "DELETE", "OPTIONS"]

_NUMBER: Final = re.compile(r"[0-9]{1,19}")
_SHA256: Final = re.compile(r"[0-9a-f]{64}")

UNSUPPORTED_CHECKSUM: Final = 400


class Refusal(msgspec.Struct):
    """An answer that isn't a success."""

    message: str
    error: str = "refused"


@attrs.frozen
class UploadRoutes:
    """Answers for one broker."""

    uploads: Uploads

    async def collection(self, request: Request) -> Response:
        """Answer ``/v1/files``: what can be done here, and new uploads."""
        return await self._answer(request, None)

    async def one(self, request: Request) -> Response:
        """Answer for one upload."""
        return await self._answer(request, request.path_params["id"])

    async def _answer(self, request: Request, id: str | None) -> Response:
        method = request.headers.get("x-http-method-override", request.method).upper()
        if method == "OPTIONS":
            return _options()
        try:
            principal = await _principal(request)
            if method != "GET" and request.headers.get("tus-resumable") != VERSION:
                text = f"this is tus {VERSION}: send the header `Tus-Resumable: {VERSION}`"
                return _refusal(HTTPStatus.PRECONDITION_FAILED, text, {"Tus-Version": VERSION})
            if id is None:
                return await self._create(request, principal, method)
            upload = await self.uploads.find(principal, id)
            match method:
                case "HEAD":
                    return await self._head(upload)
                case "PATCH":
                    return await self._patch(request, principal, upload)
                case "DELETE":
                    await self.uploads.drop(upload)
                    return Response(status_code=HTTPStatus.NO_CONTENT, headers=TUS)
                case "GET":
                    return _finished(upload)
                case _:
                    raise UploadError(HTTPStatus.METHOD_NOT_ALLOWED, f"not by {method}")
        except UploadError as refused:
            return _refusal(refused.status, str(refused))

    # -- creation ----------------------------------------------------------------------------------

    async def _create(self, request: Request, principal: Principal, method: str) -> Response:
        if method != "POST":
            raise UploadError(HTTPStatus.METHOD_NOT_ALLOWED, "a new upload is begun by POST")
        length = _number(request, "upload-length")
        metadata = _metadata(request.headers.get("upload-metadata", ""))
        sha256 = metadata.get("sha256", "").lower()
        if sha256 and not _SHA256.fullmatch(sha256):
            raise UploadError(
                HTTPStatus.BAD_REQUEST, "the metadata's `sha256` must be 64 hex digits"
            )
        upload = await self.uploads.begin(
            principal,
            length,
            name=metadata.get("filename") or metadata.get("name") or "",
            thread=metadata.get("thread") or None,
            type=metadata.get("filetype") or metadata.get("type") or "",
            sha256=sha256,
        )
        # Relative: what the client calls us is its own business, and a proxy's.
        headers = {"Location": PATH + upload.about.id}
        if request.headers.get("content-type") == OCTETS and upload.placed is None:
            await self._receive(request, principal, upload, 0)
        return Response(None, HTTPStatus.CREATED, headers | _place(upload))

    # -- going on ----------------------------------------------------------------------------------

    async def _head(self, upload: Upload) -> Response:
        await self.uploads.take_over(upload)
        headers = {"Upload-Length": str(upload.about.length)}
        return Response(status_code=HTTPStatus.OK, headers=headers | _place(upload))

    async def _patch(self, request: Request, principal: Principal, upload: Upload) -> Response:
        if request.headers.get("content-type") != OCTETS:
            raise UploadError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"the type must be `{OCTETS}`")
        await self._receive(request, principal, upload, _number(request, "upload-offset"))
        return Response(None, HTTPStatus.NO_CONTENT, _place(upload))

    async def _receive(
        self, request: Request, principal: Principal, upload: Upload, offset: int
    ) -> None:
        checksum = _checksum(request.headers.get("upload-checksum"))
        await self.uploads.receive(upload, principal, offset, _body(request), checksum)


def _body(request: Request) -> More:
    """Return what receives the request's body: past the parser, where that can be."""
    pour: More | None = request.scope["extensions"].get(POUR)
    return pour or _Parsed(request).more


class _Parsed:
    """A body that comes through the parser: encrypted, or without a length."""

    def __init__(self, request: Request) -> None:
        self._pieces = request.stream()

    async def more(self, write: Callable[[memoryview], None]) -> bool:
        """Receive so much of it that it is worth a thread (see ``files.uploads.More``)."""
        piece = bytearray()
        try:
            async for part in self._pieces:
                piece += part
                if len(piece) >= PIECE_BYTES:
                    break
            else:
                return False
        except ClientDisconnect as left:
            raise ConnectionResetError("the client has left") from left
        finally:
            if piece:
                with trio.CancelScope(shield=True):
                    await trio.to_thread.run_sync(write, memoryview(piece))
        return True


# -- who asks --------------------------------------------------------------------------------------


async def _principal(request: Request) -> Principal:
    """Return who asks, if it may drive. Raises ``UploadError``."""
    plain: PlainRequest = request.scope[REQUEST]
    peer = plain.peer
    try:
        if peer.kind == "unix" and not plain.head.from_browser:
            principal = local_user()
        else:
            principal = authenticate(plain.head, peer.services)
    except AuthError as refused:
        status = HTTPStatus.UNAUTHORIZED
        await hold_back(status, peer.services.throttle, peer.address, refused.whose)
        raise UploadError(status, str(refused)) from refused
    if NEEDS not in principal.scopes:
        raise UploadError(HTTPStatus.FORBIDDEN, f"uploading needs the scope `{NEEDS}`")
    return principal


# -- reading headers -------------------------------------------------------------------------------


def _number(request: Request, name: str) -> int:
    text = request.headers.get(name, "")
    if not _NUMBER.fullmatch(text):
        raise UploadError(HTTPStatus.BAD_REQUEST, f"the header `{name}` must be a whole number")
    return int(text)


def _metadata(text: str) -> dict[str, str]:
    """Read ``Upload-Metadata``: keys, each with a value in base64, or without one."""
    if len(text) > limits.METADATA_BYTES:
        raise UploadError(HTTPStatus.BAD_REQUEST, "the header `Upload-Metadata` is too long")
    read = {}
    for pair in filter(None, (each.strip() for each in text.split(","))):
        key, _, value = pair.partition(" ")
        try:
            read[key] = base64.b64decode(value, validate=True).decode()
        except (binascii.Error, UnicodeDecodeError) as wrong:
            text = f"`Upload-Metadata`: the value of `{key}` isn't base64 of UTF-8"
            raise UploadError(HTTPStatus.BAD_REQUEST, text) from wrong
    return read


def _checksum(text: str | None) -> tuple[Algorithm, bytes] | None:
    if text is None:
        return None
    name, _, value = text.partition(" ")
    algorithm = ALGORITHMS.get(name)
    digest = b""
    with suppress(binascii.Error):
        digest = base64.b64decode(value, validate=True)
    if algorithm is None or not digest:
        known = "` or `".join(ALGORITHMS)
        raise UploadError(
            UNSUPPORTED_CHECKSUM, f"`Upload-Checksum` must be `{known}`, and its digest in base64"
        )
    return algorithm, digest


# -- answers ---------------------------------------------------------------------------------------


def _options() -> Response:
    return Response(
        status_code=HTTPStatus.NO_CONTENT,
        headers={
            "Tus-Resumable": VERSION,
            "Tus-Version": VERSION,
            "Tus-Extension": EXTENSIONS,
            "Tus-Max-Size": str(limits.FILE_BYTES),
            "Tus-Checksum-Algorithm": ",".join(ALGORITHMS),
        },
    )


def _place(upload: Upload) -> dict[str, str]:
    headers = TUS | {"Upload-Offset": str(upload.offset)}
    if upload.placed is None:
        headers["Upload-Expires"] = email.utils.formatdate(upload.expires(), usegmt=True)
    return headers


def _finished(upload: Upload) -> Response:
    """Return where a finished upload lies."""
    if upload.placed is None:
        raise UploadError(HTTPStatus.CONFLICT, "this upload isn't finished")
    file = upload.placed
    fields = {
        "path": file.path,
        "name": file.name,
        "bytes": file.bytes,
        "sha256": file.sha256,
        "threadId": file.thread,
        "type": file.type,
    }
    return Response(msgspec.json.encode(fields), headers=TUS, media_type="application/json")


def _refusal(status: int, text: str, headers: Mapping[str, str] | None = None) -> Response:
    body = msgspec.json.encode(Refusal(text))
    more = {"WWW-Authenticate": "Bearer"} if status == HTTPStatus.UNAUTHORIZED else {}
    return Response(body, status, TUS | more | dict(headers or {}), "application/json")
