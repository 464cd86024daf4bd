"""The broker's first exchange with the supervisor, before it has loaded what it runs on.

A broker asks for an app-server as soon as it knows which: that comes up while the broker loads the
rest, which takes longer. One that was left an app-server, or the end of one, first looks at that.

Used by ``cli.host.serve``; ``upstream.supervised`` goes on with it.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping, MutableMapping, Sequence
from typing import Final

from mux.errors import AppmuxError
from mux.supervisor.channel import VARIABLE, VERSION, Channel, Message

HELLO_DEADLINE: Final = 10.0
"""Seconds to wait for the supervisor's first message, which it sends before it does anything
else."""


class SupervisorError(AppmuxError):
    """The supervisor is gone, or can't be understood."""


class Opening:
    """The broker's end of the channel, with what was said on it so far."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.requested_early = False
        """True once an app-server was requested."""
        messages: list[tuple[Message, list[int]]] = []
        while not messages:
            received = channel.receive()
            if received is None:
                raise ConnectionResetError("it is gone")
            messages = received
        (self.hello, self.descriptors), *self.messages = messages

    @classmethod
    def of(cls, environ: MutableMapping[str, str]) -> Opening | None:
        """Open the channel that the environment names, and receive the first message.

        None if there is no supervisor. The variable is removed: it isn't meant for the app-server.
        Raises ``SupervisorError``.
        """
        number = environ.pop(VARIABLE, "")
        if not number:
            return None
        connection = None
        try:
            connection = socket.socket(fileno=int(number))
            connection.set_inheritable(False)
            connection.settimeout(HELLO_DEADLINE)
            opening = cls(Channel(connection))
            connection.setblocking(False)
        except (OSError, ValueError) as failure:
            if connection is not None:
                connection.close()
            raise SupervisorError(f"the supervisor says nothing: {failure}") from failure
        if opening.hello.get("version") != VERSION:
            connection.close()
            raise SupervisorError(
                "the supervisor is of another version of appmux: restart the service"
            )
        return opening

    def request_early(self, command: Sequence[object], environ: Mapping[str, str]) -> None:
        """Ask for an app-server, if none runs or has left anything to be looked at."""
        if self.hello["appServer"] is None:
            self.channel.socket.setblocking(True)
            self.channel.send(start(command, environ))
            self.channel.socket.setblocking(False)
            self.requested_early = True


def start(command: Sequence[object], environ: Mapping[str, str]) -> Message:
    """Return the message that asks for an app-server."""
    return {"say": "start", "command": [str(word) for word in command], "environ": dict(environ)}
