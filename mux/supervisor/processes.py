"""Starts the two processes that the supervisor has: the broker, and the app-server.

The first broker is a fork that goes on in the same program: it begins with everything loaded that
the supervisor had loaded, so a start costs a millisecond more than without a supervisor. Later ones
are started anew, as the program on disk may be another by then.

Used by ``supervisor``.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Collection, Mapping, MutableMapping, Sequence
from typing import Final, NoReturn

from mux.posix.standard_streams import ALL
from mux.supervisor.channel import VARIABLE

CANNOT_START: Final = 127
"""Exit status of a process whose program couldn't be run, as a shell has it."""

CAUGHT: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)
IGNORED_BY_PYTHON: Final = (signal.SIGPIPE, signal.SIGXFSZ)

INHERITED: Final = 3
"""The first descriptor that isn't a standard stream; a service manager's sockets begin there."""

MOST_DESCRIPTORS: Final = 65536
"""A new program gets no descriptor up to this number that it isn't given. The supervisor has few
open, and whoever started it had mostly none."""

INIT: Final = 1
"""The process of a container, or of a pid namespace, that gets whoever has lost its parent."""

_ERRNO_BYTES: Final = 4


def fork_broker(channel: int, sockets: int, hangup_ignored: bool) -> int:
    """Fork the first broker; returns its pid, and 0 in the broker itself."""
    pid = os.fork()
    if pid == 0:
        _become_broker(hangup_ignored)
        _address_to_broker(os.environ, sockets)
        os.environ[VARIABLE] = str(channel)
    return pid


def start_broker(
    channel: int, sockets: int, environ: Mapping[str, str], hangup_ignored: bool
) -> int:
    """Start a later broker, by the command of the first; returns its pid."""
    pid = os.fork()
    if pid:
        return pid
    try:
        _become_broker(hangup_ignored)
        os.set_inheritable(channel, True)
        own = dict(environ)
        _address_to_broker(own, sockets)
        for descriptor in range(INHERITED, INHERITED + sockets):
            os.set_inheritable(descriptor, True)
        _restore_signals()
        os.execve(sys.executable, sys.orig_argv, own | {VARIABLE: str(channel)})
    except BaseException as failure:  # noqa: BLE001 (the fork must not go on as a supervisor)
        os.write(ALL[-1], f"Error: the broker can't be started: {failure}\n".encode())
    os._exit(CANNOT_START)


def _address_to_broker(environ: MutableMapping[str, str], sockets: int) -> None:
    """Address to the broker what a service manager has addressed to the supervisor alone."""
    if sockets:
        environ["LISTEN_PID"] = str(os.getpid())
    else:
        environ.pop("LISTEN_PID", None)  # it might be the broker's by chance
    if environ.get("WATCHDOG_PID") == str(os.getppid()):
        environ["WATCHDOG_PID"] = str(os.getpid())


def _become_broker(hangup_ignored: bool) -> None:
    signal.set_wakeup_fd(-1)
    for number in CAUGHT:
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if hangup_ignored:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    # What a terminal sends to its programs goes to the supervisor alone, which passes it on. The
    # broker still writes to the terminal, whatever its `stty tostop`.
    os.setpgid(0, 0)
    signal.signal(signal.SIGTTOU, signal.SIG_IGN)


def _restore_signals() -> None:
    for number in IGNORED_BY_PYTHON:
        signal.signal(number, signal.SIG_DFL)


class Pipes:
    """The supervisor's ends of an app-server's standard streams."""

    def __init__(self, stdin: int, stdout: int, stderr: int, theirs: Sequence[int] = ()) -> None:
        self.stdin, self.stdout, self.stderr = stdin, stdout, stderr
        self.theirs = theirs
        """The app-server's ends, until it has them."""

    @classmethod
    def made(cls) -> Pipes:
        """Make pipes for an app-server."""
        theirs, stdin = os.pipe()
        ends = [theirs]
        stdout, theirs = os.pipe()
        ends.append(theirs)
        stderr, theirs = os.pipe()
        return cls(stdin, stdout, stderr, [*ends, theirs])

    @property
    def ours(self) -> list[int]:
        """Our ends: of stdin, stdout and stderr."""
        return [self.stdin, self.stdout, self.stderr]

    def close_theirs(self) -> None:
        """Close the app-server's ends, which it has inherited."""
        for descriptor in self.theirs:
            os.close(descriptor)
        self.theirs = ()

    def close_stdin(self) -> None:
        """Close stdin, by which an app-server is told to end.

        The next broker is sent all our ends all the same, and there must be something to send: a
        second descriptor of stderr's end takes stdin's place, to which nothing can be written.
        """
        os.dup2(self.stderr, self.stdin, inheritable=False)

    def close(self) -> None:
        """Close all ends that are still open."""
        self.close_theirs()
        for descriptor in self.ours:
            os.close(descriptor)


def start_app_server(command: Sequence[str], environ: Mapping[str, str], pipes: Pipes) -> int:
    """Start an app-server; returns its pid. Raises ``OSError`` if the program can't be run."""
    failed, fails = os.pipe()
    try:
        pid = os.fork()
    except OSError:
        os.close(failed)
        os.close(fails)
        raise
    if pid == 0:
        _become_app_server(command, environ, pipes.theirs, fails)
    os.close(fails)
    pipes.close_theirs()
    with open(failed, "rb") as reader:  # noqa: PTH123 (a descriptor)
        error = reader.read(_ERRNO_BYTES)
    if error:
        os.waitpid(pid, 0)
        number = int.from_bytes(error, "big")
        raise OSError(number, os.strerror(number), command[0])
    return pid


def _become_app_server(
    command: Sequence[str], environ: Mapping[str, str], streams: Sequence[int], fails: int
) -> NoReturn:
    try:
        signal.set_wakeup_fd(-1)
        for number in (*CAUGHT, *IGNORED_BY_PYTHON):
            signal.signal(number, signal.SIG_DFL)
        # Ctrl-C in the terminal is for the supervisor; the app-server is then ended in order.
        os.setsid()
        for stream, descriptor in zip(ALL, streams, strict=True):
            os.dup2(descriptor, stream)
        os.dup2(fails, INHERITED, inheritable=False)
        fails = INHERITED
        os.closerange(INHERITED + 1, MOST_DESCRIPTORS)
        os.execvpe(command[0], list(command), environ)
    except OSError as failure:
        os.write(fails, (failure.errno or 0).to_bytes(_ERRNO_BYTES, "big"))
    except BaseException:  # noqa: BLE001 (the fork must not go on as a supervisor)
        os.write(fails, (22).to_bytes(_ERRNO_BYTES, "big"))
    os._exit(CANNOT_START)


def reap_orphans(ours: Collection[int]) -> None:
    """Reap, as ``INIT``, processes that have ended and aren't ``ours``: their parents left them.

    Call it when those of ours that have ended are reaped.
    """
    if os.getpid() != INIT:
        return
    with contextlib.suppress(ChildProcessError):
        while (found := os.waitid(os.P_ALL, 0, _LOOKING)) is not None and found.si_pid not in ours:
            os.waitpid(found.si_pid, 0)


_LOOKING: Final = os.WEXITED | os.WNOHANG | os.WNOWAIT
