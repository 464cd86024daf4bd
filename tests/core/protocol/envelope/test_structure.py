"""`mux.core.protocol.envelope.structure`: what a message costs before it is refused or taken.

Work is counted, not timed: the calls that the reading makes, of Python's functions and of C's, each
of which goes over a text once at most.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from mux.core.policy.principal import Principal
from mux.core.policy.scopes import ALL
from mux.core.protocol.envelope import structure
from mux.core.protocol.envelope.structure import (
    FEW_ELEMENTS,
    LONG,
    MAX_ELEMENTS,
    MAX_MEMBERS,
    OPENED_ELEMENTS,
    RARE,
)
from mux.core.protocol.scope import Scope
from tests.core.stories import Json, Story
from tests.core.work import calls

THREAD = "0199f3a1-5c1e-7d43-9a51-2f7c1de0b6aa"
PART: Json = {"type": "text", "text": "one, two", "text_elements": []}
NESTED: Any = json.loads("[" * 100 + "]" * 100)
SIGNS = ',["\\{' * 20_000

CALLS = 10_000
"""Of one message at most: a few milliseconds on a slow machine. As many as the elements that the
broker reads one by one may take."""

FEW_CALLS = 1_000
"""Of one message that has many elements or a long text, but none that the broker looks at alone."""


def keys(number: int) -> Json:
    return {str(n): 1 for n in range(number)}


@pytest.mark.parametrize(
    ("method", "params", "most"),
    [
        pytest.param("thread/list", keys(65_000), FEW_CALLS, id="very many keys"),
        pytest.param("thread/list", keys(FEW_ELEMENTS - 2), FEW_CALLS, id="many keys"),
        pytest.param("thread/list", keys(MAX_MEMBERS), CALLS, id="as many keys as are taken"),
        pytest.param("thread/list", {"x": [NESTED] * 600}, FEW_CALLS, id="deep lists"),
        pytest.param("thread/list", {"x": [1] * 65_000}, FEW_CALLS, id="a long list"),
        pytest.param("thread/list", {"x": keys(1_000)}, FEW_CALLS, id="keys further down"),
        pytest.param("thread/list", {"x" * 100_000: 1}, FEW_CALLS, id="a long key"),
        pytest.param("thread/list", {SIGNS: 1}, FEW_CALLS, id="a key full of signs"),
        pytest.param("turn/start", {"input": [PART] * 40_000}, FEW_CALLS, id="very many parts"),
        pytest.param("turn/start", {"input": [PART] * 400}, FEW_CALLS, id="as many as are taken"),
        pytest.param("turn/start", {"input": [{"text": SIGNS}]}, FEW_CALLS, id="a text of signs"),
        pytest.param("turn/start", {"input": [{"text": "A" * 10**6}]}, FEW_CALLS, id="a picture"),
        pytest.param("thread/inject_items", {"items": [NESTED] * 600}, FEW_CALLS, id="deep items"),
        pytest.param("thread/list", {"x": {"\\$": [SIGNS]}}, FEW_CALLS, id="escapes"),
        pytest.param("a/new/method", {"x": [{"a": 1}] * 650}, CALLS, id="of a newer codex"),
    ],
)
def test_no_message_takes_many_steps(method: str, params: Json, most: int) -> None:
    text = json.dumps({"id": "x", "method": method, "params": {"threadId": THREAD, **params}})
    Story.begun().peer().says(text)  # a process's first time makes patterns and decoders
    peer = Story.begun().peer()
    assert calls(lambda: peer.says(text.encode())) < most


@pytest.mark.parametrize("key", ["$serde_json::private::X", "\\u0024serde_json::private::X"])
def test_a_long_text_beside_a_private_key_takes_no_steps(key: str) -> None:
    story = Story.begun()
    peer = story.peer()
    of = json.dumps({"items": [SIGNS, *["x"] * 500]})
    text = f'{{"id":1,"method":"thread/inject_items","params":{{"a":{of},"b":"{key}"}}}}'
    assert calls(lambda: peer.says(text.encode())) < FEW_CALLS
    assert len(story.written()) == 1  # it is a text, no key


def test_depth_and_elements_in_lists_of_lists() -> None:
    signs = structure.signs(json.dumps([NESTED] * 600).encode())
    assert signs is not None
    assert (structure.elements(signs), structure.depth(signs)) == (1 + 599 + 600 * 100, 101)


@pytest.mark.parametrize("number", [0, 1, RARE - 1, RARE, RARE + 1, 5_000])
@pytest.mark.parametrize("size", [10_000, LONG, 3 * LONG])
def test_signs_are_counted_however_long_the_text_is(number: int, size: int) -> None:
    text = (b",[{" * number).ljust(size, b"x") + b",[{"
    assert structure.rough(text) == (number + 1, 2 * number + 2)


# ── how many elements ─────────────────────────────────────────────────────────────────────────────


def is_read(scopes: frozenset[Scope], method: str, elements: int) -> bool:
    """Whether a client's message of so many elements is read, whatever becomes of it."""
    story = Story.begun()
    peer = story.peer(principal=Principal("p", "device", None, scopes, "d"))
    field = "params" if method else "result"
    text = json.dumps({"id": 1, **({"method": method} if method else {}), field: [0]})
    signs = structure.signs(text.encode())
    assert signs is not None
    more = ",0" * (elements - structure.elements(signs))
    peer.says(text.replace("0]", f"0{more}]"))
    return not any("more than" in str(each.get("error")) for each in peer.heard())


LOOKING_ON: frozenset[Scope] = frozenset({"observe"})


@pytest.mark.parametrize(
    "method", ["thread/list", "thread/resume", "turn/start", "mux/inbox", "a/b"]
)
def test_a_message_has_so_many_elements(method: str) -> None:
    for scopes in (LOOKING_ON, ALL - {"admin"}):
        assert is_read(scopes, method, OPENED_ELEMENTS)
        assert not is_read(scopes, method, OPENED_ELEMENTS + 1)


@pytest.mark.parametrize(
    ("method", "scope"),
    [
        ("thread/inject_items", "drive"),
        ("thread/start", "drive"),
        ("project/import", "drive"),
        ("thread/resume", "admin"),
        ("thread/fork", "admin"),
        ("mcpServer/tool/call", "admin"),
        ("config/batchWrite", "admin"),
        ("config/value/write", "admin"),
        ("externalAgentConfig/import", "admin"),
        ("externalAgentConfig/import/recordHistory", "admin"),
        ("thread/approveGuardianDeniedAction", "approve"),
        *(("", scope) for scope in ("approve", "drive", "admin")),
    ],
)
def test_who_may_bring_content_may_bring_much(method: str, scope: Scope) -> None:
    """To an answer it may belong, too: of a tool, of a form."""
    assert is_read(frozenset({scope}), method, MAX_ELEMENTS)
    assert not is_read(frozenset({scope}), method, MAX_ELEMENTS + 1)
    assert not is_read(LOOKING_ON, method, OPENED_ELEMENTS + 1)
