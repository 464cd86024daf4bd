"""Prints what waits for a person, in a few lines, each with the command that answers it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from pathlib import PurePath
from typing import Any, Final, Literal

from rich.text import Text

from mux.cli.common.broker import Json
from mux.cli.terminal import screen
from mux.core.protocol.answers import plain
from mux.errors import AppmuxError
from mux.text import span

MOST_SHOWN: Final = 5
"""Approvals shown in ``status``; ``appmux approvals`` shows all."""

LEAST_ID: Final = 3
"""Digits of an approval's id, at least, by which it is answered."""

LONGEST_COMMAND: Final = 200
"""Characters of a command that are shown in a line."""

SHELLS: Final = frozenset({"sh", "bash", "zsh", "dash", "fish"})

Word = Literal["approve", "decline"]

QUESTION: Final = "item/tool/requestUserInput"
ELICITATION: Final = "mcpServer/elicitation/request"


class ApprovingError(AppmuxError):
    """Raised when there is no such approval, or it can't be answered with a plain yes or no."""


def short(pending: list[Json]) -> dict[int, str]:
    """Return for each approval the last digits of its id, as many as tell it from the others."""
    endings = screen.short_ids((str(each["id"]) for each in pending), LEAST_ID)
    return {each["id"]: endings[str(each["id"])] for each in pending}


def result_for(approval: Json, word: Word) -> Json:
    """Return the result that says yes or no. Raises ``ApprovingError`` if neither would do."""
    method, params, yes = approval["method"], approval["params"] or {}, word == "approve"
    result = plain(method, json.dumps({"params": params}).encode(), yes=yes)
    if result is not None:
        return result
    if method == ELICITATION and not yes:
        return {"action": "decline"}
    if method == ELICITATION and params.get("mode") == "url":
        return {"action": "accept"}
    raise ApprovingError(
        f"{what(approval)} takes more than a yes or no: answer it in a client that follows the"
        f" thread {approval['threadId']}"
    )


def takes_a_word(approval: Json) -> bool:
    """Return whether a plain yes answers it."""
    try:
        result_for(approval, "approve")
    except ApprovingError:
        return False
    return True


def command_for(approval: Json, ending: str) -> str:
    """Return the command that answers an approval, to be copied."""
    if takes_a_word(approval):
        return f"appmux approve {ending}"
    return f"codex resume {approval['threadId']}"


def lines(report: Json, width: int) -> Iterator[Text]:
    """Yield what waits: a sentence, and then some of it, the oldest first."""
    pending = report["approvals"]
    if not pending:
        yield screen.line(("nothing waits for you", "green"))
        return
    endings = short(pending)
    oldest = max(each["ageSeconds"] for each in pending)
    first = command_for(pending[0], endings[pending[0]["id"]])
    if len(pending) == 1:
        count = f"1 approval waits for {span(oldest)}:"
    else:
        count = f"{len(pending)} approvals wait, the oldest for {span(oldest)}:"
    yield screen.line((count, "bold yellow"), (f" {first}", "bold"))
    titles = {each["id"]: each.get("title") for each in report["threads"]}
    for approval in pending[:MOST_SHOWN]:
        ending = endings[approval["id"]]
        yield screen.cut(screen.line(f"  {ending}  ", (what(approval), "bold")), width)
        where = " · ".join(_where(approval, titles))
        indent = " " * (len(ending) + 4)
        yield screen.cut(screen.line(indent, (where, "dim")), width)
        if approval.get("policy", "first") != "first" or approval.get("votes"):
            yield screen.line(indent, f"waits ({approval['policy']}) for {approval['waitsFor']}")
    if len(pending) > MOST_SHOWN:
        yield screen.line(f"  and {len(pending) - MOST_SHOWN} more: appmux approvals")


def _where(approval: Json, titles: dict[str, str | None]) -> Iterator[str]:
    params, item = approval["params"] or {}, approval["item"] or {}
    yield span(approval["ageSeconds"])
    title = titles.get(approval["threadId"])
    if title:
        yield title
    directory = params.get("cwd") or item.get("cwd")
    if directory:
        yield screen.path(str(directory))


def what(approval: Json) -> str:
    """Return in a few words what is asked: the command, the files, the question."""
    params, item = approval["params"] or {}, approval["item"] or {}
    command = params.get("command") or item.get("command")
    if command is not None:
        return f"run {_line(script(words(command)))}"
    files = [str(each.get("path")) for each in item.get("changes") or ()]
    files += [str(path) for path in params.get("fileChanges") or ()]
    if files:
        rest = f" and {len(files) - 1} more" if len(files) > 1 else ""
        return f"change {_line(screen.path(files[0]))}{rest}"
    questions = params.get("questions") or ()
    if questions:
        return f"a question: {_line(str(questions[0].get('question')))}"
    if approval["method"] == ELICITATION:
        return f"an MCP server asks: {_line(str(params.get('message') or params.get('url') or ''))}"
    if params.get("permissions"):
        return f"more permissions: {_line(json.dumps(params['permissions'], ensure_ascii=False))}"
    return _line(str(params.get("reason") or "a request without a command"))


def words(command: Any) -> str:
    """Return a command as it is typed."""
    return " ".join(map(str, command)) if isinstance(command, list) else str(command)


def script(command: str) -> str:
    """Return the script that a shell is given, where the command is a shell with a script."""
    try:
        parts = shlex.split(command)
    except ValueError:  # no shell would take it, but it is shown all the same
        return command
    match parts:
        case [shell, "-c" | "-lc", inner] if PurePath(shell).name in SHELLS:
            return inner
        case _:
            return command


def _line(text: str) -> str:
    shown = " ".join(text.split())
    return shown if len(shown) <= LONGEST_COMMAND else shown[:LONGEST_COMMAND] + "…"
