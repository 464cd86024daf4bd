"""The page's files: the same for everybody, with no version and no data in them.

``static/`` beside this module holds what the build of ``web/`` made; ``web.files`` names another
folder. Each path that isn't a file is the page itself, which has paths of its own.
"""

from __future__ import annotations

import mimetypes
from pathlib import Path
from typing import Final

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.staticfiles import StaticFiles

BUILT: Final = Path(__file__).parent / "static"

SHELL: Final = "index.html"
RESET: Final = "reset.html"
"""The page at ``/reset``, which removes worker and storage, where the build has one."""

HASHED: Final = "assets/"
"""The folder whose files have a digest of their content in their names."""

FOR_EVER: Final = "public, max-age=31536000, immutable"
ASK_AGAIN: Final = "no-cache"
"""Cached, but asked for each time: a new version shows with the next look."""

NOT_BUILT: Final = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>appmux</title>
<h1>appmux runs here</h1>
<p>Its page isn't built. In the clone that it was installed from, run <code>make page</code>, then
reload. A terminal attaches without it: <code>codex --remote ws://HOST:PORT</code>.</p>
</html>
"""
"""The page's place-holder."""

mimetypes.add_type("application/manifest+json", ".webmanifest")
mimetypes.add_type("text/javascript", ".js")
mimetypes.add_type("image/svg+xml", ".svg")


class PageFiles:
    """Answers with the files of one folder."""

    def __init__(self, folder: Path | None = None) -> None:
        self._files = StaticFiles(directory=folder or BUILT, check_dir=False)

    async def answer(self, request: Request) -> Response:
        """Return a file, or the page. Raises ``HTTPException``."""
        path = request.url.path.lstrip("/")
        if path == "reset" and (reset := await self._file(RESET, request)) is not None:
            return reset
        if path and (file := await self._file(path, request)) is not None:
            return file
        if path.startswith(HASHED) or "." in path.rpartition("/")[2]:
            raise HTTPException(404)
        return await self._file(SHELL, request) or HTMLResponse(
            NOT_BUILT, headers={"cache-control": ASK_AGAIN}
        )

    async def _file(self, path: str, request: Request) -> Response | None:
        try:
            response = await self._files.get_response(path, request.scope)
        except HTTPException as refused:
            if refused.status_code != 404:  # noqa: PLR2004
                raise
            return None
        response.headers["cache-control"] = FOR_EVER if path.startswith(HASHED) else ASK_AGAIN
        return response
