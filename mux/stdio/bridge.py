"""``appmux stdio``: JSON lines on stdin and stdout, attached to the running broker's unix socket.

For programs that start ``codex app-server`` and talk to its pipes. The bridge has one thread and
one ``poll``. Input is passed on before more is read, so neither side's messages pile up in memory
while the other side is slow.

It starts in a tenth of a second because it imports no more than it must; a service is started by
another process (``appmux service start``).
"""

from __future__ import annotations

import os
import select
import signal
import socket
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

from mux.errors import AppmuxError
from mux.posix import standard_streams
from mux.posix.standard_streams import STDIN, STDOUT
from mux.stdio.attach import HOW_TO_START, NotReachedError, connect, start_service
from mux.stdio.lines import Lines
from mux.stdio.output import Output
from mux.stdio.rejoin import ClientSession, ReturnError
from mux.stdio.websocket import OVERRIDES, ClientWebSocket, WebSocketError

if TYPE_CHECKING:
    from mux.stdio.overrides import DoorOverrides

WAIT: Final = 60.0
"""Seconds to wait for a lost broker, unless ``--wait`` says otherwise.

As long as the broker itself lets requests wait for an app-server that comes up.
"""

FIRST_WAIT: Final = 60.0
"""Seconds from a service's start until it listens, and until it shakes hands: a cold disk."""

SUCCESSOR_WAIT: Final = 5.0
"""Seconds in which to try again if the connection is closed before its handshake.

A broker that is just being restarted closes it so; its successor listens soon.
"""

FIRST_TRY, LONGEST_TRY = 0.05, 1.0
"""Seconds between two tries to reach a broker, doubled from the first to the longest."""

READ_BYTES: Final = 256 * 1024

ANSWERS_DEADLINE: Final = 1.0
"""Seconds after stdin's end for answers in flight: ``printf … | appmux stdio`` gets them."""

COMING_UP_DEADLINE: Final = 10.0
"""Seconds after stdin's end for the answer to the handshake.

A broker that has just been started answers it once its app-server is there, and then the requests
that were piped in behind it.
"""

CLOSE_DEADLINE: Final = 3.0
"""Seconds for the broker to join the closing handshake, and for stdout to take what is owed."""

OVER_THE_LIMIT: Final = 1009
"""The WebSocket close code for a message that is too large."""


class StdioError(AppmuxError):
    """Raised when there is no broker to attach to, or it is gone; the text says what to do."""


def run(named: Path | None, wait: float, overrides: DoorOverrides | None = None) -> int:
    """Serve the client until it leaves, and return the exit status. Raises ``AppmuxError``.

    ``named`` is the socket, None to search for one. ``wait`` is how many seconds to wait for a lost
    broker; with 0, losing it is the end. ``overrides`` are those of the client's command line.
    """
    # As the app-server natively: SIGTERM ends at once, with 0; SIGINT as with any program.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    return Bridge(named, wait, overrides).serve()


class Bridge:
    """A client and its connection to the broker."""

    def __init__(self, named: Path | None, wait: float, overrides: DoorOverrides | None) -> None:
        self.named = named
        self.wait = wait
        self.overrides = overrides
        self.session = ClientSession(numbers=wait > 0)
        """What is carried over to the next connection, and said on it."""
        self.lines = Lines()
        self.link: socket.socket | None = None
        """The connection to the broker; None while there is none."""
        self.wire = ClientWebSocket()
        self.at = ""
        self.was_attached = False
        """True once a broker accepted the upgrade; before that there is nothing to resume."""
        self.lost_at = 0.0
        """When a broker that had been attached was lost; 0.0 while attached."""
        self.reason = ""
        self.began = time.monotonic()
        self.deadline = time.monotonic() + FIRST_WAIT
        """When to give up what is waited for just now."""
        self.next_try = 0.0
        self.pause = FIRST_TRY
        self.stdin_open = True
        self.unread = False
        """stdin has ended with bytes in it that are still to be read."""
        self.said_goodbye = False
        self.going: deque[Iterator[bytes]] = deque()
        """Messages to the broker, each an iterator over its frames."""
        self.frame = memoryview(b"")
        """The rest of the frame being sent."""
        self.output = Output()

    def serve(self) -> int:
        """Carry messages both ways until one side is gone. Raises ``StdioError``; returns 0."""
        try:
            self._attach_first()
            while not self._has_left():
                self._wait_and_act()
            self.output.flush(CLOSE_DEADLINE)
        except BrokenPipeError:
            pass  # nobody reads stdout any more: the client is gone
        return 0

    # ── attaching ─────────────────────────────────────────────────────────────────────────────

    def _attach_first(self) -> None:
        failure = self._connect()
        if failure is None:
            return
        started = start_service()
        while started and time.monotonic() < self.deadline:
            time.sleep(self._next_pause())
            failure = self._connect()
            if failure is None:
                self.began = time.monotonic()
                return
        more = "the service was started, but doesn't listen there" if started else HOW_TO_START
        raise StdioError(f"no broker to attach to ({failure}): {more}")

    def _connect(self) -> str | None:
        """Try to connect once; return why that failed, or None once connected."""
        try:
            self.link, self.at, joined = connect(self.named)
        except NotReachedError as failure:
            return str(failure)
        if not self.was_attached:
            self.deadline = time.monotonic() + FIRST_WAIT
        self.wire = ClientWebSocket()
        more = self.overrides.header() if self.overrides else b""
        who = (joined.authority, joined.headers() + more) if joined else ("localhost", more)
        hello = self.wire.hello(*who)
        self.going.append(iter([hello]))
        return None

    def _next_pause(self) -> float:
        pause, self.pause = self.pause, min(self.pause * 2, LONGEST_TRY)
        return pause

    def _opened(self) -> None:
        """Continue once the broker has accepted the upgrade."""
        if self.overrides is not None and (
            text := self.overrides.answered(self.wire.headers.get(OVERRIDES))
        ):
            _print(text)
        if self.was_attached:
            # The bridge's own handshake goes before any line of the client.
            self.session.back(time.time())
            self._send_own()
        self.was_attached = True
        self._seen_live()

    def _seen_live(self) -> None:
        if self.lost_at and self.session.live:
            _print(f"attached again after {time.monotonic() - self.lost_at:.1f} s")
            self.lost_at, self.pause = 0.0, FIRST_TRY

    # ── the one wait ──────────────────────────────────────────────────────────────────────────

    def _wait_and_act(self) -> None:
        poll = select.poll()
        link = self.link.fileno() if self.link is not None else -1
        reads_stdin = self._reads_stdin()
        if reads_stdin:
            poll.register(STDIN, select.POLLIN)
        elif self.was_attached and not self._is_attached() and self.stdin_open and not self.unread:
            poll.register(STDIN, 0)  # without events: only reports that the client has gone
        poll.register(STDOUT, self.output.events)
        if link >= 0:
            reads = 0 if self.output.is_behind else select.POLLIN
            poll.register(link, reads | (select.POLLOUT if self._has_to_send() else 0))
        for descriptor, event in poll.poll(self._timeout()):
            if descriptor == link:
                self._link_ready(event)
            elif descriptor == STDOUT:
                self.output.write(event)
            elif reads_stdin and self.link is not None:
                self._stdin_ready()
            elif not reads_stdin:
                self._client_gone()
        self._time_passed()

    def _reads_stdin(self) -> bool:
        """Return whether to read from stdin.

        Only once earlier input has been sent: a client is slowed down, its lines are not stored.
        """
        may = self.stdin_open and self._is_attached() and not self.output.is_full
        return may and not self._has_to_send()

    def _is_attached(self) -> bool:
        """Return whether the client's lines may go to the broker now."""
        return self.link is not None and self.wire.open and self.session.live

    def _timeout(self) -> float | None:
        """Return the milliseconds until something is due; None if nothing is."""
        if self.link is None:
            due = self.next_try
        elif not self._is_attached() or not self.stdin_open:
            due = self.deadline
        else:
            return None
        return max(0.0, (due - time.monotonic()) * 1000)

    def _time_passed(self) -> None:
        now = time.monotonic()
        if self._has_left():
            return
        if self.link is None:
            if now >= self.deadline:
                self._give_up(f"it didn't come back ({self.reason})")
            if now >= self.next_try:
                self.next_try = now + self._next_pause()
                self._connect()
        elif not self._is_attached():
            if now >= self.deadline:
                self._give_up(f"{self.at} accepted, but didn't answer")
        elif not self.stdin_open:
            self._leave(now)

    def _give_up(self, reason: str) -> None:
        if not self.was_attached:
            raise StdioError(f"no broker to attach to: {reason}: {HOW_TO_START}")
        raise StdioError(
            f"the broker is gone, and within {self.wait:g} s {reason}: see `appmux service status`,"
            " or start it with `appmux serve`"
        )

    # ── from the client to the broker ─────────────────────────────────────────────────────────

    def _stdin_ready(self) -> None:
        try:
            received = os.read(STDIN, READ_BYTES)
        except OSError:
            received = b""  # closed before we began, or a terminal that was taken away
        for line in self.lines.feed(received) if received else self.lines.ends():
            self._to_broker(self.session.state.from_client(line))
        for error in self.lines.errors:
            self.output.owe([error])
        self.lines.errors.clear()
        if not received:
            self.stdin_open = False
            self.deadline = time.monotonic() + COMING_UP_DEADLINE

    def _client_gone(self) -> None:
        """React to stdin's end, noticed while stdin wasn't read.

        Bytes that are still in it are read later.
        """
        poll = select.poll()
        poll.register(STDIN, select.POLLIN)
        self.unread = any(event & select.POLLIN for _, event in poll.poll(0))
        self.stdin_open = self.unread

    def _to_broker(self, line: bytes) -> None:
        self.going.append(self.wire.message(line))

    def _send_own(self) -> None:
        """Send the bridge's own requests to the broker."""
        own, self.session.to_broker = self.session.to_broker, []
        for line in own:
            self._to_broker(line)

    def _has_to_send(self) -> bool:
        while not self.frame and self.going:
            frame = next(self.going[0], None)
            if frame is None:
                self.going.popleft()
            else:
                self.frame = memoryview(frame)
        return bool(self.frame)

    def _link_ready(self, event: int) -> None:
        assert self.link is not None
        try:
            if event & select.POLLOUT:
                self.frame = self.frame[self.link.send(self.frame) :]
            if event & ~select.POLLOUT:
                self._receive(self.link.recv(READ_BYTES))
        except BlockingIOError:
            return
        except OSError as failure:
            self._lost(failure.strerror or str(failure))
        except (WebSocketError, ReturnError) as failure:
            if not self.was_attached:
                raise StdioError(f"{self.at} is no broker: {failure}") from failure
            self._lost(str(failure))

    # ── from the broker to the client ─────────────────────────────────────────────────────────

    def _receive(self, received: bytes) -> None:
        was_open = self.wire.open
        messages = self.wire.feed(received)
        if self.wire.open and not was_open:
            self._opened()
        # Messages first: an answer among them may give the bridge requests of its own to send.
        for message in messages:
            self.output.owe(self.session.from_broker(message))
        self._send_own()
        self._seen_live()
        self.going += [iter([reply]) for reply in self.wire.replies]
        self.wire.replies.clear()
        if self.wire.closed is not None:
            code, reason = self.wire.closed
            self._lost(f"closed with {code}{' ' if reason else ''}{reason}", code)
        elif not received:
            self._lost("closed without a word")

    # ── ends ──────────────────────────────────────────────────────────────────────────────────

    def _lost(self, reason: str, code: int = 0) -> None:
        """End this connection: wait for another, or exit with it."""
        if self.link is not None:
            self.link.close()
        self.link = None
        self.going.clear()
        self.frame = memoryview(b"")
        if not self.stdin_open:
            return  # the client leaves anyway
        now, self.reason = time.monotonic(), reason
        self.next_try = now + self._next_pause()
        if not self.was_attached:
            self.deadline = self.began + SUCCESSOR_WAIT
            if now >= self.deadline:
                raise StdioError(f"{self.at} is no broker that lets us in: {reason}")
            return
        text = "the broker is gone"
        if code == OVER_THE_LIMIT:
            text = "the broker takes no message as large as one of those in flight, and went"
        self.output.owe(self.session.lost(text, retryable=code != OVER_THE_LIMIT))
        if not self.wait:
            self.output.flush(CLOSE_DEADLINE)
            raise StdioError(f"the broker is gone ({reason}): start this client again")
        if not self.lost_at:
            _print(f"the broker is gone ({reason}); waiting {self.wait:g} s for it at most")
            self.lost_at, self.deadline = now, now + self.wait

    def _leave(self, now: float) -> None:
        """Say goodbye once stdin has ended and all requests are answered, or their time is up."""
        if not self.session.state.shakes_hands and not self.said_goodbye:
            self.deadline = min(self.deadline, now + ANSWERS_DEADLINE)
        waits_for_answers = self._has_to_send() or self.session.state.in_flight
        if not self.said_goodbye and (not waits_for_answers or now >= self.deadline):
            self.said_goodbye = True
            self.deadline = now + CLOSE_DEADLINE
            # The close frame is queued last, so the broker still gets all that the client sent.
            self.going.append(iter([self.wire.goodbye()]))
        elif self.said_goodbye and now >= self.deadline and self.link is not None:
            self.link.close()
            self.link = None

    def _has_left(self) -> bool:
        return not self.stdin_open and self.link is None


def _print(text: str) -> None:
    standard_streams.write_stderr(f"appmux stdio: {text}\n")
