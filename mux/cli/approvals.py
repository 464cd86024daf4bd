"""``appmux approvals``, ``approve``, ``decline``: list what waits for a person, and answer it.

The broker treats the answer as any client's: the principal needs the scope ``approve``, and the
approval's policy says whether the answer decides. If only a person may approve, the answer counts
only where a person was asked here (``HUMAN``).

The broker of a state directory is asked by ``mux/approvals/list`` and ``/answer``. In
between the person is asked here.
"""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal

import click
import trio

from mux import client
from mux.cli.options import broker_flags, json_flag, of_broker
from mux.client import Client, ClientError, Json
from mux.config.model import Config
from mux.core.protocol.answers import plain
from mux.errors import AppmuxError
from mux.storage import state_dir
from mux.text import span, visible

ANSWER_DEADLINE: Final = 10.0
"""Seconds. The broker answers in a millisecond; a slower one has a problem of its own."""

NAME: Final = "appmux"

Word = Literal["approve", "decline"]

QUESTION: Final = "item/tool/requestUserInput"
ELICITATION: Final = "mcpServer/elicitation/request"

HUMAN: Final = "requiredHumanApproval"
"""The capability of a client at which a person answers: declared only if one is asked here."""


class NobodyThereError(AppmuxError):
    """A person must be asked, and there is no terminal."""


class ApprovingError(AppmuxError):
    """There is no such approval, or it can't be answered with a plain yes or no."""


yes_flag = click.option("--yes", "-y", is_flag=True, help="Ask nothing; takes the whole ID.")


@click.command()
@json_flag
@broker_flags
def approvals(as_json: bool, state_dir: Path | None, config_file: Path | None) -> None:
    """List what waits for a person's word: commands, file changes, questions."""
    sys.exit(trio.run(list_pending, of_broker(config_file, state_dir), as_json))


def _answer(
    id: str, word: Word, *, yes: bool, state_dir: Path | None, config_file: Path | None
) -> None:
    if not yes and not sys.stdin.isatty():
        raise NobodyThereError("no terminal to ask at: --yes answers without asking")
    config = of_broker(config_file, state_dir)
    approval = trio.run(partial(look, config, id, word, asks=not yes))
    click.echo("\n".join(described(approval)))
    if not yes and not click.confirm(f"{word.capitalize()} it?"):
        click.echo("not answered")
        sys.exit(1)
    sys.exit(trio.run(partial(give, config, approval, word, asked=not yes)))


@click.command()
@click.argument("id")
@yes_flag
@broker_flags
def approve(id: str, yes: bool, state_dir: Path | None, config_file: Path | None) -> None:
    """Allow what the approval ID asks for, once. Shows it first.

    ID may be the last digits of one, if no other ends so.
    """
    _answer(id, "approve", yes=yes, state_dir=state_dir, config_file=config_file)


@click.command()
@click.argument("id")
@yes_flag
@broker_flags
def decline(id: str, yes: bool, state_dir: Path | None, config_file: Path | None) -> None:
    """Refuse what the approval ID asks for. Shows it first.

    ID may be the last digits of one, if no other ends so.
    """
    _answer(id, "decline", yes=yes, state_dir=state_dir, config_file=config_file)


async def list_pending(config: Config, as_json: bool) -> int:
    """Print the pending approvals, and return the exit status.

    Raises ``AppmuxError`` if no broker answers.
    """
    async with _connected(config) as broker:
        pending = await _pending(broker)
    if as_json:
        sys.stdout.write(json.dumps(pending, indent=2) + "\n")
    elif not pending:
        sys.stdout.write("nothing waits for an answer\n")
    for each in [] if as_json else pending:
        sys.stdout.write("\n".join(described(each)) + "\n\n")
    return 0


async def look(config: Config, id: str, word: Word, *, asks: bool) -> Json:
    """Return the approval that is to be answered with this word, so that it can be shown before.

    ``asks`` says whether a person is asked in between. Raises ``AppmuxError``.
    """
    async with _connected(config) as broker:
        approval = find(await _pending(broker), id, whole=not asks)
    result_for(approval, word)
    return approval


async def give(config: Config, approval: Json, word: Word, *, asked: bool) -> int:
    """Answer the approval, and return the exit status. Raises ``AppmuxError``.

    ``asked`` says that a person has confirmed the answer.
    """
    params = {"id": approval["id"], "result": result_for(approval, word)}
    async with _connected(config, {HUMAN: True} if asked else {}) as broker:
        answer = await _ask_broker(broker, "mux/approvals/answer", params)
    if answer.get("decided", True):
        sys.stdout.write("approved\n" if word == "approve" else "declined\n")
    else:
        waits = visible(answer["waitsFor"])
        sys.stdout.write(f"your yes is kept, but nothing is decided: waits for {waits}\n")
    return 0


@asynccontextmanager
async def _connected(config: Config, capabilities: Json | None = None) -> AsyncIterator[Client]:
    async with client.connect_any(state_dir.listeners(config.state_dir)) as broker:
        await broker.initialize(NAME, capabilities)
        yield broker


async def _pending(broker: Client) -> list[Json]:
    listed = await _ask_broker(broker, "mux/approvals/list", {})
    return list(listed["approvals"])


async def _ask_broker(broker: Client, method: str, params: Json) -> Json:
    with trio.move_on_after(ANSWER_DEADLINE):
        return await broker.request(method, params)
    raise ClientError(f"the broker gave no answer within {ANSWER_DEADLINE:.0f} s")


def find(pending: list[Json], id: str, *, whole: bool) -> Json:
    """Return the approval with this id, or the only one whose id ends in these digits.

    With ``whole``, only the whole id counts.

    Raises ``ApprovingError``.
    """
    found = [each for each in pending if str(each["id"]) == id]
    if not found and not whole and id.isdigit():
        found = [each for each in pending if str(each["id"]).endswith(id)]
    if len(found) == 1:
        return found[0]
    if found:
        raise ApprovingError(
            f"{len(found)} of those that wait end in {id}: give more of its digits"
        )
    hint = "; with --yes the whole id is wanted" if whole else ""
    raise ApprovingError(
        f"no approval {visible(id)} waits for an answer: `appmux approvals` lists those that do,"
        f" and it may have been answered or withdrawn meanwhile{hint}"
    )


# -- what an answer says ---------------------------------------------------------------------------


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
        f"this one ({method}) takes more than a yes or no: answer it in a client that follows the"
        f" thread {approval['threadId']}"
    )


# -- what a person reads ---------------------------------------------------------------------------


def described(approval: Json) -> list[str]:
    """Describe an approval in lines; everything that others wrote is made harmless."""
    age = span(approval["ageSeconds"])
    to = ", ".join(f"{each['name'] or '?'} #{each['id']}" for each in approval["offeredTo"])
    lines = [
        f"{approval['id']}  {approval['method']}",
        f"  waiting {age}, offered to {to or 'nobody'}",
        *(f"  {name}: {text}" for name, text in _policy(approval)),
        f"  thread: {approval['threadId']}",
        *(f"  {name}: {text}" for name, text in _asked(approval)),
    ]
    return [visible(line) for text in lines for line in text.split("\n")]


def _policy(approval: Json) -> Iterator[tuple[str, str]]:
    if approval.get("policy", "first") != "first":
        yield "policy", f"{approval['policy']}; waits for {approval['waitsFor']}"
    for vote in approval.get("votes", ()):
        age = span(vote["ageSeconds"])
        yield "voted", f"{vote['name']} ({vote['principal']}): {vote['decision']}, {age} ago"


def _asked(approval: Json) -> Iterator[tuple[str, str]]:
    params, item = approval["params"] or {}, approval["item"] or {}
    command = params.get("command") or item.get("command")
    if command is not None:
        yield "command", _indented(_words(command))
    cwd = params.get("cwd") or item.get("cwd")
    if cwd is not None:
        yield "directory", str(cwd)
    for change in item.get("changes") or ():
        yield "file", f"{_kind(change.get('kind'))} {change.get('path')}".strip()
    for path in params.get("fileChanges") or ():
        yield "file", str(path)
    if params.get("grantRoot"):
        yield "writes for the rest of the session under", str(params["grantRoot"])
    for name in ("permissions", "additionalPermissions", "networkApprovalContext"):
        if params.get(name):
            yield name, json.dumps(params[name], ensure_ascii=False)
    for question in params.get("questions") or ():
        yield "question", _indented(str(question.get("question")))
    for name in ("message", "url", "reason"):
        if params.get(name):
            yield name, _indented(str(params[name]))
    if approval.get("needs"):
        yield "needs", f"a client that declares {approval['needs']}"


def _words(command: Any) -> str:
    return " ".join(map(str, command)) if isinstance(command, list) else str(command)


def _kind(kind: Any) -> str:
    return str(kind.get("type", "")) if isinstance(kind, dict) else str(kind or "")


def _indented(text: str) -> str:
    return text.replace("\n", "\n    ")
