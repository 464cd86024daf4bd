"""systemd's store of descriptors, by which the app-server outlives the supervisor itself.

systemd keeps them while the service is restarted, or started again after a crash, and hands them
to its next process. At a stop it closes them. What is kept, each under a name of its own:

    kept-memory            a file in memory: what the next supervisor must know (JSON)
    kept-broker            the broker's pidfd
    kept-app-server-N-X    X: stdin, stdout, stderr, and its pidfd as process; N: the generation
    kept-listener-N        a listening socket of the broker's own; N: its place in ``listeners``

Names of this kind that aren't known, as those of another version, are closed and taken out.

Used by ``supervisor``. The unit file says by ``VARIABLE`` that the service has a store, and that
its processes aren't killed with the first one.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import signal
import sys
from collections.abc import Mapping, MutableMapping
from typing import Any, Final

from mux.supervisor.lives import AppServer
from mux.supervisor.log import log
from mux.supervisor.processes import INHERITED, Pipes
from mux.supervisor.service_manager import notify

VARIABLE: Final = "APPMUX_DESCRIPTOR_STORE"

VERSION: Final = 1
"""The version of the memory. Another version's isn't read: its app-server ends, and another one is
started."""

KEPT: Final = "kept-"
MEMORY: Final = "memory"
BROKER: Final = "broker"
PARTS: Final = ("stdin", "stdout", "stderr", "process")

BROKER_END: Final = 5000
"""Milliseconds for a killed broker to end."""


class DescriptorStore:
    """The descriptors that systemd keeps for this service; nothing, where it keeps nothing."""

    def __init__(self, environ: MutableMapping[str, str]) -> None:
        """Take over what systemd kept. ``environ`` names sockets alone after that."""
        self.environ: Mapping[str, str] = environ
        self.trouble: str | None = None
        """For people: why an app-server that was kept isn't gone on with."""
        configured = environ.pop(VARIABLE, "")
        first = environ.get("SYSTEMD_EXEC_PID") == str(os.getpid())
        self._found = _inherited(environ)
        self.open = first and bool(environ.get("NOTIFY_SOCKET")) and bool(configured or self._found)
        self._memory: dict[str, Any] = {}
        self._file = -1
        if self._found or self.open:
            self._remember_all()

    def _remember_all(self) -> None:
        file = self._found.pop(MEMORY, -1)
        if file >= 0:
            try:
                memory = json.loads(os.pread(file, os.fstat(file).st_size, 0))
                if memory["version"] == VERSION:
                    self._memory, self._file = memory, file
                    return
            except (OSError, ValueError, LookupError, TypeError):
                pass  # as of another version
            os.close(file)
        if self._found:
            self.trouble = "what systemd kept for the supervisor is of another version of appmux"
            for name in list(self._found):
                self._let_go(name)
        if self.open and sys.platform == "linux":
            self._memory = {"version": VERSION}
            self._file = os.memfd_create("appmux")
            self.drop(MEMORY)
            self.keep(MEMORY, self._file)

    # ── what is remembered ────────────────────────────────────────────────────────────────────

    def recall(self, name: str, default: Any) -> Any:
        """Return what an earlier supervisor remembered under a name."""
        return self._memory.get(name, default)

    def remember(self, **facts: object) -> None:
        """Store a value under a name, for the next supervisor."""
        if self._file < 0:
            return
        self._memory |= facts
        text = json.dumps(self._memory).encode()
        # Spaces, as a file that is first written and then cut could be read in between.
        os.pwrite(self._file, text.ljust(os.fstat(self._file).st_size), 0)

    # ── what is kept ──────────────────────────────────────────────────────────────────────────

    def keep(self, name: str, descriptor: int) -> None:
        """Have a descriptor kept under a name that isn't taken."""
        if self.open:  # FDPOLL: a pipe whose other end is closed isn't taken out
            notify(self.environ, f"FDSTORE=1\nFDPOLL=0\nFDNAME={KEPT}{name}", [descriptor])

    def drop(self, name: str) -> None:
        """Have the descriptor of that name kept no more."""
        if self.open:
            notify(self.environ, f"FDSTOREREMOVE=1\nFDNAME={KEPT}{name}")

    def _let_go(self, name: str) -> None:
        os.close(self._found.pop(name))
        self.drop(name)

    def keep_process(self, name: str, pid: int) -> None:
        """Have a child's pidfd kept, in the place of another one."""
        if not self.open or sys.platform != "linux":
            return
        try:
            handle = os.pidfd_open(pid)
        except OSError as failure:
            log(f"systemd can't be given process {pid} to keep: {failure.strerror}")
            return
        self.drop(name)
        self.keep(name, handle)
        os.close(handle)

    def keep_app_server(self, app: AppServer, generation: int) -> None:
        """Have an app-server kept, which is our child."""
        for part, descriptor in zip(PARTS, app.pipes.ours, strict=False):
            self.keep(_of_app_server(generation, part), descriptor)
        self.keep_process(_of_app_server(generation, PARTS[-1]), app.pid)
        self.remember(pid=app.pid, generation=generation, exited=None)

    def drop_stdin(self, generation: int) -> None:
        """Have an app-server's stdin kept no more: it ends once nobody has it open."""
        self.drop(_of_app_server(generation, PARTS[0]))

    def drop_app_server(self, generation: int) -> None:
        """Have an app-server kept no more, once what it left isn't needed."""
        for part in PARTS:
            self.drop(_of_app_server(generation, part))
        self.remember(pid=None)

    # ── what was kept ─────────────────────────────────────────────────────────────────────────

    def end_broker(self) -> None:
        """Kill the broker of a supervisor that was killed, if it still runs: there is but one."""
        handle = self._found.pop(BROKER, None)
        if handle is None:
            return
        with contextlib.suppress(OSError):
            signal.pidfd_send_signal(handle, signal.SIGKILL)  # type: ignore[attr-defined,unused-ignore]
            poll = select.poll()
            poll.register(handle, select.POLLIN)
            poll.poll(BROKER_END)
        os.close(handle)
        self.drop(BROKER)

    def app_server(self) -> AppServer | None:
        """Return the app-server that was kept, whether or not it still runs; None if none was."""
        generation, pid = self.recall("generation", 0), self.recall("pid", None)
        names = [_of_app_server(generation, part) for part in PARTS]
        if pid is None or not all(name in self._found for name in names):
            return None
        stdin, stdout, stderr, process = (self._found.pop(name) for name in names)
        app = AppServer(pid, Pipes(stdin, stdout, stderr), process)
        app.status = self.recall("exited", None)
        return app

    def listeners(self) -> list[tuple[str, int]]:
        """Return the listening sockets that were kept, with the URLs that were asked for."""
        urls = enumerate(self.recall("listeners", ()))
        found = [(url, self._found.pop(_listener(at), None)) for at, url in urls]
        return [(url, socket) for url, socket in found if socket is not None]

    def keep_listeners(self, before: int, listeners: list[tuple[str, int]]) -> None:
        """Have these sockets kept, in the place of so many that were kept before."""
        for at in range(before):
            self.drop(_listener(at))
        for at, (_url, descriptor) in enumerate(listeners):
            self.keep(_listener(at), descriptor)
        self.remember(listeners=[url for url, _ in listeners])

    def close_the_rest(self) -> None:
        """Let go of what was kept and nobody has asked for, as it is incomplete or not known."""
        for name in list(self._found):
            self._let_go(name)


def _of_app_server(generation: int, part: str) -> str:
    return f"app-server-{generation}-{part}"


def _listener(at: int) -> str:
    return f"listener-{at}"


def _inherited(environ: MutableMapping[str, str]) -> dict[str, int]:
    """Take what was kept from among what systemd has handed over, by name without ``KEPT``.

    The sockets stay, the first one at ``INHERITED``, and the variables are made to say so.
    """
    names = environ.get("LISTEN_FDNAMES", "").split(":")
    ours = environ.get("LISTEN_PID") == str(os.getpid())
    if not ours or environ.get("LISTEN_FDS") != str(len(names)):
        return {}
    found: dict[str, int] = {}
    sockets: list[str] = []
    for descriptor, name in enumerate(names, INHERITED):
        if name.startswith(KEPT):
            beyond = INHERITED + len(names)
            found[name.removeprefix(KEPT)] = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, beyond)
            os.close(descriptor)
        else:
            place = INHERITED + len(sockets)
            if place != descriptor:
                os.dup2(descriptor, place)
                os.close(descriptor)
            sockets.append(name)
    environ["LISTEN_FDS"], environ["LISTEN_FDNAMES"] = str(len(sockets)), ":".join(sockets)
    return found
