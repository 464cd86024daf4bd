"""A client's protocol state: its identity, what it declared, what it follows.

    ATTACHED ──initialize──▶ READY
        └───────connection gone──────▶ (forgotten by the broker)

An ATTACHED client may only send ``initialize`` and the broker's own methods, and gets no
notifications. A second ``initialize`` is an error and changes nothing, as natively. The broker
doesn't wait for ``initialized``: natively, delivery starts after the answer to ``initialize``.
"""

from __future__ import annotations

import enum

import msgspec

from mux.core.policy.principal import ClientId, Owner, Principal
from mux.core.protocol.envelope import text_limits
from mux.core.protocol.experimental import WITHHELD
from mux.core.protocol.threads.overrides import Overrides
from mux.core.state.clients.backlog import Backlog

EXTENSION = "appmux"
"""The key in ``capabilities.extensions`` by which a client declares that it knows the broker."""


ADDED = "mux/files/added"
"""The notification that somebody added a file; only for clients that know the broker."""

DECIDED = "mux/approvals/decided"
"""A notification that is journaled, though only clients that know the broker get it."""

AT_ONCE = 0.0
"""The window of a client that gets each delta by itself."""

LONGEST_WINDOW = 1.0
"""Seconds. Whoever wants text to come in larger pieces doesn't look at it."""


class ClientState(enum.Enum):
    """The stages of a client's handshake."""

    ATTACHED = "attached"
    READY = "ready"


class ClientInfo(msgspec.Struct):
    """``initialize.params.clientInfo``: how the program names itself."""

    name: str
    version: str
    title: str | None = None


class Capabilities(msgspec.Struct, frozen=True):
    """``initialize.params.capabilities``, as far as the broker acts on them."""

    experimentalApi: bool = False
    requestAttestation: bool = False
    requiredHumanApproval: bool = False
    optOutNotificationMethods: list[str] | None = None
    mcpServerOpenaiFormElicitation: bool = False
    extensions: dict[str, msgspec.Raw] | None = None

    def without_texts(self) -> Capabilities:
        """Return a copy without the declared texts, which may be of any length."""
        return msgspec.structs.replace(
            self,
            mcpServerOpenaiFormElicitation=self.openaiForm,
            optOutNotificationMethods=None,
            extensions=None,
        )

    @property
    def openaiForm(self) -> bool:
        """Return whether the client declared OpenAI forms, in either of the two ways."""
        return self.mcpServerOpenaiFormElicitation or "openai/form" in (self.extensions or ())


NO_CAPABILITIES = Capabilities()

_WITHHELD: dict[tuple[bool, bool], frozenset[str]] = {
    (experimental, extension): (frozenset() if experimental else WITHHELD)
    | (frozenset() if extension else {DECIDED, ADDED})
    for experimental in (False, True)
    for extension in (False, True)
}
"""The notifications that a client doesn't get, by whether it declared ``experimentalApi`` and
whether it knows the broker. One set for all that are alike: with thousands attached it counts."""


class InitializeParams(msgspec.Struct):
    """``initialize.params``. A text that doesn't fit is sent to the app-server for its error."""

    clientInfo: ClientInfo
    capabilities: Capabilities | None = None

    def refusal(self) -> str | None:
        """Return why these params are refused; None if they are valid.

        A bad name is refused in the app-server's own words.
        """
        info = self.clientInfo
        if text_limits.NO_HEADER_VALUE.search(info.name) and text_limits.is_short(info.name):
            return f"Invalid clientInfo.name: '{info.name}'. Must be a valid HTTP header value."
        title = info.title or ""
        if not text_limits.is_short(f"{info.name}{info.version}{title}"):  # else none is longer
            for field in ("name", "version", "title"):
                if not text_limits.is_short(getattr(info, field) or ""):
                    return f"Invalid clientInfo.{field}: {text_limits.TOO_LONG}"
        opted_out = self.capabilities and self.capabilities.optOutNotificationMethods
        if opted_out and len(opted_out) > text_limits.MOST_NAMED:
            return f"capabilities.optOutNotificationMethods has more than {text_limits.MOST_NAMED}"
        return None


class _Declared(msgspec.Struct):
    relay: bool = False
    """True if a relay declared to know the broker, not the client behind it."""
    person: bool = False
    coalesce: float | None = None
    """Milliseconds; None for what is usual for such a client."""


def _read_declared(declared: msgspec.Raw) -> _Declared:
    try:
        return msgspec.json.decode(declared, type=_Declared)
    except msgspec.DecodeError:
        return _Declared()


class Refusals(msgspec.Struct):
    """Counts how often a client was refused lately, to summarize the refusals."""

    count: int = 0
    until: float = 0.0
    """The end of the time in which refusals are counted together."""


class Focus(msgspec.Struct, frozen=True):
    """The thread that a client says is in its foreground."""

    thread: str | None
    """The thread's id; None if no thread is in the foreground."""
    active: bool
    """True if a person is looking at the client."""


class Client(msgspec.Struct, eq=False):
    """An attached client. Moments are on the broker's clock."""

    id: ClientId
    principal: Principal
    transport: str
    peer: str
    since: float
    """When the client attached."""
    expires: float = float("inf")
    """When its access ends."""
    local: bool = False
    """True if the client is known to be on this host."""
    overrides: Overrides | None = None
    """The overrides of its command line, which complete its requests."""
    ended: bool = False
    """True if its access has ended. Its messages are ignored from then on."""
    state: ClientState = ClientState.ATTACHED
    info: ClientInfo | None = None
    capabilities: Capabilities = NO_CAPABILITIES
    person: bool = False
    """True if it declared that a person sits before it."""
    opted_out: frozenset[str] = frozenset()
    follows: dict[str, int] = msgspec.field(default_factory=dict)
    """The threads it follows; by thread, the journal's head when the client joined."""
    knows_extension: bool = False
    """True if the client knows the broker (see ``EXTENSION``)."""
    wants_seq: bool = False
    """True if the client gets numbered messages: if it knows the broker, or is a relay (the stdio
    bridge) in front of a client that doesn't."""
    window: float = AT_ONCE
    """How many seconds a delta may wait for others, to come as one (see ``coalescing``)."""
    backlog: Backlog | None = None
    """Its unread messages; set while the client is behind."""
    drove: float | None = None
    """When the client last made a thread work."""
    last_heard: float = 0.0
    """When the client last sent anything."""
    focus: Focus | None = None
    """Its foreground; None if the client never sent ``mux/focus``."""
    acted: dict[str, float] | None = None
    """When a person last did something through this client, by thread; None if nobody did."""
    refusals: Refusals | None = None
    """Set while it was refused something lately. (With thousands attached, each object that an
    idle client has counts.)"""

    def initialize(self, params: InitializeParams, window: float = AT_ONCE) -> None:
        """Become READY with what the client declared. ``window`` holds if it declared none."""
        self.state = ClientState.READY
        self.info = params.clientInfo
        capabilities = params.capabilities or NO_CAPABILITIES
        declared = (capabilities.extensions or {}).get(EXTENSION)
        self.wants_seq = declared is not None
        declaration = _Declared() if declared is None else _read_declared(declared)
        self.knows_extension = declared is not None and not declaration.relay
        self.person = declaration.person
        window = window if declaration.coalesce is None else declaration.coalesce / 1000
        self.window = min(max(window, AT_ONCE), LONGEST_WINDOW)
        self.opted_out = _WITHHELD[capabilities.experimentalApi, self.knows_extension]
        if named := capabilities.optOutNotificationMethods:
            self.opted_out |= set(filter(text_limits.is_short, named))  # others name nothing
        if capabilities is not NO_CAPABILITIES:
            self.capabilities = capabilities.without_texts()

    def receives(self, method: str) -> bool:
        """Return whether the client gets this notification.

        The client must have the scope ``observe``, and mustn't have opted out of the method.
        """
        return method not in self.opted_out and "observe" in self.principal.scopes

    def declared(self, capability: str) -> bool:
        """Return whether it declared the capability; the empty name needs no declaration."""
        return not capability or getattr(self.capabilities, capability) is True

    def owner(self) -> Owner:
        """Return the client as the owner of what outlives its connection."""
        return Owner(self.id, self.info.name if self.info is not None else "", self.principal)

    def resembles(self, name: str, principal: Principal) -> bool:
        """Return whether it is the same program of the same principal: a client that came back."""
        same = self.principal.identity == principal.identity
        return same and self.info is not None and self.info.name == name
