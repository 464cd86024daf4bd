"""The app-server's protocol state, as the broker sees it over its one connection.

    STARTING ──UpstreamStarted──▶ INITIALIZING ──answer──▶ RESUMING ──threads loaded──▶ READY
        ▲
        └── UpstreamExited, from any; to DOWN instead, if it dies too often ──▶ DOWN
                               (from where it is started, too, only more rarely)

One ``initialize`` goes upstream a life; every client's own is answered from its result. The
``userAgent`` in it reads ``originator/VERSION (os) terminal (client; version)``; each client gets
it with its own name in the last bracket, as natively.
"""

from __future__ import annotations

import enum
import re
from collections import deque

import msgspec

from mux.core.part import Part
from mux.core.protocol.envelope.text_limits import NO_HEADER_VALUE
from mux.core.state.clients.client import ClientInfo


class AppServerState(enum.Enum):
    """The stages of the app-server's life."""

    STARTING = "starting"
    INITIALIZING = "initializing"
    RESUMING = "resuming"
    READY = "ready"
    DOWN = "down"


class Introduction(msgspec.Struct, frozen=True):
    """The broker's own part of ``initialize``."""

    name: str
    """Becomes the app-server's originator, which stands in logs, in every thread's record, and
    first in the ``userAgent`` that clients get."""
    version: str
    request_attestation: bool = False
    form_elicitation: bool = False

    def params(self) -> dict[str, object]:
        """Return the params of ``initialize``.

        The broker declares only what it can honour by routing: experimental methods are each
        client's own choice, and a ``humanCommand`` approval goes to clients that declared it.
        Attestation is asked of a connection for good, so it is declared only if configured.
        """
        capabilities: dict[str, object] = {
            "experimentalApi": True,
            "requiredHumanApproval": True,
            "requestAttestation": self.request_attestation,
        }
        if self.form_elicitation:
            capabilities["extensions"] = {"openai/form": {}}
        info = {"name": self.name, "title": None, "version": self.version}
        return {"clientInfo": info, "capabilities": capabilities}


class LifeEnd(msgspec.Struct, frozen=True):
    """The end of a life of the app-server."""

    generation: int
    """The number of the life that ended."""
    at: float
    """The moment of the end, on the broker's clock."""
    reason: str
    """The reason, for people; empty if the end was planned."""


class AppServer(Part):
    """The app-server's life number, state and saved ``initialize`` result."""

    state: AppServerState = AppServerState.STARTING
    generation: int = 0
    """The number of its life."""
    started: float = 0.0
    last_end: LifeEnd | None = None
    """The latest end of a life; None before the first."""
    next_start: float = 0.0
    """While it is DOWN: when it is started again, on the broker's clock."""
    result: dict[str, msgspec.Raw] = msgspec.field(default_factory=dict)
    """The fields of its latest ``initialize`` result."""
    inherited: bool = False
    """True if an earlier broker has started one: that it can be started is known."""
    result_of: int = 0
    """The number of the life that it is the result of."""
    user_agent: str = ""
    last_heard: float = 0.0
    """When it last sent anything."""
    ready_since: float | None = None
    """When this life became ready; None before that."""
    ends: deque[float] = msgspec.field(default_factory=deque)
    """The ends of its lives within the last minute."""
    tries_while_down: int = 0
    """How often it was started since it is down."""
    greetings: dict[str, list[bytes]] = msgspec.field(default_factory=dict)
    """Notifications that greet each new client, by method (see `greet`)."""

    def begin(self, generation: int, now: float) -> None:
        """Begin a life: a new process runs."""
        self.state, self.generation, self.started = AppServerState.INITIALIZING, generation, now
        self.greetings.clear()

    def knows(
        self, generation: int, result: dict[str, bytes], greetings: dict[str, list[bytes]]
    ) -> None:
        """Adopt the handshake that an earlier broker has done.

        Raises ``msgspec.DecodeError``.
        """
        self.result = {name: msgspec.Raw(value) for name, value in result.items()}
        self.user_agent = msgspec.json.decode(self.result["userAgent"], type=str)
        self.greetings, self.result_of = greetings, generation

    def end(self, reason: str, now: float) -> None:
        """End the life: the process is gone. ``reason`` is empty if that was planned.

        Its ``initialize`` result goes on serving clients until the next one.
        """
        self.state = AppServerState.STARTING
        self.last_end = LifeEnd(self.generation, now, reason)

    def initialized(self, answer: bytes) -> bool:
        """Save the ``initialize`` answer; False if clients couldn't be given it."""
        try:
            result = _answer_decoder.decode(answer).result
            user_agent = msgspec.json.decode(result["userAgent"], type=str)
        except (msgspec.DecodeError, KeyError):
            return False
        self.result, self.user_agent = result, user_agent
        self.result_of = self.generation
        return True

    @property
    def runs(self) -> bool:
        """Return whether there is a process to send requests to."""
        return self.state in (
            AppServerState.INITIALIZING,
            AppServerState.RESUMING,
            AppServerState.READY,
        )

    @property
    def known(self) -> bool:
        """Return whether a client's ``initialize`` can be answered, now or from the last life."""
        return bool(self.user_agent)

    @property
    def version(self) -> str:
        """Return Codex's version, out of the user agent; empty before the first handshake."""
        match = _VERSION.match(self.user_agent)
        return match[1] if match else ""

    def result_for(self, client: ClientInfo) -> dict[str, msgspec.Raw]:
        """Return the ``initialize`` result as this client would natively get it."""
        # As natively, where the text is a header of the requests to the model.
        own = f"{client.name}; {client.version}".strip()
        if NO_HEADER_VALUE.search(own):
            own = _NOT_ASCII.sub("_", own)
        own = f"({own})"
        agent = _LAST_BRACKET.sub(lambda _: own, self.user_agent, count=1)
        return self.result | {"userAgent": msgspec.Raw(msgspec.json.encode(agent))}

    def greet(self, method: str, line: bytes) -> None:
        """Save a notification that natively greets each connection.

        Warnings add up; a status replaces the one before it.
        """
        greetings = self.greetings.setdefault(method, [])
        if method not in _ADD_UP:
            greetings.clear()
        if line not in greetings:
            greetings.append(line)


class _Answer(msgspec.Struct):
    result: dict[str, msgspec.Raw]


_ADD_UP = frozenset({"configWarning"})
_NOT_ASCII = re.compile(r"[^ -~]")
_VERSION = re.compile(r"[^/]*/(\S+)")
_LAST_BRACKET = re.compile(r"\([^()]*\)$")
_answer_decoder = msgspec.json.Decoder(_Answer)
