"""Directories as the disk has them, and which of them the host trusts.

The core knows paths as texts alone. What a path means (links, ``..``, the names in
``devices.directories``) is found out by a shell, beside everything else: ``Resolve``, ``Resolved``.
What the host trusts is what its codex configuration says, as the app-server reads it.

Heard from: ``directory_clearance``; the shell ``directories`` makes the ``Place``\\ s.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from mux.core.protocol.thread_overrides import LOCAL


class Place(msgspec.Struct, frozen=True):
    """One directory. ``path``: absolute, without links.

    ``listed``: it is in ``devices.directories``; ``within``: that, or below one that is.
    """

    path: str
    listed: bool = False
    within: bool = False


def around(path: str) -> list[str]:
    """The directory and all above it, the nearest first."""
    parts = path.rstrip("/").split("/")
    above = ["/".join(parts[:count]) for count in range(len(parts), 1, -1)]
    return [*above, "/"]


def is_below(path: str, other: str) -> bool:
    """Whether it is this other directory, or in it. Both resolved."""
    return other in around(path)


class Home(msgspec.Struct, frozen=True):
    """Where a thread works, by the app-server's names.

    ``others``: of the environments that its turns run in. ``here``: all these are on this host.
    """

    cwd: str
    others: tuple[str, ...] = ()
    here: bool = True

    @property
    def paths(self) -> list[str]:
        """All of them, its own first."""
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
    """Where the thread works of which the answer to ``thread/read`` tells."""
    try:
        thread = _thread_decoder.decode(answer).result.thread
    except (msgspec.DecodeError, RecursionError):
        return None
    environments = thread.environments or []
    local = tuple(each.cwd for each in environments if each.environmentId == LOCAL)
    return Home(thread.cwd, local, len(local) == len(environments))


class Host(msgspec.Struct, frozen=True):
    """What the host's own configuration says.

    ``projects``: by directory as it stands there, whether it is trusted. ``approval``, ``sandbox``:
    the approval policy and the sandbox of a thread that is started without, as JSON texts.
    ``servers``: the names of its MCP servers.
    """

    projects: dict[str, bool] = {}
    approval: bytes = b""
    sandbox: bytes = b""
    servers: tuple[str, ...] = ()

    @property
    def trusted(self) -> list[str]:
        """The directories that it trusts, as they stand there."""
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
    """What the answer to ``config/read`` says; None if it says nothing that we understand."""
    try:
        config = _answer_decoder.decode(answer).result.config
    except (msgspec.DecodeError, RecursionError):
        return None
    named = config.projects or {}
    projects = {path: each.trust_level == "trusted" for path, each in named.items()}
    servers = tuple(config.mcp_servers or ())
    return Host(projects, bytes(config.approval_policy), bytes(config.sandbox_mode), servers)


def is_trusted(place: Place, projects: Mapping[str, bool]) -> bool:
    """Whether the nearest directory that the host's configuration names is trusted there.

    ``projects``: by resolved path.
    """
    named = (projects[path] for path in around(place.path) if path in projects)
    return next(named, False)


UNTRUSTED = b'{"trust_level":"untrusted"}'
"""What codex's configuration says of a directory from which nothing is to be taken."""


def distrust(directories: Iterable[str]) -> bytes:
    """The ``config`` of a request by which codex takes nothing from these directories.

    It is nested: of a key with dots in it codex makes one that means nothing.
    """
    return msgspec.json.encode({"projects": dict.fromkeys(directories, msgspec.Raw(UNTRUSTED))})


_thread_decoder = msgspec.json.Decoder(_ThreadAnswer)
_answer_decoder = msgspec.json.Decoder(_Answer)
