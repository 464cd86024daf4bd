"""The value that each setting takes: its check, and its words in an error and in TOML.

Used by ``load``, and by the commands that write settings down.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, get_args, get_origin

import attrs

from mux.config import approval_rules, proxies
from mux.config.model import Leaf, bounds
from mux.core.policy.approval_policy import Rule

RULES = "approvals.rules"
"""The only key that holds tables: ``approval_rules`` reads and checks their texts."""

DIRECTORIES = "devices.directories"
"""Must be absolute: a relative directory would mean another place for each reader."""

PROXIES = "web.trusted_proxies"
"""A wrong one would mean that nobody's word counts, or everybody's."""

NOT_SHOWN = frozenset({"auth.token_sha256"})
"""Keys where a person may have put a secret by mistake: a wrong value is never printed."""

_CLIENT_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_WRONG = object()


def checked(leaf: Leaf, value: object) -> object:
    """Return ``value`` as this key's type.

    Raises ValueError, whose text nobody reads: ``load`` writes the message.
    """
    result = _WRONG
    plain = leaf.plain
    if get_origin(plain) is Literal:
        result = value if value in get_args(plain) else _WRONG
    elif leaf.key == RULES:
        rules = approval_rules.read(value)
        result = _WRONG if rules is None else rules
    elif get_origin(plain) is tuple:
        result = _checked_texts(leaf, value)
    elif plain is float or plain is int:
        result = _checked_number(leaf, value)
    elif plain is bool:
        result = value if isinstance(value, bool) else _WRONG
    elif isinstance(value, str | Path) and str(value):
        result = plain(value) if _fits(leaf, str(value)) else _WRONG
    if result is _WRONG:
        raise ValueError(leaf.key)
    return result


def _checked_texts(leaf: Leaf, value: object) -> object:
    if not isinstance(value, list | tuple) or not all(isinstance(part, str) for part in value):
        return _WRONG
    if leaf.key == "listen" and not value:
        return _WRONG
    if leaf.key == DIRECTORIES and not all(part.startswith(("/", "~")) for part in value):
        return _WRONG
    if leaf.key == PROXIES and not proxies.are_networks(tuple(value)):
        return _WRONG
    return tuple(value)


def _checked_number(leaf: Leaf, value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return _WRONG
    if leaf.plain is int and not isinstance(value, int):
        return _WRONG
    least, most = bounds(leaf)
    if isinstance(value, float) and not math.isfinite(value):
        return _WRONG
    if value < least or (most is not None and value > most):
        return _WRONG
    if leaf.plain is float and value <= 0:
        return _WRONG
    return leaf.plain(value)


def _fits(leaf: Leaf, text: str) -> bool:
    if leaf.key == "upstream.client_name":
        return _CLIENT_NAME.fullmatch(text) is not None
    return "\0" not in text


def expected(leaf: Leaf) -> str:
    """Return in words what a key takes."""
    plain = leaf.plain
    if get_origin(plain) is Literal:
        return "one of " + ", ".join(f'"{choice}"' for choice in get_args(plain))
    if plain in (int, float):
        least, most = bounds(leaf)
        number = "a whole number of at least" if plain is int else "a number of seconds above"
        return f"{number} {least:g}" + ("" if most is None else f" and at most {most:.0f}")
    if leaf.key == "upstream.client_name":
        return "1 to 64 letters, digits, dots, dashes or underscores"
    if leaf.key in _EXPECTED:
        return _EXPECTED[leaf.key]
    if get_origin(plain) is tuple:
        return "a list of texts"
    if plain is bool:
        return "true or false"
    return "a path" if plain is Path else "a text that isn't empty"


_EXPECTED: Mapping[str, str] = {
    "listen": 'a list of at least one URL, as ["unix://", "ws://127.0.0.1:14500"]',
    DIRECTORIES: 'a list of absolute paths or globs, as ["~/projects/*"]',
    PROXIES: proxies.EXPECTED,
    RULES: approval_rules.EXPECTED,
}

MAX_SHOWN = 80
"""Characters of a wrong value that are printed: enough to recognise the value."""


_KINDS = {"dict": "a table", "list": "a list", "str": "a text"}


def shown(key: str, value: object) -> str:
    """Return a wrong value as an error shows it."""
    kind = _KINDS.get(type(value).__name__, type(value).__name__)
    if key in NOT_SHOWN:
        return f"{kind} (not shown)"
    text = toml_value(value) if isinstance(value, str | bool | int | float) else kind
    return text if len(text) <= MAX_SHOWN else text[:MAX_SHOWN] + "…"


def toml_value(value: object) -> str:
    """Write ``value`` as TOML: texts, paths, numbers, booleans, rules, and lists of them."""
    if isinstance(value, Rule):
        fields = attrs.asdict(value, filter=lambda _field, each: each != "")
        if value.policy != "quorum":
            del fields["quorum"]
        return (
            "{" + ", ".join(f"{name} = {toml_value(each)}" for name, each in fields.items()) + "}"
        )
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list | tuple):
        return "[" + ", ".join(toml_value(part) for part in value) + "]"
    escapes = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r"}
    return '"' + "".join(escapes.get(char) or _visible(char) for char in str(value)) + '"'


def _visible(char: str) -> str:
    return char if char.isprintable() else f"\\U{ord(char):08x}"
