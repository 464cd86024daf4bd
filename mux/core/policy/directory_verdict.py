"""Decides how a request goes up whose directories are known, or why it is refused.

* A thread that is started, forked or loaded takes nothing from its directory. The request goes up
  with a ``config`` by which codex trusts neither that directory, nor those above it (codex looks at
  each directory up to the repository's root), nor any that the host trusts. Only if
  ``devices.directories`` lists the directory, the request goes up without that.
* A thread that can do nothing but talk (``confined_thread``) keeps the ``config`` that makes it so.
* A thread may write in directories that the setting lists or the host trusts, and below them.
  Elsewhere it is loaded read-only. A thread that runs may move only below its directory, or to
  where it may write.
* Paths go up resolved, so that what was judged is what is meant.

Pure functions, used by ``directory_clearance``.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from mux.core.policy import confined_thread
from mux.core.protocol.envelope import jsonrpc
from mux.core.protocol.threads import thread_overrides
from mux.core.protocol.threads.directories import (
    Home,
    Host,
    ResolvedPath,
    around,
    distrust,
    is_below,
    is_trusted,
)
from mux.core.protocol.threads.thread_overrides import NULL, STARTS, Held

SETTING = "devices.directories"

STATUS_OF_SERVERS = "mcpServerStatus/list"
"""For a thread that this names, codex reads the directory anew and starts what is configured
there."""

READ_ONLY = b'"read-only"'


class Facts(msgspec.Struct, frozen=True):
    """All that is known of a request."""

    method: str
    fields: Mapping[str, bytes]
    """The request's params."""
    held: Held
    """The settings that hold for its thread, to compare the params with."""
    host: Host
    """The host's own configuration."""
    home: Home | None
    """Directories of the thread that the request names; None if it names none, or if unknown."""
    places: Mapping[str, ResolvedPath]
    """These paths as they are on disk. The empty path is the app-server's own directory."""

    @property
    def requested(self) -> list[ResolvedPath]:
        """The directories that the request names."""
        return [self.places[path] for path in thread_overrides.directories_in(self.fields)]

    @property
    def own(self) -> ResolvedPath | None:
        """The directory of the thread that the request names."""
        return self.places[self.home.cwd] if self.home is not None else None

    @property
    def _projects(self) -> dict[str, bool]:
        named = self.host.projects.items()
        return {self.places[path].path: yes for path, yes in named if path in self.places}

    def is_writable(self, place: ResolvedPath) -> bool:
        """Return whether a thread may write there."""
        return place.within or is_trusted(place, self._projects)

    def distrusted(self, places: list[ResolvedPath]) -> dict[str, None]:
        """Return what codex must not trust, for it to take nothing from these places."""
        trusted = [path for path, yes in self._projects.items() if yes]
        near = [path for place in places for path in around(place.path)]
        return dict.fromkeys([*near, *self.host.trusted, *trusted])


class Verdict(msgspec.Struct, frozen=True):
    """The decision how a request goes up, or why it is refused."""

    params: bytes | None
    """The params with which the request goes up; None if it is refused."""
    refusal: str = ""
    """The reason, for people."""
    distrusted: Mapping[str, None] = msgspec.field(default_factory=dict)
    """Directories from which the thread takes nothing."""
    directory: str = ""
    """The directory where the thread works, if nothing is taken from there."""
    read_only: bool = False
    """True if the thread may write nothing because of that."""


def verdict(facts: Facts) -> Verdict:
    """Decide about a request."""
    if facts.method == STATUS_OF_SERVERS:
        return _of_servers(facts)
    judged = confined_thread.to_be_judged(facts.method, facts.fields)
    if loosened := thread_overrides.loosens(judged, facts.held):
        return _refused(facts, loosened, "")
    return _loaded(facts) if facts.method in STARTS else _moved(facts)


def _refused(facts: Facts, param: str, reason: str) -> Verdict:
    text = f"`{facts.method}` with `{param}` needs the scope `admin`"
    return Verdict(None, f"{text}: {reason}" if reason else text)


def _of_servers(facts: Facts) -> Verdict:
    if facts.own is not None and facts.own.listed:
        return Verdict(jsonrpc.write(dict(facts.fields)))
    where = facts.own.path if facts.own is not None else "the thread's directory"
    reason = f"it starts what {where} configures, which isn't in the setting `{SETTING}`"
    return _refused(facts, "threadId", reason)


def _loaded(facts: Facts) -> Verdict:
    """Decide about a thread that is started, forked or loaded."""
    fields = _resolved(facts)
    known, worked = _works(facts)
    if confined_thread.is_confined(facts.method, facts.fields):
        return _confined(facts, fields, worked)
    listed = known and all(each.listed for each in worked)
    read_only = not (known and all(map(facts.is_writable, worked)))
    if read_only and fields.get("permissions", NULL) == NULL:  # (a given profile is no looser)
        fields["sandbox"] = READ_ONLY
    if listed:
        return Verdict(jsonrpc.write(fields))
    distrusted = facts.distrusted(worked)
    fields["config"] = distrust(distrusted)
    directory = next((each.path for each in worked if not each.listed), "")
    return Verdict(jsonrpc.write(fields), "", distrusted, directory, read_only)


def _confined(facts: Facts, fields: dict[str, bytes], worked: list[ResolvedPath]) -> Verdict:
    """Decide about a confined thread: it takes nothing even from a listed directory."""
    distrusted = facts.distrusted(worked)
    fields["config"] = confined_thread.config_of(fields, distrust(distrusted), facts.host.servers)
    directory = next((each.path for each in worked if not each.listed), "")
    return Verdict(jsonrpc.write(fields), "", distrusted, directory, read_only=True)


def _works(facts: Facts) -> tuple[bool, list[ResolvedPath]]:
    """Return where the thread will work.

    The first value is False if there may be another directory: unknown, or on another host.
    """
    home, named = facts.home, thread_overrides.cwd_in(facts.fields)
    if facts.method == "thread/start":
        places = [*facts.requested, *([facts.places[""]] if named is None else [])]
        return True, places
    own = [facts.places[path] for path in home.paths] if home is not None else []
    return home is not None and home.here, [*facts.requested, *own]


_NAMING = ("cwd", "environments", "runtimeWorkspaceRoots")


def _moved(facts: Facts) -> Verdict:
    """Decide about a thread that runs and is sent to other directories."""
    for place in facts.requested:
        inside = facts.own is not None and is_below(place.path, facts.own.path)
        if not (inside or facts.is_writable(place)):
            param = next(name for name in _NAMING if facts.fields.get(name, NULL) != NULL)
            reason = (
                f"{place.path} is neither in the setting `{SETTING}` nor in a directory that this"
                " host trusts"
            )
            return _refused(facts, param, reason)
    distrusted = facts.distrusted([each for each in facts.requested if not each.listed])
    return Verdict(jsonrpc.write(_resolved(facts)), "", distrusted)


def _resolved(facts: Facts) -> dict[str, bytes]:
    names = {path: place.path for path, place in facts.places.items()}
    return thread_overrides.resolved(facts.fields, names)
