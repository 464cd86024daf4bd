"""The web's application, loaded when the first request for it comes.

Its libraries take a fifth of a second, which a thread spends: no message waits for them.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from mux.access.requests import DeviceRequests
from mux.access.throttle import LoginThrottle
from mux.core.part import Part
from mux.downstream.http.request import Request
from mux.files.downloads import Downloads
from mux.files.uploads import Uploads

if TYPE_CHECKING:
    import h11

    from mux.web.application import Application


class LateWeb(Part):
    """Stands for the application, before and after it is loaded."""

    devices: DeviceRequests
    throttle: LoginThrottle
    uploads: Uploads
    downloads: Downloads
    files: Path | None
    _application: Application | None = None

    async def serve(self, request: Request) -> h11.Connection | None:
        """Answer one request, as ``Web.serve`` says."""
        if self._application is None:
            await trio.to_thread.run_sync(importlib.import_module, "mux.web.application")
            from mux.web.application import build  # noqa: PLC0415 (as above)

            if self._application is None:  # another request may have been quicker
                self._application = build(
                    self.devices, self.throttle, self.uploads, self.downloads, self.files
                )
        return await self._application.serve(request)
