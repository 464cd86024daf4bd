"""Compares answers to an approval by what they let happen.

A *no* lets nothing happen: decline, cancel and their like, a permission profile that grants
nothing, a host that is denied. Every other answer is a *yes* to something, and some say yes to more
than others. ``acceptForSession`` and the amendments include ``accept``, ``session`` includes
``turn``, a permission profile includes its parts. A quorum has agreed on what all of its answers
include. Answers that can't be compared (forms, methods that this version doesn't know) agree if
they are equal.

Used by ``approval_policy`` and ``server_requests``. ``protocol.answers`` has judged the answers
before they come here.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import msgspec

from mux.core.protocol.answers import lists_decision, part_of

_NO = frozenset({"abort", "cancel", "decline", "declined", "denied", "deny", "reject", "timed_out"})

_PLAIN_YES: dict[str, dict[str, Any]] = {
    "item/commandExecution/requestApproval": {"decision": "accept"},
    "item/fileChange/requestApproval": {"decision": "accept"},
    "execCommandApproval": {"decision": "approved"},
    "applyPatchApproval": {"decision": "approved"},
}
"""The least that a yes to these methods lets happen: this once."""

_PERMISSIONS = "item/permissions/requestApproval"


def is_no(method: str, result: bytes) -> bool:
    """Return whether the answer lets nothing happen."""
    answer = _read(result)
    if method == _PERMISSIONS:
        return part_of(answer.get("permissions"), {})
    return any(_denies(answer.get(name)) for name in ("decision", "action"))


def _denies(answer: Any) -> bool:
    if isinstance(answer, str):
        return answer in _NO
    if isinstance(answer, dict):
        return any(name in _NO or (_inner(each) == "deny") for name, each in answer.items())
    return False


def _inner(amendment: Any) -> Any:
    """Return the ``action`` of a network policy amendment."""
    inner = amendment.get("network_policy_amendment") if isinstance(amendment, dict) else None
    return inner.get("action") if isinstance(inner, dict) else None


def agreed(
    method: str, offer: bytes, answers: Sequence[tuple[Hashable, bytes]], quorum: int
) -> bytes | None:
    """Return the most that ``quorum`` of the voters let happen; None if they don't agree.

    ``answers`` holds voter (each once) and answer, oldest first. With a quorum of one, the oldest
    wins.
    """
    if len(answers) < quorum:
        return None
    if quorum == 1:
        return answers[0][1]
    common: list[tuple[bytes, Any]] = []
    read = [_read(result) for _, result in answers]
    candidates = [(result, each) for (_, result), each in zip(answers, read, strict=True)]
    plain = _PLAIN_YES.get(method)
    if plain is not None and lists_decision(offer, plain["decision"]):
        candidates.append((msgspec.json.encode(plain), plain))
    for result, candidate in candidates:
        if sum(_includes(method, each, candidate) for each in read) >= quorum:
            common.append((result, candidate))
    for result, candidate in common:
        if all(
            _includes(method, candidate, other) or not _includes(method, other, candidate)
            for _, other in common
        ):
            return result
    return None


def _includes(method: str, answer: dict[str, Any], part: dict[str, Any]) -> bool:
    """Return whether ``answer`` lets everything happen that ``part`` would."""
    if answer == part or part == _PLAIN_YES.get(method):
        return True
    if method != _PERMISSIONS:
        return False
    scopes = (part.get("scope") or "turn", answer.get("scope") or "turn")
    rest = [{k: v for k, v in each.items() if k not in _COMPARED} for each in (answer, part)]
    return (
        (scopes[0] == scopes[1] or scopes[0] == "turn")
        and rest[0] == rest[1]
        and part_of(part.get("permissions"), answer.get("permissions"))
    )


_COMPARED = ("permissions", "scope")


def _read(result: bytes) -> dict[str, Any]:
    answer = msgspec.json.decode(result)
    return answer if isinstance(answer, dict) else {}
