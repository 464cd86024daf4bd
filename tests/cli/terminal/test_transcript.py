"""`mux.cli.terminal.transcript`: what a thread's messages look like in a terminal."""

from __future__ import annotations

from typing import Any

import click
import pytest

from mux.cli.terminal.transcript import MOST_OUTPUT, Transcript


class Screen:
    """A transcript of thread ``t``, and what it has written."""

    def __init__(self) -> None:
        self.written = ""
        self.transcript = Transcript("t", self._write)

    def _write(self, text: str) -> None:
        self.written += text

    def gets(self, method: str, thread: str = "t", **params: Any) -> Any:
        return self.transcript.feed({"method": method, "params": {"threadId": thread, **params}})

    def begins(self, type: str, id: str = "i", **item: Any) -> None:
        self.gets("item/started", item={"type": type, "id": id, **item})

    def ends(self, type: str, id: str = "i", **item: Any) -> None:
        self.gets("item/completed", item={"type": type, "id": id, **item})

    @property
    def text(self) -> str:
        return click.unstyle(self.written)


def test_text_streams_and_is_not_said_again_at_its_end() -> None:
    on = Screen()
    on.begins("agentMessage", text="")
    for delta in ("Hel", "lo ", "you"):
        on.gets("item/agentMessage/delta", itemId="i", delta=delta)
    on.ends("agentMessage", text="Hello you")
    on.ends("agentMessage", id="j", text="Whole.")
    assert on.text == "Hello you\nWhole.\n"


def test_two_texts_at_once_do_not_run_into_each_other() -> None:
    on = Screen()
    on.gets("item/agentMessage/delta", itemId="a", delta="one")
    on.gets("item/reasoning/summaryTextDelta", itemId="b", delta="two")
    on.ends("userMessage", id="c", content=[{"type": "text", "text": "three\nfour"}])
    assert on.text == "one\ntwo\n> three\n> four\n"


def test_a_command_with_much_output_is_shown_in_part() -> None:
    on = Screen()
    on.begins("commandExecution", command="/bin/sh -c 'seq 60'")
    for each in range(60):
        on.gets("item/commandExecution/outputDelta", itemId="i", delta=f"line {each}\n")
    on.ends("commandExecution", command="", status="completed", exitCode=0, durationMs=1500)
    lines = on.text.splitlines()
    assert lines[0] == "$ seq 60"
    assert lines[1] == "  line 0"
    assert lines[MOST_OUTPUT + 1 :] == ["  … 20 more lines", "  exit 0 after 1.5 s"]


def test_output_that_came_with_the_end_alone_is_shown() -> None:
    on = Screen()
    on.begins("commandExecution", command="x")
    on.ends(
        "commandExecution", command="x", status="failed", exitCode=2, aggregatedOutput="no\r\nway"
    )
    assert on.text == "$ x\n  no\n  way\n  exit 2\n"


def test_a_change_is_shown_once_and_again_where_it_has_become_another() -> None:
    on = Screen()
    update = {"path": "/a", "kind": {"type": "update"}, "diff": "@@ -1 +1,2 @@\n-old\n+new\n+more"}
    on.begins("fileChange", changes=[update])
    first = "± update /a (+2 -1)\n  @@ -1 +1,2 @@\n  -old\n  +new\n  +more\n"
    assert on.text == first
    on.ends("fileChange", changes=[update], status="completed")
    assert on.text == first
    added = {"path": "/b", "kind": {"type": "add"}, "diff": "text\n"}
    on.gets("item/fileChange/patchUpdated", itemId="k", changes=[added])
    on.ends("fileChange", id="k", changes=[added], status="declined")
    assert on.text == f"{first}± add /b (+1 -0)\n  +text\n! the change was declined\n"
    assert "\x1b[32m  +new\x1b[0m" in on.written
    assert "\x1b[31m  -old\x1b[0m" in on.written


def test_what_others_wrote_cannot_drive_the_terminal() -> None:
    on = Screen()
    on.gets("item/agentMessage/delta", itemId="i", delta="\x1b[2J\x1b]0;x\x07 \u202egpj.exe")
    on.ends("userMessage", id="u", content=[{"type": "text", "text": "\x1b[31mred\x9b"}])
    assert on.text == "\\x1b]0;x\\x07 \\u202egpj.exe\n> red\\x9b\n"


def test_the_end_of_a_turn_is_returned_and_why() -> None:
    on = Screen()
    turn = {"status": "failed", "durationMs": 65_000, "error": {"message": "no credit"}}
    assert on.gets("turn/completed", turn=turn) == turn
    assert on.gets("turn/completed", thread="other", turn=turn) is None
    assert on.text == "= the turn is failed after 1 min: no credit\n"


def test_what_has_happened_is_shown_but_for_what_still_runs() -> None:
    on = Screen()
    on.transcript.history(
        [
            {
                "status": "inProgress",
                "items": [
                    {"type": "userMessage", "id": "u", "content": [{"type": "text", "text": "go"}]},
                    {"type": "commandExecution", "id": "c", "status": "inProgress", "command": "x"},
                ],
            }
        ]
    )
    on.ends("userMessage", id="u", content=[{"type": "text", "text": "go"}])  # told again
    assert on.text == "> go\n"


def test_without_colours_where_a_person_wants_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    on = Screen()
    on.gets("turn/completed", turn={"status": "interrupted", "error": None, "durationMs": None})
    assert on.written == "= the turn is interrupted\n"
