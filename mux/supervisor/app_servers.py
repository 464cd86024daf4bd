"""The app-server that the supervisor holds: one process after another, each with its pipes.

Used by ``supervisor``. Where systemd keeps descriptors, it has them too (``descriptor_store``).
"""

from __future__ import annotations

import os
import select
from typing import Final

from mux.posix.standard_streams import write_stderr
from mux.supervisor import processes
from mux.supervisor.channel import Message
from mux.supervisor.descriptor_store import DescriptorStore
from mux.supervisor.lives import NEVER, AppServer
from mux.supervisor.processes import Pipes

STDERR_BYTES: Final = 64 * 1024


class AppServers:
    """The app-server that runs, if one does, and what is left of the one before."""

    def __init__(self, store: DescriptorStore) -> None:
        self.store = store
        self.generation = store.recall("generation", 0)
        self.running: AppServer | None = None
        self.remains: AppServer | None = None
        """The last app-server, which has ended, with what is unread of it: until another is started
        it isn't known that a broker has dealt with its end."""
        kept = store.app_server()
        if kept is not None and kept.status is None:
            self.running = kept
        else:
            self.remains = kept

    @property
    def latest(self) -> AppServer | None:
        """The app-server that runs, or that ended last."""
        return self.running or self.remains

    def start(self, message: Message) -> tuple[Message, list[int]]:
        """Start an app-server; returns the message for the broker, and its descriptors."""
        try:
            pipes = Pipes.made()
            try:
                pid = processes.start_app_server(message["command"], message["environ"], pipes)
            except BaseException:
                pipes.close()
                raise
        except OSError as failure:
            return {"say": "failed", "errno": failure.errno or 0}, []
        self.let_remains_go()
        self.generation += 1
        self.running = AppServer(pid, pipes)
        self.running.drained = False
        self.store.keep_app_server(self.running, self.generation)
        return {"say": "started", "pid": pid, "generation": self.generation}, pipes.ours

    def reap(self) -> Message | None:
        """Reap the app-server if it has ended; returns the message for the broker then."""
        app = self.running
        if app is None or (status := app.reap()) is None:
            return None
        app.status = status
        self.running, self.remains = None, app
        self.store.remember(exited=status)
        return {"say": "exited", "pid": app.pid, "status": status}

    def let_remains_go(self) -> None:
        """Forget the app-server that has ended, and close its pipes."""
        if self.remains is not None:
            self.store.drop_app_server(self.generation)
            self.remains.close()
            self.remains = None

    def end(self) -> None:
        """End the app-server in order, if one runs."""
        if self.running is not None:
            self.running.end()
            self.store.drop_stdin(self.generation)

    def close_stdin(self) -> None:
        """Close the app-server's stdin, at which it ends."""
        if self.running is not None:
            self.running.pipes.close_stdin()
            self.store.drop_stdin(self.generation)

    def signal(self, number: int) -> None:
        """Send the app-server a signal."""
        if self.running is not None:
            self.running.signal(number)

    # ── its stderr ────────────────────────────────────────────────────────────────────────────

    def drain(self, *, by_us: bool) -> None:
        """Read the app-server's stderr here, or leave that to the broker."""
        if self.running is not None:
            self.running.drained = by_us

    def watch(self, poll: select.poll) -> None:
        """Have the poll return when there is something to do here."""
        app = self.running
        if app is not None and app.drained:
            poll.register(app.pipes.stderr, select.POLLIN)
        if app is not None and app.handle is not None:
            poll.register(app.handle, select.POLLIN)

    def read(self, ready: set[int]) -> None:
        """Read the app-server's stderr, and log it."""
        app = self.running
        if app is None or not app.drained or app.pipes.stderr not in ready:
            return
        try:
            lines = os.read(app.pipes.stderr, STDERR_BYTES)
        except BlockingIOError:
            return  # the broker has made it so
        write_stderr(lines.decode(errors="replace"))
        app.drained = bool(lines)

    # ── time ──────────────────────────────────────────────────────────────────────────────────

    @property
    def ends(self) -> bool:
        """True if an app-server runs and is being ended."""
        return self.running is not None and bool(self.running.end_steps)

    @property
    def next_step(self) -> float:
        """The time at which the next signal is due; never, if none is."""
        return NEVER if self.running is None else self.running.next_step

    def send_due(self, now: float) -> None:
        """Send the signals that are due."""
        if self.running is not None:
            self.running.send_due(now)
