"""What `appmux setup` ends with: a phone is offered to be paired where one could be."""

from __future__ import annotations

import click
import pytest
import trio

from mux.cli.devices import pair
from mux.cli.host import setup
from mux.cli.terminal import confirmation
from mux.config.model import Config


@pytest.mark.parametrize(
    ("url", "secure", "asked"),
    [
        ("ws://127.0.0.1:14500", False, False),
        ("ws://[::1]:14500", False, False),
        ("ws://127.0.0.1:14500", True, True),
        ("ws://100.64.0.7:14500", False, True),
    ],
)
def test_a_phone_is_offered_where_one_gets_there(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    url: str,
    secure: bool,
    asked: bool,
) -> None:
    questions: list[str] = []

    def confirm(text: str, **_options: object) -> bool:
        questions.append(text)
        return False

    monkeypatch.setattr(confirmation, "is_terminal", lambda: True)
    monkeypatch.setattr(click, "confirm", confirm)
    monkeypatch.setattr(trio, "run", lambda *_: pytest.fail("nobody said yes"))
    setup._offer_first_phone(Config(), url, ask=True, secure=secure)
    assert questions == (["Pair a phone now?"] if asked else [])
    told = capsys.readouterr().out
    assert ("No phone reaches this address" in told) == (not asked)
    assert ("`appmux open`" in told) == (not asked)


def test_with_https_it_is_the_phones_browser_else_an_app(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wishes: list[pair.PairingSpec] = []

    def run(_story: object, _config: Config, wish: pair.PairingSpec) -> int:
        wishes.append(wish)
        return 1  # it wasn't paired, so no push is offered

    monkeypatch.setattr(confirmation, "is_terminal", lambda: True)
    monkeypatch.setattr(click, "confirm", lambda *_, **__: True)
    monkeypatch.setattr(trio, "run", run)
    for secure in (True, False):
        setup._offer_first_phone(Config(), "ws://100.64.0.7:14500", ask=True, secure=secure)
    assert [wish.app for wish in wishes] == [False, True]
