"""Turns the core's decisions on notices into pushes, and applies answers given from a notice.

The opaque id of a push means something to its device alone. The ledger stores the id beside the
device's key, and ``mux/notices/read`` returns the notice behind it to that device only. On a
device, the pushes of one thread share one collapse key. When one of several subjects there is over,
a push for the newest of the others takes its place, quietly.

Used by: ``dispatcher``, for the core's ``Notify``, ``Withdraw`` and ``LogNoticeDecision``;
``access``, when a device was revoked or changed. Reports to the core who can be reached.
"""

from __future__ import annotations

import hashlib
import hmac
import math
import secrets
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

import msgspec
import trio

from mux.access.devices import DeviceRegistry
from mux.config import model
from mux.core.commands import LogNoticeDecision, NoticeAnswerJudged, Notify, Withdraw
from mux.core.events import AnsweredByNotice, NoticesRestored, RecipientsChanged
from mux.core.part import Part, later
from mux.core.policy.notice import WAITING, Notice, Recipient, RestoredNotice
from mux.core.policy.principal import Principal, device_key
from mux.core.policy.scopes import ALL
from mux.dispatch.dispatcher import Dispatcher
from mux.notices import wording
from mux.notices.answer_tickets import ANSWERS, AnswerTicket, AnswerTickets
from mux.notices.ledger import Ledger
from mux.notices.preferences import NoticePreferences
from mux.push.endpoints import HOST
from mux.push.message import LAST, Push
from mux.push.sender import Pushes

WAITING_SECONDS: Final = 86_400.0
"""How long the push of an approval is worth sending. The approval may wait longer, but not
unseen."""

INFORMING_SECONDS: Final = 43_200.0
"""How long any other push is worth sending: that a turn was completed yesterday is no news."""

RECENT_SECONDS: Final = 3600.0
"""A push that the queue doesn't know was lost if it was made less than this before the end of an
earlier life of the broker. It is made again."""

UNHEARD_SECONDS: Final = 7 * 86_400.0
ARRIVAL_SECONDS: Final = 900.0
UNHEARD_PUSHES: Final = 3
"""A device is named if so many pushes of the last week were taken by its service, the last a while
ago, and it has said of none that it came. A phone that is off for an evening isn't."""

MOVED_SECONDS: Final = 7 * 86_400.0
"""How long it is worth telling a page that its origin has ended: a week's holiday."""

TEST_SECONDS: Final = 300.0
"""How long a test push is worth sending."""

ID_BYTES: Final = 16
COLLAPSE_CHARACTERS: Final = 32

MINUTE: Final = 60.0

HOST_NAME: Final = "the host's settings"
"""The name of the host's own device (``HOST``), for people."""


class NoticeDelivery(Part):
    """Delivers the notices of one broker."""

    settings: model.Notices
    never: tuple[str, ...]
    """Classes of risk that rule out an answer from a notice; such a push carries no ticket."""
    pushes: Pushes
    ledger: Ledger
    preferences: NoticePreferences
    registry: DeviceRegistry
    dispatcher: Dispatcher
    record: Callable[[str, dict[str, object]], None]
    """Puts a record (kind, fields) into the audit log."""
    host: str | None = None
    """This machine's name, which people have to see before they approve anything on it."""
    tickets: AnswerTickets = msgspec.field(default_factory=AnswerTickets)
    clock: Callable[[], float] = time.time
    _verdicts: list[NoticeAnswerJudged] = msgspec.field(default_factory=list)
    """The core's verdict on an answer, between `judged` and `answered_from_notice`."""
    _standing: dict[str, Notice] = msgspec.field(default_factory=dict)
    """Notices that were sent and aren't over, by subject."""
    _reachable: tuple[Recipient, ...] | None = None
    """The recipients as the core was last told."""
    _secret: bytes = later()

    def __post_init__(self) -> None:
        self._secret = self.ledger.secret()

    # -- beginning ---------------------------------------------------------------------------------

    def begin(self) -> None:
        """Tell the core which notices earlier lives sent, and who can be reached.

        Call it before any client attaches, and before the push queue is sent: a queued push may no
        longer be true.
        """
        states: dict[str, set[str]] = {}
        for row in self.pushes.history():
            if not row["withdraw"]:
                states.setdefault(str(row["id"]), set()).add(str(row["state"]))
        standing = []
        for thing in self.ledger.standing():
            notice = thing.notice()
            recent = thing.raised > self.clock() - RECENT_SECONDS
            unsent: dict[str, None] = {}
            for id, device in self.ledger.pushes(thing.thing):
                state = states.get(id, {"lost"} if recent else set())
                if "lost" in state and notice.kind not in WAITING:
                    self.pushes.send(device, self._push(id, notice, device))
                if state & {"queued", "lost"}:
                    unsent[device] = None
            self._standing[thing.thing] = notice
            devices = tuple(self.ledger.devices(thing.thing))
            standing.append(RestoredNotice(
                thing.thing, notice.kind, notice.thread, devices, tuple(unsent), notice.title
            ))  # fmt: skip
        self.dispatcher.handle(NoticesRestored(self.ledger.known(), tuple(standing)))
        self.report_recipients()

    async def run(self) -> None:
        """Check each minute whether quiet hours or a snooze began or ended; write the
        preferences."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.preferences.file.run)
                while True:
                    await trio.sleep(MINUTE - self.clock() % MINUTE)
                    self.report_recipients()
        finally:
            self.preferences.file.flush()

    def clock_moved(self) -> None:
        """Recompute what depends on the wall clock: it was set, or the machine slept."""
        self.report_recipients()
        self.pushes.refresh()

    # -- who can be reached ------------------------------------------------------------------------

    def report_recipients(self) -> None:
        """Tell the core who can be reached, and by which rules, if that has changed."""
        reachable = tuple(self._recipients())
        if reachable != self._reachable:
            self._reachable = reachable
            self.dispatcher.handle(RecipientsChanged(reachable))

    def _recipients(self) -> Iterator[Recipient]:
        keys = dict.fromkeys(each.device for each in self.pushes.endpoints.all())
        for key in keys:
            name = self.name(key)
            rules = self.preferences.now(key)
            further = name in self.settings.escalate_to or key in self.settings.escalate_to
            if key == HOST:
                yield Recipient(key, name, ALL, -math.inf, rules, further, always=not further)
            elif (principal := self.principal(key)) is not None:
                yield Recipient(key, name, principal.scopes, self._used(key), rules, further)

    def principal(self, key: str) -> Principal | None:
        """Return who has a device's key now; None if the device is revoked, expired or unknown."""
        kind, _, rest = key.partition(":")
        if kind == "device":
            device = self.registry.by_id(rest)
            if device is None or device.expired(self.clock()):
                return None
            return Principal(device.name, "device", device.expires, device.scopes, device.id)
        preference = self.preferences.known(key)
        if preference is None:
            return None
        return Principal(preference.name, "capability-token", scopes=frozenset(preference.scopes))

    def _used(self, key: str) -> float:
        """Return when a device was seen last, on the core's clock.

        Rounded to the minute, as a finer time changes no decision.
        """
        device = self.registry.by_id(key.partition(":")[2])
        if device is None or device.seen is None:
            return -math.inf
        ago = max(0.0, self.clock() - device.seen)
        return MINUTE * round((trio.current_time() - ago) / MINUTE)

    def name(self, key: str) -> str:
        """Return the name of a device for people."""
        if key == HOST:
            return HOST_NAME
        principal = self.principal(key)
        return principal.name if principal is not None else f"{key} (gone)"

    def key_of(self, name: str) -> str | None:
        """Return the key of a device, given its name or the key itself; None if there is none."""
        for key in dict.fromkeys(
            [*(device_key(device.id) for device in self.registry),
             *(endpoint.device for endpoint in self.pushes.endpoints.all())]
        ):  # fmt: skip
            if name == key or name.casefold() == self.name(key).casefold():
                return key
        return None

    def revoked(self, device: str) -> None:
        """Forget what is kept for a device that was removed from the registry. ``device``: its id
        there."""
        self.pushes.forget(device_key(device))
        self.preferences.forget(device_key(device))
        self.report_recipients()

    # -- what the core says ------------------------------------------------------------------------

    def notify(self, command: Notify) -> None:
        """Push a notice to one device."""
        notice, device = command.notice, command.device
        self._standing[notice.subject] = notice
        self.ledger.raised(notice, wording.body(notice) or "")
        self.ledger.step(notice.subject, "sent", command.reason, device)
        self._send(notice, device, urgent=None)

    def _send(self, notice: Notice, device: str, *, urgent: bool | None) -> None:
        id = secrets.token_hex(ID_BYTES)
        self.ledger.pushed(id, notice.subject, device)
        self.pushes.send(device, self._push(id, notice, device, urgent=urgent))

    def _push(self, id: str, notice: Notice, device: str, *, urgent: bool | None = None) -> Push:
        lasts = WAITING_SECONDS if notice.kind in WAITING else INFORMING_SECONDS
        ticket = self._ticket(id, notice, device)
        return Push(
            id=id,
            kind=wording.KINDS[notice.kind],
            collapse=self._collapse(device, notice),
            expires_at=self.clock() + lasts,
            count=max(1, len(self.ledger.standing_at(device, notice.thread))),
            title=wording.title(notice),
            body=wording.body(notice),
            urgent=notice.urgent if urgent is None else urgent,
            ticket=ticket,
            actions=ANSWERS if ticket is not None else (),
            host=self.host,
            badge=self._badge(device),
        )

    def _badge(self, device: str) -> int:
        """Return how many things wait for a person, of those that the device was told of."""
        return self.ledger.standing_count(device, WAITING)

    def _ticket(self, id: str, notice: Notice, device: str) -> str | None:
        """Return a ticket, if the device may answer this notice from its lock screen; else None."""
        if notice.request is None or not notice.actionable or set(notice.risks) & set(self.never):
            return None
        principal = self.principal(device)
        if not device.startswith("device:") or principal is None:
            return None
        if "approve" not in principal.scopes:
            return None
        lasts, now = self.settings.ticket_seconds, trio.current_time()
        return self.tickets.issue(
            device, notice.request, id, seconds=lasts, now=now, wall=self.clock()
        )

    def _collapse(self, device: str, notice: Notice) -> str:
        text = f"{device}\n{notice.thread or notice.kind.rpartition('-')[0]}"
        return hmac.new(self._secret, text.encode(), hashlib.sha256).hexdigest()[
            :COLLAPSE_CHARACTERS
        ]

    def withdraw(self, command: Withdraw) -> None:
        """Take a notice back from the devices that got it.

        If another notice of the thread stands at the device, its push takes the place, quietly.
        """
        notice = command.notice
        self.ledger.step(notice.subject, "withdrawn", command.reason)
        # Over before the look for others: a notice mustn't take its own place.
        self.ledger.over(notice.subject, command.reason)
        self._standing.pop(notice.subject, None)
        for device in command.devices:
            others = self.ledger.standing_at(device, notice.thread)
            newest = self._standing.get(others[-1]) if others else None
            if newest is not None:
                self._send(newest, device, urgent=False)
            else:
                collapse = self._collapse(device, notice)
                self.pushes.withdraw(device, collapse, badge=self._badge(device))

    def status(self) -> dict[str, Any]:
        """Return the notices' part of ``mux/status``."""
        facts = self.pushes.status()
        troubles = (facts["trouble"], self.ledger.trouble, self.preferences.file.trouble)
        trouble = [each for each in troubles if each]
        return {
            **facts,
            "standing": len(self._standing),
            "trouble": "; ".join(trouble) or None,
            "unheard": [self.name(key) for key in self._unheard()],
        }

    def _unheard(self) -> Iterator[str]:
        """Yield the devices whose page would say that a push came, but none of the last did."""
        sent = {str(row["id"]) for row in self.pushes.history() if row["state"] == "sent"}
        now = self.clock()
        for endpoint in self.pushes.endpoints.all():
            if endpoint.navigate is not None:
                since = max(endpoint.created, now - UNHEARD_SECONDS)
                missed = self.ledger.unheard(endpoint.device, since, now - ARRIVAL_SECONDS)
                if len(sent.intersection(missed)) >= UNHEARD_PUSHES:
                    yield endpoint.device

    def test(self, device: str) -> Push:
        """Return a test push, which is about no notice."""
        id = secrets.token_hex(ID_BYTES)
        return Push(
            id=id,
            kind="test",
            collapse=id,
            expires_at=self.clock() + TEST_SECONDS,
            title="appmux",
            body=f"A test of what {self.name(device)} is told",
            host=self.host,
        )

    def origin_ended(self, origin: str, there: str) -> None:
        """Tell the pages of an origin that has ended where the page is now. Idempotent."""

        def last() -> Push:
            id = secrets.token_hex(ID_BYTES)
            return Push(
                id=id,
                kind=LAST,
                collapse=id,
                expires_at=self.clock() + MOVED_SECONDS,
                title="Pair again: the host has another name",
                body=f"appmux is at {there}/ now; `appmux pair` on the host shows the link",
                urgent=True,
                host=self.host,
            )

        self.pushes.push_last(origin, last)
        self.report_recipients()

    def received(self, id: str, actor: Principal) -> bool:
        """Note that the actor's device got a push; return whether it is that device's."""
        return self.ledger.arrived(id, actor.key)

    def judged(self, command: NoticeAnswerJudged) -> None:
        """Store the core's verdict on an answer, for `answered_from_notice`."""
        self._verdicts.append(command)

    def answered_from_notice(
        self, ticket: AnswerTicket, principal: Principal, peer: str, *, yes: bool
    ) -> NoticeAnswerJudged:
        """Pass an answer given by a ticket to the core, and return the core's verdict."""
        self.dispatcher.handle(AnsweredByNotice(ticket.request, principal, peer, yes))
        # The core judges within handle(), and the dispatcher has called `judged` by now.
        verdict = self._verdicts.pop()
        thing = f"asked/{ticket.request}"
        decision = f"{'approve' if yes else 'decline'}: {verdict.outcome}"
        reason = f" ({verdict.reason})" if verdict.reason else ""
        self.ledger.step(thing, "answered", decision + reason, ticket.device)
        return verdict

    def explain(self, command: LogNoticeDecision) -> None:
        """Record the reason for a decision in the ledger."""
        thing = command.notice.subject
        self.ledger.raised(command.notice, wording.body(command.notice) or "")
        self.ledger.step(thing, command.outcome, command.reason, command.device)
        if command.outcome == "over":
            self.ledger.over(thing, command.reason)
