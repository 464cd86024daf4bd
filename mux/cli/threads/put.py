"""``appmux put``: bring files to a thread, where its agent finds them.

The broker of a state directory takes them by the tus protocol, over its unix socket. A connection
that breaks is taken up where it was; so is a broker that is restarted meanwhile.
"""

from __future__ import annotations

import base64
import hashlib
import json
import mimetypes
import sys
import time
from collections.abc import Iterator
from http import HTTPStatus
from io import BufferedReader
from pathlib import Path
from typing import Final

import attrs
import click
import httpx
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TransferSpeedColumn,
)

from mux.cli.common import broker
from mux.cli.common.file_transfer import web_client
from mux.cli.common.options import broker_flags, exits, json_flag, state_dir_of
from mux.cli.completion import thread_ids
from mux.cli.threads import threads
from mux.errors import AppmuxError
from mux.text import visible

FILES: Final = "/v1/files"
TUS: Final = {"Tus-Resumable": "1.0.0"}

PIECE_BYTES: Final = 256 * 1024
TRIES: Final = 60
PAUSE: Final = 1.0
"""Seconds between two tries to go on: a broker that restarts is back within a minute."""


class PutError(AppmuxError):
    """A file wasn't taken; the text is the broker's, or says what is wrong with the file."""


@click.command(
    epilog=exits("0 all files lie in place", "1 a file doesn't, and those after it weren't tried")
)
@click.argument(
    "files",
    nargs=-1,
    required=True,
    metavar="FILE…",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
)
@click.option("--thread", "named", metavar="THREAD", shell_complete=thread_ids, help="For whom.")
@json_flag
@broker_flags
def put(
    files: tuple[Path, ...],
    named: str | None,
    as_json: bool,
    config_file: Path | None,
    state_dir: Path | None,
) -> None:
    """Bring files to a thread: they go to `uploads/` in its directory.

    THREAD is an end of its id, or its title; without --thread they go to the state directory.
    """
    directory = state_dir_of(config_file, state_dir)
    urls = broker.urls(directory)
    thread = None
    if named is not None:
        with broker.connected(urls) as connection:
            thread = str(threads.find(connection, named)["id"])
    with web_client(urls) as web:
        placed = [bring(web, file, thread, quiet=as_json) for file in files]
    if as_json:
        click.echo(json.dumps(placed, indent=2))
    else:
        for each in placed:
            click.echo(visible(each["path"]))


def bring(web: httpx.Client, file: Path, thread: str | None, *, quiet: bool) -> dict[str, str]:
    """Bring one file, and return what the broker tells of it: `path`, `name`, `type`.

    Shows how far it is, unless ``quiet``. Raises ``PutError``.
    """
    with file.open("rb") as opened, _bar(quiet=quiet) as bar:
        upload = _Upload(web, opened, file.name, thread, bar)
        return upload.run()


def _bar(*, quiet: bool) -> Progress:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
    )
    shown = not quiet and sys.stderr.isatty()
    return Progress(*columns, console=Console(stderr=True), disable=not shown, transient=True)


@attrs.define(eq=False)
class _Upload:
    """A file on its way."""

    web: httpx.Client
    file: BufferedReader
    name: str
    thread: str | None
    bar: Progress

    def run(self) -> dict[str, str]:
        length = self.file.seek(0, 2)
        self.file.seek(0)
        digest = hashlib.file_digest(self.file, "sha256").hexdigest()
        task = self.bar.add_task(visible(self.name), total=length)
        url = self._begin(length, digest)
        at = 0
        for _ in range(TRIES):
            try:
                if at < length:
                    at = self._send_rest(url, at, length, task)
                if at >= length:
                    placed: dict[str, str] = _checked(self.web.get(url)).json()
                    return placed
            except httpx.TransportError:
                time.sleep(PAUSE)
                at = self._offset(url, at)
        raise PutError(f"{self.name}: the broker is gone, and didn't come back in {TRIES} s")

    def _begin(self, length: int, digest: str) -> str:
        kind = mimetypes.guess_type(self.name)[0] or ""
        metadata = {"filename": self.name, "filetype": kind, "sha256": digest}
        if self.thread is not None:
            metadata["thread"] = self.thread
        pairs = [f"{key} {_base64(value)}" for key, value in metadata.items()]
        headers = TUS | {"Upload-Length": str(length), "Upload-Metadata": ",".join(pairs)}
        try:
            answer = self.web.post(FILES, headers=headers)
        except httpx.TransportError as failure:
            raise PutError(f"the broker doesn't answer: {failure}") from failure
        return str(_checked(answer).headers["location"])

    def _send_rest(self, url: str, at: int, length: int, task: TaskID) -> int:
        headers = TUS | {
            "Content-Length": str(length - at),
            "Content-Type": "application/offset+octet-stream",
            "Upload-Offset": str(at),
        }
        answer = self.web.patch(url, headers=headers, content=self._pieces(at, task))
        return int(_checked(answer).headers["upload-offset"])

    def _pieces(self, at: int, task: TaskID) -> Iterator[bytes]:
        self.file.seek(at)
        while piece := self.file.read(PIECE_BYTES):
            yield piece
            at += len(piece)
            self.bar.update(task, completed=at)

    def _offset(self, url: str, known: int) -> int:
        """Ask how far the upload is; the known offset where nobody answers."""
        try:
            return int(_checked(self.web.head(url, headers=TUS)).headers["upload-offset"])
        except httpx.TransportError:
            return known


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _checked(answer: httpx.Response) -> httpx.Response:
    if answer.status_code >= HTTPStatus.BAD_REQUEST:
        try:
            text = answer.json()["message"]
        except (ValueError, KeyError, TypeError):
            text = f"the broker answered {answer.status_code}"
        raise PutError(visible(str(text)))
    return answer
