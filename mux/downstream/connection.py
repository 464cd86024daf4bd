"""A client's WebSocket, from its accepted upgrade to its end: reader and writer.

``websocket`` parses incoming bytes; each message goes to ``dispatcher``. Outgoing bytes are
appended to the client's outbox, by the dispatcher's fan-out and by this module alike. The socket
mostly takes them at once (see ``outbox``). The first time that it doesn't, a writer task starts,
which stays until the connection ends. It is the caller's nursery's: most connections never have
one, and a nursery of its own would take 1.4 KB of each client.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from contextlib import suppress

import msgspec
import structlog
import trio
from msgspec.structs import replace

from mux.core.events import ClientSent, ClientSentBinary
from mux.core.part import Part
from mux.core.policy.principal import ClientId, Principal
from mux.core.protocol.envelope import client_message, jsonrpc
from mux.core.protocol.threads import overrides
from mux.dispatch.dispatcher import Dispatcher
from mux.dispatch.outbox import ClientPort, Outbox
from mux.downstream.challenge import PROOF_BYTES, Challenger
from mux.downstream.http.request import AcceptedUpgrade
from mux.downstream.http.upgrade import SUBPROTOCOL
from mux.downstream.rate_limit import Rate
from mux.downstream.sockets.peer import who_is_there
from mux.downstream.sockets.streams import Accepted, Patient
from mux.downstream.websocket import offers
from mux.downstream.websocket.compressed_stream import CompressedStream, FrameUnpacker
from mux.downstream.websocket.websocket import FrameReader, accepted

RECEIVE_BYTES = 64 * 1024
"""Most bytes of one read: a message of 14 MiB takes 224 reads instead of the 3,584 of 4 KiB."""

FRAMES_AT_ONCE = 4
"""Frames read of one client before others have their turn: some 0.3 ms. A client that sends a
thousand requests in one piece, or ten thousand pings, delays another's by that much."""

TURN_SECONDS = 0.001
"""Seconds of a turn after which the rest of its frames waits, too: messages differ in cost."""

IDLE_PER_SECOND = 200
IDLE_BURST = 500
"""Rate of idle input: frames and messages that ask for nothing (pings, pongs, the smallest
fragments, notifications, messages that are refused, answers to nothing). Past the rate, reads from
the client pause. A client pings a few times a minute; the rest is room for a confused client, or a
person who tests something."""

IDLE_SECONDS = 10.0
"""Seconds of being slowed without a rest, after which a client is disconnected. Its input is for
nobody, and while reads pause, its end of stream stays hidden behind that input."""

TOO_MUCH = 1008
"""The close code for too much idle input: WebSocket's "policy violation"."""

CLOSE_DEADLINE = 3.0
"""Seconds for a client to take what is owed, answer a close frame, and close its end."""

log = structlog.get_logger()


async def serve(
    stream: Accepted,
    admission: AcceptedUpgrade,
    dispatcher: Dispatcher,
    nursery: trio.Nursery,
    *,
    message_bytes: int,
    outbox_bytes: int,
    challenger: Challenger | None = None,
    known: Callable[[], None] = lambda: None,
) -> None:
    """Serve one client until either side ends the connection, then close the stream.

    ``nursery`` outlives the connection, and runs its writer if it needs one. ``challenger`` finds
    out who a browser is. ``known`` is called once it is known who the client is.
    """
    descriptor = stream.fileno if isinstance(stream, Patient) else None
    outbox = Outbox(outbox_bytes, descriptor=descriptor, writes=dispatcher.writes)
    response = _response(admission)
    frames = FrameReader(message_bytes)
    connection = None
    try:
        plain: trio.abc.HalfCloseableStream = stream
        if (offer := admission.compression) is not None:
            unpacker = FrameUnpacker(offers.unpacking(offer), frames)
            plain = packed = CompressedStream(stream, offers.packer(offer), unpacker, len(response))
            if descriptor is not None:
                packed.descriptor, outbox.compressed = descriptor, packed.send_now
            admission = replace(admission, rest=unpacker.feed(admission.rest))
        connection = _Connection(plain, dispatcher, outbox, frames, nursery, known, _pid(stream))
        outbox.wake_writer = connection.begin_writing
        outbox.append(response)
        if admission.principal is not None:
            await connection.attend(admission, admission.principal)
        elif challenger is not None:
            await connection.challenge(admission, challenger)
    finally:
        outbox.discard()
        if connection is not None:
            connection.end_writing()
        await trio.aclose_forcefully(stream)


def _response(admission: AcceptedUpgrade) -> bytes:
    """Return the 101 response, which tells what of the client's offers is taken."""
    headers = []
    if admission.principal is None:
        headers.append(b"Sec-WebSocket-Protocol: " + SUBPROTOCOL)
    if admission.compression is not None:
        headers.append(admission.compression.answer)
    if admission.overrides is not None:
        headers.append(f"{overrides.HEADER}: {','.join(admission.overrides.values)}".encode())
    return accepted(admission.key, *headers)


def _pid(stream: Accepted) -> int | None:
    """Return the process at the far end of a unix socket, if the system tells it."""
    if not isinstance(stream, Patient) or stream.socket.family != socket.AF_UNIX:
        return None
    try:
        return who_is_there(stream.socket.getsockopt).pid or None  # 0: of another container
    except OSError:  # it has gone again
        return None


class _Connection(Part):
    """A client's connection: its stream, its outbox, and how it ends."""

    stream: trio.abc.HalfCloseableStream
    dispatcher: Dispatcher
    outbox: Outbox
    frames: FrameReader
    nursery: trio.Nursery
    """Runs the writer; it is the nursery of all connections."""
    known: Callable[[], None]
    """Called once it is known who the client is."""
    pid: int | None
    """The process at the far end, if the system tells it."""
    _idle: Rate = msgspec.field(default_factory=lambda: Rate(IDLE_PER_SECOND, IDLE_BURST))
    _ending: tuple[int, str] | None = None
    """Code and reason of our close frame, once we end the connection."""
    _reading: trio.CancelScope = msgspec.field(default_factory=trio.CancelScope)
    _parting: trio.CancelScope | None = None
    """Ends what follows on reading, once that has begun."""
    _writing: trio.CancelScope | None = None
    """Ends the writer, once there is one."""
    _crash: Exception | None = None
    """What the writer ended by, other than its socket's failure."""
    _written: trio.Event | None = None
    """Set once the writer has written everything, when ``_part`` waits for that."""

    async def challenge(self, admission: AcceptedUpgrade, challenger: Challenger) -> None:
        """Have a browser prove who it is; then attend it."""
        principal = None
        limit, self.frames.limit = self.frames.limit, PROOF_BYTES
        with self._reading:
            principal = await challenger.prove(
                self.frames, self.outbox, self._receive, admission, self.end
            )
        if principal is None:
            await self._part()
            return
        self.frames.limit, self._reading = limit, trio.CancelScope()
        await self.attend(replace(admission, rest=b""), principal)

    async def attend(self, admission: AcceptedUpgrade, principal: Principal) -> None:
        """Attach, pass on messages until the end, detach, close in order.

        The 101 was appended before: a client must not get a frame ahead of it.
        """
        self.known()
        port = ClientPort(self.outbox, self.end, pid=self.pid, origin=admission.origin)
        client = self.dispatcher.attach(
            port,
            principal,
            admission.transport,
            admission.address,
            local=admission.local,
            overrides=admission.overrides,
        )
        try:
            with self._reading:
                await self._read(client, port, admission.rest)
        finally:
            # Before the close handshake: others see at once that the client is gone, and nothing
            # more is owed to it.
            self.dispatcher.detach(client)
        await self._part()

    async def _read(self, client: ClientId, port: ClientPort, received: bytes | bytearray) -> None:
        frames = self.frames
        while True:
            began = time.perf_counter()
            for text in frames.feed(received, FRAMES_AT_ONCE):
                self._handle(client, text)
                if self._ending is not None or time.perf_counter() - began > TURN_SECONDS:
                    await trio.lowlevel.checkpoint()
                    began = time.perf_counter()
            if frames.owed:
                self._write_back()
            if frames.idle or port.idle:
                await self._slow_down(port)
            if port.read_on is not None:
                await port.read_on.wait()
            if frames.ended:
                return
            if frames.more:
                received = b""
                await trio.lowlevel.checkpoint()
            elif not (received := await self._receive()):
                return

    def _handle(self, client: ClientId, text: bytes | None) -> None:
        if text is None:
            self.dispatcher.handle(ClientSentBinary(client))
        else:
            if self.dispatcher.debug:
                log.debug("from client", client=client, method=_method(text))
            self.dispatcher.handle(ClientSent(client, text))

    async def _slow_down(self, port: ClientPort) -> None:
        """Pause reading after too much idle input; end the connection if it doesn't stop."""
        now = trio.current_time()
        wait = self._idle.count(self.frames.idle + port.idle, now)
        self.frames.idle = port.idle = 0
        if self._idle.over_for(now) > IDLE_SECONDS:
            self.end(TOO_MUCH, "too many frames and messages that ask for nothing")
        if wait:
            await trio.sleep(wait)

    async def _receive(self) -> bytes | bytearray:
        """Receive the next bytes; none if no more will come."""
        try:
            return await self.stream.receive_some(RECEIVE_BYTES)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return b""

    def _write_back(self) -> None:
        for frame in self.frames.owed:
            self.outbox.append(frame)
        self.frames.owed.clear()

    async def _part(self) -> None:
        """Take leave, for `CLOSE_DEADLINE` at most, unless the socket has failed."""
        if self._writing is None or not self._writing.cancel_called:
            with trio.move_on_after(CLOSE_DEADLINE) as self._parting:
                await self._close()
        if self._crash is not None:
            raise self._crash

    async def _close(self) -> None:
        """Exchange close frames, have the outbox written, and shut down the socket.

        Input of the client is still read, and dropped. Closing a socket with unread input would
        take back bytes that haven't reached the client yet, our close frame first.
        """
        if self._ending is not None and not self.frames.ended:
            self.outbox.append(self.frames.close(*self._ending))
            await self._read_to_the_end()
        self._write_back()
        if self.outbox.owed:
            self._written = trio.Event()
            self.outbox.finish()
            await self._written.wait()
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            await self.stream.send_eof()
        while await self._receive():
            pass

    async def _read_to_the_end(self) -> None:
        """Read up to the client's close frame. It may wait for our end of the connection next."""
        received: bytes | bytearray = b""
        while True:
            self.frames.feed(received, FRAMES_AT_ONCE)  # dropped: the client is detached
            if self.frames.ended:
                return
            if self.frames.more:
                received = b""
                await trio.lowlevel.checkpoint()
            elif not (received := await self._receive()):
                return

    def begin_writing(self) -> None:
        """Start the writer task: the socket doesn't take the outbox at once."""
        self._writing = trio.CancelScope()
        self.nursery.start_soon(self._write, self._writing)

    def end_writing(self) -> None:
        """End the writer task, if there is one."""
        if self._writing is not None:
            self._writing.cancel()

    async def _write(self, scope: trio.CancelScope) -> None:
        """Write the outbox until it is finished; a socket that fails ends the connection."""
        with scope:
            try:
                await self.outbox.write_to(self.stream)
            except (trio.BrokenResourceError, trio.ClosedResourceError, OSError):
                self._break_off()
            except Exception as failure:  # noqa: BLE001 (raised by the connection itself: not others')
                self._crash = failure
                self._break_off()
        if self._written is not None:
            self._written.set()

    def _break_off(self) -> None:
        """End the connection at once: nothing can be written any more."""
        self.end_writing()
        self._reading.cancel()
        if self._parting is not None:
            self._parting.cancel()

    def end(self, code: int, reason: str) -> None:
        """End the connection with a close frame after what the outbox holds. Doesn't wait."""
        if self._ending is None:
            self._ending = (code, reason)
            self._reading.cancel()


def _method(text: bytes) -> str:
    try:
        return client_message.read_client(text).method or "answer"
    except jsonrpc.BadMessageError:
        return "malformed"
