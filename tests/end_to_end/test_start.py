"""What a broker loads, and when: a start is mostly imports, so what it needn't load it doesn't.

Python itself tells (``PYTHONPROFILEIMPORTTIME``): a line on stderr for each module that is loaded.
"""

from __future__ import annotations

import os
import re
import socket
import sys
from pathlib import Path

import pytest
import trio

from mux.server.nursery import RARE
from tests.end_to_end.brokered import ONLY_THE_SERVER, brokered, client
from tests.end_to_end.native import codex_bin, launched
from tests.end_to_end.peer import PATIENCE

NOT_TO_LISTEN = {
    "rich.console", "pygments",  # structlog would, to draw tracebacks (see `logs`)
    "asyncio",                   # likewise, for log methods that are awaited
    "importlib.metadata",        # for nothing but the version (see `mux`)
    "difflib",                   # for settings that don't exist
    "trio_websocket", "mux.client", "mux.host.take_over",  # for --take-over
    "jwt",                       # for --ws-auth signed-bearer-token
    "httpx", "httpcore", "http_ece", "cryptography", "mux.push.services",  # to push
    "prometheus_client", "mux.server.observability.metrics",  # for a scraper
    "wsproto", "h11", "email",   # for frames and heads that aren't the usual ones
    "segno", "zoneinfo", "mux.cli.devices.pair", "mux.demo.scripted_model",
}  # fmt: skip
"""What costs much, and isn't needed to be there for the first client; and for what it is."""

A_SECOND_LATER = {"mux.core.reports.figures", *RARE}
"""What is loaded in a thread then: it holds up nobody, but on a slow machine the first client may
still be at it."""

FOR_A_CLIENT = {
    "msgspec",
    "mux.downstream.http.routes",
    "mux.downstream.connection",
    "mux.core.broker",
}


async def test_a_start_loads_what_a_client_needs_and_nothing_dear_beside() -> None:
    async with brokered(environ={"PYTHONPROFILEIMPORTTIME": "1"}) as broker:
        before = loaded(broker.shown().partition("listening on:")[0])
        assert before >= FOR_A_CLIENT
        assert not before & NOT_TO_LISTEN, (
            "import it inside the function that wants it, or decide otherwise in NOT_TO_LISTEN"
        )
        by_then = len(broker.shown())
        async with client(broker, "the first") as first:
            await first.start_thread(broker.home.work)
        late = {name for name in loaded(broker.shown()[by_then:]) if name.startswith("mux.")}
        assert not late - A_SECOND_LATER, "the first client waits while it is loaded"
        await broker.wait_log(r"\| +prometheus_client\.core\n")  # before a scraper asks


def loaded(shown: str) -> set[str]:
    """The modules that were loaded by what stderr shows, of them also those that weren't there."""
    return set(re.findall(r"^import time: .*\| +(\S+)$", shown, re.MULTILINE))


async def test_a_start_in_vain_says_why_and_leaves_no_app_server(tmp_path: Path) -> None:
    pid, codex = tmp_path / "pid", tmp_path / "codex"
    codex.write_text(f"#!/bin/sh\n{ONLY_THE_SERVER}echo $$ > {pid}\nexec '{codex_bin()}' \"$@\"\n")
    codex.chmod(0o755)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"ws://127.0.0.1:{taken.getsockname()[1]}"
        command = [sys.executable, "-m", "mux", "serve", "--listen", address]
        async with launched(command, environ={"APPMUX_CODEX_BIN": str(codex)}) as running:
            with trio.fail_after(PATIENCE):
                assert await running.process.wait() == 1
                while not running.shown().endswith("\n"):  # noqa: ASYNC110 (its log isn't told)
                    await trio.sleep(0.01)
    assert re.fullmatch(r"Error: can't listen on .*\n", running.shown())
    with pytest.raises(ProcessLookupError):  # it was asked for early
        os.kill(int(pid.read_text()), 0)
