"""The messages between supervisor and broker, and the descriptors that go along.

A message is four bytes of length, then a JSON object: ``say`` names it. Descriptors go with its
first byte; ``descriptors`` says how many. The two may be of different versions of appmux: a message
that isn't known is dropped, a field that isn't known is ignored, and ``VERSION`` goes up when that
isn't enough.

    supervisor → broker
      hello      version, token (another one for each supervisor), generation, lives (brokers
                 before), appServer (pid, or null) with [stdin, stdout, stderr], exited (its
                 status if it has ended and no other was started), listeners with their sockets,
                 kept (true if the app-server outlives the supervisor, too), trouble (why one that
                 was to be kept is lost)
      started    pid, with [stdin, stdout, stderr]
      failed     errno: it couldn't be started
      exited     pid, status (as ``os.waitstatus_to_exitcode`` returns it, or ``UNKNOWN``)
      renew      end, for the next one

    broker → supervisor
      start      command, environ: start an app-server
      close      close its stdin: it ends in order
      signal     number: send it to the app-server
      taken      the broker reads the app-server's stderr now
      listeners  asked (URLs as they were configured), with their sockets: to be held; among
                 them, as ``lock``, the lock of the state directory
      serving    orphanWait (seconds): clients are served
      renew      the broker is about to end, for the next one
      end        the broker is about to end, and the supervisor with it
      notify     state: a datagram for systemd

Used by ``supervisor``, and by ``upstream.supervised`` on the broker's side.
"""

from __future__ import annotations

import array
import json
import os
import socket
from collections.abc import Iterator, Sequence
from typing import Any, Final

VERSION: Final = 1

VARIABLE: Final = "APPMUX_SUPERVISOR"
"""The environment variable that gives a broker the descriptor of its end of the channel."""

UNKNOWN: Final = 256
"""Stands for the status of an app-server that ended while no supervisor ran: nobody knows it."""

HEADER_BYTES: Final = 4
READ_BYTES: Final = 64 * 1024

MOST_BYTES: Final = 8 * 1024 * 1024
"""Most bytes of a message: an environment may have 2 MiB and more."""

MOST_DESCRIPTORS: Final = 253
"""Most descriptors of a message: the kernel passes no more at once."""

MOST_LISTENERS: Final = MOST_DESCRIPTORS - 3
"""Most listeners that are held: a hello has them, and three pipes."""

Message = dict[str, Any]


class Channel:
    """An end of the connection."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self._buffer = b""
        self._descriptors: list[int] = []

    def fileno(self) -> int:
        return self.socket.fileno()

    def send(self, message: Message, descriptors: Sequence[int] = ()) -> None:
        """Send a message. Blocks while the peer is slow. Raises ``OSError`` if it is gone."""
        body = json.dumps(message | {"descriptors": len(descriptors)}).encode()
        data = len(body).to_bytes(HEADER_BYTES, "big") + body
        rights = array.array("i", descriptors)
        more = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)] if descriptors else []
        sent = self.socket.sendmsg([data], more)
        if sent < len(data):
            self.socket.sendall(data[sent:])

    def receive(self) -> list[tuple[Message, list[int]]] | None:
        """Read once; return the messages that are whole by now, or None at the end.

        Descriptors aren't inherited by programs. Raises ``OSError``, ``BlockingIOError`` too.
        """
        room = socket.CMSG_SPACE(MOST_DESCRIPTORS * array.array("i").itemsize)
        data, more, _flags, _address = self.socket.recvmsg(READ_BYTES, room)
        if not data:
            return None
        for level, kind, content in more:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                numbers = array.array("i")
                numbers.frombytes(content[: len(content) - len(content) % numbers.itemsize])
                for number in numbers:
                    os.set_inheritable(number, False)
                self._descriptors += numbers
        self._buffer += data
        return self._whole()

    def rest(self) -> Iterator[tuple[Message, list[int]]]:
        """Yield what the peer had said before it ended, as far as that can be read."""
        self.socket.setblocking(False)
        while True:
            try:
                messages = self.receive()
            except (OSError, ValueError):
                return
            if messages is None:
                return
            yield from messages

    def _whole(self) -> list[tuple[Message, list[int]]]:
        read: list[Message] = []
        while len(self._buffer) >= HEADER_BYTES:
            size = int.from_bytes(self._buffer[:HEADER_BYTES], "big")
            if size > MOST_BYTES:
                raise OSError(f"a message of {size} bytes")
            if len(self._buffer) < HEADER_BYTES + size:
                break
            read.append(_message(self._buffer[HEADER_BYTES : HEADER_BYTES + size]))
            self._buffer = self._buffer[HEADER_BYTES + size :]
        messages: list[tuple[Message, list[int]]] = []
        for message in read:
            count = message.get("descriptors", 0)
            messages.append((message, self._descriptors[:count]))
            del self._descriptors[:count]
        return messages

    def close(self) -> None:
        """Close the connection, and the descriptors that belong to no message."""
        self.socket.close()
        while self._descriptors:
            os.close(self._descriptors.pop())


def _message(body: bytes) -> Message:
    """Read a message. Raises ``ValueError``."""
    try:
        message = json.loads(body)
    except RecursionError:
        raise ValueError("a message that nests too deeply") from None
    if not isinstance(message, dict):
        raise ValueError("a message that is no object")  # noqa: TRY004 (of a peer)
    count = message.get("descriptors", 0)
    if type(count) is not int or count < 0:
        raise ValueError("a message whose number of descriptors is none")
    return message
