"""One client's protocol state: who it is, what it declared, what it follows.

    ATTACHED ──initialize──▶ READY
        └───────connection gone──────▶ (forgotten by the broker)

An ATTACHED client may only ask ``initialize`` and the broker's own methods; it hears nothing.
A second ``initialize`` is an error and changes nothing, as natively. ``initialized`` is not waited
for: natively, delivery starts after the answer to ``initialize``.

Heard from: ``broker`` alone.
"""

from __future__ import annotations

import enum

import attrs
import msgspec

from mux.core.policy.principal import ClientId, Owner, Principal
from mux.core.protocol import text_limits
from mux.core.protocol.experimental import WITHHELD
from mux.core.state.backlog import Backlog

EXTENSION = "appmux"
"""What a client that knows the broker declares in ``capabilities.extensions``."""


class ClientState(enum.Enum):
    """Where a client stands."""

    ATTACHED = "attached"
    READY = "ready"


class ClientInfo(msgspec.Struct):
    """``initialize.params.clientInfo``: how the program names itself."""

    name: str
    version: str
    title: str | None = None


class Capabilities(msgspec.Struct):
    """``initialize.params.capabilities``, as far as the broker acts on them."""

    experimentalApi: bool = False
    requestAttestation: bool = False
    requiredHumanApproval: bool = False
    optOutNotificationMethods: list[str] | None = None
    mcpServerOpenaiFormElicitation: bool = False
    extensions: dict[str, msgspec.Raw] | None = None

    def without_texts(self) -> Capabilities:
        """The same, without what a client may say beside it at any length."""
        return msgspec.structs.replace(
            self,
            mcpServerOpenaiFormElicitation=self.openaiForm,
            optOutNotificationMethods=None,
            extensions=None,
        )

    @property
    def openaiForm(self) -> bool:
        """Either of the two ways to declare it."""
        return self.mcpServerOpenaiFormElicitation or "openai/form" in (self.extensions or ())


class InitializeParams(msgspec.Struct):
    """``initialize.params``; a text that doesn't fit it is put to the app-server for its error."""

    clientInfo: ClientInfo
    capabilities: Capabilities | None = None

    def refusal(self) -> str | None:
        """Why nobody can be known by this; None if one can. A bad name in the native words."""
        info = self.clientInfo
        if text_limits.NO_HEADER_VALUE.search(info.name) and text_limits.is_short(info.name):
            return f"Invalid clientInfo.name: '{info.name}'. Must be a valid HTTP header value."
        for field in ("name", "version", "title"):
            if not text_limits.is_short(getattr(info, field) or ""):
                return f"Invalid clientInfo.{field}: {text_limits.TOO_LONG}"
        opted_out = self.capabilities and self.capabilities.optOutNotificationMethods
        if opted_out and len(opted_out) > text_limits.MOST_NAMED:
            return f"capabilities.optOutNotificationMethods has more than {text_limits.MOST_NAMED}"
        return None


class _Declared(msgspec.Struct):
    relay: bool = False


def _is_relay(declared: msgspec.Raw) -> bool:
    """Whether it is a relay that knows the broker, not the client before it."""
    try:
        return msgspec.json.decode(declared, type=_Declared).relay
    except msgspec.DecodeError:
        return False


@attrs.define
class Refusals:
    """How often a client was refused lately, and until when they are counted together."""

    count: int = 0
    until: float = 0.0


class Focus(msgspec.Struct, frozen=True):
    """What a client says is in its foreground: a thread or none; ``active``: somebody looks."""

    thread: str | None
    active: bool


@attrs.define(eq=False, repr=False)
class Client:
    """One attached client. ``since``, ``expires``, ``drove``, ``heard``: on the broker's clock.

    ``drove``: when it last made a thread work; ``heard``: when it last sent anything. ``acted``:
    when a person last did something by it, by thread. ``focus``: None for one that never said.
    ``local``: it is known to be on this host. ``ended``: it may not be here any more, and what it
    says isn't heard. ``follows``: by thread, the journal's head when it joined.
    ``knows_extension``: it knows the broker. ``wants_seq``: it gets numbered messages, as those
    that are aware do, and a relay (the stdio door) before one that isn't. ``backlog``: set while it
    is behind.
    """

    id: ClientId
    principal: Principal
    transport: str
    peer: str
    since: float
    expires: float = float("inf")
    local: bool = False
    ended: bool = False
    state: ClientState = ClientState.ATTACHED
    info: ClientInfo | None = None
    capabilities: Capabilities = attrs.field(factory=Capabilities)
    opted_out: frozenset[str] = frozenset()
    follows: dict[str, int] = attrs.field(factory=dict)
    knows_extension: bool = False
    wants_seq: bool = False
    backlog: Backlog | None = None
    drove: float | None = None
    heard: float = 0.0
    focus: Focus | None = None
    acted: dict[str, float] = attrs.field(factory=dict)
    refusals: Refusals = attrs.field(factory=Refusals)

    def initialize(self, params: InitializeParams) -> None:
        """Become READY with what the client declared."""
        self.state = ClientState.READY
        self.info = params.clientInfo
        self.capabilities = params.capabilities or Capabilities()
        opted_out = self.capabilities.optOutNotificationMethods or ()
        self.opted_out = frozenset(filter(text_limits.is_short, opted_out))  # others name nothing
        if not self.capabilities.experimentalApi:
            self.opted_out |= WITHHELD
        declared = (self.capabilities.extensions or {}).get(EXTENSION)
        self.wants_seq = declared is not None
        self.knows_extension = declared is not None and not _is_relay(declared)
        self.capabilities = self.capabilities.without_texts()

    def hears(self, method: str) -> bool:
        """Whether it is told this of what goes on: it may observe, and didn't opt out of it."""
        return method not in self.opted_out and "observe" in self.principal.scopes

    def declared(self, capability: str) -> bool:
        """Whether it declared the capability; the empty name needs no declaration."""
        return not capability or getattr(self.capabilities, capability) is True

    def owner(self) -> Owner:
        """It, as the owner of what outlives its connection."""
        return Owner(self.id, self.info.name if self.info is not None else "", self.principal)

    def resembles(self, name: str, principal: Principal) -> bool:
        """Whether it is the same program of the same principal: a client that came back."""
        same = self.principal.identity == principal.identity
        return same and self.info is not None and self.info.name == name
