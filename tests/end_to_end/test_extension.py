"""The examples of the extension, played: what a client's author reads is what the broker does."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from mux.core.extension import catalog
from tests.end_to_end.peer import Peer, RpcError
from tests.end_to_end.plays import Stage, stage
from tests.extension_schemas import faults


async def test_every_example_is_what_the_broker_does() -> None:
    found: list[str] = []
    async with stage() as on:
        for method in catalog.METHODS:
            found += faults(method, "result", await on.play(method))
        heard = [
            message for peer in (on.operator, on.guest, *on.browsers) for message in ours(peer)
        ]
        for message in heard:
            found += faults(message["method"], "params", message["params"])
        found += welcome(on)
        found += [wrong for part, body in on.posted for wrong in faults("pair", part, body)]
        found += [wrong for part, body in on.sessions for wrong in faults("session", part, body)]
        found += [wrong for answer in on.queued for wrong in faults("turn.start", "queued", answer)]
        assert {part for part, _ in on.posted} == {"request", "paired", "refused"}
        with pytest.raises(RpcError) as refused:
            await on.guest.request("thread/start")
        found += faults("errors", str(refused.value.code), refused.value.data)
    assert not found, "\n".join(found)
    unheard = catalog.NOTIFICATIONS.keys() - {message["method"] for message in heard}
    assert not unheard, f"a play in tests/end_to_end/plays.py is to provoke {sorted(unheard)}"


def ours(peer: Peer) -> Iterator[dict[str, Any]]:
    """The extension's notifications that a client has heard."""
    for message in peer.inbox:
        if message.get("method", "").startswith("mux/"):
            yield message


def welcome(on: Stage) -> Iterator[str]:
    """What is wrong with the answer to `initialize`, and with the numbers of messages."""
    yield from faults("initialize", "appmux", on.operator.hello["appmux"])
    numbered = [
        {name: message[name] for name in ("seq", "cursor") if name in message}
        for message in on.guest.inbox
    ]
    assert any("cursor" in each for each in numbered)
    assert any("seq" in each for each in numbered)
    for each in numbered:
        yield from faults("numbered", "numbered", each)
