"""The frames that are no short texts, read and made by the WebSocket library (wsproto).

It is loaded with the first of them, or a second after the start: it takes as long as a twentieth of
all that a start loads.

Used by ``websocket``.
"""

from __future__ import annotations

from wsproto.connection import Connection, ConnectionState, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Event, Ping, TextMessage


class OddFrames:
    """The library's side of one connection, which is fed whole frames, or parts of long ones."""

    __slots__ = ("_connection", "_owed", "_parts", "ended")

    def __init__(self, owed: list[bytes]) -> None:
        self._owed = owed
        """Frames to write back, of the reader whose part this is."""
        self.ended = False
        """True if the client's close frame has come, or something malformed."""
        self._connection = Connection(ConnectionType.SERVER)
        self._parts: list[bytes] = []
        """The UTF-8 of what has come of the message that is under way. It is kept as bytes: at the
        end of a long one only they are joined, in one step."""

    def receive(self, received: bytes) -> list[bytes | None]:
        """Return the messages that are complete now: UTF-8 of each text, None for a binary one."""
        self._connection.receive_data(received)
        messages: list[bytes | None] = []
        for event in self._connection.events():
            if not isinstance(event, TextMessage | BytesMessage):
                self._control(event)
                continue
            if isinstance(event, TextMessage):
                self._parts.append(event.data.encode())
            if event.message_finished:
                text = isinstance(event, TextMessage)
                messages.append(b"".join(self._parts) if text else None)
                self._parts.clear()
        return messages

    def _control(self, event: Event) -> None:
        state = self._connection.state
        if isinstance(event, Ping) and state is ConnectionState.OPEN:
            self._owed.append(self._connection.send(event.response()))
        elif isinstance(event, CloseConnection):
            if state is ConnectionState.REMOTE_CLOSING:
                self.ended = True
                self._owed.append(self._connection.send(event.response()))
            elif state is ConnectionState.CLOSED:
                self.ended = True
            else:
                self.end(event.code, event.reason or "")

    def close(self, code: int, reason: str) -> bytes:
        """Return our close frame."""
        return self._connection.send(CloseConnection(code, reason))

    def end(self, code: int, reason: str) -> None:
        """Assume that nothing can be read any more, and owe the close frame that says why."""
        self.ended = True
        if self._connection.state is ConnectionState.OPEN:
            self._owed.append(self.close(code, reason))
