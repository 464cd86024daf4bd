"""All that the core can say, in the imperative.

Made in ``broker``; carried out by ``dispatcher``, in order, without awaiting.
One command a message, whatever the number of recipients.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from mux.core.events import ClientId

Level = Literal["debug", "info", "warning", "error"]


class Command(msgspec.Struct, frozen=True):
    """Something to do. Subclasses say what."""


class Publish(Command, frozen=True):
    """Put ``message`` (one JSON text) into the outbox of every recipient, framed once.

    ``method`` is for the log: the message's own, or that of the request it answers.
    """

    message: bytes
    recipients: tuple[ClientId, ...]
    method: str


class Forward(Command, frozen=True):
    """Write ``line`` (one JSON text, no line end in it) to the app-server's stdin."""

    line: bytes
    method: str


class Report(Command, frozen=True):
    """Answer a ``mux/status`` request: the shell adds what only it knows (pid, bytes owed)."""

    client: ClientId
    origin: bytes


class Close(Command, frozen=True):
    """Close one client's connection with a WebSocket code and a reason (at most 123 bytes)."""

    client: ClientId
    code: int
    reason: str


class GiveUp(Command, frozen=True):
    """The app-server can't be used (it refused ``initialize``): end it, with this reason."""

    reason: str


class Log(Command, frozen=True):
    """Tell the operator. ``fields`` never hold params, results or secrets."""

    level: Level
    event: str
    fields: dict[str, object]
