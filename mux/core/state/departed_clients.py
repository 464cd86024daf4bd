"""What clients followed when they left, for their return.

Keyed by principal and program, which outlive a connection; a client's number doesn't.
"""

from __future__ import annotations

from collections import OrderedDict

import attrs

from mux.core.state.client import Client

Program = tuple[tuple[str, str], str]
"""A principal's identity, and the name of a program of theirs."""


@attrs.define(eq=False, repr=False)
class DepartedClients:
    """The threads that each program followed when its client left."""

    most: int
    """Programs remembered; past that, the one that left longest ago is forgotten."""
    followed: OrderedDict[Program, dict[str, int]] = attrs.field(factory=OrderedDict)
    """By program, the one that left last at the end; each thread with the seq since which the
    client followed it."""

    def remember(self, client: Client) -> None:
        """Remember what a client follows that is about to leave."""
        program = _program(client)
        if program is None or not client.follows:
            return
        self.followed[program] = dict(client.follows)
        self.followed.move_to_end(program)
        while len(self.followed) > self.most:
            self.followed.popitem(last=False)

    def followed_before(self, client: Client) -> dict[str, int]:
        """Return what the client's predecessor followed: the record itself, or an empty one."""
        program = _program(client)
        return self.followed.get(program, {}) if program is not None else {}


def _program(client: Client) -> Program | None:
    return (client.principal.identity, client.info.name) if client.info is not None else None
