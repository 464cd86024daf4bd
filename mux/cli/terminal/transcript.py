"""Writes a thread as it happens: what was said, run and changed, with colours on a terminal.

Texts are a stranger's: control characters are written out, colours of others are left out. A mark
at the beginning of a line says what it is, so that nothing depends on a colour.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any, Final

import click

from mux.cli.common.broker import Json
from mux.cli.terminal import screen, waiting
from mux.text import span, visible

MOST_OUTPUT: Final = 40
"""Lines of a command's output that are shown; its end says how many more there were."""

MOST_DIFF: Final = 400
"""Lines of one file's diff that are shown."""

Style = dict[str, Any]

PERSON: Final[Style] = {"fg": "cyan", "bold": True}
COMMAND: Final[Style] = {"bold": True}
QUIET: Final[Style] = {"dim": True}
WAITS: Final[Style] = {"fg": "yellow", "bold": True}
WRONG: Final[Style] = {"fg": "red"}
DONE: Final[Style] = {"fg": "green"}
ADDED: Final[Style] = {"fg": "green"}
REMOVED: Final[Style] = {"fg": "red"}
PLACE: Final[Style] = {"fg": "cyan"}

OVER: Final = ("completed", "failed", "declined", "interrupted")

PLAN_MARKS: Final = {"completed": "x", "inProgress": ">", "pending": " "}


class Transcript:
    """Writes what happens on one thread."""

    def __init__(self, thread: str, write: Callable[[str], None]) -> None:
        self.thread = thread
        self._write = write
        self._coloured = "NO_COLOR" not in os.environ
        self._shown: set[str] = set()
        """Items that are shown whole."""
        self._streams: str | None = None
        """The item whose text stands at the end of the screen, in a line that goes on."""
        self._output: dict[str, _Output] = {}
        self._diffs: dict[str, str] = {}
        """The diff of a change that is shown, by item: it may still change before it is applied."""

    # -- what is there already ---------------------------------------------------------------------

    def history(self, turns: list[Json]) -> None:
        """Show turns that have happened, oldest first."""
        for turn in turns:
            for item in turn.get("items") or ():
                if item.get("status") != "inProgress" and item["id"] not in self._shown:
                    self._completed(item)
            if turn.get("status") in OVER:
                self._ended(turn)

    # -- what happens ------------------------------------------------------------------------------

    def feed(self, message: Json) -> Json | None:
        """Show a message; return the turn that has ended with it."""
        params = message.get("params") or {}
        if params.get("threadId") != self.thread:
            return None
        match message["method"]:
            case "item/started":
                self._started(params["item"])
            case "item/completed":
                if params["item"]["id"] not in self._shown:
                    self._completed(params["item"])
            case "item/agentMessage/delta" | "item/plan/delta":
                self._stream(params["itemId"], params["delta"], {})
            case "item/reasoning/summaryTextDelta":
                self._stream(params["itemId"], params["delta"], QUIET)
            case "item/commandExecution/outputDelta":
                self._output.setdefault(params["itemId"], _Output(self._quiet_line)).feed(
                    params["delta"]
                )
            case "item/fileChange/patchUpdated":
                self._changes(params["itemId"], params.get("changes") or [])
            case "turn/plan/updated":
                self._plan(params.get("plan") or [])
            case "error":
                again = ", and it is tried again" if params.get("willRetry") else ""
                self._line(f"! {params['error'].get('message')}{again}", WRONG)
            case "thread/name/updated":
                self._line(f"~ it is called: {params.get('threadName') or '(no title)'}", QUIET)
            case "turn/completed":
                self._ended(params["turn"])
                ended: Json = params["turn"]
                return ended
        return None

    def show_approval(self, approval: Json, ending: str) -> None:
        """Show an approval that waits, with the command that answers it."""
        self._line(f"? waits for you: {waiting.what(approval)}", WAITS)
        self._line(f"  → {waiting.command_for(approval, ending)}", COMMAND)

    def note(self, text: str) -> None:
        """Show a line of our own."""
        self._line(text, QUIET)

    # -- items -------------------------------------------------------------------------------------

    def _started(self, item: Json) -> None:
        match item["type"]:
            case "commandExecution":
                self._command(item)
            case "fileChange":
                self._changes(item["id"], item.get("changes") or [])
            case "mcpToolCall" | "dynamicToolCall":
                self._line(f"* {_tool(item)}", COMMAND)

    def _completed(self, item: Json) -> None:
        id, whole = item["id"], self._streams != item["id"]
        self._end_stream()
        self._shown.add(id)
        match item["type"]:
            case "userMessage":
                for line in _input_text(item).split("\n"):
                    self._line(f"> {line}", PERSON)
            case "agentMessage" | "plan":
                if whole:
                    self._text(str(item.get("text") or ""))
            case "reasoning":
                if whole:
                    self._text("\n".join(item.get("summary") or ()), QUIET)
            case "commandExecution":
                self._command_ended(item)
            case "fileChange":
                self._changes(id, item.get("changes") or [])
                if item.get("status") != "completed":
                    self._line(f"! the change was {item.get('status')}", WRONG)
            case "mcpToolCall" | "dynamicToolCall":
                good = item.get("status") == "completed"
                self._line(f"* {_tool(item)}: {item.get('status')}", DONE if good else WRONG)
            case "webSearch":
                self._line(f"* searched: {item.get('query') or ''}", QUIET)
            case "contextCompaction":
                self._line("~ the context was compacted", QUIET)

    def _command(self, item: Json) -> None:
        self._output.setdefault(item["id"], _Output(self._quiet_line))
        self._line(f"$ {waiting.script(waiting.words(item['command']))}", COMMAND)

    def _command_ended(self, item: Json) -> None:
        output = self._output.pop(item["id"], None)
        if output is None:
            self._command(item)
            output = self._output.pop(item["id"])
        output.end(item.get("aggregatedOutput") or "")
        took = item.get("durationMs")
        after = "" if took is None else f" after {took / 1000:.1f} s"
        status, code = item.get("status"), item.get("exitCode")
        if code is None:
            self._line(f"  {status}{after}", DONE if status == "completed" else WRONG)
        else:
            self._line(f"  exit {code}{after}", DONE if code == 0 else WRONG)

    def _changes(self, id: str, changes: list[Json]) -> None:
        compared = repr(changes)
        if not changes or self._diffs.get(id) == compared:
            return
        self._diffs[id] = compared
        for change in changes:
            lines = str(change.get("diff") or "").splitlines()
            kind = change.get("kind")
            how = str(kind.get("type") if isinstance(kind, dict) else kind or "change")
            # Of a new file codex gives the text, of a changed one the unified diff.
            if how in ("add", "delete"):
                lines = [("+" if how == "add" else "-") + line for line in lines]
            added = sum(line[:1] == "+" and line[:3] != "+++" for line in lines)
            removed = sum(line[:1] == "-" and line[:3] != "---" for line in lines)
            self._line(f"± {how} {screen.path(change.get('path'))} (+{added} -{removed})", COMMAND)
            for line in lines[:MOST_DIFF]:
                self._line(f"  {line}", _diff_style(line))
            if len(lines) > MOST_DIFF:
                self._line(f"  … {len(lines) - MOST_DIFF} more lines", QUIET)

    def _plan(self, steps: list[Json]) -> None:
        for step in steps:
            self._line(
                f"  [{PLAN_MARKS.get(str(step.get('status')), ' ')}] {step.get('step')}", QUIET
            )

    def _ended(self, turn: Json) -> None:
        took = turn.get("durationMs")
        after = "" if took is None else f" after {span(took / 1000)}"
        error = (turn.get("error") or {}).get("message")
        reason = f": {error}" if error else ""
        good = turn.get("status") == "completed"
        self._line(f"= the turn is {_WORDS.get(turn['status'], turn['status'])}{after}{reason}",
                   QUIET if good else WRONG)  # fmt: skip

    # -- lines -------------------------------------------------------------------------------------

    def _stream(self, id: str, delta: str, style: Style) -> None:
        if self._streams != id:
            self._end_stream()
            self._streams = id
        self._write(self._styled(_harmless(delta), style))

    def _end_stream(self) -> None:
        if self._streams is not None:
            self._streams = None
            self._write("\n")

    def _text(self, text: str, style: Style | None = None) -> None:
        if text:
            self._end_stream()
            self._write(self._styled(_harmless(text), style or {}) + "\n")

    def _line(self, text: str, style: Style) -> None:
        self._end_stream()
        self._write(self._styled(_harmless(text).replace("\n", "\n  "), style) + "\n")

    def _quiet_line(self, text: str) -> None:
        self._line(f"  {text}", QUIET)

    def _styled(self, text: str, style: Style) -> str:
        return click.style(text, **style) if style and text and self._coloured else text


_WORDS: Final = {"completed": "over", "inProgress": "still running"}


class _Output:
    """A command's output, in whole lines, as many as a person reads."""

    def __init__(self, line: Callable[[str], None]) -> None:
        self._line = line
        self._begun = ""
        self._count = 0
        self._has_text = False

    def feed(self, text: str) -> None:
        self._has_text = True
        *whole, self._begun = (self._begun + text).split("\n")
        for line in whole:
            self._show(line)

    def end(self, all_of_it: str) -> None:
        """End it. What a command prints in its first moments comes only with its end."""
        if not self._has_text:
            self.feed(all_of_it)
        if self._begun:
            self._show(self._begun)
        if self._count > MOST_OUTPUT:
            self._line(f"… {self._count - MOST_OUTPUT} more lines")

    def _show(self, line: str) -> None:
        self._count += 1
        if self._count <= MOST_OUTPUT:
            self._line(line)


def _harmless(text: str) -> str:
    """Return the text without colours of its own; control characters but newlines written out."""
    lines = click.unstyle(text).replace("\r\n", "\n").split("\n")
    return "\n".join(visible(line.replace("\t", "    ").rstrip("\r")) for line in lines)


def _diff_style(line: str) -> Style:
    if line.startswith("@@"):
        return PLACE
    if line.startswith("+"):
        return ADDED
    return REMOVED if line.startswith("-") else {}


def _tool(item: Json) -> str:
    return f"tool {item.get('server') or item.get('namespace') or ''} {item.get('tool')}".replace(
        "  ", " "
    )


def _input_text(item: Json) -> str:
    return "\n".join(_inputs(item.get("content") or ()))


def _inputs(content: Any) -> Iterator[str]:
    for each in content:
        if each.get("type") == "text":
            yield str(each.get("text"))
        else:
            yield f"[{each.get('type')} {each.get('path') or each.get('name') or ''}]".replace(
                " ]", "]"
            )
