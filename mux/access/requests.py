"""Answers ``mux/pairing/*`` and ``mux/devices/*``, and applies changes to live connections.

A change of the registry counts at once: a device that is revoked, or gets other scopes, loses its
connections (4401); a renamed device keeps them. Nobody can grant a scope that it hasn't itself.

Used by ``server``, for the requests, and by ``dispatcher`` as its ``ConnectionWatcher``.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterable
from typing import Final, TypeVar

import msgspec
from msgspec import structs

from mux.access.browser_pairing import BrowserPairing
from mux.access.device import Device, DeviceError, digest_of, new_token
from mux.access.devices import DeviceRegistry
from mux.access.pairing import TICKET_SECONDS, Pairing
from mux.access.sessions import Sessions
from mux.access.tickets import DeviceGrant
from mux.config.addresses import host_of
from mux.core.commands import AnswerOutside
from mux.core.events import ClientAccessEnded, DeviceAccessEnded, DeviceRenamed
from mux.core.extension.devices import (
    Added,
    AddParams,
    BeginParams,
    Begun,
    Confirm,
    Devices,
    DeviceShown,
    Grant,
    Limited,
    Named,
    RenameParams,
    Revoked,
    ScopeParams,
)
from mux.core.extension.parts import Done
from mux.core.extension.sessions import ShortToken
from mux.core.part import Part, later
from mux.core.policy.principal import ClientId, Principal
from mux.core.protocol.scope import Scope
from mux.dispatch.dispatcher import Dispatcher
from mux.dispatch.shells import DEFERRED
from mux.errors import AppmuxError

LONGEST_LIFETIME: Final = 10 * 366 * 86_400.0
"""Seconds: ten years. A longer lifetime is a mistake in the unit, or means never."""

REVOKED: Final = "this device was revoked"
CHANGED: Final = "this device has other scopes now; reconnect"

_SHA256_HEX: Final = re.compile(r"[0-9a-f]{64}")


class DeviceRequestError(AppmuxError):
    """A request about devices that is refused."""


_Params = TypeVar("_Params")


class DeviceRequests(Part):
    """Answers the requests about devices, and knows the devices' connections."""

    registry: DeviceRegistry
    dispatcher: Dispatcher
    open_door: bool
    """True if WebSocket listeners accept clients without a token."""
    record: Callable[[str, dict[str, object]], None]
    """``record(kind, fields)`` puts a change into the audit log."""
    changed: Callable[[], None]
    """Called when a device connects, leaves, or gets another name or other scopes."""
    revoked: Callable[[str], None]
    """Called with the id of a device that was revoked."""
    origins: Callable[[], Iterable[str]] = tuple
    """Returns the page's origins by name: ``web.origins``, and the Tailnet's."""
    pairing: Pairing = later()
    browsers: BrowserPairing = later()
    sessions: Sessions = later()
    _live: dict[ClientId, tuple[str, str]] = msgspec.field(default_factory=dict)
    """The id and the host of the device behind each connection of a device."""

    def __post_init__(self) -> None:
        self.pairing = Pairing(
            self.registry, self.dispatcher.notify, self.record, self._make_room_for
        )
        self.browsers = BrowserPairing(self.pairing)
        self.sessions = Sessions(self.registry)

    # -- connections -------------------------------------------------------------------------------

    def came(self, client: ClientId, principal: Principal, peer: str) -> None:
        """Check a client that has attached: its device may have changed since it authenticated."""
        if not principal.device:
            return
        device = self.registry.by_id(principal.device)
        if device is None:
            self.dispatcher.handle(ClientAccessEnded(client, REVOKED))
        elif device.scopes != principal.scopes:
            self.dispatcher.handle(ClientAccessEnded(client, CHANGED))
        else:
            address = host_of(peer)
            self._live[client] = (device.id, address)
            self.registry.saw(device.id, address)
            if device.name != principal.name:
                self._rename(client, device)
            self.changed()

    def left(self, client: ClientId) -> None:
        """Forget a client whose connection is gone, and call off its pairings."""
        self.pairing.called_off(client)
        device, address = self._live.pop(client, ("", ""))
        self.registry.saw(device, address)
        if device:
            self.changed()

    def still(self, principal: Principal) -> bool:
        """Return whether a principal has what it had when it authenticated."""
        if principal.expires_at is not None and principal.expires_at <= self.registry.clock():
            return False
        if not principal.device:
            return True
        device = self.registry.by_id(principal.device)
        return device is not None and device.scopes == principal.scopes

    def _clients_of(self, device: Device) -> list[ClientId]:
        return [client for client, (id, _) in self._live.items() if id == device.id]

    def _end(self, device: Device, reason: str) -> int:
        """Close the device's connections. Return how many there were."""
        clients = self._clients_of(device)
        for client in clients:
            self.dispatcher.handle(ClientAccessEnded(client, reason))
        self.dispatcher.handle(DeviceAccessEnded(device.id))
        return len(clients)

    def _rename(self, client: ClientId, device: Device) -> None:
        before = self.dispatcher.broker.principal_of(client)
        self.dispatcher.handle(DeviceRenamed(client, structs.replace(before, name=device.name)))

    # -- requests ----------------------------------------------------------------------------------

    def answer(self, request: AnswerOutside) -> object:
        """Return the result of a request about devices. Raises ``AppmuxError``."""
        actor = self.dispatcher.broker.principal_of(request.client)
        match request.method:
            case "mux/pairing/begin":
                return self._begin(request.client, actor, _read(request, BeginParams))
            case "mux/pairing/confirm":
                word = _read(request, Confirm)
                self.pairing.confirm(request.client, word.id, accept=word.accept)
                return Done()
            case "mux/devices/list":
                return Devices([self._shown(each, actor) for each in self.registry])
            case "mux/devices/add":
                return self._add(actor, _read(request, AddParams))
            case "mux/devices/revoke":
                return self._revoke(actor, _read(request, Named).name)
            case "mux/devices/rename":
                return self._renamed(actor, _read(request, RenameParams))
            case "mux/devices/scope":
                return self._limit(actor, _read(request, ScopeParams))
            case _:
                return self._answer_session(request, actor)

    def _begin(self, client: ClientId, actor: Principal, params: BeginParams) -> Begun:
        scopes, lifetime = _granted(params, actor), _lifetime(params)
        grant = DeviceGrant(params.kind, scopes, params.name, lifetime, actor.name, params.replaces)
        lasts = params.ticket_seconds
        if not 0 < lasts <= TICKET_SECONDS:
            raise DeviceRequestError(f"a ticket lasts {TICKET_SECONDS:.0f} s at most")
        ticket, text = self.pairing.begin(client, grant, lasts)
        letters = self.browsers.letters.make(ticket) if params.letters else msgspec.UNSET
        return Begun(ticket.id, text, lasts, self.open_door, list(self.origins()), letters)

    def _make_room_for(self, name: str) -> None:
        """Revoke the device whose place another takes; called when that one has come."""
        with contextlib.suppress(DeviceError):
            self._shut_out(self.registry.by_name(name))

    # -- sessions ----------------------------------------------------------------------------------

    def _answer_session(self, request: AnswerOutside, actor: Principal) -> object:
        match request.method:
            case "mux/session/token":
                return self._token(actor)
            case "mux/session/end":
                return self._sign_out(request, actor)
            case "mux/session/prove":
                raise DeviceRequestError("a browser proves who it is once, by its first message")
            case _:
                raise DeviceRequestError(f"nobody here answers `{request.method}`")

    def _token(self, actor: Principal) -> ShortToken:
        device = self.registry.by_id(actor.device)
        if device is None or not device.key:
            raise DeviceRequestError(
                "only a browser's session has tokens: you have one of your own"
            )
        return self.sessions.token_for(device.id)

    def _sign_out(self, request: AnswerOutside, actor: Principal) -> object:
        if self.registry.by_id(actor.device) is None:
            raise DeviceRequestError("only a paired device can end itself: you aren't one")
        # The answer first: the end closes the connection that it goes to.
        self.dispatcher.answered(request, Done())
        self.sign_out(actor)
        return DEFERRED

    def sign_out(self, actor: Principal) -> None:
        """Revoke a device by its own wish. Raises ``DeviceRegistryError``."""
        device = self.registry.by_id(actor.device)
        if device is not None:
            try:
                self._shut_out(device)
            finally:
                self._record("device/left", device, actor)

    def _add(self, actor: Principal, params: AddParams) -> Added:
        """Add a device without pairing.

        Its token is made here and shown once, unless the request brings the digest of one.
        """
        scopes, lifetime = _granted(params, actor), _lifetime(params)
        digest, token = params.token_sha256, ""
        if digest is None:
            token = new_token()
            digest = digest_of(token)
        elif not _SHA256_HEX.fullmatch(digest):
            raise DeviceRequestError("tokenSha256 must be 64 hex digits in lower case")
        name = params.name or self.registry.name_like(params.kind)
        device = self.registry.add(name, params.kind, scopes, digest, lifetime)
        self._record("device/added", device, actor)
        return Added(**structs.asdict(self._shown(device)), token=token or msgspec.UNSET)

    def _revoke(self, actor: Principal, name: str) -> Revoked:
        device = self.registry.by_name(name)
        try:
            closed = self._shut_out(device)
        finally:
            self._record("device/revoked", device, actor)
        return Revoked(device.name, closed)

    def _shut_out(self, device: Device) -> int:
        """Revoke a device and close its connections. Return how many there were."""
        try:
            self.registry.revoke(device)
        finally:
            closed = self._end(device, REVOKED)
            self.revoked(device.id)
        return closed

    def _renamed(self, actor: Principal, params: RenameParams) -> DeviceShown:
        before = self.registry.by_name(params.name)
        device = self.registry.rename(before, params.to)
        for client in self._clients_of(device):
            self._rename(client, device)
        self._record("device/renamed", device, actor, was=before.name)
        self.changed()
        return self._shown(device)

    def _limit(self, actor: Principal, params: ScopeParams) -> Limited:
        before, scopes = self.registry.by_name(params.name), frozenset(params.scopes)
        _refuse_more_than_held(scopes - before.scopes, actor)
        if not scopes:
            raise DeviceError("a device needs a scope; to shut it out, `appmux devices revoke` it")
        device = self.registry.limit(before, scopes)
        closed = self._end(device, CHANGED) if scopes != before.scopes else 0
        self._record("device/limited", device, actor, had=sorted(before.scopes))
        self.changed()
        return Limited(**structs.asdict(self._shown(device)), closed=closed)

    def _shown(self, device: Device, actor: Principal | None = None) -> DeviceShown:
        return DeviceShown(
            name=device.name,
            kind=device.kind,
            scopes=sorted(device.scopes),
            made_at=device.made,
            expires_at=device.expires,
            expired=device.expired(self.registry.clock()),
            seen_at=device.seen,
            address=device.address,
            attached=len(self._clients_of(device)),
            proof="key" if device.key else "token",
            own=actor is not None and actor.device == device.id,
        )

    def _record(self, kind: str, device: Device, actor: Principal, **more: object) -> None:
        fields = {"device": device.name, "scopes": sorted(device.scopes), "by": actor.name, **more}
        self.record(kind, fields)


def _read(request: AnswerOutside, kind: type[_Params]) -> _Params:
    try:
        return msgspec.json.decode(request.params, type=kind)
    except msgspec.DecodeError as wrong:
        raise DeviceRequestError(f"`{request.method}`: {wrong}") from wrong


def _granted(grant: Grant, actor: Principal) -> frozenset[Scope]:
    scopes = frozenset(grant.scopes)
    if not scopes:
        raise DeviceRequestError("grant at least one scope")
    _refuse_more_than_held(scopes, actor)
    return scopes


def _refuse_more_than_held(scopes: frozenset[Scope], actor: Principal) -> None:
    more = scopes - actor.scopes
    if more:
        raise DeviceRequestError(
            f"you can't grant what you haven't yourself: {', '.join(sorted(more))}"
        )


def _lifetime(grant: Grant) -> float | None:
    seconds = grant.lifetime_seconds
    if seconds is not None and not 0 < seconds <= LONGEST_LIFETIME:
        raise DeviceRequestError(
            "a device lasts for more than 0 s and at most 10 years; leave it out for ever"
        )
    return seconds
