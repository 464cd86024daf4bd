"""Answers from a lock screen: ``POST /v1/approvals/ID`` with a push's ticket.

    {"answer": "approve" | "decline", "ticket"?: "amt_…"}

``ID`` is the push's. The ticket comes in the body, or as ``Authorization: Bearer``. With the ticket
in the body that header may be the device's own token, which must then be of the same device. The
core decides what the answer is worth, as for any client.

Used by: ``downstream.http.post_routes``.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Final

import msgspec
import trio

from mux.access.replies import Reply, malformed
from mux.core.part import Part
from mux.core.policy.principal import Principal, device_key
from mux.notices.answer_tickets import PREFIX, Answer, AnswerTicket
from mux.notices.delivery import NoticeDelivery

BEARER: Final = "bearer "


class _Sent(msgspec.Struct):
    """The body. Other keys are left to a later version."""

    answer: Answer
    ticket: str = ""


class LockScreen(Part):
    """Answers these requests for one broker."""

    delivery: NoticeDelivery

    def decide(self, push: str, authorization: str, body: bytes, address: str) -> Reply:
        """Return the reply to the device. Doesn't wait."""
        try:
            sent = msgspec.json.decode(body, type=_Sent)
        except msgspec.DecodeError:
            return malformed('send {"answer": "approve" or "decline", "ticket": "…"} as JSON')
        token = authorization[len(BEARER) :].strip()
        if not authorization.lower().startswith(BEARER):
            token = ""
        text = sent.ticket or (token if token.startswith(PREFIX) else "")
        ticket = self.delivery.tickets.find(text)
        if ticket is None:
            return _refusal(HTTPStatus.UNAUTHORIZED, "unknown-ticket", "no such ticket")
        claimed = token if not token.startswith(PREFIX) else ""
        refused = self._refused(ticket, push, claimed)
        if refused is not None:
            return refused
        principal = self.delivery.principal(ticket.device)
        if principal is None:
            text = "this device was revoked"
            return _refusal(HTTPStatus.UNAUTHORIZED, "revoked", text, _named(ticket))
        return self._answered(ticket, principal, address, yes=sent.answer == "approve")

    def _refused(self, ticket: AnswerTicket, push: str, token: str) -> Reply | None:
        """Return a refusal if the ticket isn't valid for this push and this device, or None.

        The failure counts against the device whose token was presented, otherwise against the
        ticket alone: the ticket's device may know nothing of the attempt.
        """
        whose = _named(ticket)
        if token:
            device = self.delivery.registry.by_token(token)
            if device is None or device_key(device.id) != ticket.device:
                presented = device_key(device.id) if device is not None else whose
                text = "the ticket was given to another device"
                return _refusal(HTTPStatus.UNAUTHORIZED, "wrong-device", text, presented)
        if ticket.push != push:
            text = "the ticket belongs to another notice"
            return _refusal(HTTPStatus.UNAUTHORIZED, "wrong-notice", text, whose)
        if ticket.used:
            text = "the ticket has been used"
            return _refusal(HTTPStatus.CONFLICT, "used-ticket", text, whose)
        if ticket.over(trio.current_time(), self.delivery.clock()):
            text = "the ticket holds no more: open the app"
            return _refusal(HTTPStatus.CONFLICT, "expired-ticket", text, whose)
        return None

    def _answered(
        self, ticket: AnswerTicket, principal: Principal, address: str, *, yes: bool
    ) -> Reply:
        # Used before the core judges: a ticket counts once, whatever the verdict.
        ticket.used = True
        judged = self.delivery.answered_from_notice(ticket, principal, address, yes=yes)
        if judged.outcome == "over":
            return _refusal(HTTPStatus.CONFLICT, "already-resolved", judged.reason)
        if judged.outcome == "refused":
            return _refusal(HTTPStatus.CONFLICT, "refused", judged.reason)
        document = {"decided": judged.outcome == "decided", "waitsFor": judged.reason or None}
        return Reply(HTTPStatus.OK, msgspec.json.encode(document))


def _named(ticket: AnswerTicket) -> str:
    """Return what people may see of a ticket: the id of the push that carried it."""
    return f"ticket of push {ticket.push}"


def _refusal(status: HTTPStatus, error: str, message: str, whose: str = "") -> Reply:
    return Reply(status, msgspec.json.encode({"error": error, "message": message}), whose=whose)
