"""The broker on a test bench: `appmux serve`, a real process, over the real app-server.

Hands to: the tests, `bench/`. Hears from: `appmux serve`; homes and the model are `native`'s.
"""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import attrs

from tests.end_to_end.native import Native, codex_bin, launched
from tests.end_to_end.peer import Peer, connect_ws

ONLY_THE_SERVER: Final = """case "$1 $2" in --version*|app-server\\ generate-*) exit 1;; esac
"""
"""For scripts that stand in for codex: they are no codex to be asked for its version or schema."""


@asynccontextmanager
async def brokered(
    *arguments: str,
    log_level: str = "info",
    codex: str | None = None,
    program: Sequence[str] | None = None,
    before: Sequence[str] = (),
    **options: Any,
) -> AsyncIterator[Native]:
    """`appmux serve` on a port of its own (`url`) and the control socket (`socket`).

    `arguments` are further ones of `serve`; options as in `native.launched`. `codex` names another
    binary than the test bench's; `program` another way to run `appmux`; `before` are words before
    the command, which start it.
    """
    environ = {
        "APPMUX_CODEX_BIN": codex or str(codex_bin()),
        "APPMUX_LOG_LEVEL": log_level,
        "APPMUX_LOG_FORMAT": "json",
    } | options.pop("environ", {})
    command = [*before, *(program or (sys.executable, "-m", "mux")), "serve"]
    command += ["--listen", "ws://127.0.0.1:0"]
    command += ["--listen", "unix://", *arguments]
    async with launched(command, environ=environ, **options) as running:
        running.url = (await running.wait_log(r"listening on: (ws://\S+)\n"))[1]
        await running.wait_log(r"listening on: unix://")
        control = running.home.codex_home / "app-server-control" / "app-server-control.sock"
        running.socket = control
        try:
            yield running
        except BaseException:
            sys.stderr.write(running.shown())  # pytest shows it with the failure
            raise


@asynccontextmanager
async def client(running: Native, name: str, **capabilities: Any) -> AsyncIterator[Peer]:
    """A client of the broker, past its handshake."""
    async with connect_ws(running.url) as peer:
        await peer.initialize(name, **capabilities)
        yield peer


@attrs.frozen
class Logged:
    """One line of the broker's JSON log."""

    event: str
    fields: dict[str, Any]


def logged(running: Native) -> list[Logged]:
    """What the broker has logged so far, in whole lines: the last one may have come in part."""
    whole = running.shown().rpartition("\n")[0]
    lines = [line for line in whole.splitlines() if line.startswith("{")]
    return [Logged(str(fields.get("event")), fields) for fields in map(json.loads, lines)]


def errors(running: Native) -> list[Logged]:
    """What the broker itself has logged as an error; the app-server's own words don't count."""
    own = [each for each in logged(running) if each.event != "app-server stderr"]
    return [each for each in own if each.fields["level"] == "error"]
