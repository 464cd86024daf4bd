"""The device registry: paired devices with their scopes and expiry, in the state directory.

Messages to people call it the device book.

A device is known by its token's SHA-256 digest alone: the token is shown once, when it is made, and
stored nowhere. A change is on disk before it counts. Only a revocation counts at once: if a full
disk doesn't take it, it is written as soon as there is room. When and from where a device was last
seen is written now and then, as nothing depends on it.

``devices.json`` has a copy with the same text, which is always written first. So a damaged file is
restored from its copy, and no revoked device is in there. The files are read once, at the start.

Used by ``requests`` and ``pairing``, and by ``authentication``, which looks tokens up.
"""

from __future__ import annotations

import contextlib
import hmac
import json
import secrets
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import msgspec
import structlog
from msgspec.structs import asdict, replace

from mux.access.device import (
    LONGEST_NAME,
    Device,
    DeviceError,
    digest_of,
    printable_name,
    proper_name,
)
from mux.core.extension.devices import Kind
from mux.core.part import Part, later
from mux.core.protocol.scope import Scope
from mux.errors import AppmuxError
from mux.posix import private_file
from mux.storage import json_file
from mux.storage.small_file import SmallFile

FILE: Final = "devices.json"
COPY: Final = "devices.copy.json"
VERSION: Final = 1
"""Version of the file's form. A newer one is refused: it may hold limits that this code would
ignore."""

ID_BYTES: Final = 8
"""Random bytes of a device's id, which stays when the name changes. It is no secret."""

MOST_DEVICES: Final = 256
"""More than one person pairs. The limit is there because each change writes the whole file."""

EXPIRED_KEPT: Final = 30 * 86_400
"""Seconds for which an expired device is still listed."""

log = structlog.get_logger()


class DeviceRegistryError(AppmuxError):
    """The registry's file can't be read or written; the text says what that means for devices."""


# -- the registry ----------------------------------------------------------------------------------


class DeviceRegistry(Part):
    """All paired devices. Made by ``open_registry``; one for a broker."""

    path: Path
    clock: Callable[[], float]
    _devices: dict[str, Device] = msgspec.field(default_factory=dict)
    _by_digest: dict[str, Device] = msgspec.field(default_factory=dict)
    _shut_out: dict[str, None] = msgspec.field(default_factory=dict)
    """Names of revoked devices that are still in the file."""
    file: SmallFile = later()
    """Its ``trouble``: a revocation isn't on disk yet."""

    def __post_init__(self) -> None:
        copy = self.path.with_name(COPY)
        self.file = SmallFile(self.path, self._text, "the device book", self._back, copy)

    def __iter__(self) -> Iterator[Device]:
        return iter(self._devices.values())

    def by_token(self, token: str) -> Device | None:
        """Find the device with this token, expired or not.

        The look-up goes by digest: its duration tells nothing about any token.
        """
        digest = digest_of(token)
        device = self._by_digest.get(digest)
        if device is None or not hmac.compare_digest(device.digest, digest):
            return None
        return device

    def by_id(self, id: str) -> Device | None:
        """Find the device with this id; None if it was revoked."""
        return self._devices.get(id)

    def by_name(self, name: str) -> Device:
        """Find the device of this name, in any letter case. Raises ``DeviceError``."""
        device = self._named(name)
        if device is None:
            raise DeviceError(f"no device is named {name!r}: `appmux devices` lists them all")
        return device

    def _named(self, name: str) -> Device | None:
        folded = unicodedata.normalize("NFC", " ".join(name.split())).casefold()
        return next((each for each in self if each.name.casefold() == folded), None)

    def free_name(self, name: str) -> str:
        """Return the name as it will be stored. Raises ``DeviceError`` if it can't be used."""
        name = proper_name(name)
        holder = self._named(name)
        if holder is not None and not holder.expired(self.clock()):
            raise DeviceError(
                f"the name {holder.name!r} is taken: choose another, or"
                f" `appmux devices revoke {holder.name!r}` first"
            )
        return name

    def name_like(self, name: str, otherwise: str = "device") -> str:
        """Return a free name like the one that a device proposes: ``phone``, ``phone 2``, …"""
        base, number = printable_name(name, otherwise), 1
        name = base
        while True:
            with contextlib.suppress(DeviceError):
                return self.free_name(name)
            number += 1
            suffix = f" {number}"
            name = base[: LONGEST_NAME - len(suffix)] + suffix

    def add(
        self,
        name: str,
        kind: Kind,
        scopes: frozenset[Scope],
        digest: str,
        lifetime: float | None = None,
        *,
        key: str = "",
    ) -> Device:
        """Add a device whose token has this digest, or whose public ``key`` has.

        ``lifetime`` is in seconds.

        Raises ``DeviceError``, or ``DeviceRegistryError`` if the file can't be written: then the
        device isn't added.
        """
        now = self.clock()
        name = self.free_name(name)
        if digest in self._by_digest:
            known = self._by_digest[digest].name
            what = "key" if key else "token"
            raise DeviceError(f"the device {known!r} has this {what} already")
        devices = {id: each for id, each in self._devices.items() if not _forgotten(each, now)}
        devices = {
            id: each for id, each in devices.items() if each.name.casefold() != name.casefold()
        }
        if len(devices) >= MOST_DEVICES:
            raise DeviceError(
                f"there are {MOST_DEVICES} devices already: `appmux devices revoke` some"
            )
        device = Device(
            id=secrets.token_hex(ID_BYTES),
            name=name,
            kind=kind,
            scopes=scopes,
            made=now,
            digest=digest,
            expires=None if lifetime is None else now + lifetime,
            key=key,
        )
        self._change({**devices, device.id: device})
        return device

    def rename(self, device: Device, name: str) -> Device:
        """Give a device another name. Raises ``DeviceError``, ``DeviceRegistryError``."""
        if proper_name(name).casefold() != device.name.casefold():
            self.free_name(name)
        changed = replace(device, name=proper_name(name))
        others = {
            id: each
            for id, each in self._devices.items()
            if id == device.id or each.name.casefold() != changed.name.casefold()
        }
        self._change({**others, device.id: changed})
        return changed

    def limit(self, device: Device, scopes: frozenset[Scope]) -> Device:
        """Give a device other scopes. Raises ``DeviceRegistryError``."""
        changed = replace(device, scopes=scopes)
        self._change({**self._devices, device.id: changed})
        return changed

    def revoke(self, device: Device) -> None:
        """Remove a device, at once.

        Raises ``DeviceRegistryError`` if that isn't on disk yet; the device is shut out anyway.
        """
        self._set({id: each for id, each in self._devices.items() if id != device.id})
        if self.file.trouble is None:
            self._shut_out.clear()
        self._shut_out[device.name] = None
        try:
            self.file.write()
        except OSError as failure:
            self.file.owe(failure)
            raise DeviceRegistryError(
                f"{device.name!r} is shut out, but {self.file.trouble}"
            ) from failure

    def saw(self, id: str, address: str) -> None:
        """Note when and from where a device connected or left."""
        device = self._devices.get(id)
        if device is not None:
            changed = replace(device, seen=self.clock(), address=address)
            self._set({**self._devices, id: changed})
            self.file.owe_seldom()

    # -- its file ----------------------------------------------------------------------------------

    def _change(self, devices: dict[str, Device]) -> None:
        before = self._devices
        self._set(devices)
        try:
            self.file.write()
        except OSError as failure:
            self._set(before)
            self.file.owe_seldom()  # the change may have got into one of the two files
            raise DeviceRegistryError(
                f"nothing was changed: {self.path} can't be written ({failure.strerror}): make room"
                " for it, or give appmux another --state-dir"
            ) from failure

    def _set(self, devices: dict[str, Device]) -> None:
        self._devices = devices
        self._by_digest = {each.digest: each for each in devices.values()}

    def _text(self) -> str:
        devices = [asdict(device) | {"scopes": sorted(device.scopes)} for device in self]
        for entry in devices:
            if not entry["key"]:  # so that an older version reads a book without browsers
                del entry["key"]
        return json.dumps({"version": VERSION, "devices": devices}, indent=2) + "\n"

    def _back(self) -> str:
        names = ", ".join(repr(name) for name in self._shut_out)
        return f"a restart would let in again who was revoked: {names}"


def _forgotten(device: Device, now: float) -> bool:
    return device.expires is not None and device.expires + EXPIRED_KEPT <= now


# -- the file --------------------------------------------------------------------------------------


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    version: int
    devices: list[Device]


def open_registry(state_dir: Path, clock: Callable[[], float]) -> DeviceRegistry:
    """Read the registry of a state directory; empty if there is no file yet.

    A damaged file is restored from its copy. Raises ``DeviceRegistryError`` if the copy can't be
    read either.
    """
    book = DeviceRegistry(state_dir / FILE, clock)
    try:
        book._set(_read(book.path) or {})
    except _UnreadableBookError as damage:
        if isinstance(damage.__cause__, private_file.UnfitError):
            raise  # something else was put in the file's place: that is no damage
        book._set(_restored(book.path, damage))
    return book


class _UnreadableBookError(DeviceRegistryError):
    """The file is no device registry, of any version."""


def _restored(path: Path, damage: _UnreadableBookError) -> dict[str, Device]:
    """Return the devices of a damaged file's copy, and put the copy's text in the file's place."""
    copy = path.with_name(COPY)
    try:
        devices = _read(copy)
    except DeviceRegistryError as failure:
        raise DeviceRegistryError(f"{damage}. Its copy is of no use, too: {failure}") from failure
    if devices is None:
        raise damage
    try:
        text = private_file.read(copy).decode()
        json_file.set_aside(path, f"nothing is lost: {copy} holds the same", text)
    except OSError as failure:
        log.warning("the device book isn't mended", path=str(path), why=failure.strerror)
    return devices


def _read(path: Path) -> dict[str, Device] | None:
    document = json_file.read(path, VERSION, "a device book", DeviceRegistryError, _unreadable)
    if document is None:
        return None
    try:
        devices = msgspec.convert(document, _File).devices
    except msgspec.ValidationError as failure:
        raise _unreadable(path, "an entry in it is damaged") from failure
    if not all(device.scopes for device in devices):
        raise _unreadable(path, "an entry in it is damaged")
    ids, digests = {each.id for each in devices}, {each.digest for each in devices}
    if not len(ids) == len(digests) == len(devices):
        raise _unreadable(path, "a device stands in it twice")
    return {each.id: each for each in devices}


def _unreadable(path: Path, reason: str) -> _UnreadableBookError:
    return _UnreadableBookError(
        f"can't read the device book {path}: {reason}. Restore it from a backup, or remove it: then"
        " every device must be paired again"
    )
