"""One client's protocol state."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from mux.core.policy.principal import Principal
from mux.core.protocol.experimental import WITHHELD
from mux.core.state.clients.client import ADDED, DECIDED, Client, ClientState, InitializeParams
from tests.core.stories import LOCAL, dumps


def client(**capabilities: Any) -> Client:
    made = Client(1, LOCAL, "ws", "127.0.0.1:1", 0.0)
    params = {"clientInfo": {"name": "x", "version": "1"}, "capabilities": capabilities}
    made.initialize(msgspec.json.decode(dumps(params), type=InitializeParams))
    return made


def test_it_is_attached_and_then_ready() -> None:
    new = Client(1, LOCAL, "ws", "127.0.0.1:1", 0.0)
    assert new.state is ClientState.ATTACHED
    assert new.info is None
    assert client().state is ClientState.READY


@pytest.mark.parametrize("capabilities", [{"capabilities": None}, {}])
def test_capabilities_may_be_left_out(capabilities: dict[str, object]) -> None:
    params = {"clientInfo": {"name": "x", "version": "1"}, **capabilities}
    made = Client(1, LOCAL, "ws", "", 0.0)
    made.initialize(msgspec.json.decode(dumps(params), type=InitializeParams))
    assert made.opted_out == WITHHELD | {DECIDED, ADDED}
    assert not made.declared("requestAttestation")
    assert made.declared("")


@pytest.mark.parametrize(
    ("capabilities", "declared"),
    [
        ({"requestAttestation": True}, {"requestAttestation"}),
        ({"requiredHumanApproval": True}, {"requiredHumanApproval"}),
        ({"mcpServerOpenaiFormElicitation": True}, {"openaiForm"}),
        ({"extensions": {"openai/form": {}}}, {"openaiForm"}),
        ({"extensions": {"other": {}}}, set()),
        ({"extensions": None, "optOutNotificationMethods": None}, set()),
    ],
)
def test_declared(capabilities: dict[str, Any], declared: set[str]) -> None:
    every = {"requestAttestation", "requiredHumanApproval", "openaiForm"}
    assert {each for each in every if client(**capabilities).declared(each)} == declared


def test_a_capability_that_nobody_knows_is_declared_by_nobody_or_an_error() -> None:
    with pytest.raises(AttributeError):
        client().declared("madeUp")


def test_opt_outs() -> None:
    opted_out: dict[str, Any] = {"optOutNotificationMethods": ["a", "b", "a"]}
    assert client(experimentalApi=True, **opted_out).opted_out == {"a", "b", DECIDED, ADDED}
    assert client(**opted_out).opted_out == {"a", "b", DECIDED, ADDED} | WITHHELD


def test_the_same_program_of_the_same_principal() -> None:
    made = client()
    assert made.resembles("x", LOCAL)
    assert not made.resembles("y", LOCAL)
    assert not made.resembles("x", Principal("else", "jwt"))
    assert not Client(1, LOCAL, "ws", "", 0.0).resembles("x", LOCAL)
