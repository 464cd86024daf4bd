"""``appmux watch``: follow a thread in the terminal, as it happens.

The broker of a state directory is asked by codex's own ``thread/resume``, so this is a follower as
any other; it answers nothing.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import click

from mux.cli.common import broker
from mux.cli.common.broker import Broker, BrokerError, Json
from mux.cli.common.options import broker_flags, exits, json_flag, state_dir_of
from mux.cli.completion import thread_ids
from mux.cli.terminal import waiting
from mux.cli.terminal.transcript import Transcript
from mux.cli.threads import threads

TURNS: Final = 1
"""Turns of the past that are shown, if nobody says how many."""

INTERRUPTED: Final = 130
"""A shell's exit status for "ended by SIGINT"."""

RESUME_DEADLINE: Final = 60.0
"""Seconds: the app-server may have to load a long history from the disk."""

CAPABILITIES: Final[Json] = {"experimentalApi": True}
"""A page of turns with the answer to a resume is experimental in codex."""


@click.command(
    epilog=exits(
        "0 the turn completed (--once), or the thread was closed",
        "1 the turn failed or was interrupted (--once), or the broker is gone",
        "130 Ctrl-C",
    )
)
@click.argument("thread", required=False, shell_complete=thread_ids)
@click.option("--once", is_flag=True, help="End with the turn.")
@click.option(
    "--turns", type=click.IntRange(0, 100), default=TURNS, show_default=True, metavar="N",
    help="Turns of the past to show first.",
)  # fmt: skip
@json_flag
@broker_flags
def watch(
    *,
    thread: str | None,
    once: bool,
    turns: int,
    as_json: bool,
    config_file: Path | None,
    state_dir: Path | None,
) -> None:
    """Follow a thread as it happens: what is said, run and changed, with its diff.

    THREAD is an end of its id, or its title; without it, the one that runs. What waits for a word
    is shown with the command that answers it. --json prints codex's own messages, one a line.
    `codex resume ID` opens the thread in a TUI.
    """
    with broker.connected(broker.urls(state_dir_of(config_file, state_dir))) as connection:
        connection.initialize(CAPABILITIES)
        card = threads.find(connection, thread) if thread else threads.only(connection)
        sys.exit(follow(connection, card, turns=turns, once=once, as_json=as_json))


def follow(connection: Broker, card: Json, *, turns: int, once: bool, as_json: bool) -> int:
    """Show a thread until it is closed or, with ``once``, its turn ends; return the exit status.

    Raises ``BrokerError``.
    """
    shown = Transcript(card["id"], write)
    past = join(connection, card["id"], turns)
    if not as_json:
        shown.note(f"~ {threads.title(card)} ({card['id']})")
        shown.history(past)
    if once and not _runs(connection, card["id"]):
        return 0
    return stream(connection, shown, once=once, as_json=as_json)


def join(connection: Broker, thread: str, turns: int) -> list[Json]:
    """Follow a thread, and return its last turns, oldest first. Raises ``BrokerError``."""
    params: Json = {"threadId": thread, "excludeTurns": True}
    if turns:
        params["initialTurnsPage"] = {
            "limit": turns, "sortDirection": "desc", "itemsView": "full",
        }  # fmt: skip
    joined = connection.request("thread/resume", params, deadline=RESUME_DEADLINE)
    if not turns:
        return []
    page = joined.get("initialTurnsPage") or {}
    return list(reversed(page.get("data") or joined["thread"].get("turns") or []))[-turns:]


def _runs(connection: Broker, thread: str) -> bool:
    threads = connection.request("mux/status")["threads"]
    return any(each["id"] == thread and each["turn"] is not None for each in threads)


def stream(connection: Broker, shown: Transcript, *, once: bool, as_json: bool) -> int:
    """Show what comes; return the exit status. Raises ``BrokerError`` if the connection ends."""
    try:
        for message in _messages(connection, shown.thread):
            if as_json:
                write(json.dumps(message) + "\n")
                completed = message["method"] == "turn/completed"
                ended = message["params"]["turn"] if completed else None
            else:
                ended = shown.feed(message)
                if "id" in message:
                    _show_asked(connection, shown, message["id"])
            if ended is not None and once:
                return 0 if ended["status"] == "completed" else 1
            if message["method"] == "thread/closed":
                return 0
    except KeyboardInterrupt:
        pass
    return INTERRUPTED


def _messages(connection: Broker, thread: str) -> Iterator[Json]:
    """Yield what comes of a thread. Raises ``BrokerError`` if the connection ends."""
    while True:
        message = connection.message()
        assert message is not None
        if (message.get("params") or {}).get("threadId") == thread:
            yield message


def until_started(connection: Broker, shown: Transcript, queued: int, *, as_json: bool) -> None:
    """Show what comes until a queued turn starts. Raises ``BrokerError`` if it never will."""
    for message in _messages(connection, shown.thread):
        change = message["params"]["change"] if message["method"] == "mux/queue" else {}
        if change.get("id") == queued and change["what"] != "queued":
            if change["what"] == "started":
                return
            reason = f": {change['why']}" if change["why"] else ""
            raise BrokerError(f"the queued message was {change['what']}{reason}")
        if as_json:
            write(json.dumps(message) + "\n")
        else:
            shown.feed(message)


def _show_asked(connection: Broker, shown: Transcript, id: int) -> None:
    """Show an approval that was offered to us just now, unless it has been answered since."""
    try:
        pending = connection.request("mux/approvals/list")["approvals"]
    except BrokerError:  # we may not see them
        return
    for approval in pending:
        if approval["id"] == id:
            shown.show_approval(approval, waiting.short(pending)[id])


def write(text: str) -> None:
    """Write a piece of text at once."""
    click.echo(text, nl=False)
    sys.stdout.flush()  # a person reads along, by a pipe perhaps
