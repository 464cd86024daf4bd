"""The endpoints that devices have registered, kept in the state directory (``push.json``).

An address is as good as a secret: whoever has it may push to the device. So the file's mode is
0600, and no address stands in a log, a list or an error.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, Literal, get_args
from urllib.parse import urlsplit

import msgspec
from msgspec.structs import asdict, replace

from mux.config import model
from mux.config.model import ContentLevel
from mux.core.part import Part, later
from mux.push.message import PushError
from mux.storage import json_file
from mux.storage.json_file import DamagedError
from mux.storage.small_file import SmallFile

FILE: Final = "push.json"
VERSION: Final = 1
"""The version of the file's format. A newer one is refused: it may hold limits that this code would
ignore."""

ID_BYTES: Final = 8

MOST_OF_A_DEVICE: Final = 8
"""Most endpoints of one device. A phone has one or two, a browser one for each profile."""

MOST: Final = 512
"""Most endpoints in all; the whole file is written at each change."""

HOST: Final = "host"
"""The device that stands for the host itself; its endpoints are those of the settings (webhook,
command, topic)."""

Service = Literal["apns", "fcm", "webpush", "unifiedpush", "ntfy", "webhook", "exec"]

SERVICES: Final[tuple[Service, ...]] = get_args(Service)

APPLE: Final = ".push.apple.com"
"""Apple's push services for pages."""

WITH_OWN_TOKEN: Final = frozenset({"apns", "fcm", "webpush", "unifiedpush"})
"""Services whose addresses stand for one installation of an app: whoever registers such an address
owns it."""


class Endpoint(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A place where a device is reached."""

    id: str
    device: str
    """The device's key."""
    service: Service
    address: Mapping[str, str]
    """The fields by which the service finds the device (see ``addresses``)."""
    level: ContentLevel
    created: float
    """Unix seconds."""
    navigate: str | None = None
    """The page that a tap opens, if a page registered it: its origin, and a path."""
    said: str | None = None
    """The last outcome in words; None before the first."""
    said_at: float | None = None
    """When that was, in Unix seconds."""

    def __repr__(self) -> str:
        """Name the endpoint without its address, which is as good as a secret."""
        return f"Endpoint({self.id!r}, {self.device!r}, {self.service!r})"

    @property
    def shows_all(self) -> bool:
        """Return whether each push must show something: Apple's devices withdraw the permission of
        a page whose pushes don't."""
        host = urlsplit(self.address.get("endpoint", "")).hostname or ""
        return self.service == "webpush" and f".{host}".endswith(APPLE)

    def to_json(self) -> dict[str, Any]:
        """Return the fields for a list: all but the address."""
        return {
            "id": self.id,
            "device": self.device,
            "service": self.service,
            "level": self.level,
            "created": self.created,
            "said": self.said,
            "saidAt": self.said_at,
        }


class Endpoints(Part):
    """All endpoints of one broker. Made by ``open_endpoints``."""

    path: Path
    clock: Callable[[], float]
    configured: tuple[Endpoint, ...] = ()
    """The endpoints of the settings; they are listed, but can't be added or removed."""
    _registered: dict[str, Endpoint] = msgspec.field(default_factory=dict)
    file: SmallFile = later()
    """Its ``trouble``: an endpoint that was removed still stands in it."""

    def __post_init__(self) -> None:
        self.file = SmallFile(self.path, self._text, "the list of push registrations", _back)

    def all(self) -> list[Endpoint]:
        """Return every endpoint, those of the settings first."""
        return [*self.configured, *self._registered.values()]

    def of(self, device: str) -> list[Endpoint]:
        """Return the endpoints of one device."""
        return [each for each in self.all() if each.device == device]

    def by_id(self, id: str) -> Endpoint | None:
        """Return the endpoint with this id, or None."""
        return next((each for each in self.all() if each.id == id), None)

    def add(
        self,
        device: str,
        service: Service,
        address: Mapping[str, str],
        level: ContentLevel,
        navigate: str | None = None,
    ) -> Endpoint:
        """Register an endpoint, whose address was checked. A known one keeps its id.

        An address that stands for one app leaves the device that had it, as the app was paired
        anew. Raises ``PushError`` if there are too many, or if the file can't be written: then
        nothing was changed.
        """
        known = next((each for each in self.of(device) if _same(each, service, address)), None)
        endpoints = {
            id: each
            for id, each in self._registered.items()
            if not (service in WITH_OWN_TOKEN and _same(each, service, address))
        }
        if known is None:
            if sum(each.device == device for each in endpoints.values()) >= MOST_OF_A_DEVICE:
                raise PushError(
                    f"this device has {MOST_OF_A_DEVICE} push registrations already: remove one"
                    " first (`mux/push/unregister`)"
                )
            if len(endpoints) >= MOST:
                raise PushError(
                    f"there are {MOST} push registrations already: revoke devices that are gone"
                )
        made = Endpoint(
            id=known.id if known else secrets.token_hex(ID_BYTES),
            device=device,
            service=service,
            address=dict(address),
            level=level,
            created=known.created if known else self.clock(),
            navigate=navigate,
        )
        self._change({**endpoints, made.id: made})
        return made

    def remove(self, id: str) -> bool:
        """Remove an endpoint, and return whether it was there.

        Raises ``PushError`` if the file can't be written.
        """
        if id not in self._registered:
            return False
        self._change({key: each for key, each in self._registered.items() if key != id})
        return True

    def forget(self, device: str) -> None:
        """Remove all endpoints of a device at once; the file follows as soon as the disk takes
        it."""
        left = {id: each for id, each in self._registered.items() if each.device != device}
        if len(left) != len(self._registered):
            self._registered = left
            self.file.owe()

    def gone(self, id: str) -> None:
        """Remove an endpoint of which the service said that it is gone. Written as in `forget`."""
        if self._registered.pop(id, None):
            self.file.owe()

    def note(self, id: str, outcome: str) -> None:
        """Store what a service said. Written some time later, as nothing depends on it."""
        now = self.clock()
        if id in self._registered:
            self._registered[id] = replace(self._registered[id], said=outcome, said_at=now)
            self.file.owe_seldom()
        self.configured = tuple(
            replace(each, said=outcome, said_at=now) if each.id == id else each
            for each in self.configured
        )

    # -- its file ----------------------------------------------------------------------------------

    def _change(self, registered: dict[str, Endpoint]) -> None:
        before, self._registered = self._registered, registered
        try:
            self.file.write()
        except OSError as failure:
            self._registered = before
            self.file.owe_seldom()  # the file may have got the new text
            raise PushError(
                f"nothing was changed: {self.path} can't be written ({failure.strerror}): make room"
                " for it"
            ) from failure

    def _text(self) -> str:
        endpoints = [asdict(endpoint) for endpoint in self._registered.values()]
        for entry in endpoints:
            if entry["navigate"] is None:  # so that a version before reads the file, if it can
                del entry["navigate"]
        return json.dumps({"version": VERSION, "endpoints": endpoints}, indent=2) + "\n"


def configured(settings: model.Push, now: float) -> tuple[Endpoint, ...]:
    """Return the host's own endpoints, which its settings name."""
    endpoints = []
    ntfy = settings.ntfy
    if ntfy.server and ntfy.topic:
        address = {"server": ntfy.server.rstrip("/"), "topic": ntfy.topic}
        endpoints.append(Endpoint("host-ntfy", HOST, "ntfy", address, ntfy.level, now))
    if settings.webhook.url:
        endpoints.append(Endpoint("host-webhook", HOST, "webhook", {}, settings.webhook.level, now))
    if settings.exec.command:
        endpoints.append(Endpoint("host-exec", HOST, "exec", {}, settings.exec.level, now))
    return tuple(endpoints)


def _back() -> str:
    return "the addresses of devices that were revoked or are gone stay in it"


def _same(endpoint: Endpoint, service: Service, address: Mapping[str, str]) -> bool:
    """Return whether the address is that of the endpoint. For Web Push the keys may differ."""
    place = "endpoint" if "endpoint" in address else "token"
    if service == "ntfy":
        names = ("server", "topic")
        return endpoint.service == service and all(
            endpoint.address.get(name) == address.get(name) for name in names
        )
    return endpoint.service == service and endpoint.address.get(place) == address.get(place)


# -- the file --------------------------------------------------------------------------------------


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    version: int
    endpoints: list[Endpoint]


def open_endpoints(
    state_dir: Path, clock: Callable[[], float], configured: tuple[Endpoint, ...] = ()
) -> Endpoints:
    """Open the endpoints of a state directory. A damaged file is set aside, and a new one begun.

    Raises ``PushError`` if the file can't be read, or if a newer appmux wrote it.
    """
    opened = Endpoints(state_dir / FILE, clock, configured)
    try:
        endpoints = _read(opened.path)
    except PushError as failure:
        if not isinstance(failure.__cause__, DamagedError):
            raise
        try:
            json_file.set_aside(opened.path, "apps register again when they next connect")
        except OSError:
            raise failure from None
        return opened
    opened._registered = {each.id: each for each in endpoints}
    return opened


def _read(path: Path) -> list[Endpoint]:
    document = json_file.read(path, VERSION, "a list of registrations", PushError, _unreadable)
    if document is None:
        return []
    try:
        return msgspec.convert(document, _File).endpoints
    except msgspec.ValidationError as failure:
        raise _unreadable(path, "an entry in it is damaged") from DamagedError(failure)


def _unreadable(path: Path, reason: str) -> PushError:
    return PushError(
        f"can't read the push registrations {path}: {reason}. Restore it from a backup, or remove"
        " it: apps register again when they next connect"
    )
