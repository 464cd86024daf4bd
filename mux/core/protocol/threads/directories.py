"""Directories as they are on disk, and which of them the host trusts.

The core knows paths as texts alone. What a path means (links, ``..``, the names in
``devices.directories``) is found out by a shell, in the background: ``Resolve``, ``Resolved``. The
host trusts what its codex configuration says, as the app-server reads it.

Used by ``directory_clearance``; the shells make each ``ResolvedPath``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from mux.core.protocol.threads.thread_overrides import LOCAL


class ResolvedPath(msgspec.Struct, frozen=True):
    """A directory on disk."""

    path: str
    """Absolute, without links."""
    listed: bool = False
    """True if ``devices.directories`` lists it."""
    within: bool = False
    """True if ``devices.directories`` lists it or a directory above it."""


def around(path: str) -> list[str]:
    """Return the directory and all above it, the nearest first."""
    parts = path.rstrip("/").split("/")
    above = ["/".join(parts[:count]) for count in range(len(parts), 1, -1)]
    return [*above, "/"]


def is_below(path: str, other: str) -> bool:
    """Return whether a path is another directory, or in it. Both must be resolved."""
    return other in around(path)


class Home(msgspec.Struct, frozen=True):
    """The directories where a thread works, in the app-server's own paths."""

    cwd: str
    others: tuple[str, ...] = ()
    """Directories of the environments that the thread's turns run in."""
    here: bool = True
    """True if all these directories are on this host."""

    @property
    def paths(self) -> list[str]:
        """All directories, the thread's own first."""
        return [self.cwd, *self.others]


class _Environment(msgspec.Struct):
    environmentId: str
    cwd: str


class _Thread(msgspec.Struct):
    cwd: str
    environments: list[_Environment] | None = None


class _ThreadResult(msgspec.Struct):
    thread: _Thread


class _ThreadAnswer(msgspec.Struct):
    result: _ThreadResult


def read_home(answer: bytes) -> Home | None:
    """Read where a thread works from the answer to ``thread/read``; None if it can't be read."""
    try:
        thread = _thread_decoder.decode(answer).result.thread
    except (msgspec.DecodeError, RecursionError):
        return None
    environments = thread.environments or []
    local = tuple(each.cwd for each in environments if each.environmentId == LOCAL)
    return Home(thread.cwd, local, len(local) == len(environments))


class Host(msgspec.Struct, frozen=True):
    """The host's own configuration."""

    projects: dict[str, bool] = {}
    """True for a trusted directory, by its path as it is configured."""
    approval: bytes = b""
    """The approval policy of a thread that is started without one, as JSON text."""
    sandbox: bytes = b""
    """The sandbox of a thread that is started without one, as JSON text."""
    servers: tuple[str, ...] = ()
    """Names of the MCP servers."""

    @property
    def trusted(self) -> list[str]:
        """The trusted directories, by their paths as they are configured."""
        return [path for path, trusted in self.projects.items() if trusted]


class _Project(msgspec.Struct):
    trust_level: str | None = None


class _Config(msgspec.Struct):
    projects: dict[str, _Project] | None = None
    approval_policy: msgspec.Raw = msgspec.Raw(b"")
    sandbox_mode: msgspec.Raw = msgspec.Raw(b"")
    mcp_servers: dict[str, msgspec.Raw] | None = None


class _Result(msgspec.Struct):
    config: _Config


class _Answer(msgspec.Struct):
    result: _Result


def read_host(answer: bytes) -> Host | None:
    """Read the answer to ``config/read``; None if it isn't of the known shape."""
    try:
        config = _answer_decoder.decode(answer).result.config
    except (msgspec.DecodeError, RecursionError):
        return None
    named = config.projects or {}
    projects = {path: each.trust_level == "trusted" for path, each in named.items()}
    servers = tuple(config.mcp_servers or ())
    return Host(projects, bytes(config.approval_policy), bytes(config.sandbox_mode), servers)


def is_trusted(place: ResolvedPath, projects: Mapping[str, bool]) -> bool:
    """Return whether the nearest directory that the host's configuration names is trusted there.

    ``projects`` is by resolved path. Return False if it names none.
    """
    named = (projects[path] for path in around(place.path) if path in projects)
    return next(named, False)


UNTRUSTED = b'{"trust_level":"untrusted"}'
"""A project's entry in codex's configuration, by which codex takes nothing from its directory."""


def distrust(directories: Iterable[str]) -> bytes:
    """Return the ``config`` of a request by which codex takes nothing from these directories.

    It is nested, because codex makes a meaningless key of one with dots in it.
    """
    return msgspec.json.encode({"projects": dict.fromkeys(directories, msgspec.Raw(UNTRUSTED))})


_thread_decoder = msgspec.json.Decoder(_ThreadAnswer)
_answer_decoder = msgspec.json.Decoder(_Answer)
