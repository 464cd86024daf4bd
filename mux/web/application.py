"""The application behind the adapter: which path is answered by what."""

from __future__ import annotations

from http import HTTPStatus
from pathlib import Path
from typing import Final

import attrs
import h11
import trio
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request as WebRequest
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from mux.access.requests import DeviceRequests
from mux.access.throttle import LoginThrottle
from mux.downstream.http.request import Request
from mux.files.downloads import Downloads
from mux.files.uploads import Uploads
from mux.web import adapter, headers, transfer
from mux.web.downloads import DownloadRoutes
from mux.web.files import PageFiles
from mux.web.session import SessionRoutes
from mux.web.uploads import UPLOAD_METHODS, UploadRoutes

SHARE_LOST: Final = "/#share-lost"
"""Where the share sheet leads if no worker runs that could keep what was shared."""


@attrs.frozen
class Application:
    """Answers plain requests of one broker."""

    _app: adapter.App
    _threads: trio.CapacityLimiter = attrs.field(
        factory=lambda: trio.CapacityLimiter(transfer.THREADS)
    )

    async def serve(self, request: Request) -> h11.Connection | None:
        """Answer one request, as ``Web.serve`` says."""
        return await adapter.serve(self._app, request, self._threads)


def build(
    devices: DeviceRequests,
    throttle: LoginThrottle,
    uploads: Uploads,
    downloads: Downloads,
    files: Path | None,
) -> Application:
    """Make the application of a broker. ``files``: the page's, if not those of the package."""
    session, page = SessionRoutes(devices, throttle), PageFiles(files)
    upload, download = UploadRoutes(uploads), DownloadRoutes(downloads)
    routes = [
        Route("/v1/session", session.pair, methods=["POST"]),
        Route("/v1/session/challenge", session.challenge, methods=["POST"]),
        Route("/v1/session", session.read, methods=["GET"]),
        Route("/v1/session", session.end, methods=["DELETE"]),
        Route("/v1/files", upload.collection, methods=UPLOAD_METHODS),
        Route("/v1/files/of/{token}", download.send, methods=["GET", "HEAD"]),
        Route("/v1/files/{id}", upload.one, methods=UPLOAD_METHODS),
        Route("/v1/https.json", SecurePage(devices).answer, methods=["GET"]),
        Route("/v1/{rest:path}", _nothing),
        Route("/share", _share, methods=["POST"]),
        Route("/{path:path}", page.answer, methods=["GET"]),
    ]
    app = Starlette(routes=routes)
    return Application(headers.secured(app))


@attrs.frozen
class SecurePage:
    """Returns the page's https address, for a page that came by http. The name is no secret."""

    devices: DeviceRequests

    async def answer(self, _request: WebRequest) -> Response:
        """Answer with the address, or null."""
        secure = (each for each in self.devices.origins() if each.startswith("https://"))
        return JSONResponse({"page": next(secure, None)})


async def _nothing(_request: WebRequest) -> Response:
    raise HTTPException(HTTPStatus.NOT_FOUND)


async def _share(_request: WebRequest) -> Response:
    return RedirectResponse(SHARE_LOST, HTTPStatus.SEE_OTHER)
