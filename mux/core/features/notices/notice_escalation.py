"""Escalation: which devices a notice is sent to, and when to more of them.

    the device used last ──nobody has looked──▶ the owner's others ──still nobody──▶ the further

``notices`` decides what is sent at all, and when it is over.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from mux.core.commands import LogNoticeDecision, Notify
from mux.core.features.clients.attention import Attention
from mux.core.part import Part
from mux.core.policy.notice import ESCALATES, WAITING, Recipient, Timing
from mux.core.state.notice_records import OpenNotice
from mux.core.state.state import NEVER, State

NOBODY: Final = "no device is registered for push"
REASONS: Final = ("looked_at", "off", "quiet_hours", "snoozed", "nobody_registered", "other")
"""Why a notice isn't sent, for the metrics."""


class NoticeEscalation(Part):
    """Decides to which device a notice is sent next."""

    state: State
    attention: Attention
    timing: Timing
    due: float = NEVER
    """When the next device is due for a notice, if nobody looks until then."""
    _recipients: tuple[Recipient, ...] = ()

    def set_recipients(self, recipients: tuple[Recipient, ...]) -> None:
        """Set the devices that can be pushed to, with what each wants right now."""
        self._recipients = recipients

    def push_due(self, each: OpenNotice) -> None:
        """Push to the device used last; when nobody has looked for long enough, to the others."""
        if each.settled or each.alone_since is None:
            return
        among = [one for one in self._recipients if each.only is None or one.device in each.only]
        own = [one for one in among if not one.further]
        if not among:
            self.log_decision(each, "suppressed", NOBODY)
        if each.only is not None:
            self._push_to_all(each, own, "it was told that the app-server was down")
        else:
            self._push_to_all(each, [one for one in own if one.always], "it is always told")
            devices = [one for one in own if not one.always]
            if not any(one.device in each.sent for one in devices):
                self._push_to_one(each, devices)
        if each.notice.kind not in ESCALATES:
            each.settled = True
            return
        further = [one for one in among if one.further]
        self._escalate(each, own, self.timing.escalate_after)
        self._escalate(each, further, self.timing.escalate_further_after)

    def _escalate(self, each: OpenNotice, recipients: list[Recipient], after: float) -> None:
        moment = (each.alone_since or 0.0) + after
        if moment > self.state.now:
            self.due = min(self.due, moment) if recipients else self.due
        else:
            self._push_to_all(each, recipients, f"nobody has looked for {after:g} s")

    def _push_to_one(self, each: OpenNotice, recipients: list[Recipient]) -> None:
        waits = each.notice.kind in WAITING
        order = sorted(
            recipients,
            key=lambda one: (not waits or "approve" in one.scopes, self._used(one)),
            reverse=True,
        )
        for recipient in order:
            if self._push(each, recipient, "used last"):
                return

    def _push_to_all(self, each: OpenNotice, recipients: Iterable[Recipient], reason: str) -> None:
        for recipient in recipients:
            self._push(each, recipient, reason)

    def _push(self, each: OpenNotice, recipient: Recipient, reason: str) -> bool:
        if recipient.device in each.sent:
            return True
        refused = recipient.refuses(each.notice.kind, each.notice.thread)
        if refused is not None:
            self.log_decision(each, "suppressed", refused, recipient.device)
            return False
        each.sent[recipient.device] = None
        self.state.count("notice/sent")
        self.state.out.append(Notify(each.notice, recipient.device, reason))
        return True

    def _used(self, recipient: Recipient) -> float:
        return max(recipient.used, self.state.devices_used.get(recipient.device, float("-inf")))

    def log_decision(self, each: OpenNotice, outcome: str, reason: str, device: str = "") -> None:
        """Log the reason of a decision; a reason to suppress is logged once."""
        if (device, reason) in each.explained and outcome == "suppressed":
            return
        each.explained.add((device, reason))
        self.state.count(f"notice/{outcome}")
        if outcome == "suppressed":
            self.state.count(f"notice/suppressed/{_reason(reason)}")
        self.state.out.append(LogNoticeDecision(each.notice, outcome, reason, device))


def _reason(reason: str) -> str:
    """Return the member of ``REASONS`` that a reason counts as."""
    words = reason.replace(" ", "_")
    if words in REASONS:
        return words
    if reason == NOBODY:
        return "nobody_registered"
    return "looked_at" if reason.endswith(("looks at it", "interrupted it")) else "other"
