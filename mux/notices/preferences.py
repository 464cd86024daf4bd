"""Notification preferences: each device's rules, kept in the state directory.

The core knows no time of day. So the rules are evaluated against the clock here: quiet hours in
force become an off, others an on, and a snooze that has run out is dropped.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

import msgspec

from mux.core.extension.notices import RuleSet
from mux.core.part import Part, later
from mux.core.policy.notice import KINDS, Rule
from mux.core.policy.principal import Principal
from mux.core.protocol.scope import Scope
from mux.errors import AppmuxError
from mux.storage import json_file
from mux.storage.json_file import DamagedError
from mux.storage.small_file import SmallFile

FILE: Final = "notices.json"
VERSION: Final = 1

MOST_RULES: Final = 256
"""Most rules of one device: a hundred threads, each with a rule or two."""

MOST_DEVICES: Final = 512
LONGEST_SNOOZE: Final = 366 * 86_400.0
"""Seconds. For a longer time, a device sets the rule off."""

_HOUR = re.compile(r"([01]\d|2[0-3]):[0-5]\d")
_HOURS = re.compile(r"(?P<start>\d\d:\d\d)-(?P<end>\d\d:\d\d)")


class PreferenceError(AppmuxError):
    """Rules that can't be used, or can't be saved."""


class Preference(msgspec.Struct):
    """The preferences of one device."""

    name: str
    """The name of a device that isn't in the device registry (a capability token's)."""
    scopes: list[Scope]
    """The scopes of such a device."""
    rules: list[RuleSet] = []


class _File(msgspec.Struct):
    version: int
    devices: dict[str, Preference]


class NoticePreferences(Part):
    """The preferences of all devices, by device key."""

    path: Path
    clock: Callable[[], float]
    default: list[RuleSet] = msgspec.field(default_factory=list)
    """The host's rules, which rank below each device's own."""
    _devices: dict[str, Preference] = msgspec.field(default_factory=dict)
    file: SmallFile = later()
    """Its ``trouble``: the rules of a device that was revoked still stand in it."""

    def __post_init__(self) -> None:
        self.file = SmallFile(self.path, self._text, "the list of wishes", _back)

    def of(self, device: str) -> list[RuleSet]:
        """Return a device's own rules that haven't run out."""
        preference = self._devices.get(device)
        now = self.clock()
        rules = preference.rules if preference is not None else []
        return [each for each in rules if each.until is None or each.until > now]

    def now(self, device: str) -> tuple[Rule, ...]:
        """Return the rules of a device as they are at this moment, the host's first."""
        now = self.clock()
        return tuple(_at(each, now) for each in [*self.default, *self.of(device)])

    def known(self, device: str) -> Preference | None:
        """Return the preferences of a device, or None."""
        return self._devices.get(device)

    def keep(self, principal: Principal) -> None:
        """Save name and scopes of a principal that gets push. Raises ``PreferenceError``."""
        before = self._devices.get(principal.key)
        preference = Preference(
            principal.name, sorted(principal.scopes), before.rules if before else []
        )
        if preference != before:
            self._change(principal.key, preference)

    def set(self, device: str, rules: list[RuleSet]) -> None:
        """Replace the rules of a device. Raises ``PreferenceError``."""
        if len(rules) > MOST_RULES:
            raise PreferenceError(f"at most {MOST_RULES} rules a device")
        for rule in rules:
            check(rule)
        before = self._devices.get(device, Preference("", []))
        self._change(device, Preference(before.name, before.scopes, rules))

    def snooze(self, device: str, seconds: float, thread: str | None, kind: str | None) -> None:
        """Turn notices of a thread or kind off for ``seconds``; 0 ends it.

        Raises ``PreferenceError``.
        """
        if not 0 <= seconds <= LONGEST_SNOOZE:
            raise PreferenceError("`seconds` must be from 0 to a year's")
        rules = [
            each
            for each in self.of(device)
            if each.until is None or (each.threadId, each.kind) != (thread, kind)
        ]
        if seconds:
            until = self.clock() + seconds
            rules.append(msgspec.convert(
                {"mode": "off", "threadId": thread, "kind": kind, "until": until}, RuleSet
            ))  # fmt: skip
        self.set(device, rules)

    def forget(self, device: str) -> None:
        """Drop the rules of a revoked device; the file follows as soon as the disk takes it."""
        if self._devices.pop(device, None) is not None:
            self.file.owe()

    # -- their file --------------------------------------------------------------------------------

    def _change(self, device: str, preference: Preference) -> None:
        before = self._devices
        devices = {**before, device: preference}
        if len(devices) > MOST_DEVICES:
            raise PreferenceError(f"wishes of {MOST_DEVICES} devices are kept already")
        self._devices = devices
        try:
            self.file.write()
        except OSError as failure:
            self._devices = before
            self.file.owe_seldom()  # the file may have got the new text
            raise PreferenceError(
                f"nothing was changed: {self.path} can't be written ({failure.strerror}): make room"
                " for it"
            ) from failure

    def _text(self) -> str:
        return msgspec.json.encode(_File(VERSION, self._devices)).decode()


def _back() -> str:
    return "the wishes of devices that were revoked stay in it"


def open_preferences(
    state_dir: Path, clock: Callable[[], float], quiet: str = "", off: Iterable[str] = ()
) -> NoticePreferences:
    """Open the preferences of a state directory.

    ``quiet`` (HH:MM-HH:MM) and ``off`` (kinds) are the host's settings. A damaged file is set
    aside, and a new one begun. Raises ``PreferenceError`` if the file can't be read, if a newer
    appmux wrote it, or if a setting is wrong.
    """
    opened = NoticePreferences(state_dir / FILE, clock, _default(quiet, off))
    try:
        opened._devices = _read(opened.path)
    except PreferenceError as failure:
        if not isinstance(failure.__cause__, DamagedError):
            raise
        try:
            json_file.set_aside(opened.path, "each device is told of everything")
        except OSError:
            raise failure from None
    return opened


def _read(path: Path) -> dict[str, Preference]:
    document = json_file.read(path, VERSION, "a list of wishes", PreferenceError, _unreadable)
    if document is None:
        return {}
    try:
        return msgspec.convert(document, _File).devices
    except msgspec.ValidationError as failure:
        raise _unreadable(path, str(failure)) from DamagedError(failure)


def _unreadable(path: Path, reason: str) -> PreferenceError:
    return PreferenceError(
        f"can't read what devices want to be told of, {path}: {reason}. Restore it from a backup,"
        " or remove it: then each is told of everything"
    )


def _default(quiet: str, off: Iterable[str]) -> list[RuleSet]:
    rules = []
    if quiet:
        hours = _HOURS.fullmatch(quiet)
        if hours is None:
            raise PreferenceError(f'notices.quiet must be like "22:00-07:00", not {quiet!r}')
        rules.append(RuleSet("quiet", start=hours["start"], end=hours["end"]))
    for kind in off:
        if kind not in KINDS:
            raise PreferenceError(f"notices.off: no kind is called {kind!r}: {', '.join(KINDS)}")
        rules.append(msgspec.convert({"mode": "off", "kind": kind}, RuleSet))
    for rule in rules:
        check(rule)
    return rules


def check(rule: RuleSet) -> None:
    """Check a rule. Raises ``PreferenceError``, which says what is wrong with it."""
    if rule.mode != "quiet":
        return
    for name, hour in (("start", rule.start), ("end", rule.end)):
        if hour is None or not _HOUR.fullmatch(hour):
            raise PreferenceError(f"quiet hours want `{name}` as HH:MM, not {hour!r}")
    if rule.timeZone is not None:
        _zone(rule.timeZone)


def _zone(name: str) -> datetime.tzinfo:
    import zoneinfo  # noqa: PLC0415 (for those few who name one)

    try:
        return zoneinfo.ZoneInfo(name)
    except (OSError, ValueError, zoneinfo.ZoneInfoNotFoundError):
        raise PreferenceError(f"no time zone is called {name!r}; as Europe/Vienna") from None


def _at(rule: RuleSet, now: float) -> Rule:
    if rule.mode == "quiet":
        return Rule(not _is_quiet(rule, now), "quiet hours", rule.threadId, rule.kind)
    reason = "off" if rule.until is None else "snoozed"
    return Rule(rule.mode == "on", reason, rule.threadId, rule.kind)


def _is_quiet(rule: RuleSet, now: float) -> bool:
    zone = None if rule.timeZone is None else _zone(rule.timeZone)
    at = datetime.datetime.fromtimestamp(now, zone).strftime("%H:%M")
    start, end = rule.start or "", rule.end or ""
    if start <= end:
        return start <= at < end
    return at >= start or at < end
