"""The threads that clients followed when they left, for their return.

Keyed by principal and program, which outlive a connection; a client's number doesn't.
"""

from __future__ import annotations

from collections import OrderedDict

import msgspec

from mux.core.part import Part
from mux.core.state.clients.client import Client
from mux.core.state.durable import Durable, SavedFollows

Program = tuple[tuple[str, str], str]
"""A principal's identity, and the name of a program of theirs."""


class DepartedClients(Part):
    """The threads that each program followed when its client left."""

    most: int
    """Programs remembered; past that, the one that left longest ago is forgotten."""
    durable: Durable = msgspec.field(default_factory=Durable)
    followed: OrderedDict[Program, dict[str, int]] = msgspec.field(default_factory=OrderedDict)
    """By program, the one that left last at the end; each thread with the seq since which the
    client followed it."""

    def remember(self, client: Client) -> None:
        """Remember what a client follows that is about to leave."""
        program = _program(client)
        if program is None or not client.follows:
            return
        self.followed[program] = dict(client.follows)
        self.followed.move_to_end(program)
        self._changed(program)
        while len(self.followed) > self.most:
            self._changed(self.followed.popitem(last=False)[0])

    def followed_before(self, client: Client) -> dict[str, int]:
        """Return what the client's predecessor followed: the record itself, or an empty one."""
        program = _program(client)
        if program is None or program not in self.followed:
            return {}
        self._changed(program)  # the caller may change it
        return self.followed[program]

    # ── for the next broker ───────────────────────────────────────────────────────────────────

    def _changed(self, program: Program) -> None:
        if self.durable.is_enabled:
            self.durable.touch("left", msgspec.json.encode(program).decode())

    def saved(self, name: str) -> SavedFollows | None:
        """Return what is saved of a departed client, by the name of its key."""
        who, program = msgspec.json.decode(name, type=Program)
        follows = self.followed.get((who, program))
        return None if follows is None else SavedFollows(who, program, follows)

    def restore(self, saved: SavedFollows) -> None:
        """Restore what a client followed that was attached to an earlier broker."""
        program = (saved.who, saved.program)
        self.followed[program] = self.followed.get(program, {}) | saved.threads
        self._changed(program)


def _program(client: Client) -> Program | None:
    return (client.principal.identity, client.info.name) if client.info is not None else None
