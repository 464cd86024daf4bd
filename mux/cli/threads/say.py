"""``appmux say``: give a thread a message, or begin one.

The broker of a state directory is asked by codex's own ``turn/start``, with ``ifBusy`` for a thread
on which a turn runs.
"""

from __future__ import annotations

import json
import sys
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import click

from mux.cli.common import broker, file_transfer
from mux.cli.common.broker import Broker, BrokerError, Json
from mux.cli.common.options import PATH, broker_flags, exits, json_flag, state_dir_of
from mux.cli.completion import thread_ids
from mux.cli.terminal import screen
from mux.cli.terminal.transcript import Transcript
from mux.cli.threads import put, threads, watch
from mux.errors import AppmuxError

KNOWS_US: Final[Json] = {
    **watch.CAPABILITIES,
    "extensions": {"appmux": {"version": 1}},
}
"""Declares that we know the broker: else ``ifBusy`` would be an unknown field."""

BUSY: Final = -32012
"""The code of the error that a turn runs (see ``docs/protocol.md``)."""

STDIN: Final = "-"

PICTURES: Final = frozenset({"image/png", "image/jpeg", "image/gif", "image/webp"})
"""Types of files that a model can look at."""


class NotSaidError(AppmuxError):
    """The message wasn't given to anybody."""


@click.command(
    epilog=exits(
        "0 it was started, joined or queued; with --wait, the turn completed",
        "1 it was not, as a turn runs or the broker refused it; with --wait, the turn failed",
        "130 Ctrl-C; the turn goes on",
    )
)
@click.argument(
    "words", nargs=-1, required=True, metavar="[THREAD] TEXT…", shell_complete=thread_ids
)
@click.option("--queue", "if_busy", flag_value="queue", help="If a turn runs: say it after that.")
@click.option("--steer", "if_busy", flag_value="steer", help="If a turn runs: say it into that.")
@click.option("--new", "directory", type=PATH, metavar="DIR", help="Begin a thread there instead.")
@click.option(
    "--file",
    "-f",
    "files",
    multiple=True,
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Bring it along, as `put` does; several times for several.",
)
@click.option("--wait", "-w", is_flag=True, help="Show the turn until it ends, as `watch` does.")
@json_flag
@broker_flags
def say(
    *,
    words: tuple[str, ...],
    if_busy: str | None,
    directory: Path | None,
    files: tuple[Path, ...],
    wait: bool,
    as_json: bool,
    config_file: Path | None,
    state_dir: Path | None,
) -> None:
    """Give a thread a message: `appmux say THREAD TEXT`, or `appmux say --new DIR TEXT`.

    THREAD is an end of its id, or its title. TEXT may be several words; - reads it from stdin.
    While a turn runs, --queue or --steer says what is meant; without them nothing is said.
    A picture that is brought along is shown to the model; any other file is named to it.

    Of codex's own commands, `codex queue` queues (only for a session that has been saved), and
    `codex exec --remote unix://` runs a prompt (0.171 and newer).
    """
    named, text = (None, words) if directory is not None else (words[0], words[1:])
    message = _text(text)
    urls = broker.urls(state_dir_of(config_file, state_dir))
    with broker.connected(urls) as connection:
        connection.initialize(KNOWS_US)
        card = (
            _begin(connection, directory)
            if directory is not None
            else threads.find(connection, str(named))
        )
        if directory is None:
            watch.join(connection, card["id"], 0)
        brought = _bring(urls, files, card["id"], quiet=as_json)
        outcome = _start(connection, card, [_text_input(message), *brought], if_busy or "reject")
        if not wait:
            click.echo(json.dumps(outcome, indent=2) if as_json else _outcome(outcome, card))
            return
        if outcome["queued"] is not None:
            _note(_outcome(outcome, card), as_json=as_json)
        sys.exit(_until_over(connection, card, outcome, as_json=as_json))


def _text(words: tuple[str, ...]) -> str:
    text = sys.stdin.read() if words == (STDIN,) else " ".join(words)
    if not text.strip():
        raise click.UsageError("there is no TEXT to say")
    return text


def _text_input(text: str) -> Json:
    return {"type": "text", "text": text, "text_elements": []}


def _bring(urls: list[str], files: tuple[Path, ...], thread: str, *, quiet: bool) -> list[Json]:
    """Bring files to a thread, and return the parts of a message that tell of them."""
    if not files:
        return []
    with file_transfer.web_client(urls) as web:
        return [_part(put.bring(web, file, thread, quiet=quiet)) for file in files]


def _part(file: Mapping[str, str]) -> Json:
    if file["type"] in PICTURES:
        return {"type": "localImage", "path": file["path"]}
    return {"type": "mention", "name": file["name"], "path": file["path"]}


def _begin(connection: Broker, directory: Path) -> Json:
    where = directory.expanduser().absolute()
    if not where.is_dir():
        raise NotSaidError(f"there is no directory {where}")
    began = connection.request("thread/start", {"cwd": str(where)}, deadline=watch.RESUME_DEADLINE)
    return {"id": began["thread"]["id"], "title": "", "preview": "", "directory": str(where)}


def _start(connection: Broker, card: Json, message: list[Json], if_busy: str) -> Json:
    """Start a turn, and return what became of it. Raises ``AppmuxError``."""
    params = {
        "threadId": card["id"],
        "input": message,
        # Sent again it would run once.
        "clientUserMessageId": str(uuid.uuid4()),
        "ifBusy": if_busy,
    }
    try:
        result = connection.request("turn/start", params, deadline=watch.RESUME_DEADLINE)
    except BrokerError as refused:
        if refused.code == BUSY:
            raise NotSaidError(
                f"a turn runs on {screen.short_ids([card['id']])[card['id']]}: --steer says it into"
                " that turn, --queue after it"
            ) from refused
        raise
    ours = result.get("appmux") or {}
    return {
        "threadId": card["id"],
        "turnId": (result.get("turn") or {}).get("id"),
        "steered": bool(ours.get("steered")),
        "queued": ours.get("queued"),
    }


def _outcome(outcome: Json, card: Json) -> str:
    short = screen.short_ids([card["id"]])[card["id"]]
    if outcome["queued"] is not None:
        return f"queued as number {outcome['queued']['place']} on {short}"
    done = "said into the running turn" if outcome["steered"] else "started"
    return f"{done}; to see it: appmux watch {short}"


def _note(text: str, *, as_json: bool) -> None:
    click.echo(text, err=as_json)


def _until_over(connection: Broker, card: Json, outcome: Json, *, as_json: bool) -> int:
    """Show the turn until it ends; return the exit status."""
    shown = Transcript(card["id"], watch.write)
    if outcome["queued"] is not None:
        watch.until_started(connection, shown, outcome["queued"]["id"], as_json=as_json)
    return watch.stream(connection, shown, once=True, as_json=as_json)
