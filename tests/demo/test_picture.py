"""The demo's judgement: it must see when something is missing from what a client saw."""

from __future__ import annotations

from collections.abc import Callable
from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from mux.demo.picture import (
    Expected,
    Seen,
    missing,
    picture,
    shown_command,
    summary,
    without_web_fonts,
)

Json = dict[str, Any]

EXPECTED = Expected({"t1": ("ab", "c")}, "note\n")
COMMAND = "/bin/bash -lc 'echo note'"


def story() -> list[Json]:
    """All that a client should hear."""
    return [
        item("started", {"type": "userMessage", "id": "u", "content": [{"text": "hi"}]}),
        delta("m1", "a"),
        delta("m1", "b"),
        item("completed", {"type": "agentMessage", "id": "m1", "text": "ab"}),
        {
            "method": "item/commandExecution/requestApproval",
            "id": 7,
            "params": {"command": COMMAND},
        },
        {"method": "serverRequest/resolved", "params": {"requestId": 7}},
        item("completed", ran()),
        delta("m2", "c"),
        item("completed", {"type": "agentMessage", "id": "m2", "text": "c"}),
        {"method": "turn/completed", "params": {"turn": {"id": "t1", "status": "completed"}}},
        {"id": 1, "result": {}},
    ]


def item(stage: str, item: Json) -> Json:
    return {"method": f"item/{stage}", "params": {"turnId": "t1", "item": item}}


def delta(id: str, text: str) -> Json:
    params = {"turnId": "t1", "itemId": id, "delta": text}
    return {"method": "item/agentMessage/delta", "params": params}


def ran(output: str = "note\n", code: int = 0) -> Json:
    return {
        "type": "commandExecution",
        "id": "c",
        "command": COMMAND,
        "exitCode": code,
        "aggregatedOutput": output,
    }


def seen_by(name: str, messages: list[Json], *, answers: bool = False) -> Seen:
    seen = Seen(name, "somehow")
    for at, message in enumerate(messages):
        if answers and message.get("method") == "serverRequest/resolved":
            seen.answers(7, "accept", at - 0.5)
        seen.record(message, float(at))
    return seen


def drawn(*parts: Any) -> str:
    console = Console(width=100, file=StringIO())
    for part in parts:
        console.print(part)
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def test_nothing_is_missing() -> None:
    assert missing(seen_by("phone", story()), EXPECTED) == []


@pytest.mark.parametrize(
    ("spoil", "what"),
    [
        (lambda s: s.pop(1), "parts of the text while it streamed"),
        (lambda s: s.insert(1, s[1]), "parts of the text while it streamed"),
        (lambda s: s.pop(3), "the agent's messages of turn t1"),
        (lambda s: s.pop(4), "the approval, once (it was offered 0 times)"),
        (lambda s: s.insert(4, {**s[4], "id": 8}), "the approval, once (it was offered 2 times)"),
        (lambda s: s.pop(5), "that the approval was decided"),
        (lambda s: s[5]["params"].update(requestId=9), "that the approval was decided"),
        (lambda s: s.pop(6), "the command's only run"),
        (lambda s: s.insert(6, s[6]), "the command's only run"),
        (lambda s: s[6]["params"]["item"].update(exitCode=1), "the command's only run"),
        (lambda s: s.pop(9), "the completion of turn t1"),
        (lambda s: s[9]["params"]["turn"].update(status="failed"), "the completion of turn t1"),
    ],
)
def test_each_gap_is_named(spoil: Callable[[list[Json]], object], what: str) -> None:
    messages = story()
    spoil(messages)
    found = missing(seen_by("phone", messages), EXPECTED)
    assert [each for each in found if what in each]
    assert all(each.startswith("phone didn't see ") for each in found)


def test_the_picture_has_the_same_thing_in_the_same_row() -> None:
    first = seen_by("desk", story())
    second = seen_by("phone", [each for each in story() if each.get("id") != 7], answers=True)
    rows = [
        [cell.strip() for cell in line.split("│")[1:-1]]
        for line in drawn(picture(first, second)).splitlines()
        if line.startswith("│")
    ]
    assert rows[0] == ["s", "desk (somehow)", "s", "phone (somehow)"]
    texts = [(left, right) for _, left, _, right in rows[1:]]
    assert ("› hi", "› hi") in texts
    assert ("• ab", "• ab") in texts
    assert ("? may it run this?", "·") in texts
    assert ("·", "→ answers: accept") in texts
    assert ("✓ decided elsewhere, prompt gone", "✓ decided here") in texts
    assert ("$ echo note", "$ echo note") in texts


def test_a_growing_message_has_a_cursor() -> None:
    seen = seen_by("desk", story()[:2])
    assert "• a▌" in drawn(picture(seen, Seen("phone", "somehow")))
    assert "▌" not in drawn(picture(seen_by("desk", story()), Seen("phone", "somehow")))


def test_the_last_rows_only() -> None:
    seen = seen_by("desk", story())
    text = drawn(picture(seen, seen, last=1))
    assert "turn completed" in text
    assert "› hi" not in text


def test_the_summary() -> None:
    first, second = seen_by("desk", story()), seen_by("phone", story(), answers=True)
    text = drawn(summary(first, second, EXPECTED, ["One fact."]))
    assert "3 deltas to the desk, 3 to the phone" in text
    assert "answered by the phone, gone from both 500 ms later" in text
    assert "One fact." in text


@pytest.mark.parametrize(
    ("command", "shown"),
    [
        ("/bin/bash -lc 'echo a | tee b'", "echo a | tee b"),
        ('/usr/bin/zsh -lc "x y"', "x y"),
        ("bash -lc ls", "ls"),
        ("echo a -lc b", "echo a -lc b"),
        (None, "?"),
    ],
)
def test_the_command_without_its_shell(command: str | None, shown: str) -> None:
    assert shown_command(command) == shown


def test_the_picture_asks_nobody_for_fonts() -> None:
    console = Console(record=True, file=StringIO())
    console.print("text")
    svg = console.export_svg()
    assert "url(" in svg
    assert "@font-face" in svg
    plain = without_web_fonts(svg)
    assert "@font-face" not in plain
    assert "cdn" not in plain
    assert "text</text>" in plain
