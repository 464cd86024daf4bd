"""Presence: notifies clients that know the broker of who is here, whenever that changes.

``mux/presence {"clients": […]}`` is a whole picture, never a difference, so a missed one is made
good by the next. It is not numbered and not journaled. Changes that come close together make one
picture. A client that is behind gets the picture when it is live again.
"""

from __future__ import annotations

import msgspec

from mux.core.extension import following as extension
from mux.core.part import Part
from mux.core.policy.principal import ClientId
from mux.core.protocol.envelope import jsonrpc
from mux.core.state.clients.client import Client, ClientState
from mux.core.state.state import NEVER, State

PRESENCE = "mux/presence"

INTERVAL = 0.25
"""Seconds between two pictures: a person doesn't see more, and a burst of joins is one picture."""

BYTES_PER_SECOND = 4 * 1024 * 1024
"""Bytes of pictures a second, to all clients together. With hundreds of clients, each picture for
each of them, pictures come more rarely instead."""

Picture = tuple[tuple[ClientId, tuple[str, ...], float | None], ...]
"""The facts that make two pictures differ: clients, what they follow, when they last drove."""


class Presence(Part):
    """The pictures that clients were sent."""

    state: State
    seen: int = 0
    """The ``threads.changes`` of the last look."""
    _aware: dict[ClientId, Client] = msgspec.field(default_factory=dict)
    """Clients that know the broker. With thousands of others attached, looking through all of them
    whenever one comes would be a tenth of what that costs."""
    _not_before: float = 0.0
    """When the next picture may be sent."""
    _due: float = NEVER
    """When a change that had to wait is sent."""
    _sent: dict[ClientId, Picture] = msgspec.field(default_factory=dict)
    """The picture that each client was sent last."""

    def came(self, client: Client) -> None:
        """Add a client that is past its handshake, if it knows the broker."""
        if client.knows_extension:
            self._aware[client.id] = client

    def left(self, client: Client) -> None:
        """Remove a client whose connection is gone."""
        self._aware.pop(client.id, None)

    def drove(self, client: Client) -> None:
        """Note that the client has made a thread work."""
        client.drove = self.state.now
        self._refresh()

    def audience_changed(self) -> None:
        """Send the new picture, at the end of an event that changed who is here or follows what."""
        self.seen = self.state.threads.changes
        self._refresh()

    def on_timer(self) -> float:
        """Send a picture that had to wait; returns when the next is due."""
        if self._due <= self.state.now:
            self._refresh()
        return self._due

    def _refresh(self) -> None:
        state = self.state
        self._due = NEVER
        watchers = [client for client in self._aware.values() if _is_notified(client)]
        if not watchers:
            self._sent.clear()
        elif state.now < self._not_before:
            self._due = self._not_before
            state.wake_at(self._due)
        else:
            self._notify(watchers)

    def _notify(self, watchers: list[Client]) -> None:
        state = self.state
        follows = state.threads.shown_follows
        picture = tuple((each.id, tuple(follows(each)), each.drove) for each in self._present())
        recipients = tuple(each.id for each in watchers if self._sent.get(each.id) != picture)
        self._sent = {each.id: picture for each in watchers}
        if recipients:
            message = jsonrpc.notification(PRESENCE, self.read())
            state.send_live(recipients, message, PRESENCE)
            cost = len(message) * len(recipients) / BYTES_PER_SECOND
            self._not_before = state.now + max(INTERVAL, cost)

    def _present(self) -> list[Client]:
        return [each for each in self.state.clients.values() if each.state is ClientState.READY]

    def read(self) -> extension.Presence:
        """Return the picture as ``mux/presence`` and ``mux/presence/read`` give it."""
        now, follows = self.state.now, self.state.threads.shown_follows
        return extension.Presence([_shown(each, follows(each), now) for each in self._present()])


def _is_notified(client: Client) -> bool:
    return client.backlog is None and client.receives(PRESENCE)


def _shown(client: Client, follows: list[str], now: float) -> extension.Present:
    is_device = client.principal.kind == "device"
    return extension.Present(
        id=client.id,
        name=client.info.name if client.info else None,
        version=client.info.version if client.info else None,
        principal=client.principal.name,
        scopes=sorted(client.principal.scopes),
        transport=client.transport,
        threads=follows,
        since=round(now - client.since, 3),
        lastDrove=None if client.drove is None else round(now - client.drove, 3),
        device=client.principal.name if is_device else msgspec.UNSET,
    )
