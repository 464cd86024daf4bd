"""Find the owner of Codex's control socket: Codex's own daemon, another app-server, a stranger.

A module of its own because every start asks for the owner, but seldom needs ``take_over``.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import msgspec

from mux.host import processes
from mux.host.processes import Process

_CODEX: Final = re.compile(r"codex[^/]*")


class SocketOwner(msgspec.Struct, frozen=True):
    """A process that listens on the control socket."""

    holder: Process
    codex: bool
    """The process is an app-server."""
    managed: bool
    """The app-server runs as Codex's daemon."""

    def __str__(self) -> str:
        if not self.codex:
            return str(self.holder)
        if self.managed:
            return f"Codex's own daemon, {self.holder}"
        return f"a `codex app-server` that somebody started by hand, {self.holder}"


def socket_owner(path: Path) -> SocketOwner | None:
    """Return the process that listens at ``path``; None if none does."""
    holders = processes.of_unix_path(path)
    if not holders:
        return None
    words = processes.arguments(holders[0].pid)
    codex = any(
        _CODEX.fullmatch(Path(word).name) and "app-server" in words[at + 1 :]
        for at, word in enumerate(words[:2])  # the second, where an interpreter runs it
    )
    return SocketOwner(holders[0], codex, codex and "--managed-daemon" in words)
