"""``appmux restart``: a new app-server process, without one client losing its connection.

Prints what the restart waits for, and then which app-server runs. If a person stops waiting
(Ctrl-C), the restart still happens: the broker has the request, and does it once nothing runs.

The broker of a state directory gets one ``mux/restart`` request, and ``mux/status`` requests
meanwhile.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import attrs
import click
import trio

from mux import client
from mux.cli.options import broker_flags, exits, json_flag, outcome
from mux.cli.settings import of_broker
from mux.client import Client, ClientError, Json
from mux.config.model import Config
from mux.storage import state_dir

LOOK_SECONDS: Final = 1.0
"""Seconds between two checks of what the restart waits for: a person reads along."""

INTERRUPTED: Final = 130
"""A shell's exit status for "ended by SIGINT"."""


@click.command(
    epilog=exits(
        "0 a new app-server runs",
        "1 it doesn't",
        "130 Ctrl-C: the waiting ended, the restart still happens",
    )
)
@click.option("--now", is_flag=True, help="Wait for nothing: what runs is interrupted.")
@json_flag
@broker_flags
def restart(now: bool, as_json: bool, config_file: Path | None, state_dir: Path | None) -> None:
    """Replace the app-server by a new process, after upgrading codex or changing its config.

    Waits until no turn runs and no approval is pending, and holds new work back meanwhile. No
    client loses its connection. Ctrl-C stops the waiting, not the restart.
    """
    config = of_broker(config_file, state_dir)
    with outcome(as_json) as done:
        status, answer = trio.run(run, config, now)
        done.update(answer or {"waiting": True})
    sys.exit(status)


async def run(config: Config, now: bool) -> tuple[int, Json | None]:
    """Request a restart, report on it; return the exit status, and the answer if there was one.

    Raises ``AppmuxError`` if the restart fails.
    """
    urls = state_dir.listeners(config.state_dir)
    told = _Told()
    with trio.open_signal_receiver(signal.SIGINT) as signals:
        async with (
            client.connect_any(urls) as asking,
            client.connect_any(urls) as looking,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(told.interrupt, signals, nursery.cancel_scope)
            nursery.start_soon(told.wait, asking, now, nursery.cancel_scope)
            nursery.start_soon(_tell_what_it_waits_for, looking)
    return told.end(), told.answer


@attrs.define
class _Told:
    """The result of the waiting: an answer, a failure, or neither."""

    answer: Json | None = None
    failure: ClientError | None = None

    async def interrupt(self, signals: AsyncIterator[int], waiting: trio.CancelScope) -> None:
        async for _number in signals:
            waiting.cancel()

    async def wait(self, asking: Client, now: bool, waiting: trio.CancelScope) -> None:
        try:
            self.answer = await asking.request("mux/restart", {"now": now})
        except ClientError as failure:
            self.failure = failure
        waiting.cancel()

    def end(self) -> int:
        """Print the result, and return the exit status."""
        if self.answer is not None:
            version, generation = self.answer["version"] or "?", self.answer["generation"]
            _say(f"codex {version} runs, as generation {generation} of the app-server")
            return 0
        if self.failure is not None:
            told = "`appmux status` shows what the app-server said last"
            raise ClientError(f"the restart failed: {self.failure}; {told}")
        _say("not waiting any more; the restart still happens once nothing runs")
        return INTERRUPTED


async def _tell_what_it_waits_for(looking: Client) -> None:
    """Print what the restart waits for, whenever that changes, until cancelled."""
    before = ""
    while True:
        server = (await looking.request("mux/status"))["appServer"]
        looking.inbox.clear()  # nobody reads it, and the wait may be long
        words = f"waiting for {', '.join(waits)}" if (waits := server["restartWaitsFor"]) else ""
        if words and words != before:
            _say(words)
        before = words
        await trio.sleep(LOOK_SECONDS)


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()  # stdout may be a pipe that somebody watches
