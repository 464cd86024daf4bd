"""`appmux service stop` and `restart`: whether something runs that they would interrupt."""

from __future__ import annotations

from typing import Any

import pytest

from mux.cli.common.broker import BrokerError
from mux.cli.host import service
from mux.cli.terminal import confirmation
from mux.cli.terminal.confirmation import UnansweredError


def reports(monkeypatch: pytest.MonkeyPatch, *turns: str | None) -> None:
    """Have the broker report threads with these turns."""
    report = {"threads": [{"turn": turn} for turn in turns]}
    monkeypatch.setattr("mux.cli.common.broker.urls", lambda _dir: [])
    monkeypatch.setattr("mux.cli.common.broker.ask", lambda *_: report)


def test_while_a_turn_runs_a_person_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    reports(monkeypatch, "u", None, "v")
    with pytest.raises(UnansweredError, match=r"2 turns run, which that interrupts\. Stop it\?"):
        service._confirm_interrupting("Stop it", yes=False)
    service._confirm_interrupting("Stop it", yes=True)
    monkeypatch.setattr(confirmation, "is_terminal", lambda: True)
    monkeypatch.setattr("click.confirm", lambda _question: True)
    service._confirm_interrupting("Stop it", yes=False)


def test_where_nothing_runs_nobody_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    reports(monkeypatch, None)
    service._confirm_interrupting("Stop it", yes=False)

    def no_answer(*_: Any) -> Any:
        raise BrokerError("it hangs")

    monkeypatch.setattr("mux.cli.common.broker.ask", no_answer)
    service._confirm_interrupting("Stop it", yes=False)
