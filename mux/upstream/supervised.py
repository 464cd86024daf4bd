"""The app-server as the supervisor's child: started by it, and handed on from broker to broker.

``process`` uses a `SupervisedProcess` as it does a child of its own. The supervisor tells how it
ended; the pipes are the broker's as long as it runs.

`Supervision` is the broker's end of the channel, after its `Opening`. Hears from: ``supervisor``.
Used by ``server`` and ``process``.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec
import structlog
import trio

from mux.core.part import Part, later
from mux.supervisor.channel import Channel, Message
from mux.supervisor.opening import Opening, start

PIPES = 3

log = structlog.get_logger()


class RunningAppServer(Part):
    """An app-server that a former broker left running."""

    pid: int
    generation: int
    descriptors: list[int]


class Supervision(Part):
    """The broker's end of the channel."""

    _channel: Channel
    generation: int
    """The number of the app-server that runs, or that ran last."""
    lives: int
    """Brokers before this one, under the same supervisor."""
    left: RunningAppServer | None
    """The app-server that the former broker left."""
    token: str
    """Tells this supervisor from any other."""
    listeners: list[tuple[str, int]]
    """Listening sockets that the former broker had, by the URLs that it was configured with."""
    exited: int | None
    """How the app-server ended that the former broker left, if it has ended since."""
    requested_early: bool = False
    """True if an app-server was requested early, and ``start`` hasn't claimed it yet."""
    unheard: list[tuple[Message, list[int]]] = msgspec.field(default_factory=list)
    """Messages that were received, and not dealt with."""
    kept: bool = False
    """True if the app-server outlives the supervisor, too."""
    trouble: str | None = None
    """For people: why the app-server that was left isn't gone on with."""
    gone: Callable[[], None] = lambda: None
    """Called when the supervisor is gone: the broker is to end at once."""
    renew: Callable[[], None] = lambda: None
    """Called when the broker is to end for the next one, which goes on with the app-server."""
    _served: bool = False
    _is_last: bool = False
    """True once the supervisor is to end with this broker, or is gone."""
    _process: SupervisedProcess | None = None
    _answers: trio.MemorySendChannel[SupervisedProcess | int] = later()
    """The process that was asked for, or the error's number."""
    _answered: trio.MemoryReceiveChannel[SupervisedProcess | int] = later()

    def __post_init__(self) -> None:
        self._answers, self._answered = trio.open_memory_channel[SupervisedProcess | int](8)

    @classmethod
    def open(cls, opening: Opening | None) -> Supervision | None:
        """Continue the exchange that the opening began; None if there is no supervisor."""
        if opening is None:
            return None
        hello, descriptors = opening.hello, opening.descriptors
        pid, exited = hello["appServer"], hello.get("exited")
        pipes = descriptors[:PIPES] if pid is not None else []
        left = RunningAppServer(pid, hello["generation"], pipes) if pid is not None else None
        sockets = descriptors[len(pipes) :]
        return cls(
            opening.channel,
            hello["generation"],
            hello["lives"],
            left,
            hello["token"],
            list(zip(hello["listeners"], sockets, strict=True)),
            exited,
            opening.requested_early,
            opening.messages,
            hello.get("kept", False),
            hello.get("trouble"),
        )

    def mark(self, pid: int, generation: int) -> bytes:
        """Return what tells an app-server's process from any other."""
        return f"{self.token}/{generation}/{pid}".encode()

    def hold(self, listeners: Sequence[tuple[str, int]]) -> None:
        """Have these listening sockets held, and no others, for the next broker."""
        if self._is_last:
            return
        urls = [url for url, _ in listeners]
        self._send({"say": "listeners", "asked": urls}, [each for _, each in listeners])

    def hold_none(self) -> None:
        """Have nothing held any more: the supervisor ends with this broker."""
        self.hold(())
        self._is_last = True

    def serving(self, orphan_wait: float) -> None:
        """Say that clients are served. ``orphan_wait``: see ``[upstream]``."""
        self._served = True
        self.send(say="serving", orphanWait=orphan_wait)

    def is_followed(self) -> bool:
        """Return whether another broker goes on with the listeners, however this one ends.

        The supervisor starts none after one that failed where none had served.
        """
        return not self._is_last and (self._served or self.lives > 0)

    def send(self, **message: object) -> None:
        """Send the supervisor a message. Doesn't wait: it reads at once whatever comes."""
        self._send(message)

    def _send(self, message: Message, descriptors: Sequence[int] = ()) -> None:
        self._channel.socket.setblocking(True)
        try:
            self._channel.send(message, descriptors)
        except OSError as failure:
            log.warning("the supervisor can't be told", what=message["say"], why=str(failure))
        finally:
            self._channel.socket.setblocking(False)

    async def run(self) -> None:
        """Hear the supervisor until it is gone, or until cancelled."""
        while self.unheard:
            self._handle(*self.unheard.pop(0))
        while True:
            await trio.lowlevel.wait_readable(self._channel)
            try:
                messages = self._channel.receive()
            except BlockingIOError:
                continue
            except (OSError, ValueError) as failure:
                log.error("the supervisor says what can't be read", why=str(failure))
                messages = None
            if messages is None:
                log.error("the supervisor is gone: ending")
                if self.kept:
                    self.renew()
                    return
                self._is_last = True
                if self._process is not None:
                    self._process.orphaned()
                self.gone()
                return
            for message, descriptors in messages:
                self._handle(message, descriptors)

    def _handle(self, message: Message, descriptors: list[int]) -> None:
        if message["say"] == "started":
            # At once: that it has ended may be the next message.
            self.generation = message["generation"]
            self._answers.send_nowait(self._runs(message["pid"], descriptors))
        elif message["say"] == "failed":
            self._answers.send_nowait(message["errno"] or errno.EINVAL)
        elif message["say"] == "exited":
            process = self._process
            if process is not None and process.pid == message["pid"]:
                process.ended(message["status"])
        elif message["say"] == "renew":
            self.renew()

    async def start(
        self, command: Sequence[str | Path], environ: Mapping[str, str]
    ) -> SupervisedProcess:
        """Have an app-server started, but for the one that was asked for early.

        Raises ``OSError`` if it can't be run.
        """
        if not self.requested_early:
            self._send(start(command, environ))
        self.requested_early = False
        answer = await self._answered.receive()
        if isinstance(answer, int):
            raise OSError(answer, os.strerror(answer), str(command[0]))
        return answer

    def adopt(self, left: RunningAppServer) -> SupervisedProcess:
        """Take over the app-server that a former broker left."""
        self.left = None
        process = self._runs(left.pid, left.descriptors)
        if self.exited is not None:
            process.ended(self.exited)
        return process

    def _runs(self, pid: int, descriptors: list[int]) -> SupervisedProcess:
        self._process = SupervisedProcess(self, pid, descriptors)
        self.send(say="taken")
        return self._process


class Stdin(trio.abc.SendStream):
    """The app-server's stdin. Closing it closes the supervisor's descriptor, too."""

    def __init__(self, supervision: Supervision, descriptor: int) -> None:
        self.pipe = trio.lowlevel.FdStream(descriptor)
        self._supervision: Supervision | None = supervision

    def fileno(self) -> int:
        return self.pipe.fileno()

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self.pipe.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self.pipe.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        if self._supervision is not None:
            self._supervision.send(say="close")
            self._supervision = None
        await self.pipe.aclose()


class SupervisedProcess:
    """An app-server that is the supervisor's child; like a ``trio.Process``."""

    def __init__(self, supervision: Supervision, pid: int, descriptors: list[int]) -> None:
        self._supervision = supervision
        self.pid = pid
        self.stdin = Stdin(supervision, descriptors[0])
        self.stdout = trio.lowlevel.FdStream(descriptors[1])
        self.stderr = trio.lowlevel.FdStream(descriptors[2])
        self.returncode: int | None = None
        self._ended = trio.Event()
        # It can't be another's pid yet: the supervisor, its parent, hasn't reaped it.
        self._handle: int | None = None
        if sys.platform == "linux":
            with contextlib.suppress(OSError):
                self._handle = os.pidfd_open(pid)

    def ended(self, status: int) -> None:
        """Record the process's end, and wake who waits for it."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None
        self.returncode = status
        self._ended.set()

    async def wait(self) -> int:
        """Wait for the process's end; returns its return code."""
        await self._ended.wait()
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, number: signal.Signals) -> None:
        """Have the supervisor send a signal, unless the process has ended."""
        if self.returncode is None:
            self._supervision.send(say="signal", number=int(number))

    def terminate(self) -> None:
        """Ask the process to end."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End the process at once."""
        self.send_signal(signal.SIGKILL)

    def is_left(self) -> bool:
        """Return whether the next broker goes on with it, if this one ends now: also by a fault."""
        return self._supervision.is_followed()

    async def let_go(self) -> None:
        """Close our descriptors, and leave the process running."""
        for stream in (self.stdin.pipe, self.stdout, self.stderr):
            await stream.aclose()

    def orphaned(self) -> None:
        """End the process, whose parent is gone; nobody tells any more how it ended."""
        if self._handle is not None and self.returncode is None:
            with contextlib.suppress(OSError):
                signal.pidfd_send_signal(self._handle, signal.SIGTERM)
        self.ended(-signal.SIGTERM)
