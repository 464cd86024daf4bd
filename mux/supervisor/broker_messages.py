"""The broker's messages, as far as the supervisor acts on what stands in them.

A broker may be of another version, or be going wrong. What it says mustn't end the supervisor, with
which the app-server and everybody's turns end: a message that can't be acted on is dropped.

Used by ``supervisor``.
"""

from __future__ import annotations

import math
import signal
from collections.abc import Callable, Mapping
from typing import Any, Final

from mux.supervisor.channel import MOST_LISTENERS, Message

LONGEST_WAIT: Final = 366 * 24 * 3600
"""Most seconds of ``orphanWait``: far more than may be configured, and what a poll can wait for."""


def flaw(message: Message, descriptors: list[int]) -> str | None:
    """Return which field of a message can't be acted on; None if the message is sound."""
    said = message.get("say")
    fields = _FIELDS.get(said, {}) if isinstance(said, str) else {}
    for name, fits in fields.items():
        if not fits(message.get(name)):
            return name
    if said == "listeners":
        # Fewer come along where the process has as many open as it may.
        all_came = len(message["asked"]) == len(descriptors)
        return None if all_came and len(descriptors) <= MOST_LISTENERS else "descriptors"
    return None


def _is_command(value: Any) -> bool:
    return _are_texts(value) and bool(value)


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(each, str) for each in value)


def _is_environment(value: Any) -> bool:
    return isinstance(value, dict) and _are_texts(list(value.values()))


def _is_signal(value: Any) -> bool:
    return type(value) is int and value in signal.valid_signals()


def _is_wait(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value) and 0 <= value <= LONGEST_WAIT


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


_FIELDS: Final[Mapping[str, Mapping[str, Callable[[Any], bool]]]] = {
    "start": {"command": _is_command, "environ": _is_environment},
    "signal": {"number": _is_signal},
    "listeners": {"asked": _are_texts},
    "serving": {"orphanWait": _is_wait},
    "notify": {"state": _is_text},
}
