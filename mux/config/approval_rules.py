"""Read ``[[approvals.rules]]`` from tables, and explain a rule that can't be used.

The value is as the file or the environment gave it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final, get_args

from mux.core.policy import command_match
from mux.core.policy.approval_policy import QUESTION, PolicyName, Rule
from mux.core.protocol.answers import ANSWERED_BY_PEOPLE

MOST_RULES: Final = 100
"""Every rule is checked for each command."""

LEAST: Final = 2
"""The smallest quorum: a quorum of one is policy ``first``."""
MOST_PRINCIPALS: Final = 100
"""The largest quorum; a greater number is a slip."""

KEYS: Final = ("policy", "method", "command", "quorum")

EXPECTED: Final = (
    'a list of tables, as [{policy = "quorum", quorum = 2, command = "git push"}]'
    f" (at most {MOST_RULES})"
)


def read(value: object) -> tuple[Rule, ...] | None:
    """Return the rules, or None if they can't be used (``faults`` says why)."""
    if not isinstance(value, list | tuple) or len(value) > MOST_RULES or any(_all_faults(value)):
        return None
    return tuple(each if isinstance(each, Rule) else Rule(**each) for each in value)


def faults(value: object) -> list[tuple[str, str]]:
    """Return each fault as its place (``[1].policy``) and a text.

    An empty list for a value that ``read`` refuses: the value is no list of tables, or has more
    than ``MOST_RULES``.
    """
    return list(_all_faults(value)) if isinstance(value, list | tuple) else []


def _all_faults(value: list[Any] | tuple[Any, ...]) -> Iterator[tuple[str, str]]:
    for at, rule in enumerate(value, 1):
        if isinstance(rule, Rule):
            continue
        if not isinstance(rule, dict):
            yield f"[{at}]", "expected a table with at least `policy`"
            continue
        for name, wrong in _faults(rule):
            yield f"[{at}]{name}", wrong


def _faults(rule: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for name in rule.keys() - set(KEYS):
        near = nearest(name, KEYS)
        yield f".{name}", f"unknown key{f'; did you mean {near}?' if near else ''}"
    policies = get_args(PolicyName)
    if rule.get("policy") not in policies:
        yield ".policy", "expected one of " + ", ".join(f'"{each}"' for each in policies)
    if "quorum" in rule:
        yield from _quorum(rule)
    for name in ("method", "command"):
        if name in rule and not (isinstance(rule[name], str) and rule[name].strip()):
            yield f".{name}", "expected a text that isn't empty; leave the key out for any"
    if isinstance(rule.get("method"), str):
        yield from _method(rule)
    if isinstance(rule.get("command"), str):
        yield from _command(rule["command"])


def _quorum(rule: dict[str, Any]) -> Iterator[tuple[str, str]]:
    count = rule["quorum"]
    if (
        isinstance(count, bool)
        or not isinstance(count, int)
        or not LEAST <= count <= MOST_PRINCIPALS
    ):
        yield (
            ".quorum",
            f"expected a whole number of at least {LEAST} and at most {MOST_PRINCIPALS}",
        )
    elif rule.get("policy") != "quorum":
        yield ".quorum", 'means something with policy = "quorum" alone'


def _method(rule: dict[str, Any]) -> Iterator[tuple[str, str]]:
    method = rule["method"]
    if "*" not in method and method not in ANSWERED_BY_PEOPLE:
        near = nearest(method, ANSWERED_BY_PEOPLE)
        hint = f"did you mean {near}?" if near else f"known: {', '.join(ANSWERED_BY_PEOPLE)}"
        yield ".method", f"no approval is called so; {hint} (one of a newer codex: end it in *)"
    if method == QUESTION and rule.get("policy") == "quorum":
        yield ".policy", "a question is no permission: there is nothing for a quorum to agree on"


def _command(pattern: str) -> Iterator[tuple[str, str]]:
    """Report a pattern that no command could begin with: such a rule would silently never apply."""
    if pattern.strip() and not command_match.is_plain(pattern):
        yield (
            ".command",
            "expected the first words of one command, without quotes, `;`, `|`, `&` and their like,"
            " words before a command (`exec`), assignments or `sh -c`",
        )


def nearest(name: str, known: Sequence[str]) -> str | None:
    """Return the known name that was probably meant, or None if ``name`` resembles none."""
    import difflib  # noqa: PLC0415 (9 ms, for a slip alone)

    return next(iter(difflib.get_close_matches(name, known, n=1, cutoff=0.75)), None)
