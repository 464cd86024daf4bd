"""``appmux get``: fetch a file of a thread, or list them.

The broker of a state directory is asked by ``mux/files/*``; the bytes come over its unix socket.
"""

from __future__ import annotations

import json
import os
import sys
from contextlib import suppress
from http import HTTPStatus
from pathlib import Path

import click
import httpx

from mux.cli.common import broker
from mux.cli.common.broker import Json
from mux.cli.common.file_transfer import web_client
from mux.cli.common.options import PATH, broker_flags, exits, json_flag, state_dir_of
from mux.cli.completion import thread_ids
from mux.cli.terminal import screen
from mux.cli.threads import threads
from mux.errors import AppmuxError
from mux.text import visible


class GetError(AppmuxError):
    """A file wasn't fetched."""


@click.command(epilog=exits("0 it was fetched, or listed", "1 it wasn't"))
@click.argument("named", metavar="THREAD", shell_complete=thread_ids)
@click.argument("path", required=False, metavar="[PATH]")
@click.option(
    "--output", "-o", type=PATH, metavar="FILE", help="Where to; - is stdout. Else: its name, here."
)
@json_flag
@broker_flags
def get(
    *,
    named: str,
    path: str | None,
    output: Path | None,
    as_json: bool,
    config_file: Path | None,
    state_dir: Path | None,
) -> None:
    """Fetch a file of a thread: one that it changed, created, generated, was brought, or any other.

    THREAD is an end of its id, or its title. Without PATH the thread's files are listed. PATH may
    be an end of a listed one.
    """
    urls = broker.urls(state_dir_of(config_file, state_dir))
    with broker.connected(urls) as connection:
        thread = str(threads.find(connection, named)["id"])
        listed = connection.request("mux/files/list", {"threadId": thread})
        if path is None:
            _show(listed, as_json=as_json)
            return
        whole = _whole(path, listed["files"])
        opened = connection.request("mux/files/open", {"threadId": thread, "path": whole})
        target = output or Path(Path(opened["name"]).name)
        _fetch(urls, opened, target)
    if as_json:
        click.echo(json.dumps({"path": whole, "file": str(target), "bytes": opened["bytes"]}))
    elif str(target) != "-":
        click.echo(visible(str(target)))


def _show(listed: Json, *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(listed, indent=2))
        return
    console = screen.console()
    for file in listed["files"]:
        console.print(screen.line((f"{file['how']:<10}", "dim"), visible(file["path"])))
    if not listed["files"]:
        console.print("no files")


def _whole(path: str, files: list[Json]) -> str:
    """Return the path that is meant: a listed one that ends so, or the path itself."""
    ends = [file["path"] for file in files if f"{file['path']}".endswith(f"/{path}")]
    if path.startswith("/") or not ends:
        return path
    if len(ends) > 1:
        raise GetError("several files end so: " + ", ".join(map(visible, ends)))
    return str(ends[0])


def _fetch(urls: list[str], opened: Json, target: Path) -> None:
    with web_client(urls) as web, web.stream("GET", opened["url"]) as answer:
        if answer.status_code != HTTPStatus.OK:
            raise GetError(f"the broker answered {answer.status_code}")
        _write(answer, target)


def _write(answer: httpx.Response, target: Path) -> None:
    """Write a file whole, or not at all. Raises ``GetError``."""
    if str(target) == "-":
        try:
            for piece in answer.iter_bytes():
                sys.stdout.buffer.write(piece)
        except httpx.TransportError as failure:
            raise GetError(f"it broke off before its end: {failure}") from failure
        return
    if target.exists():
        raise GetError(f"{target} is there already: name another by --output")
    part = target.with_name(f".{target.name}.part")
    try:
        with part.open("wb") as file:
            for piece in answer.iter_bytes():
                file.write(piece)
        os.link(part, target)
    except httpx.TransportError as failure:
        raise GetError(f"it broke off, and nothing was kept: {failure}") from failure
    except OSError as failure:
        raise GetError(f"{target} can't be written: {failure.strerror}") from failure
    finally:
        with suppress(OSError):
            part.unlink()
