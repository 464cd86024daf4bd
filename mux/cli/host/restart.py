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
from mux.cli.common.options import broker_flags, exits, json_flag, outcome
from mux.cli.common.settings import of_broker
from mux.client import Client, ClientError, Json
from mux.config.model import Config
from mux.storage import state_dir

LOOK_SECONDS: Final = 1.0
"""Seconds between two checks of what the restart waits for: a person reads along."""

RENEWED_DEADLINE: Final = 30.0
"""Seconds for the next broker to come up; it takes one or two."""

RENEWED_LOOK: Final = 0.1
"""Seconds between two looks for it."""

INTERRUPTED: Final = 130
"""A shell's exit status for "ended by SIGINT"."""


@click.command(
    epilog=exits(
        "0 a new app-server runs",
        "1 it doesn't",
        "130 Ctrl-C: the waiting ended, the restart still happens",
    )
)
@click.option("--broker", is_flag=True, help="Restart appmux itself; codex and its turns run on.")
@click.option("--now", is_flag=True, help="Wait for nothing: what runs is interrupted.")
@json_flag
@broker_flags
def restart(
    broker: bool, now: bool, as_json: bool, config_file: Path | None, state_dir: Path | None
) -> None:
    """Replace the app-server by a new process, after upgrading codex or changing its config.

    Waits until no turn runs and no approval is pending, and holds new work back meanwhile. No
    client loses its connection. Ctrl-C stops the waiting, not the restart.

    With `--broker` it is appmux itself that is replaced, after upgrading it or changing its
    settings: codex runs on with all its turns, approvals wait, and clients come back by themselves.
    """
    config = of_broker(config_file, state_dir)
    with outcome(as_json) as done:
        status, answer = trio.run(renew, config) if broker else trio.run(run, config, now)
        done.update(answer or {"waiting": True})
    sys.exit(status)


async def renew(config: Config) -> tuple[int, Json]:
    """Have the broker replaced, and wait for the next one. Raises ``AppmuxError``."""
    urls = state_dir.listeners(config.state_dir)
    async with client.connect_any(urls) as asking:
        before = (await asking.request("mux/status"))["broker"]["pid"]
        try:
            await asking.request("mux/restart", {"broker": True})
        except ClientError:
            if not asking.gone:
                raise  # it was refused; as it happens the connection is closed
    with trio.move_on_after(RENEWED_DEADLINE):
        while True:
            try:
                async with client.connect_any(state_dir.listeners(config.state_dir)) as looking:
                    broker = (await looking.request("mux/status"))["broker"]
            except (ClientError, state_dir.StateDirError):
                broker = None
            if broker is not None and broker["pid"] != before:
                _print(f"appmux {broker['version']} runs, pid {broker['pid']}; codex has run on")
                return 0, {"broker": broker}
            await trio.sleep(RENEWED_LOOK)
    raise ClientError("no other broker has come up; its log says why")


async def run(config: Config, now: bool) -> tuple[int, Json | None]:
    """Request a restart, report on it; return the exit status, and the answer if there was one.

    Raises ``AppmuxError`` if the restart fails.
    """
    urls = state_dir.listeners(config.state_dir)
    outcome = _Outcome()
    with trio.open_signal_receiver(signal.SIGINT) as signals:
        async with (
            client.connect_any(urls) as asking,
            client.connect_any(urls) as looking,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(outcome.interrupt, signals, nursery.cancel_scope)
            nursery.start_soon(outcome.wait, asking, now, nursery.cancel_scope)
            nursery.start_soon(_print_waits, looking)
    return outcome.end(), outcome.answer


@attrs.define
class _Outcome:
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
            _print(f"codex {version} runs, as generation {generation} of the app-server")
            return 0
        if self.failure is not None:
            outcome = "`appmux status` shows what the app-server said last"
            raise ClientError(f"the restart failed: {self.failure}; {outcome}")
        _print("not waiting any more; the restart still happens once nothing runs")
        return INTERRUPTED


async def _print_waits(looking: Client) -> None:
    """Print what the restart waits for, whenever that changes, until cancelled."""
    before = ""
    while True:
        server = (await looking.request("mux/status"))["appServer"]
        looking.inbox.clear()  # nobody reads it, and the wait may be long
        words = f"waiting for {', '.join(waits)}" if (waits := server["restartWaitsFor"]) else ""
        if words and words != before:
            _print(words)
        before = words
        await trio.sleep(LOOK_SECONDS)


def _print(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()  # stdout may be a pipe that somebody watches
