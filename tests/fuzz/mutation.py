"""Messages made strange: by their structure, and by how their text is written.

A mutated message is mostly still JSON. What a Python value can't hold (a key that stands twice, a
key written with escapes, half a surrogate pair, thousands of brackets) is marked in it, and put in
its place by ``written``.

Hands to: the fuzz of the core.
"""

from __future__ import annotations

import copy
import json
import random
import re
from collections.abc import Callable, Iterator
from typing import Any, Final

Json = dict[str, Any]

ID_NAMED: Final = re.compile(
    r"(?i)(request|watch|process|session|search|subscription|stream)ids?$|handles?$"
    r"|(cancellation|progress)tokens?$"
)
"""What a field is called that may hold an id of a client's own."""

TWICE: Final = "\x00"
"""Behind a key: the same key once more."""
ESCAPED: Final = "\x01"
"""Before a key: its first character is written as an escape."""
DEEP: Final = "\x02"
"""A text that begins so and goes on with a number: so many brackets, one in the other."""
SURROGATE: Final = "\x03"
"""Half a surrogate pair."""

_ESCAPED_KEY = re.compile(r"\\u0001([a-zA-Z])")
_DEEP = re.compile(r'"\\u0002([0-9]+)"')

WRONG: Final[tuple[Any, ...]] = (
    None, True, False, 0, 1, -1, 1.5, 2**63, -(2**63) - 1, 10**25, float("inf"), "", "x", "1",
    "null", "a\nb", "\U0001f4a5", "\\", '"', SURROGATE, [], {}, [[]], [None], {"": None},
    "x" * 3000,
    f"{DEEP}20", f"{DEEP}126", f"{DEEP}130", f"{DEEP}3000", "00000000-0000-0000-0000-000000000000",
)  # fmt: skip

OVERRIDES: Final[Json] = {
    "cwd": "/",
    "sandbox": "danger-full-access",
    "sandboxPolicy": {"type": "dangerFullAccess"},
    "approvalPolicy": "never",
    "permissions": "full",
    "config": {"sandbox_mode": "danger-full-access"},
    "path": "/etc/passwd",
    "history": [],
    "runtimeWorkspaceRoots": ["/"],
    "environments": [{"environmentId": "local", "cwd": "/"}],
    "trustEverything": True,
    "newSandboxProfile": {"any": "thing"},
}
"""Params that would loosen what a thread may do."""

LONG: Final = (2, 3, 40, 200)
VERY_LONG: Final = (1_100, 5_000, 70_000)
"""Elements: past each of the core's limits for them."""
RARELY: Final = 0.02
FEW: Final = 10


def mutated(rng: random.Random, message: Json, strangers: list[Any]) -> Json:
    """The message with one to three things in it changed. ``strangers``: ids of other clients."""
    message = json.loads(json.dumps(message))
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        sites = list(_sites(message))
        if not sites:
            return message
        holder, key = rng.choice(sites)
        rng.choice(_CHANGES)(rng, holder, key, strangers)
    return message


def _sites(value: Any, most: int = 200) -> Iterator[tuple[Any, Any]]:
    waiting = [value]
    while waiting:
        holder = waiting.pop()
        keys = list(holder) if isinstance(holder, dict) else range(len(holder))
        for key in keys:
            yield holder, key
            most -= 1
            if not most:
                return
            if isinstance(holder[key], dict | list):
                waiting.append(holder[key])


_Change = Callable[[random.Random, Any, Any, list[Any]], None]


def _other_value(rng: random.Random, holder: Any, key: Any, _: list[Any]) -> None:
    holder[key] = copy.deepcopy(rng.choice(WRONG))


def _list_instead(_: random.Random, holder: Any, key: Any, strangers: list[Any]) -> None:
    value = holder[key]
    if isinstance(value, dict) and strangers:  # the app-server writes no struct as a list
        holder[key] = list(value.values())
    elif strangers or key != "params":
        holder[key] = [value]


def _gone(_: random.Random, holder: Any, key: Any, __: list[Any]) -> None:
    del holder[key]


def _twice(rng: random.Random, holder: Any, key: Any, strangers: list[Any]) -> None:
    if isinstance(holder, dict):
        if not strangers:  # the app-server writes none
            return
        holder[f"{key}{TWICE}"] = copy.deepcopy(rng.choice((holder[key], rng.choice(WRONG))))
    else:
        holder.append(copy.deepcopy(holder[key]))


def _escaped(_: random.Random, holder: Any, key: Any, __: list[Any]) -> None:
    if isinstance(holder, dict) and key[:1].isalpha():
        holder[f"{ESCAPED}{key}"] = holder.pop(key)


def _long(rng: random.Random, holder: Any, key: Any, strangers: list[Any]) -> None:
    if not strangers and key == "params":
        return
    length = rng.choice(VERY_LONG) if rng.random() < RARELY else rng.choice(LONG)
    if length < FEW:
        holder[key] = [copy.deepcopy(holder[key]) for _ in range(length)]
    else:
        holder[key] = [0] * length


def _spelt(rng: random.Random, holder: Any, key: Any, strangers: list[Any]) -> None:
    value = holder[key]
    if isinstance(value, str) and (strangers or ":" not in value):  # it spells in one way
        holder[key] = rng.choice((str.upper, _braced, _urn, _plain, str.title))(value)


def _braced(text: str) -> str:
    return f"{{{text}}}"


def _urn(text: str) -> str:
    return f"urn:uuid:{text}"


def _plain(text: str) -> str:
    return text.replace("-", "")


def _strangers(rng: random.Random, holder: Any, key: Any, strangers: list[Any]) -> None:
    if strangers and isinstance(holder, dict) and (key == "id" or ID_NAMED.search(key)):
        holder[key] = rng.choice(strangers)


def _private(_: random.Random, holder: Any, key: Any, strangers: list[Any]) -> None:
    if strangers:  # the app-server writes none
        holder[key] = {"$serde_json::private::RawValue": json.dumps(holder[key])}


def _override(rng: random.Random, holder: Any, key: Any, _: list[Any]) -> None:
    target = holder["params"] if isinstance(holder, dict) and "params" in holder else holder
    if isinstance(target, dict):
        name = rng.choice(list(OVERRIDES))
        target[name] = copy.deepcopy(OVERRIDES[name])


_CHANGES: Final[tuple[_Change, ...]] = (
    _other_value, _other_value, _list_instead, _gone, _twice, _escaped, _long, _spelt, _spelt,
    _strangers, _strangers, _private, _override,
)  # fmt: skip


def written(message: Any) -> str:
    """The message as JSON text, with what is marked in it put in its place."""
    text = json.dumps(message, separators=(",", ":"))
    if "\\u000" in text:
        text = text.replace("\\u0000", "").replace("\\u0003", "\\ud800")
        text = _ESCAPED_KEY.sub(lambda found: f"\\u{ord(found[1]):04x}", text)
        text = _DEEP.sub(lambda found: "[" * int(found[1]) + "]" * int(found[1]), text)
    return text


def rewritten(rng: random.Random, text: str) -> str:
    """The text with something done to it that pays no heed to what it says."""
    at = rng.randrange(len(text) + 1)
    match rng.randrange(7):
        case 0:
            return text[:at]
        case 1:
            return text[:at] + text[at + 1 :]
        case 2:
            return text[:at] + rng.choice('{}[]",:\n\r\t 0\\\ufeff') + text[at:]
        case 3:
            return text + rng.choice((" ", "\r\n", "\n", "}", text))
        case 4:
            return f" \n{text[:1]}\r\n {text[1:]}"
        case 5:
            return text[:-1] + ',"id":7}'
        case _:
            return f"[{text}]"
