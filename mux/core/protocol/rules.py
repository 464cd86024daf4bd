"""The rows of THE TABLE (``methods``) as classes: what can be said of a method."""

from __future__ import annotations

import enum

import msgspec

from mux.core.protocol.envelope import structure
from mux.core.protocol.scope import Scope


class Route(enum.Enum):
    """The broker's treatment of a client's request."""

    PLAIN = "plain"
    """Goes upstream; its answer comes back."""
    INITIALIZE = "initialize"
    """Answered by the broker from its own handshake."""
    FOLLOW = "follow"
    """Goes upstream. Its answer names a thread, which the client follows from then on."""
    UNFOLLOW = "unfollow"
    """Counted per client; goes upstream only for the last follower."""
    SERVER = "shell"
    """Answered by the shells: it takes what only they know (pids, sockets, files)."""
    RESTART = "restart"
    """Asks the broker for a new app-server process."""
    REPLAY = "replay"
    """Asks for what the client missed, out of the journal."""
    PRESENCE = "presence"
    """Asks who is attached."""
    APPROVALS = "approvals"
    """Asks for the server requests that wait for a person's answer."""
    FOCUS = "focus"
    """Says which thread is in the client's foreground."""
    INBOX = "inbox"
    """Asks what needs a person, for the threads, or what was used."""
    DIGEST = "digest"
    """Asks what happened on a thread, out of the journal."""
    FILES = "files"
    """Asks for a thread's files, out of the journal."""
    QUEUE = "queue"
    """Lists or changes the turns that wait until their thread is idle."""
    ANSWER = "answer"
    """Answers a server request, also from a client to which it wasn't offered."""


class OwnId(msgspec.Struct, frozen=True):
    """An id in params that belongs to one client, though the app-server sees one connection."""

    field: str
    """The id's name in params."""
    ended_by: str = ""
    """For a method that begins what the id stands for: the request that ends it once the client has
    left."""
    ends: bool = False
    """True for a method that frees the id."""
    made_up: bool = False
    """True if the broker makes up an id where the client gave none, so that it can end the work."""

    @property
    def begins(self) -> bool:
        """True if the method begins what the id stands for."""
        return bool(self.ended_by)


class RequestRule(msgspec.Struct, frozen=True):
    """A row for a client's request."""

    route: Route = Route.PLAIN
    reads: bool = False
    """The request changes nothing, so a client may repeat it if the app-server died with it."""
    waits: bool = False
    """The answer waits for something outside (a command's end, a person, a download). So the
    request takes no slot of those in flight and has no deadline."""
    loads: bool = False
    """The answer waits until a thread is loaded, and with it the programs that the thread needs
    (MCP servers). So the request has no deadline, and takes its client's slot only for a while."""
    begins: bool = False
    """The request begins work that a planned restart would cut short. So it waits for that
    restart."""
    own_id: OwnId | None = None
    """The id in the params that belongs to the client, if any."""
    names_request: str = ""
    """The params field that holds the id of another request of the same client; it is rewritten."""
    cancelled_by: str = ""
    """The method that ends it, sent when its client has left."""
    server_ids: frozenset[str] = frozenset()
    """Fields that are called like a client's own ids, but hold ids of the app-server."""
    large: bool = False
    """The answer may be of any size, so only one of these per client is under way at a time."""
    content: Scope | None = None
    """The scope that allows the request to bring content: a conversation, tools, a configuration.
    Then it may have as many elements as any message."""

    def accounts_for(self, field: str) -> bool:
        """Return whether the row says what the field holds, so that its name doesn't count."""
        return field in self.server_ids or (self.own_id is not None and field == self.own_id.field)

    def most_elements(self, scopes: frozenset[Scope]) -> int:
        """Return how many elements the request of a client with these scopes may have."""
        brings = self.content in scopes
        return structure.MAX_ELEMENTS if brings else structure.OPENED_ELEMENTS


class Audience(enum.Enum):
    """The clients that get a notification of the app-server."""

    FOLLOWERS = "followers"
    """The clients that follow its thread; everybody if it names none."""
    EVERYBODY = "everybody"
    """Every client past its handshake, follower or not, as natively."""
    OWNER = "owner"
    """The client that made the id in the params (see ``OwnId``)."""
    NAMED = "named"
    """The client whose ids it has, recognized by their fields' names; ``FOLLOWERS`` if it has
    none."""
    ASKERS = "askers"
    """Natively the connection whose request for a thread's whole history caused it."""
    WORKING = "working"
    """Natively the followers of the thread that works, which the notification doesn't name."""


class NotificationRule(msgspec.Struct, frozen=True):
    """A row for a notification of the app-server."""

    audience: Audience = Audience.FOLLOWERS
    own_id: str = ""
    """For ``Audience.OWNER``: the params field with the client's id."""
    names_request: str = ""
    """For ``Audience.NAMED``: the params field with the id of the client's request."""
    greets: bool = False
    """Natively sent to each connection right after ``initialize``: stored, and sent to
    newcomers."""
    server_ids: frozenset[str] = frozenset()
    """The fields with the app-server's ids, as in ``RequestRule``."""


class OfferTo(enum.Enum):
    """The clients that a server request is offered to."""

    FOLLOWERS = "followers"
    """All followers of its thread at once; the first valid answer wins."""
    TOOL_OWNER = "tool-owner"
    """The client that registered the tool."""
    ONE_AT_A_TIME = "one-after-another"
    """A client that can answer, then the next one: a program answers, no person is asked."""


class ServerRequestRule(msgspec.Struct, frozen=True):
    """A row for a request of the app-server."""

    offer_to: OfferTo = OfferTo.FOLLOWERS
    needs: str = ""
    """The capability (of ``client.Capabilities``) that a client must have declared to get it."""
    only_if: tuple[str, str] | None = None
    """A params field and its value: ``needs`` holds only for requests with that value."""
    scope: Scope = "approve"
    """The scope that a client needs to be offered it, and to answer."""
    shown: bool = False
    """True if clients that may only observe get it as well."""

    def is_for(self, scopes: frozenset[Scope]) -> bool:
        """Return whether it is sent to a client with these scopes."""
        return self.scope in scopes or (self.shown and "observe" in scopes)
