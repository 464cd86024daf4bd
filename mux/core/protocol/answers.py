"""The shape of a valid answer to each kind of server request.

Natively a malformed answer from any client ends an approval for everybody. The broker counts such
an answer as its client's abstention instead, so it must know which answers are well formed. The
shapes are those of the app-server's own schema. An answer that fits is passed on as the bytes that
came.

A method that isn't listed is judged by the one rule that holds for all of them: a JSON object.

Used by ``server_requests`` and ``consent``.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from mux.core.protocol.methods import server_request_rule
from mux.core.protocol.rules import OfferTo


class _ExecPolicy(msgspec.Struct):
    execpolicy_amendment: list[str]


class _NetworkPolicy(msgspec.Struct):
    action: Literal["allow", "deny"]
    host: str


class _NetworkPolicyAmendment(msgspec.Struct):
    network_policy_amendment: _NetworkPolicy


class _CommandAmendment(msgspec.Struct, forbid_unknown_fields=True):
    acceptWithExecpolicyAmendment: _ExecPolicy | None = None
    applyNetworkPolicyAmendment: _NetworkPolicyAmendment | None = None


_Decision = Literal["accept", "acceptForSession", "decline", "cancel"]


class _CommandAnswer(msgspec.Struct):
    decision: _Decision | _CommandAmendment


class _FileChangeAnswer(msgspec.Struct):
    decision: _Decision


class _Input(msgspec.Struct):
    answers: list[str]


class _InputAnswer(msgspec.Struct):
    answers: dict[str, _Input]


class _ElicitationAnswer(msgspec.Struct):
    action: Literal["accept", "decline", "cancel"]


class _PermissionsAnswer(msgspec.Struct):
    permissions: dict[str, Any]
    scope: Literal["turn", "session"] = "turn"


class _ContentItem(msgspec.Struct):
    type: str


class _ToolAnswer(msgspec.Struct):
    contentItems: list[_ContentItem]
    success: bool


class _TokensAnswer(msgspec.Struct):
    accessToken: str
    chatgptAccountId: str


class _AttestationAnswer(msgspec.Struct):
    token: str


class _TimeAnswer(msgspec.Struct):
    currentTimeAt: int


class _ReviewAmendment(msgspec.Struct, forbid_unknown_fields=True):
    approved_execpolicy_amendment: dict[str, msgspec.Raw] | None = None
    network_policy_amendment: dict[str, msgspec.Raw] | None = None
    denied: dict[str, msgspec.Raw] | None = None


class _ReviewAnswer(msgspec.Struct):
    decision: (
        Literal["approved", "approved_for_session", "approved_mcp_policy_amendment"]
        | Literal["timed_out", "abort"]
        | _ReviewAmendment
    )


_AnyAnswer = dict[str, msgspec.Raw]

_DECODERS: dict[str, msgspec.json.Decoder[object]] = {
    method: msgspec.json.Decoder(shape)
    for method, shape in {
        "item/commandExecution/requestApproval": _CommandAnswer,
        "item/fileChange/requestApproval": _FileChangeAnswer,
        "item/permissions/requestApproval": _PermissionsAnswer,
        "item/tool/requestUserInput": _InputAnswer,
        "item/tool/call": _ToolAnswer,
        "mcpServer/elicitation/request": _ElicitationAnswer,
        "account/chatgptAuthTokens/refresh": _TokensAnswer,
        "attestation/generate": _AttestationAnswer,
        "currentTime/read": _TimeAnswer,
        "execCommandApproval": _ReviewAnswer,
        "applyPatchApproval": _ReviewAnswer,
    }.items()
}
ANSWERED_BY_PEOPLE = tuple(
    method for method in _DECODERS if server_request_rule(method).offer_to is OfferTo.FOLLOWERS
)
"""The known server requests that are put to people."""

_any_decoder: msgspec.json.Decoder[object] = msgspec.json.Decoder(_AnyAnswer)


class _AvailableDecisions(msgspec.Struct):
    availableDecisions: list[msgspec.Raw] | None = None


class _Offer(msgspec.Struct):
    params: _AvailableDecisions


class _Decided(msgspec.Struct):
    decision: msgspec.Raw


def fault(method: str, offer: bytes, result: bytes) -> str | None:
    """Return what is wrong with ``result`` as the answer to ``offer``; None if nothing is.

    ``offer`` is the server request's message. A decision that it lists itself is always valid, so a
    newer app-server's decisions need no newer broker.
    """
    try:
        answer = _DECODERS.get(method, _any_decoder).decode(result)
    except msgspec.ValidationError as error:
        return None if _lists_it(offer, result) else str(error)
    if isinstance(answer, _CommandAnswer | _ReviewAnswer) and not _amends_one(answer.decision):
        return "Object names no decision - at `$.decision`"
    if isinstance(answer, _PermissionsAnswer) and not _is_within(answer.permissions, offer):
        return "Object grants more than was asked for - at `$.permissions`"
    return None


def _is_within(granted: dict[str, Any], offer: bytes) -> bool:
    """Return whether a granted permission profile is part of the one that was asked for."""
    try:
        requested = _asked_decoder.decode(offer).params.permissions
    except msgspec.DecodeError:
        return False
    return part_of(granted, requested)


def part_of(granted: Any, requested: Any) -> bool:
    """Return whether a permission profile, or a piece of it, grants nothing beyond another."""
    match granted:
        case None | False | [] | "deny":
            return True  # grants nothing
        case dict():
            whole = requested if isinstance(requested, dict) else {}
            return all(part_of(value, whole.get(name)) for name, value in granted.items())
        case list():
            whole_list = requested if isinstance(requested, list) else []
            return all(any(_covers(one, each) for one in whole_list) for each in granted)
        case _:
            return bool(granted == requested)


def _covers(requested: Any, granted: Any) -> bool:
    """Return whether the asked entry covers the granted one; writing covers reading."""
    if not (isinstance(requested, dict) and isinstance(granted, dict)):
        return bool(requested == granted)
    if granted.get("access") == "deny":
        return True
    if requested.get("access") == "write" and granted.get("access") == "read":
        requested = requested | {"access": "read"}
    return bool(requested == granted)


def _amends_one(decision: object) -> bool:
    if not isinstance(decision, _CommandAmendment | _ReviewAmendment):
        return True
    return len([part for part in msgspec.structs.astuple(decision) if part is not None]) == 1


def _lists_it(offer: bytes, result: bytes) -> bool:
    try:
        listed = _offer_decoder.decode(offer).params.availableDecisions or []
        decision = _decided_decoder.decode(result).decision
    except msgspec.DecodeError:
        return False
    chosen = msgspec.json.decode(decision)
    return any(msgspec.json.decode(one) == chosen for one in listed)


def lists_decision(offer: bytes, decision: str) -> bool:
    """Return whether the offer lists this decision.

    An offer without a list takes every decision of its method.
    """
    try:
        listed = _offer_decoder.decode(offer).params.availableDecisions
    except msgspec.DecodeError:
        return False
    return listed is None or any(msgspec.json.decode(one) == decision for one in listed)


def plain(method: str, offer: bytes, *, yes: bool) -> dict[str, Any] | None:
    """Return the answer that says yes (this once) or no to ``offer``.

    A yes to a permission profile grants what was asked for, for the turn; a no grants nothing.
    Return None if an answer takes more than a word.
    """
    if method in ("item/commandExecution/requestApproval", "item/fileChange/requestApproval"):
        return {"decision": "accept" if yes else "decline"}
    if method in ("execCommandApproval", "applyPatchApproval"):
        return {"decision": "approved" if yes else {"denied": {"rejection": "declined"}}}
    if method == "item/permissions/requestApproval":
        try:
            requested = _asked_decoder.decode(offer).params.permissions
        except msgspec.DecodeError:
            return None
        given = {name: value for name, value in (requested or {}).items() if value is not None}
        return {"permissions": given if yes else {}, "scope": "turn"}
    return None


class _AskedPermissions(msgspec.Struct):
    permissions: Any = None


class _PermissionsOffer(msgspec.Struct):
    params: _AskedPermissions


_asked_decoder = msgspec.json.Decoder(_PermissionsOffer)
_offer_decoder = msgspec.json.Decoder(_Offer)
_decided_decoder = msgspec.json.Decoder(_Decided)
