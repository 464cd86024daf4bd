"""The loop: one broker after another, over an app-server that goes on meanwhile.

    broker ends in order, by its own word      the supervisor ends, with the same exit status
    broker ends before it ever served          likewise: it has said why it can't start
    broker dies, or ends for the next one      the next one is started, and handed the app-server
    no broker serves for `orphan_wait`         the app-server is ended in order, then the supervisor
    supervisor dies                            the broker sees that and ends; with both of them gone
                                               the app-server's stdin ends, and so does it

SIGTERM and SIGINT mean a stop; they and SIGHUP are passed on to the broker. While no broker reads
the app-server's stderr the supervisor does: unread, it would stop the app-server. Of stdin and
stdout it reads and writes nothing.

Used by ``cli.entry``.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import time
from collections.abc import Callable
from typing import Any, Final

from mux.posix.standard_streams import say
from mux.supervisor import processes
from mux.supervisor.channel import VERSION, Channel, Message
from mux.supervisor.lives import NEVER, AppServer, Broker
from mux.supervisor.processes import Pipes
from mux.supervisor.service_manager import keep_sockets, notify, watchdog

FIRST_WAIT: Final = 0.1
LONGEST_WAIT: Final = 10.0
"""Seconds before the next broker: the first time, and at most. They double while brokers die
young."""

YOUNG: Final = 60.0
"""A broker that served for so many seconds didn't die of what its predecessor died of."""

ORPHAN_WAIT: Final = 300.0
"""Seconds for which an app-server is kept with no broker; each broker says its own."""

STDERR_BYTES: Final = 64 * 1024
ALIVE: Final = "WATCHDOG=1"
WATCHDOG_SHARE: Final = 0.75
"""Of systemd's deadline for a sign of life, after which a broker that gives none is killed."""


PASSED_ON: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
SIGNAL_STATUS: Final = 128


def run(broker: Callable[[], None]) -> int:
    """Run brokers until one ends in order; returns the exit status.

    ``broker`` is called in the first broker's process and should not return.
    """
    supervisor = Supervisor()
    if supervisor.start_first():
        broker()
        os._exit(0)
    return supervisor.loop()


class Supervisor:
    """Brokers, one after another, and the app-server."""

    def __init__(self) -> None:
        self.app: AppServer | None = None
        self.broker: Broker | None = None
        self.generation = 0
        self.token = os.urandom(16).hex()
        self.remains: AppServer | None = None
        """The last app-server, which has ended, with what is unread of it: until another is started
        it isn't known that a broker has dealt with its end."""
        self.lives = 0
        self.ever_served = False
        self.stopping = False
        self.status = 0
        """The exit status, once no other broker is to come."""
        self.next_broker = NEVER
        self.wait = FIRST_WAIT
        self.orphan_wait = ORPHAN_WAIT
        self.orphan_since = NEVER
        self.hangup_ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        self.environ = dict(os.environ)
        self.sockets = keep_sockets(self.environ)
        self.watchdog = watchdog(self.environ)
        self.listeners: list[tuple[str, int]] = []
        """Listening sockets of the broker's own, by the URL that was asked for."""
        self.signals, wakes = os.pipe()
        for end in (self.signals, wakes):
            os.set_blocking(end, False)
        self._wakes = wakes

    # ── brokers ───────────────────────────────────────────────────────────────────────────────

    def start_first(self) -> bool:
        """Fork the first broker. Returns True in its process."""
        ours, theirs = socket.socketpair()
        pid = processes.fork_broker(theirs.fileno(), self.sockets, self.hangup_ignored)
        if pid == 0:
            for end in (self.signals, self._wakes):
                os.close(end)
            ours.close()
            theirs.detach()
            return True
        self._began(pid, ours, theirs)
        return False

    def _start_next(self) -> None:
        self.next_broker = NEVER
        ours, theirs = socket.socketpair()
        try:
            pid = processes.start_broker(
                theirs.fileno(), self.sockets, self.environ, self.hangup_ignored
            )
        except OSError as failure:
            say(f"appmux: no broker can be started: {failure.strerror}\n")
            ours.close()
            theirs.close()
            self._start_later()
        else:
            self._began(pid, ours, theirs)

    def _began(self, pid: int, ours: socket.socket, theirs: socket.socket) -> None:
        theirs.close()
        self.broker = Broker(pid, Channel(ours), time.monotonic())
        app = self.app or self.remains
        hello: Message = {
            "say": "hello",
            "version": VERSION,
            "generation": self.generation,
            "appServer": app and app.pid,
            "exited": app and app.status,
            "lives": self.lives,
            "token": self.token,
            "listeners": [url for url, _ in self.listeners],
        }
        self.lives += 1
        pipes = app.pipes.ours if app is not None else []
        self._tell(hello, [*pipes, *(descriptor for _, descriptor in self.listeners)])

    def _tell(self, message: Message, descriptors: list[int] | None = None) -> None:
        if self.broker is None or self.broker.deaf:
            return
        with contextlib.suppress(OSError):  # it is gone, which `_reap` sees
            self.broker.channel.send(message, descriptors or [])

    def _broker_ended(self, broker: Broker, status: int) -> None:
        self.broker = None
        broker.channel.close()
        now = time.monotonic()
        if self.app is not None:
            self.app.drained = True
        if broker.served:
            self.orphan_since = now
        # One that fails by itself has said why, and the next would fail the same way.
        failed = not broker.served and status >= 0 and self.app is None
        if self.stopping or broker.ends or not self.ever_served or failed:
            self._stop(status)
        elif broker.renews:
            self.wait = FIRST_WAIT
            self.next_broker = now
        else:
            how = f"exit status {status}" if status >= 0 else f"signal {-status}"
            survivor = f"; the app-server (pid {self.app.pid}) runs on" if self.app else ""
            say(f"appmux: the broker (pid {broker.pid}) ended unexpectedly: {how}{survivor}\n")
            if broker.served and now - broker.since > YOUNG:
                self.wait = FIRST_WAIT
            self._start_later()

    def _start_later(self) -> None:
        self.next_broker = time.monotonic() + self.wait
        self.wait = min(2 * self.wait, LONGEST_WAIT)

    def _stop(self, status: int) -> None:
        """Start no other broker, and end once the app-server has."""
        self.stopping = True
        self.next_broker = NEVER
        self._let_listeners_go()
        self.status = status if status >= 0 else SIGNAL_STATUS - status
        if self.app is not None:
            self.app.end()

    # ── the app-server ────────────────────────────────────────────────────────────────────────

    def _start_app_server(self, message: Message) -> None:
        if self.app is not None:
            return
        try:
            pipes = Pipes()
            try:
                pid = processes.start_app_server(message["command"], message["environ"], pipes)
            except BaseException:
                pipes.close()
                raise
        except OSError as failure:
            self._tell({"say": "failed", "errno": failure.errno or 0})
            return
        self.generation += 1
        self._let_remains_go()
        self.app = AppServer(pid, pipes)
        self._tell({"say": "started", "pid": pid, "generation": self.generation}, pipes.ours)
        self.app.drained = False

    def _app_server_ended(self, app: AppServer, status: int) -> None:
        self.app, app.status = None, status
        self.remains = app
        self._tell({"say": "exited", "pid": app.pid, "status": status})

    def _let_remains_go(self) -> None:
        if self.remains is not None:
            self.remains.pipes.close()
            self.remains = None

    def _drain(self, app: AppServer) -> None:
        try:
            lines = os.read(app.pipes.stderr, STDERR_BYTES)
        except BlockingIOError:
            return  # the broker has made it so
        say(lines.decode(errors="replace"))
        app.drained = bool(lines)

    # ── the loop ──────────────────────────────────────────────────────────────────────────────

    def loop(self) -> int:
        """Run until all is over; returns the exit status."""
        for number in (*PASSED_ON, signal.SIGCHLD):
            if number != signal.SIGHUP or not self.hangup_ignored:
                signal.signal(number, lambda _number, _frame: None)
        signal.set_wakeup_fd(self._wakes, warn_on_full_buffer=False)
        self._reap()  # one that ended before the handlers were there
        while not (self.stopping and self.broker is None and self.app is None):
            self._step()
        return self.status

    def _step(self) -> None:
        poll = select.poll()
        poll.register(self.signals, select.POLLIN)
        broker, app = self.broker, self.app
        if broker is not None and not broker.deaf:
            poll.register(broker.channel.fileno(), select.POLLIN)
        if app is not None and app.drained:
            poll.register(app.pipes.stderr, select.POLLIN)
        ready = {descriptor for descriptor, _ in poll.poll(self._milliseconds())}
        if self.signals in ready:
            for number in os.read(self.signals, STDERR_BYTES):
                self._signalled(number)
        if broker is not None and not broker.deaf and broker.channel.fileno() in ready:
            self._hear(broker)
        if app is not None and app.drained and app.pipes.stderr in ready:
            self._drain(app)
        self._reap()
        self._on_time()

    def _milliseconds(self) -> int | None:
        moments = [self.next_broker, self._orphaned_at(), self._hangs_at()]
        moments += [self.app.next_step] if self.app is not None else []
        soonest = min(moments)
        if soonest == NEVER:
            return None
        return max(0, int((soonest - time.monotonic()) * 1000) + 1)

    def _orphaned_at(self) -> float:
        waits = self.app is not None and not self.app.end_steps
        return self.orphan_since + self.orphan_wait if waits else NEVER

    def _hangs_at(self) -> float:
        """Return when a broker that says nothing more is given up, before systemd ends us all."""
        if self.broker is None or self.stopping:
            return NEVER
        return self.broker.alive_at + self.watchdog * WATCHDOG_SHARE

    def _signalled(self, number: int) -> None:
        if number == signal.SIGCHLD:
            return
        if number != signal.SIGHUP:
            self.stopping = True
        self._reap()
        if self.broker is not None:
            os.kill(self.broker.pid, number)
        elif self.stopping:
            self._stop(0)

    def _hear(self, broker: Broker) -> None:
        try:
            messages = broker.channel.receive()
        except BlockingIOError:
            return
        except ConnectionResetError:  # it ended without having read all that we said
            messages = None
        except (OSError, ValueError) as failure:
            say(f"appmux: the broker says what can't be read: {failure}\n")
            messages = None
        if messages is None:
            broker.deaf = True
            broker.channel.close()  # if it hasn't ended yet, it does now
            return
        for message, descriptors in messages:
            self._handle(broker, message, descriptors)

    def _handle(self, broker: Broker, message: dict[str, Any], descriptors: list[int]) -> None:
        match message.get("say"):
            case "start":
                self._start_app_server(message)
            case "close" if self.app is not None:
                self.app.pipes.close_stdin()
            case "signal" if self.app is not None:
                os.kill(self.app.pid, message["number"])
            case "taken" if self.app is not None:
                self.app.drained = False
            case "listeners":
                self._let_listeners_go()
                self.listeners = list(zip(message["asked"], descriptors, strict=True))
                return
            case "serving":
                broker.served = self.ever_served = True
                self.orphan_since = NEVER
                self.orphan_wait = message["orphanWait"]
            case "renew":
                broker.renews = True
            case "end":
                broker.ends = True
            case "notify":
                if message["state"] == ALIVE:
                    broker.alive_at = time.monotonic()
                notify(self.environ, message["state"])
            case _:
                pass
        for each in descriptors:
            os.close(each)

    def _let_listeners_go(self) -> None:
        for _url, descriptor in self.listeners:
            os.close(descriptor)
        self.listeners = []

    def _reap(self) -> None:
        for running in (self.app, self.broker):
            if running is None:
                continue
            pid, status = os.waitpid(running.pid, os.WNOHANG)
            if pid == 0:
                continue
            code = os.waitstatus_to_exitcode(status)
            if isinstance(running, AppServer):
                self._app_server_ended(running, code)
            else:
                self._last_words(running)
                self._broker_ended(running, code)

    def _last_words(self, broker: Broker) -> None:
        """Hear what a broker said before it ended."""
        if broker.deaf:
            return
        broker.channel.socket.setblocking(False)
        while self.broker is broker:
            try:
                messages = broker.channel.receive()
            except (OSError, ValueError):
                return
            if messages is None:
                return
            for message, descriptors in messages:
                self._handle(broker, message, descriptors)

    def _on_time(self) -> None:
        now = time.monotonic()
        if self.next_broker <= now:
            self._start_next()
        if self._orphaned_at() <= now:
            say(f"appmux: no broker served for {self.orphan_wait:g} s: ending the app-server\n")
            if self.app is not None:
                self.app.end()
            if self.broker is None:
                self._stop(1)
        if self.broker is not None and self._hangs_at() <= now:
            say(f"appmux: the broker (pid {self.broker.pid}) hangs: killing it\n")
            notify(self.environ, ALIVE)  # systemd needn't: the next one begins
            self.broker.alive_at = NEVER
            os.kill(self.broker.pid, signal.SIGKILL)
        if self.app is not None:
            self.app.send_due(now)
