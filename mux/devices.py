"""The device book: who was paired, with which scopes, until when; kept in the state directory.

A device is known by its token's SHA-256 digest alone: the token is shown once, when it is made, and
kept nowhere. A change is on disk before it counts, except that a revocation counts at once. When
and from where a device was last seen is written now and then, as nothing depends on it.

Hands to: ``auth``, the device that a digest stands for; ``access``, the book to list and change.
Hears from: ``access``; ``devices.json`` in the state directory, read once at the start.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import secrets
import unicodedata
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, Final

import attrs
import structlog
from cattrs import BaseValidationError, Converter

from mux import wholefile
from mux.core.extension.devices import Kind
from mux.core.scopes import ALL, Scope
from mux.errors import AppmuxError

FILE: Final = "devices.json"
VERSION: Final = 1
"""Of the file's form. A newer one is refused: it may hold limits that this code would ignore."""

TOKEN_PREFIX: Final = "amx_"
"""Tells a token of ours from others, for a person and for programs that look for leaked secrets."""

TOKEN_BYTES: Final = 32
"""As much as the digest holds."""

ID_BYTES: Final = 8
"""Of a device's own number, which outlives its name. No secret."""

MOST_DEVICES: Final = 256
"""More than one person pairs; the whole book is written at each change."""

LONGEST_NAME: Final = 64
"""Characters; more would break every table."""

RESERVED: Final = frozenset({"local", "capability-token", "jwt", "appmux"})
"""Names by which logs and lists call those who aren't devices."""

EXPIRED_KEPT: Final = 30 * 86_400
"""Seconds for which a device that has expired is still shown."""

SEEN_EVERY: Final = 60.0
"""Seconds between two writes of when a device was last seen: one that comes and goes costs no
more."""


log = structlog.get_logger()


class DeviceError(AppmuxError):
    """A name that is taken or can't be one, a device that isn't there, a book that is full."""


class BookError(AppmuxError):
    """The book can't be read or written; the text says what that means for the devices."""


@attrs.frozen
class Device:
    """One paired device. Times in Unix seconds; ``digest``: SHA-256 of its token, in hex.

    ``expires`` None: never. ``seen``, ``address``: when and from where it was last here.
    """

    id: str
    name: str
    kind: Kind
    scopes: frozenset[Scope]
    made: float
    digest: str = attrs.field(repr=False)
    expires: float | None = None
    seen: float | None = None
    address: str | None = None

    def expired(self, now: float) -> bool:
        """Whether its time is over."""
        return self.expires is not None and self.expires <= now


def digest_of(token: str) -> str:
    """What is kept of a token. Its 256 random bits need no salt and no slow hash."""
    return hashlib.sha256(token.encode()).hexdigest()


def new_token() -> str:
    """A device's secret, in letters that a header and a URI take as they are."""
    return TOKEN_PREFIX + secrets.token_urlsafe(TOKEN_BYTES)


def proper_name(name: str) -> str:
    """The name as it is kept. Raises ``DeviceError``."""
    name = unicodedata.normalize("NFC", " ".join(name.split()))
    if not name or len(name) > LONGEST_NAME or not name.isprintable():
        raise DeviceError(
            f"a device's name has 1 to {LONGEST_NAME} printable characters: choose another"
        )
    if name.casefold() in RESERVED:
        raise DeviceError(f"a device can't be named {name!r}: who isn't a device is called so")
    return name


def printable_name(name: str, otherwise: str = "device") -> str:
    """The nearest proper name to what a device calls itself."""
    shown = "".join(letter if letter.isprintable() else " " for letter in name)
    try:
        return proper_name(" ".join(shown.split())[:LONGEST_NAME].strip())
    except DeviceError:
        return otherwise


# -- the book --------------------------------------------------------------------------------------


@attrs.define(eq=False, repr=False)
class Book:
    """All devices. Made by ``open_book``; one for a broker."""

    path: Path
    clock: Callable[[], float]
    _devices: dict[str, Device] = attrs.field(factory=dict)
    _by_digest: dict[str, Device] = attrs.field(factory=dict, repr=False)
    _unwritten: bool = False
    _seen_written: float = 0.0

    def __iter__(self) -> Iterator[Device]:
        return iter(self._devices.values())

    def by_token(self, token: str) -> Device | None:
        """The device whose token this is, expired or not.

        Looked up by digest: how long that takes tells nothing about any token.
        """
        digest = digest_of(token)
        device = self._by_digest.get(digest)
        if device is None or not hmac.compare_digest(device.digest, digest):
            return None
        return device

    def by_id(self, id: str) -> Device | None:
        """The device with this number, if it is still in the book."""
        return self._devices.get(id)

    def by_name(self, name: str) -> Device:
        """The device of this name, in any letter case. Raises ``DeviceError``."""
        device = self._named(name)
        if device is None:
            raise DeviceError(f"no device is named {name!r}: `appmux devices` lists them all")
        return device

    def _named(self, name: str) -> Device | None:
        wanted = unicodedata.normalize("NFC", " ".join(name.split())).casefold()
        return next((each for each in self if each.name.casefold() == wanted), None)

    def free_name(self, name: str) -> str:
        """The name as it will be kept. Raises ``DeviceError`` if it is no name, or taken."""
        name = proper_name(name)
        holder = self._named(name)
        if holder is not None and not holder.expired(self.clock()):
            raise DeviceError(
                f"the name {holder.name!r} is taken: choose another, or"
                f" `appmux devices revoke {holder.name!r}` first"
            )
        return name

    def name_like(self, name: str, otherwise: str = "device") -> str:
        """A free name like the one that a device proposes: ``phone``, ``phone 2``, …"""
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
    ) -> Device:
        """Enter a device whose token has this digest; ``lifetime`` in seconds.

        Raises ``DeviceError``, or ``BookError`` if it can't be written: then it isn't there.
        """
        now = self.clock()
        name = self.free_name(name)
        if digest in self._by_digest:
            known = self._by_digest[digest].name
            raise DeviceError(f"the device {known!r} has this token already")
        kept = {id: each for id, each in self._devices.items() if not _forgotten(each, now)}
        kept = {id: each for id, each in kept.items() if each.name.casefold() != name.casefold()}
        if len(kept) >= MOST_DEVICES:
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
        )
        self._change({**kept, device.id: device})
        return device

    def rename(self, device: Device, name: str) -> Device:
        """Give it another name. Raises ``DeviceError``, ``BookError``."""
        if proper_name(name).casefold() != device.name.casefold():
            self.free_name(name)
        changed = attrs.evolve(device, name=proper_name(name))
        others = {
            id: each
            for id, each in self._devices.items()
            if id == device.id or each.name.casefold() != changed.name.casefold()
        }
        self._change({**others, device.id: changed})
        return changed

    def limit(self, device: Device, scopes: frozenset[Scope]) -> Device:
        """Give it other scopes. Raises ``BookError``."""
        changed = attrs.evolve(device, scopes=scopes)
        self._change({**self._devices, device.id: changed})
        return changed

    def revoke(self, device: Device) -> None:
        """Strike it out, at once. Raises ``BookError`` if that can't be written."""
        self._set({id: each for id, each in self._devices.items() if id != device.id})
        try:
            self._write(safely=True)
        except OSError as failure:
            raise BookError(
                f"{device.name!r} is shut out, but {self.path} can't be written"
                f" ({failure.strerror}): after a restart it would be let in again. Make room, then"
                " revoke any device"
            ) from failure

    def saw(self, id: str, address: str) -> None:
        """A device came or left."""
        device = self._devices.get(id)
        if device is None:
            return
        now = self.clock()
        self._set({**self._devices, id: attrs.evolve(device, seen=now, address=address)})
        self._unwritten = True
        if abs(now - self._seen_written) >= SEEN_EVERY:
            self._seen_written = now
            self.flush()

    def flush(self) -> None:
        """Write when devices were last seen, if that isn't written yet."""
        if not self._unwritten:
            return
        try:
            self._write(safely=False)
        except OSError as failure:
            log.warning(
                "when devices were seen not written", path=str(self.path), why=failure.strerror
            )

    def _change(self, devices: dict[str, Device]) -> None:
        before = self._devices
        self._set(devices)
        try:
            self._write(safely=True)
        except OSError as failure:
            self._set(before)
            raise BookError(
                f"nothing was changed: {self.path} can't be written ({failure.strerror}): make room"
                " for it, or give appmux another --state-dir"
            ) from failure

    def _set(self, devices: dict[str, Device]) -> None:
        self._devices = devices
        self._by_digest = {each.digest: each for each in devices.values()}

    def _write(self, *, safely: bool) -> None:
        """Replace the file as a whole; ``safely``: it outlives a power cut."""
        text = json.dumps(_converter().unstructure(_File(VERSION, list(self))), indent=2) + "\n"
        wholefile.replace(self.path, text, safely=safely)
        self._unwritten = False


def _forgotten(device: Device, now: float) -> bool:
    return device.expires is not None and device.expires + EXPIRED_KEPT <= now


# -- the file --------------------------------------------------------------------------------------


@attrs.frozen
class _File:
    version: int
    devices: list[Device]


def open_book(state_dir: Path, clock: Callable[[], float]) -> Book:
    """The book of a state directory, empty if there is none yet. Raises ``BookError``."""
    book = Book(state_dir / FILE, clock)
    document = wholefile.read(book.path, VERSION, "a device book", BookError, _unreadable)
    if document is None:
        return book
    try:
        # A checked type first: cattrs takes any iterable for a list.
        _checked(document.get("devices"), list)
        devices = _converter().structure(document, _File).devices
    except (BaseValidationError, ValueError) as failure:
        raise _unreadable(book.path, "an entry in it is damaged") from failure
    book._set({each.id: each for each in devices})
    if len(book._devices) != len(devices) or len(book._by_digest) != len(devices):
        raise _unreadable(book.path, "a device stands in it twice")
    return book


def _unreadable(path: Path, why: str) -> BookError:
    return BookError(
        f"can't read the device book {path}: {why}. Restore it from a backup, or remove it: then"
        " every device must be paired again"
    )


@cache
def _converter() -> Converter:
    converter = Converter(forbid_extra_keys=True)
    scopes: Any = frozenset[Scope]
    converter.register_unstructure_hook_func(lambda kind: kind == scopes, sorted)
    converter.register_structure_hook_func(
        lambda kind: kind == scopes, lambda value, _type: _scopes(value)
    )
    converter.register_structure_hook(str, lambda value, _type: _checked(value, str))
    converter.register_structure_hook(int, lambda value, _type: _checked(value, int))
    converter.register_structure_hook(float, lambda value, _type: _number(value))
    converter.register_structure_hook(float | None, lambda value, _type: _maybe(value, _number))
    return converter


def _checked(value: Any, kind: type) -> Any:
    """The value, which must be of the kind already: cattrs would make ``"None"`` of a null."""
    if type(value) is not kind:
        raise ValueError("of another type")
    return value


def _number(value: Any) -> float:
    if type(value) not in (int, float):
        raise ValueError("no number")
    return float(value)


def _maybe(value: Any, read: Callable[[Any], float]) -> float | None:
    return None if value is None else read(value)


def _scopes(value: Any) -> frozenset[Scope]:
    if not isinstance(value, list) or not value or not set(value) <= ALL:
        raise ValueError("no scopes")
    return frozenset(value)
