"""Overrides (``-c key=value``) of the command line of a program that starts ``codex app-server``.

Those that say what its threads may do go to the broker with the upgrade. One that doesn't hold
there, and may be stricter than what holds, ends the program's start: it asked for more care than it
would get. All others are named on stderr, and in ``appmux status``.

Used by ``bridge`` and ``relay``, if there are any.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator
from typing import Final

from mux.core.protocol.threads import overrides
from mux.core.protocol.threads.overrides import HEADER, WORKSPACE
from mux.errors import AppmuxError

NAMED: Final = 24
"""Names of ignored overrides that the broker is told: enough for a status report."""

NAME_CHARACTERS: Final = 60

_PLAIN = re.compile(r"[A-Za-z_:][A-Za-z0-9_:-]*")


class OverrideError(AppmuxError):
    """An override can't be read, or doesn't hold here and may be stricter than what does."""


class DoorOverrides:
    """The overrides of one program: what its door says to the broker, and hears of it.

    ``values`` are the texts of ``-c``, ``ignored`` the flags and keys that say nothing of what a
    thread may do. Raises ``OverrideError``.
    """

    def __init__(self, values: Iterable[str], ignored: Iterable[str] = ()) -> None:
        self.values: dict[str, object] = {}
        """By key of the configuration; the last one counts."""
        self.ignored = list(ignored)
        for text in values:
            key, _, value = text.partition("=")
            if overrides.is_override(key.strip()):
                self.values |= _read(key.strip(), value)
            else:
                self.ignored.append(f"-c {key.strip()}")
        self._told = False

    @property
    def warning(self) -> str:
        """A text for people about what is ignored; empty if nothing is."""
        if not self.ignored:
            return ""
        return (
            f"ignored: {', '.join(self.ignored)}. The app-server is shared by all clients; what is"
            " to hold for it goes into config.toml, then `appmux restart`"
        )

    def header(self) -> bytes:
        """Return the line of the upgrade that tells the broker; empty if there is nothing to tell.

        Raises ``OverrideError``.
        """
        if not self.values and not self.ignored:
            return b""
        shown = [name[:NAME_CHARACTERS] for name in self.ignored[:NAMED]]
        text = json.dumps({"values": self.values, "ignored": shown}, separators=(",", ":"))
        if len(text) > overrides.LONGEST:
            raise OverrideError("the overrides (`-c`) are too long: write them into config.toml")
        return f"{HEADER}: {text}\r\n".encode()

    def answered(self, held: bytes | None) -> str:
        """Return what to tell a person about the broker's answer to ``header``.

        ``held`` is the answer's header, None for a broker that knows no overrides. Empty text: all
        hold, or it was told before. Raises ``OverrideError``.
        """
        holds = (held or b"").decode(errors="replace").split(",")
        missing = {key: value for key, value in self.values.items() if key not in holds}
        strict = [key for key, value in missing.items() if overrides.may_tighten(key, value)]
        reason = (
            "this broker is older than that"
            if held is None
            else "this client may not say it (it lacks the scope `admin`)"
        )
        if strict:
            raise OverrideError(
                f"`{strict[0]}` doesn't hold here: {reason}. Without it a thread might be allowed"
                " more than was asked for, so nothing was started. Leave it out, or write it into"
                " the config.toml of the broker's machine"
            )
        if not missing or self._told:
            return ""
        self._told = True
        return f"ignored: {', '.join(sorted(missing))}: {reason}"


def _read(key: str, text: str) -> dict[str, object]:
    """Return an override by its keys: a table is read as its parts."""
    value = _value(text.strip())
    if key == WORKSPACE:
        if not isinstance(value, dict):
            raise OverrideError(f"`-c {key}`: a table like {{network_access=true}}, not {value!r}")
        found = {f"{key}.{name}": each for name, each in value.items()}
    else:
        found = {key: value}
    try:
        read = {name: overrides.read_value(name, each) for name, each in found.items()}
    except ValueError as error:
        raise OverrideError(f"`-c`: {error}") from error
    return dict(_made_absolute(read))


def _made_absolute(values: dict[str, object]) -> Iterator[tuple[str, object]]:
    """Yield the values with each directory as this process means it: the broker runs elsewhere."""
    for key, value in values.items():
        if key == f"{WORKSPACE}.writable_roots" and isinstance(value, list):
            yield key, [os.path.abspath(root) for root in value]  # noqa: PTH100 (resolves no link)
        else:
            yield key, value


def _value(text: str) -> object:
    """Return the value that codex reads: TOML, or else the text itself."""
    if _PLAIN.fullmatch(text):
        return {"true": True, "false": False}.get(text, text)
    import tomllib  # noqa: PLC0415 (the bridge's start is timed, and few values need it)

    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text.strip("\"'")
