"""A command of the operator's, which gets the document as JSON on its stdin: for any other service.

It is run without a shell, in a process group of its own, which is killed as a whole at the time
limit. Exit status 0 means delivered. After any other, the push is tried again until it expires.
"""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from typing import IO, Final

import attrs
import trio

from mux.config import model
from mux.posix import descriptors
from mux.push.endpoints import Endpoint
from mux.push.http_client import SHOWN, Web
from mux.push.message import Push, encoded
from mux.push.outcome import Delivered, Failed, Outcome, Retry

TOLD_BYTES: Final = 4096
"""How much is read of the end of its stderr, where the reason stands."""


@attrs.define(eq=False, repr=False)
class Exec:
    """The service."""

    settings: model.Exec

    async def deliver(self, _web: Web, _endpoint: Endpoint, push: Push, _now: float) -> Outcome:
        """Run the command once."""
        # Files, not pipes: a background process that the command leaves may hold a pipe for ever.
        with tempfile.TemporaryFile() as document, tempfile.TemporaryFile() as errors:
            document.write(encoded(push.document()) + b"\n")
            document.seek(0)
            try:
                status = await _run(self.settings.command, document, errors, self.settings.timeout)
            except OSError as failure:
                reason = f"{self.settings.command[0]}: {failure.strerror}"
                return Failed(f"{reason}; see push.exec.command", ours=True)
            last = _last_line(errors)
        if status is None:
            reason = f"no end after {self.settings.timeout:g} s: killed, with its group"
            return Retry(None, reason, ours=True)
        if status != 0:
            how = f"exit status {status}" if status > 0 else f"killed by signal {-status}"
            return Retry(None, f"{how}: {last}".rstrip(": "), ours=True)
        return Delivered("exit status 0")


async def _run(
    command: Sequence[str], document: IO[bytes], errors: IO[bytes], timeout: float
) -> int | None:
    """Run the command and return its exit status; None if it was killed at the time limit.

    Raises ``OSError``.
    """
    process = await trio.lowlevel.open_process(
        descriptors.as_started(command),
        stdin=document,
        stdout=subprocess.DEVNULL,
        stderr=errors,
        start_new_session=True,
    )
    try:
        with trio.move_on_after(timeout):
            return await process.wait()
        return None
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            with trio.CancelScope(shield=True):  # the killed process ends at once
                await process.wait()


def _last_line(errors: IO[bytes]) -> str:
    size = errors.seek(0, os.SEEK_END)
    errors.seek(max(0, size - TOLD_BYTES))
    lines = errors.read().decode(errors="replace").split("\n")
    last = next((line for line in reversed(lines) if line.strip()), "")
    return "".join(char if char.isprintable() else "?" for char in last.strip())[:SHOWN]
