"""``appmux threads``: all threads, with what each does; and how a person names one.

The broker of a state directory is asked by ``mux/inbox``.
"""

from __future__ import annotations

import json
import re
import sys
import time
from pathlib import Path
from typing import Any, Final

import click
from rich.table import Table
from rich.text import Text

from mux.cli.common import broker
from mux.cli.common.broker import Broker, Json
from mux.cli.common.options import broker_flags, exits, json_flag, state_dir_of
from mux.cli.terminal import screen
from mux.errors import AppmuxError
from mux.text import span, visible

PAGE: Final = 20
"""Threads that are listed, if nobody says how many: a screen."""

MOST: Final = 100
"""Threads of one page of ``mux/inbox``."""

LEAST_TYPED: Final = 3
"""Characters of an id, at least, that name a thread by its end or its beginning."""

MOST_NAMED: Final = 5
"""Threads that an error names, where a word fits several."""

_WHOLE: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class ThreadNameError(AppmuxError):
    """No thread, or more than one, is called so."""


@click.command(epilog=exits("0 the broker answered", "1 no broker answered"))
@click.option("--search", metavar="WORDS", help="Only those with these words in their title.")
@click.option("--archived", is_flag=True, help="Those that were put away.")
@click.option(
    "--limit", "-n", type=click.IntRange(1, 10_000), default=PAGE, show_default=True, metavar="N"
)
@json_flag
@broker_flags
def threads(
    *,
    search: str | None,
    archived: bool,
    limit: int,
    as_json: bool,
    config_file: Path | None,
    state_dir: Path | None,
) -> None:
    """List the threads, those with the newest activity first.

    Each by the end of its id, which every command takes. `codex agents` browses them in a TUI;
    `codex resume ID` opens one.
    """
    with broker.connected(broker.urls(state_dir_of(config_file, state_dir))) as connection:
        cards = pages(connection, limit, search=search, archived=archived)
    if as_json:
        sys.stdout.write(json.dumps(cards, indent=2) + "\n")
    elif not cards:
        sys.stdout.write("no thread\n")
    else:
        console = screen.console()
        console.print(table(cards, console.width, time.time()))
    sys.exit(0)


def pages(connection: Broker, limit: int, **params: Any) -> list[Json]:
    """Return so many threads, the newest activity first."""
    cards: dict[str, Json] = {}  # a later page may repeat a thread
    cursor = None
    while len(cards) < limit:
        page = min(MOST, limit - len(cards))
        answer = connection.request("mux/inbox", {"limit": page, "cursor": cursor, **params})
        for card in answer["threads"]:
            cards.setdefault(card["id"], card)
        cursor = answer["nextCursor"]
        if cursor is None:
            break
    return list(cards.values())[:limit]


def table(cards: list[Json], width: int, now: float) -> Table:
    """Return a table of the threads that fits into ``width``."""
    short = screen.short_ids(each["id"] for each in cards)
    columns = ["thread", "title", "directory", "state", "active"]
    rows: list[list[str | Text]] = [
        [
            short[each["id"]],
            title(each),
            screen.path(each["directory"]),
            screen.plain(*_state(each)),
            _ago(each, now),
        ]
        for each in cards
    ]
    if width >= screen.WIDE:
        columns.append("last")
        for row, card in zip(rows, cards, strict=True):
            row.append(card["lastLine"]["text"] if card["lastLine"] else "")
    cuts: dict[str, screen.Cut] = {"title": "right", "directory": "left", "last": "right"}
    return screen.table("", columns, rows, width, cuts=cuts)


def title(card: Json) -> str:
    """Return how a thread is called: by its title, else by the person's first words."""
    return " ".join((card.get("title") or card.get("preview") or "(no title)").split())


def _state(card: Json) -> tuple[str, str]:
    queued = f", {card['queued']} queued" if card["queued"] else ""
    if card["needs"]:
        return f"waits for you{queued}", "bold yellow"
    if card["held"]:
        return f"queue held ({card['held']})", "yellow"
    turn = card["turn"]
    if turn is not None:
        by = f" by {turn['by']['name']}" if turn["by"] else ""
        return f"running{by}{queued}", "green"
    ended = card["lastTurn"]
    if ended is not None and ended["status"] != "completed":
        return f"{ended['status']}{queued}", "red"
    return f"{'idle' if card['status'] != 'notLoaded' else 'closed'}{queued}", ""


def _ago(card: Json, now: float) -> str:
    if card["turn"] is not None:
        return span(card["turn"]["runningSeconds"])
    at = card["recencyAt"] or card["updatedAt"]
    return f"{span(max(0.0, now - at))} ago" if at else ""


# -- one of them -----------------------------------------------------------------------------------


def find(connection: Broker, named: str) -> Json:
    """Return the thread that a person named: by its id, an end of it, or by its title.

    Raises ``ThreadNameError``.
    """
    cards = pages(connection, MOST)
    for fits in (_is_id, _ends, _begins, _is_called, _has_words):
        matching = [each for each in cards if fits(each, named)]
        if len(matching) == 1:
            return matching[0]
        if matching:
            raise ThreadNameError(_several(matching, f"fit {visible(named)}"))
    if _WHOLE.fullmatch(named.lower()):
        return {"id": named.lower(), "title": "", "preview": "", "directory": ""}  # an older one
    raise ThreadNameError(
        f"no thread {visible(named)}: `appmux threads` lists them; an older one is named by its"
        " whole id"
    )


def _is_id(card: Json, named: str) -> bool:
    return bool(card["id"] == named.lower())


def _ends(card: Json, named: str) -> bool:
    return len(named) >= LEAST_TYPED and card["id"].endswith(named.lower())


def _begins(card: Json, named: str) -> bool:
    return len(named) >= LEAST_TYPED and card["id"].startswith(named.lower())


def _is_called(card: Json, named: str) -> bool:
    return bool(named) and card["title"].casefold() == named.casefold()


def _has_words(card: Json, named: str) -> bool:
    return bool(named.strip()) and named.casefold() in card["title"].casefold()


def _several(cards: list[Json], how: str) -> str:
    short = screen.short_ids(each["id"] for each in cards)
    listed = [f"\n  {short[each['id']]}  {visible(title(each))}" for each in cards[:MOST_NAMED]]
    more = f"\n  and {len(cards) - MOST_NAMED} more" if len(cards) > MOST_NAMED else ""
    return f"{len(cards)} threads {how}: say which{''.join(listed)}{more}"


def only(connection: Broker) -> Json:
    """Return the thread to look at if a person names none: what runs, else the newest.

    Raises ``ThreadNameError`` if several run.
    """
    cards = pages(connection, MOST)
    running = [each for each in cards if each["turn"] is not None or each["needs"]]
    if len(running) > 1:
        raise ThreadNameError(_several(running, "are busy"))
    if running or cards:
        return (running or cards)[0]
    raise ThreadNameError('there is no thread yet: `appmux say --new . "TEXT"` begins one')
