"""``appmux approvals``, ``approve``, ``decline``: list what waits for a person, and answer it.

The broker treats the answer as any client's: the principal needs the scope ``approve``, and the
approval's policy says whether the answer decides. If only a person may approve, the answer counts
only where a person was asked here (``HUMAN``).

The broker of a state directory is asked by ``mux/approvals/list`` and ``/answer``. In between the
person is asked here.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import click

from mux.cli.common import broker
from mux.cli.common.broker import Json
from mux.cli.common.options import broker_flags, exits, json_flag, state_dir_of
from mux.cli.completion import approval_ids
from mux.cli.terminal import waiting
from mux.cli.terminal.waiting import ApprovingError, Word, result_for
from mux.errors import AppmuxError
from mux.text import span, visible

HUMAN: Final = "requiredHumanApproval"
"""The capability of a client at which a person answers: declared only if one is asked here."""

NOTHING_WAITS: Final = 3
"""Exit status of ``appmux approvals`` where nothing waits: not that of an error."""

NOT_ANSWERED: Final = 1

yes_flag = click.option("--yes", "-y", is_flag=True, help="Ask nothing; takes the whole ID.")


class NobodyThereError(AppmuxError):
    """A person must be asked, and there is no terminal."""


@click.command(epilog=exits("0 something waits", "3 nothing waits", "1 no broker answered"))
@json_flag
@broker_flags
def approvals(as_json: bool, state_dir: Path | None, config_file: Path | None) -> None:
    """List what waits for a person's word: commands, file changes, questions.

    Each is shown with the command that answers it.
    """
    sys.exit(list_pending(state_dir_of(config_file, state_dir), as_json))


def list_pending(state_dir: Path, as_json: bool) -> int:
    """Print the pending approvals, and return the exit status.

    Raises ``AppmuxError`` if no broker answers.
    """
    waits = pending(state_dir)
    if as_json:
        sys.stdout.write(json.dumps(waits, indent=2) + "\n")
    elif not waits:
        sys.stdout.write("nothing waits for an answer\n")
    for text in [] if as_json else described_all(waits):
        sys.stdout.write(text + "\n")
    return 0 if waits else NOTHING_WAITS


def pending(state_dir: Path) -> list[Json]:
    """Return what waits for an answer, the oldest first."""
    return list(broker.ask(broker.urls(state_dir), "mux/approvals/list")["approvals"])


# -- answering -------------------------------------------------------------------------------------

_ANSWERS = exits(
    "0 it is answered", "1 it isn't: there is no such approval, or you said no", "2 no ID given"
)


def _answering(word: Word, doc: str) -> click.Command:
    """Return the command that answers with this word."""

    @click.command(word, help=doc, epilog=_ANSWERS)
    @click.argument("id", required=False, shell_complete=approval_ids)
    @yes_flag
    @json_flag
    @broker_flags
    def command(
        id: str | None,
        *,
        yes: bool,
        as_json: bool,
        state_dir: Path | None,
        config_file: Path | None,
    ) -> None:
        sys.exit(answer(state_dir_of(config_file, state_dir), id, word, yes=yes, as_json=as_json))

    return command


_WITHOUT_ID = """Without an ID the only one that waits is shown; several are listed. ID may be the
last digits of one, if no other ends so; with --yes it is the whole."""

approve = _answering(
    "approve", f"Allow what the approval ID asks for, once. Shows it first.\n\n{_WITHOUT_ID}"
)
decline = _answering(
    "decline", f"Refuse what the approval ID asks for. Shows it first.\n\n{_WITHOUT_ID}"
)


def answer(state_dir: Path, id: str | None, word: Word, *, yes: bool, as_json: bool = False) -> int:
    """Show an approval, ask the person, answer it; return the exit status.

    Raises ``AppmuxError``.
    """
    if id is None and yes:
        raise click.UsageError("with --yes an ID is needed: `appmux approvals` lists them")
    waits = pending(state_dir)
    approval = _only(waits, word) if id is None else find(waits, id, whole=yes)
    if approval is None:
        return 0 if not waits else 2
    result_for(approval, word)  # says what is wrong before it asks
    if not as_json:
        click.echo("\n".join(described(approval)))
    if not yes and not sys.stdin.isatty():
        raise NobodyThereError(f"no terminal to ask at: appmux {word} {approval['id']} --yes")
    if not yes and not click.confirm(f"{word.capitalize()} it?", err=as_json):
        click.echo("not answered", err=as_json)
        return NOT_ANSWERED
    return send_answer(state_dir, approval, word, asked=not yes, as_json=as_json)


def _only(waits: list[Json], word: Word) -> Json | None:
    """Return the only approval that waits. Print what there is if there are none or several."""
    if len(waits) == 1:
        return waits[0]
    if not waits:
        click.echo("nothing waits for an answer")
        return None
    for text in described_all(waits, word):
        click.echo(text)
    click.echo(f"{len(waits)} approvals wait: say which", err=True)
    return None


def send_answer(
    state_dir: Path, approval: Json, word: Word, *, asked: bool, as_json: bool = False
) -> int:
    """Answer the approval, and return the exit status. Raises ``AppmuxError``.

    ``asked`` says that a person has confirmed the answer.
    """
    params = {"id": approval["id"], "result": result_for(approval, word)}
    with broker.connected(broker.urls(state_dir)) as asks:
        asks.initialize({HUMAN: True} if asked else {})
        answered = asks.request("mux/approvals/answer", params)
    if as_json:
        click.echo(json.dumps(answered, indent=2))
    elif answered.get("decided", True):
        click.echo("approved" if word == "approve" else "declined")
    else:
        waits = visible(answered["waitsFor"])
        click.echo(f"your yes is kept, but nothing is decided: waits for {waits}")
    return 0


def find(pending: list[Json], id: str, *, whole: bool) -> Json:
    """Return the approval with this id, or the only one whose id ends in these digits.

    With ``whole``, only the whole id counts.

    Raises ``ApprovingError``.
    """
    matching = [each for each in pending if str(each["id"]) == id]
    if not matching and not whole and id.isdigit():
        matching = [each for each in pending if str(each["id"]).endswith(id)]
    if len(matching) == 1:
        return matching[0]
    if matching:
        raise ApprovingError(
            f"{len(matching)} of those that wait end in {id}: give more of its digits"
        )
    hint = "; with --yes the whole id is wanted" if whole else ""
    raise ApprovingError(
        f"no approval {visible(id)} waits for an answer: `appmux approvals` lists those that do,"
        f" and it may have been answered or withdrawn meanwhile{hint}"
    )


# -- what a person reads ---------------------------------------------------------------------------


def described_all(pending: list[Json], word: Word | None = None) -> Iterator[str]:
    """Yield a text for each approval, with the command that answers it."""
    endings = waiting.short(pending)
    for approval in pending:
        ending = endings[approval["id"]]
        command = waiting.command_for(approval, ending)
        if waiting.takes_a_word(approval):
            command = (
                f"appmux {word} {ending}" if word else f"{command}, or: appmux decline {ending}"
            )
        yield "\n".join([*described(approval), f"  → {command}"]) + "\n"


def described(approval: Json) -> list[str]:
    """Describe an approval in lines; everything that others wrote is made harmless."""
    age = span(approval["ageSeconds"])
    to = ", ".join(f"{each['name'] or '?'} #{each['id']}" for each in approval["offeredTo"])
    lines = [
        f"{approval['id']}  {waiting.what(approval)}",
        f"  waiting {age}, offered to {to or 'nobody'}",
        *(f"  {name}: {text}" for name, text in _policy(approval)),
        f"  thread: {approval['threadId']}",
        *(f"  {name}: {text}" for name, text in _details(approval)),
    ]
    return [visible(line) for text in lines for line in text.split("\n")]


def _policy(approval: Json) -> Iterator[tuple[str, str]]:
    if approval.get("policy", "first") != "first":
        yield "policy", f"{approval['policy']}; waits for {approval['waitsFor']}"
    for vote in approval.get("votes", ()):
        age = span(vote["ageSeconds"])
        yield "voted", f"{vote['name']} ({vote['principal']}): {vote['decision']}, {age} ago"


def _details(approval: Json) -> Iterator[tuple[str, str]]:
    params, item = approval["params"] or {}, approval["item"] or {}
    command = params.get("command") or item.get("command")
    if command is not None:
        yield "command", _indented(waiting.words(command))
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


def _kind(kind: object) -> str:
    return str(kind.get("type", "")) if isinstance(kind, dict) else str(kind or "")


def _indented(text: str) -> str:
    return text.replace("\n", "\n    ")
