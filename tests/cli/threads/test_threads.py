"""`appmux threads`: which thread a person means, and what a list of them says."""

from __future__ import annotations

from io import StringIO
from typing import Any, cast

import pytest
from rich.console import Console

from mux.cli.common.broker import Broker, Json
from mux.cli.threads import threads
from mux.cli.threads.threads import ThreadNameError, find, only, pages, title

A = "0199f3a2-51c4-7a10-8f6e-3d2b1c0a9e87"
B = "0199f3a2-51c4-7a10-8f6e-aaaa1c0a9e87"
C = "0199f3a2-9999-7a10-8f6e-3d2b1c0a0000"


def card(id: str, **over: Any) -> Json:
    return {
        "id": id, "title": "", "preview": "", "directory": "/src/app", "status": "idle",
        "recencyAt": 1000.0, "updatedAt": 900.0, "lastLine": None, "turn": None, "lastTurn": None,
        "queued": 0, "held": None, "needs": 0,
    } | over  # fmt: skip


class Asked:
    """A broker that has these threads, two a page."""

    def __init__(self, *cards: Json) -> None:
        self.cards = cards

    def request(self, method: str, params: Json) -> Json:
        assert method == "mux/inbox"
        begin = int(params["cursor"] or 0)
        end = begin + min(params["limit"], 2)
        repeated = 1 if end - begin > 1 else 0
        later = str(end - repeated) if end < len(self.cards) else None
        return {"threads": list(self.cards[begin:end]), "nextCursor": later}


def asked(*cards: Json) -> Broker:
    return cast("Broker", Asked(*cards))


THREE = (
    card(A, title="Fix the parser"),
    card(B, title="Parser of dates"),
    card(C, title="Release", preview="please\nrelease"),
)


@pytest.mark.parametrize(
    ("named", "id"),
    [
        (A, A), (A.upper(), A), ("b1c0a9e87", A), ("a0000", C), ("0199f3a2-9", C),
        ("release", C), ("of dates", B), ("FIX THE PARSER", A),
    ],
)  # fmt: skip
def test_a_thread_is_named_by_an_end_of_its_id_or_its_title(named: str, id: str) -> None:
    assert find(asked(*THREE), named)["id"] == id


def test_what_fits_several_or_none_is_said() -> None:
    with pytest.raises(ThreadNameError, match="2 threads fit 1c0a9e87: say which") as raised:
        find(asked(*THREE), "1c0a9e87")
    assert "\n  b1c0a9e87  Fix the parser\n  a1c0a9e87  Parser of dates" in str(raised.value)
    with pytest.raises(ThreadNameError, match="2 threads fit parser"):
        find(asked(*THREE), "parser")
    for named in ("nothing", "87", "", "\x1b[2J"):
        with pytest.raises(ThreadNameError, match="`appmux threads` lists them") as raised:
            find(asked(*THREE), named)
        assert "\x1b" not in str(raised.value)


def test_an_older_one_is_named_by_its_whole_id() -> None:
    other = A.replace("3d2b", "4e4e")
    assert find(asked(*THREE), other)["id"] == other


def test_unnamed_it_is_the_one_that_runs_or_the_newest() -> None:
    running = card(C, turn={"id": "u", "runningSeconds": 3.0, "by": None})
    assert only(asked(THREE[0], THREE[1], running))["id"] == C
    assert only(asked(*THREE))["id"] == A
    with pytest.raises(ThreadNameError, match="2 threads are busy"):
        only(asked(card(A, needs=1), running))
    with pytest.raises(ThreadNameError, match="appmux say --new"):
        only(asked())


def test_pages_are_read_until_there_are_enough() -> None:
    cards = [card(f"{each:036}") for each in range(7)]
    assert [each["id"] for each in pages(asked(*cards), 5)] == [each["id"] for each in cards[:5]]
    assert len(pages(asked(*cards), 100)) == 7


def test_a_list_says_what_each_does_and_fits() -> None:
    by = {"client": 1, "name": "desk", "principal": "local"}
    rows = [
        card(A, title="Fix the parser " * 9, directory="/home/ada/src/" + "deep/" * 30, needs=2),
        card(B, turn={"id": "u", "runningSeconds": 190.0, "by": by}, queued=1, preview="go\non"),
        card(C, lastTurn={"id": "u", "status": "failed"}, recencyAt=None),
    ]
    shown = Console(width=80, file=StringIO())
    shown.print(threads.table(rows, 80, now=1000.0))
    text = shown.file.getvalue()  # type: ignore[attr-defined]
    lines = [line.rstrip() for line in text.splitlines()]
    assert max(map(len, lines)) <= 80
    assert lines[1].startswith("b1c0a9e87  Fix the pars")
    assert "waits for you" in lines[1]
    assert lines[1].endswith("0 s ago")
    assert "running by desk, 1 queued" in lines[2]
    assert "3 min" in lines[2]
    assert "failed" in lines[3]
    assert title(rows[1]) == "go on"
