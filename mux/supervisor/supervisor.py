"""The loop: one broker after another, over an app-server that goes on meanwhile.

    broker ends in order, by its own word      the supervisor ends, with the same exit status
    broker ends before it ever served          likewise: it has said why it can't start
    broker dies, or ends for the next one      the next one is started, and handed the app-server
    no broker serves for `orphan_wait`         the app-server is ended in order, then the supervisor
    supervisor dies                            the broker sees that and ends; with both of them gone
                                               the app-server's stdin ends, and so does it
    systemd restarts the service, or it dies   what the app-server needs is in systemd's keeping
    as one                                     (``descriptor_store``): the next supervisor takes it

SIGTERM and SIGINT mean a stop; they and SIGHUP are passed on to the broker. While no broker reads
the app-server's stderr the supervisor does: unread, it would stop the app-server. Of stdin and
stdout it reads and writes nothing.

Used by ``cli.entry``.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
import socket
import time
from collections.abc import Callable
from typing import Any, Final

from mux.supervisor import processes
from mux.supervisor.app_servers import AppServers
from mux.supervisor.broker_messages import flaw
from mux.supervisor.channel import VERSION, Channel, Message
from mux.supervisor.descriptor_store import BROKER, DescriptorStore
from mux.supervisor.lives import NEVER, Broker
from mux.supervisor.log import log
from mux.supervisor.service_manager import (
    end_what_is_left,
    keep_sockets,
    notify,
    start_wait,
    stops_for_good,
    watchdog,
)

FIRST_WAIT: Final = 0.1
LONGEST_WAIT: Final = 10.0
"""Seconds before the next broker: the first time, and at most. They double while brokers die
young."""

YOUNG: Final = 60.0
"""A broker that served for so many seconds didn't die of what its predecessor died of."""

ORPHAN_WAIT: Final = 300.0
"""Seconds for which an app-server is kept with no broker; each broker says its own."""

LET_GO_DEADLINE: Final = 10.0
"""Seconds for a broker to end for the next one; it takes 2 if a client doesn't take what it is
owed. Then it is killed, by which nothing is lost either."""

SIGNAL_BYTES: Final = 1024
ALIVE: Final = "WATCHDOG=1"

PASSED_ON: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
SIGNAL_STATUS: Final = 128


def run(broker: Callable[[], None]) -> int:
    """Run brokers until one ends in order; returns the exit status.

    ``broker`` is called in the first broker's process and should not return.
    """
    supervisor = Supervisor()
    if supervisor.may_fork() and supervisor.start_first():
        broker()
        os._exit(0)
    return supervisor.loop()


class Supervisor:
    """Brokers, one after another, and the app-server."""

    def __init__(self) -> None:
        self.broker: Broker | None = None
        self.ever_served = False
        self.stopping = False
        self.let_go_by = NEVER
        """When the broker is killed that is ending for the service's next process."""
        self.status = 0
        self.next_broker = NEVER
        self.wait = FIRST_WAIT
        self.orphan_wait, self.orphan_since = ORPHAN_WAIT, NEVER
        self.hangup_ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        self.store = DescriptorStore(os.environ)
        self.environ = dict(os.environ)
        self.sockets = keep_sockets(self.environ)
        self.watchdog = watchdog(self.environ)
        self.token = self.store.recall("token", "") or os.urandom(16).hex()
        self.lives = self.store.recall("lives", 0)
        self.listeners = self.store.listeners()
        """Listening sockets of the broker's own, by the URL that was asked for; and its lock."""
        self.apps = AppServers(self.store)
        self._resume_from_store()
        self.signals, self._wakes = os.pipe()
        for end in (self.signals, self._wakes):
            os.set_blocking(end, False)

    def _resume_from_store(self) -> None:
        """Continue with what an earlier supervisor left in systemd's keeping."""
        self.store.end_broker()
        self.store.close_the_rest()
        self.store.remember(token=self.token)
        if self.apps.running is not None:
            # As after any broker's end: the next one is tried until `orphan_wait` is over.
            self.ever_served = True
            self.orphan_since = self.store.recall("orphanSince", None) or time.monotonic()
            self.orphan_wait = self.store.recall("orphanWait", ORPHAN_WAIT)

    # ── brokers ───────────────────────────────────────────────────────────────────────────────

    def may_fork(self) -> bool:
        """Return whether the first broker may be a fork; else the loop starts it anew.

        A fork would hold the pipes that we have taken up, as long as it runs.
        """
        vain = self.store.recall("starts", 0)
        self.store.remember(starts=vain + 1)
        wait = start_wait(self.environ, vain)
        forks = not (wait or self.apps.latest or self.listeners)
        self.next_broker = NEVER if forks else time.monotonic() + wait
        return forks

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
        with contextlib.ExitStack() as ends:
            try:
                ours, theirs = map(ends.enter_context, socket.socketpair())
                pid = processes.start_broker(
                    theirs.fileno(), self.sockets, self.environ, self.hangup_ignored
                )
            except OSError as failure:
                log(f"no broker can be started: {failure.strerror}")
                self._start_later()
            else:
                ends.pop_all()
                self._began(pid, ours, theirs)

    def _began(self, pid: int, ours: socket.socket, theirs: socket.socket) -> None:
        theirs.close()
        self.broker = Broker(pid, Channel(ours), time.monotonic())
        self.store.keep_process(BROKER, pid)
        app = self.apps.latest
        hello = {
            "say": "hello",
            "version": VERSION,
            "generation": self.apps.generation,
            "appServer": app and app.pid,
            "exited": app and app.status,
            "lives": self.lives,
            "token": self.token,
            "listeners": [url for url, _ in self.listeners],
            "kept": self.store.open,
            "trouble": self.store.trouble,
        }
        self.lives += 1
        self.store.remember(lives=self.lives)
        self.store.trouble = None
        pipes = app.pipes.ours if app is not None else []
        self._send_to_broker(hello, [*pipes, *(descriptor for _, descriptor in self.listeners)])

    def _send_to_broker(self, message: Message, descriptors: list[int] | None = None) -> None:
        if self.broker is None or self.broker.deaf:
            return
        try:
            self.broker.channel.send(message, descriptors or [])
        except OSError as failure:
            if not isinstance(failure, ConnectionError):  # else it is gone, which `_reap` sees
                log(f"the broker can't be sent {message['say']!r}: {failure}")

    def _broker_ended(self, broker: Broker, status: int) -> None:
        self.broker = None
        broker.channel.close()
        now = time.monotonic()
        self.apps.drain(by_us=self.ever_served)  # one started in vain has nothing to tell
        if broker.served:
            self.orphan_since = now
            self.store.remember(orphanSince=now)
        if self.let_go_by < NEVER:
            return
        # One that can't start where others served may be half of an upgrade, or a full disk.
        if self.stopping or broker.ends or not self.ever_served:
            self._stop(status)
        elif broker.renews:
            self.wait = FIRST_WAIT
            self.next_broker = now
        else:
            how = f"exit status {status}" if status >= 0 else f"signal {-status}"
            app = self.apps.running
            survivor = f"; the app-server (pid {app.pid}) runs on" if app is not None else ""
            log(f"the broker (pid {broker.pid}) ended unexpectedly: {how}{survivor}")
            if broker.served and now - broker.since > YOUNG:
                self.wait = FIRST_WAIT
            self._start_later()

    def _let_go(self) -> None:
        """End, and leave the app-server in systemd's keeping for the service's next process."""
        self.stopping = True
        self.next_broker = NEVER
        self.let_go_by = time.monotonic() + LET_GO_DEADLINE
        self.store.remember(starts=0)
        self._send_to_broker({"say": "renew"})

    def _start_later(self) -> None:
        self.next_broker = time.monotonic() + self.wait
        self.wait = min(2 * self.wait, LONGEST_WAIT)

    def _stop(self, status: int) -> None:
        """Start no other broker, and end once the app-server has."""
        self.stopping = True
        self.next_broker = NEVER
        self._let_listeners_go()
        self.status = status if status >= 0 else SIGNAL_STATUS - status
        self.apps.end()

    # ── the loop ──────────────────────────────────────────────────────────────────────────────

    def loop(self) -> int:
        """Run until all is over; returns the exit status."""
        for number in (*PASSED_ON, signal.SIGCHLD):
            if number != signal.SIGHUP or not self.hangup_ignored:
                signal.signal(number, lambda _number, _frame: None)
        signal.set_wakeup_fd(self._wakes, warn_on_full_buffer=False)
        self._reap()  # one that ended before the handlers were there
        while not (self.stopping and self.broker is None and self._is_done_with_app_server()):
            self._step()
        if self.let_go_by == NEVER:
            self.apps.let_remains_go()
            if self.store.open:
                end_what_is_left()
        return self.status

    def _is_done_with_app_server(self) -> bool:
        return self.apps.running is None or self.let_go_by < NEVER

    def _step(self) -> None:
        poll = select.poll()
        poll.register(self.signals, select.POLLIN)
        broker = self.broker
        if broker is not None and not broker.deaf:
            poll.register(broker.channel.fileno(), select.POLLIN)
        self.apps.watch(poll)
        ready = {descriptor for descriptor, _ in poll.poll(self._milliseconds())}
        if self.signals in ready:
            for number in os.read(self.signals, SIGNAL_BYTES):
                self._signalled(number)
        if broker is not None and not broker.deaf and broker.channel.fileno() in ready:
            self._receive(broker)
        self.apps.read(ready)
        self._reap()
        self._on_time()

    def _milliseconds(self) -> int | None:
        waits = self.next_broker, self._orphaned_at(), self._hangs_at(), self.apps.next_step
        soonest = min(waits)
        if soonest == NEVER:
            return None
        return max(0, int((soonest - time.monotonic()) * 1000) + 1)

    def _orphaned_at(self) -> float:
        return NEVER if self.apps.ends else self.orphan_since + self.orphan_wait

    def _hangs_at(self) -> float:
        """Return when a broker that says nothing more is given up, before systemd ends us all."""
        if self.broker is None or self.stopping:
            return self.let_go_by if self.broker is not None else NEVER
        return self.broker.hangs_at(self.watchdog)

    def _signalled(self, number: int) -> None:
        if number == signal.SIGCHLD or self.let_go_by < NEVER:
            return
        if number == signal.SIGTERM and self.store.open and not stops_for_good(self.environ):
            self._let_go()
            return
        if number != signal.SIGHUP:
            self.stopping = True
        self._reap()
        if self.broker is not None:
            os.kill(self.broker.pid, number)
        elif self.stopping:
            self._stop(0)

    def _receive(self, broker: Broker) -> None:
        try:
            messages = broker.channel.receive()
        except BlockingIOError:
            return
        except ConnectionResetError:  # it ended without having read all that we said
            messages = None
        except (OSError, ValueError) as failure:
            log(f"the broker says what can't be read: {failure}")
            messages = None
        if messages is None:
            broker.deaf = True
            broker.channel.close()  # if it hasn't ended yet, it does now
        for message, descriptors in messages or ():
            self._check(broker, message, descriptors)

    def _check(self, broker: Broker, message: dict[str, Any], descriptors: list[int]) -> None:
        if (wrong := flaw(message, descriptors)) is None:
            self._handle(broker, message, descriptors)
            return
        for descriptor in descriptors:
            os.close(descriptor)
        log(f"the broker's {message['say']!r} is dropped: {wrong!r} can't be used")
        if message["say"] == "start":
            self._send_to_broker({"say": "failed", "errno": errno.EINVAL})

    def _handle(self, broker: Broker, message: dict[str, Any], descriptors: list[int]) -> None:
        match message.get("say"):
            case "start" if self.apps.running is None:
                self._send_to_broker(*self.apps.start(message))
            case "close":
                self.apps.close_stdin()
            case "signal":
                self.apps.signal(message["number"])
            case "taken":
                self.apps.drain(by_us=False)
            case "listeners":
                before = len(self.listeners)
                self._let_listeners_go()
                self.listeners = list(zip(message["asked"], descriptors, strict=True))
                self.store.keep_listeners(before, self.listeners)
                return
            case "serving":
                broker.served = self.ever_served = True
                self.orphan_since = NEVER
                self.orphan_wait = message["orphanWait"]
                self.store.remember(orphanSince=None, orphanWait=self.orphan_wait, starts=0)
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
        for descriptor in descriptors:
            os.close(descriptor)

    def _let_listeners_go(self) -> None:
        while self.listeners:
            os.close(self.listeners.pop()[1])

    def _reap(self) -> None:
        ended, broker = self.apps.reap(), self.broker
        if ended is not None:
            self._send_to_broker(ended)
        if broker is not None and (status := broker.reap()) is not None:
            self._last_words(broker)
            self._broker_ended(broker, status)
        processes.reap_orphans([each.pid for each in (self.apps.running, self.broker) if each])

    def _last_words(self, broker: Broker) -> None:
        """Hear what a broker said before it ended."""
        for message, descriptors in () if broker.deaf else broker.channel.rest():
            self._check(broker, message, descriptors)

    def _on_time(self) -> None:
        now = time.monotonic()
        if self.next_broker <= now:
            self._start_next()
        if self._orphaned_at() <= now:
            log(f"no broker served for {self.orphan_wait:g} s: ending the app-server")
            self.orphan_since, self.ever_served = NEVER, False
            self.apps.end()
            if self.broker is None:
                self._stop(1)
        broker, due = self.broker, self._hangs_at() <= now
        if broker is not None and due and (self.stopping or not broker.extend(now, self.watchdog)):
            log(f"the broker (pid {broker.pid}) hangs: killing it")
            notify(self.environ, ALIVE)  # systemd needn't: the next one begins
            broker.alive_at = NEVER
            os.kill(broker.pid, signal.SIGKILL)
        self.apps.send_due(now)
