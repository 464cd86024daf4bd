"""The fuzz, a little of it; and that its oracle sees what it is there for.

All of it: ``make fuzz``.
"""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest

import mux.core
from mux.core.protocol.threads import thread_overrides
from mux.core.state.clients.client import Client
from mux.core.state.requests import id_fields
from tests.fuzz import frames
from tests.fuzz import round as rounds
from tests.fuzz.corpus import corpus
from tests.fuzz.mutation import DEEP, ESCAPED, SURROGATE, TWICE, written
from tests.fuzz.oracle import FaultError
from tests.fuzz.registries import BOUNDED, REGISTRIES

SEED = 11


def test_clients_and_app_server_say_anything() -> None:
    for number in range(3):
        rounds.played(SEED, number, corpus())


def test_frames_come_in_pieces_and_wrong() -> None:
    frames.played(SEED, 2_000)


def test_marks_become_what_a_value_cannot_hold() -> None:
    message = {"a": 1, f"a{TWICE}": [f"{DEEP}2"], f"{ESCAPED}b": SURROGATE}
    assert written(message) == '{"a":1,"a":[[[]]],"\\u0062":"\\ud800"}'


def test_what_is_counted_is_there_to_count() -> None:
    core = Path(mux.core.__file__).parent.rglob("*.py")
    source = "\n".join(file.read_text() for file in core)
    classes = set(re.findall(r"^class (\w+)", source, re.MULTILINE))
    assert classes >= REGISTRIES
    for path in BOUNDED:
        owner, _, field = path.rstrip("[]").partition(".")
        assert owner in classes
        assert re.search(rf"^    {field}: ", source, re.MULTILINE), path


def test_a_round_is_the_same_again() -> None:
    latest = []
    for _ in range(2):
        once = rounds.Round(random.Random("1/1"), corpus())
        once.play(300)
        latest.append([repr(event) for event in once.latest])
    assert latest[0] == latest[1]


def _everybody(_: Client, __: str) -> bool:
    return True


@pytest.mark.parametrize(
    ("of", "name", "broken", "said"),
    [
        (id_fields, "owned", lambda *_, **__: None, "is told"),
        (
            thread_overrides,
            "loosens",
            lambda *_: "",
            "without admin|no sandbox|no approvals|config",
        ),
        (Client, "receives", _everybody, "heard without observe"),
    ],
)
def test_the_oracle_sees_what_is_broken(
    monkeypatch: pytest.MonkeyPatch, of: object, name: str, broken: object, said: str
) -> None:
    monkeypatch.setattr(of, name, broken)
    with pytest.raises(FaultError, match=said):
        _play(12)


def _play(count: int) -> None:
    for number in range(count):
        rounds.played(SEED, number, corpus())
