"""Answers ``mux/notices/*`` and ``mux/push/*``.

A request concerns the settings, endpoints and notices of the device that sends it. Those of another
device take the scope ``admin``.

Used by: ``server.nursery``, for the core's ``AnswerOutside`` commands.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any, Final, TypeVar

import msgspec

from mux.access.devices import DeviceRegistry
from mux.config import model
from mux.core.commands import AnswerOutside
from mux.core.extension import notices as wire
from mux.core.part import Part
from mux.core.policy.notice import KINDS, RISKS
from mux.core.policy.principal import Principal
from mux.dispatch.dispatcher import Dispatcher
from mux.errors import AppmuxError
from mux.notices.delivery import NoticeDelivery
from mux.notices.ledger import Ledger, LedgerNotice
from mux.notices.preferences import open_preferences
from mux.push.endpoints import Endpoint
from mux.push.sender import Pushes

METHODS: Final = frozenset(wire.METHODS) - {"mux/focus"}
"""The methods that are answered here; the core answers ``mux/focus``."""

MOST_LISTED: Final = 1000
"""Most notices in one answer to ``mux/notices/list``."""


class NoticeRequestError(AppmuxError):
    """A request about notices that can't be granted."""


_Params = TypeVar("_Params")


class NoticeRequests(Part):
    """Answers the requests of one broker's clients."""

    delivery: NoticeDelivery

    @classmethod
    def open(
        cls,
        settings: model.Config,
        registry: DeviceRegistry,
        dispatcher: Dispatcher,
        record: Callable[[str, dict[str, object]], None],
        link: Callable[[], str | None] | None = None,
    ) -> NoticeRequests:
        """Open everything about notices from the state directory. Blocks: call it at the start.

        ``link`` returns the https URL at which devices reach this broker at present, if any;
        without it the settings alone say it.
        Raises ``AppmuxError`` if something there can't be used.
        """
        state_dir, rules = settings.state_dir, settings.notices
        preferences = open_preferences(state_dir, time.time, rules.quiet or "", rules.off)
        pushes = Pushes.open(state_dir, settings.push, link=link or (lambda: settings.link))
        ledger = Ledger.open(state_dir, time.time)
        never = settings.approvals.never_from_notice
        for risk in never:
            if risk not in RISKS:
                raise NoticeRequestError(
                    f"approvals.never_from_notice: no class is called {risk!r}: {', '.join(RISKS)}"
                )
        return cls(
            NoticeDelivery(
                rules,
                never,
                pushes,
                ledger,
                preferences,
                registry,
                dispatcher,
                record,
                host=settings.host_name,
            )
        )

    def answer(self, request: AnswerOutside) -> object:
        """Return the result of a request. Raises ``AppmuxError``.

        ``mux/notices/test`` takes time, and is answered by `test`.
        """
        actor = self.delivery.dispatcher.broker.principal_of(request.client)
        match request.method:
            case "mux/notices/list":
                return self._list(_read(request, wire.ListParams))
            case "mux/notices/read":
                return self._one(_read(request, wire.ReadParams).id, actor)
            case "mux/notices/settings/read":
                return self._settings(
                    self._whose(_read(request, wire.SettingsParams).device, actor)
                )
            case "mux/notices/settings/write":
                params = _read(request, wire.WriteParams)
                device = self._whose(params.device, actor)
                self.delivery.preferences.set(device, params.rules)
                return self._changed(device)
            case "mux/notices/snooze":
                snooze = _read(request, wire.SnoozeParams)
                device = self._whose(snooze.device, actor)
                self.delivery.preferences.snooze(
                    device, snooze.seconds, snooze.threadId, snooze.kind
                )
                return self._changed(device)
            case _:
                return self._push(request, actor)

    def _push(self, request: AnswerOutside, actor: Principal) -> object:
        match request.method:
            case "mux/push/register":
                origin = self.delivery.dispatcher.origin_of(request.client)
                return self._register(_read(request, wire.RegisterParams), actor, origin)
            case "mux/push/received":
                ids = dict.fromkeys(_read(request, wire.ReceivedParams).ids)
                return wire.Received(sum(self.delivery.received(id, actor) for id in ids))
            case "mux/push/unregister":
                return self._unregister(_read(request, wire.UnregisterParams).id, actor)
            case "mux/push/list":
                return self._endpoints(actor, everybodys=_read(request, wire.PushListParams).all)
            case _:
                raise NoticeRequestError(f"nobody here answers `{request.method}`")

    def _whose(self, name: str | None, actor: Principal) -> str:
        """Return the key of the named device, or the actor's own. Raises ``NoticeRequestError``."""
        if name is None:
            return actor.key
        key = self.delivery.key_of(name)
        if key != actor.key and "admin" not in actor.scopes:
            raise NoticeRequestError(
                f"another device than yours ({actor.name}) needs the scope `admin`"
            )
        if key is None:
            raise NoticeRequestError(
                f"no device is named {name!r}: `appmux devices` lists them all"
            )
        return key

    # -- notices -----------------------------------------------------------------------------------

    def _list(self, params: wire.ListParams) -> wire.Notices:
        if not 1 <= params.limit <= MOST_LISTED:
            raise NoticeRequestError(f"`limit` must be from 1 to {MOST_LISTED}")
        deliveries: dict[str, list[dict[str, Any]]] = {}
        if params.why:
            for row in self.delivery.pushes.history():
                deliveries.setdefault(str(row["id"]), []).append(row)
        newest = self.delivery.ledger.newest(params.limit)
        return wire.Notices([self._listed(each, deliveries, reason=params.why) for each in newest])

    def _listed(
        self, thing: LedgerNotice, deliveries: dict[str, list[dict[str, Any]]], *, reason: bool
    ) -> wire.Told:
        ledger, name = self.delivery.ledger, self.delivery.name
        steps, made = [], []
        if reason:
            steps = [
                wire.Step(
                    each.at,
                    each.what,
                    name(each.device) if each.device else None,
                    each.why,
                )
                for each in ledger.steps(thing.thing)
            ]
            rows = [row for id, _ in ledger.pushes(thing.thing) for row in deliveries.get(id, ())]
            came = ledger.arrivals(thing.thing)
            made = [_delivery(row, name(str(row["device"])), came) for row in _in_order(rows)]
        return wire.Told(
            thing=thing.thing,
            kind=thing.kind,
            threadId=thing.thread,
            title=thing.title,
            line=thing.said,
            raised=thing.raised,
            sentTo=[name(each) for each in ledger.devices(thing.thing)],
            over=thing.over,
            overWhy=thing.why,
            steps=steps,
            deliveries=made,
        )

    def _one(self, id: str, actor: Principal) -> wire.NoticeRead:
        thing = self.delivery.ledger.of_push(id, [actor.key])
        if thing is None:
            raise NoticeRequestError("your device got no such notice")
        waiting = self.delivery.dispatcher.broker.waiting_request(str(thing.request or ""))
        return wire.NoticeRead(
            id=id,
            kind=thing.kind,
            threadId=thing.thread,
            turnId=thing.turn,
            title=thing.title,
            line=thing.line,
            raised=thing.raised,
            over=thing.over,
            overWhy=thing.why,
            requestId=thing.request if waiting else None,
            method=thing.method or None,
            params=msgspec.Raw(waiting.params) if waiting else None,
            item=msgspec.Raw(waiting.item) if waiting else None,
        )

    # -- settings ----------------------------------------------------------------------------------

    def _settings(self, device: str) -> wire.Settings:
        preferences = self.delivery.preferences
        name = self.delivery.name(device)
        return wire.Settings(name, preferences.of(device), preferences.default, list(KINDS))

    def _changed(self, device: str) -> wire.Settings:
        self.delivery.report_recipients()
        return self._settings(device)

    # -- endpoints ---------------------------------------------------------------------------------

    def _register(
        self, params: wire.RegisterParams, actor: Principal, origin: str
    ) -> wire.Endpoint:
        if not isinstance(params.address, dict):
            raise NoticeRequestError("`address` must be an object: the service's fields")
        delivery = self.delivery
        page = _page(params.navigate, origin) if params.service == "webpush" else None
        delivery.preferences.keep(actor)
        made = delivery.pushes.register(
            actor.key, params.service, params.address, params.level, page
        )
        fields: dict[str, object] = {
            "device": actor.name, "service": made.service, "level": made.level
        }  # fmt: skip
        delivery.record("push/registered", fields)
        delivery.report_recipients()
        return self._endpoint(made)

    def _unregister(self, id: str, actor: Principal) -> wire.Unregistered:
        delivery = self.delivery
        endpoint = delivery.pushes.endpoints.by_id(id)
        owner = actor.key
        if endpoint is not None and "admin" in actor.scopes:
            owner = endpoint.device
        removed = delivery.pushes.unregister(owner, id)
        if removed and endpoint is not None:
            device = delivery.name(owner)
            fields: dict[str, object] = {
                "device": device, "service": endpoint.service, "by": actor.name
            }  # fmt: skip
            delivery.record("push/unregistered", fields)
        delivery.report_recipients()
        return wire.Unregistered(removed)

    def _endpoints(self, actor: Principal, *, everybodys: bool) -> wire.Endpoints:
        if everybodys and "admin" not in actor.scopes:
            raise NoticeRequestError("those of all devices need the scope `admin`")
        pushes = self.delivery.pushes
        endpoints = pushes.endpoints.all() if everybodys else pushes.endpoints.of(actor.key)
        return wire.Endpoints([self._endpoint(each) for each in endpoints], pushes.services())

    def _endpoint(self, endpoint: Endpoint) -> wire.Endpoint:
        return wire.Endpoint(
            id=endpoint.id,
            device=self.delivery.name(endpoint.device),
            service=endpoint.service,
            level=endpoint.level,
            created=endpoint.created,
            said=endpoint.said,
            saidAt=endpoint.said_at,
            navigate=endpoint.navigate,
        )

    # -- a test ------------------------------------------------------------------------------------

    async def test(self, request: AnswerOutside) -> wire.Tested:
        """Send a test push to the device that the request names, or to the actor's own.

        An admin without endpoints who names none tests every device. Raises ``AppmuxError``.
        """
        delivery = self.delivery
        actor = delivery.dispatcher.broker.principal_of(request.client)
        name = _read(request, wire.TryParams).device
        devices = [self._whose(name, actor)]
        if name is None and not delivery.pushes.endpoints.of(actor.key) and "admin" in actor.scopes:
            endpoints = delivery.pushes.endpoints.all()
            devices = list(dict.fromkeys(each.device for each in endpoints)) or devices
        answers = []
        for device in devices:
            for endpoint, words in await delivery.pushes.try_now(device, delivery.test(device)):
                answers.append(
                    wire.Said(
                        endpoint.id,
                        delivery.name(endpoint.device),
                        endpoint.service,
                        endpoint.level,
                        words,
                    )
                )
        return wire.Tested(answers)


def _read(request: AnswerOutside, kind: type[_Params]) -> _Params:
    try:
        return msgspec.json.decode(request.params, type=kind)
    except msgspec.DecodeError as wrong:
        raise NoticeRequestError(f"`{request.method}`: {wrong}") from wrong


def _page(navigate: str | None, origin: str) -> str | None:
    """Return the URL that a tap opens: of the page's own origin alone.

    Raises ``NoticeRequestError``: another place could be made to look like the page.
    """
    if navigate is None:
        return f"{origin}/" if origin else None
    if not origin:
        raise NoticeRequestError("`navigate` is for pages: this client has no origin")
    plain = navigate.isascii() and navigate.isprintable() and not set(navigate) & set(" #\\")
    if not (plain and navigate.startswith(f"{origin}/")):
        raise NoticeRequestError(
            f"`navigate` must be a URL on the page's own origin: {origin}/…, without a fragment"
        )
    return navigate


def _delivery(row: dict[str, Any], device: str, came: dict[str, float]) -> wire.Delivery:
    arrived = None if row["withdraw"] else came.get(str(row["id"]))
    return wire.Delivery(
        device, row["service"], row["withdraw"], row["state"], row["attempts"], row["said"], arrived
    )


def _in_order(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(rows, key=lambda row: float(row["raised"]))
