"""The params by which a request changes what a thread may do, read as the app-server reads them.

Six methods take such params (``METHODS``). Each of their params is *judged* (``JUDGED``), or known
to be harmless, with the reason (``HARMLESS``). A test holds both lists against the installed
schema. A param that stands in neither, but is called as if it mattered (``SUSPICIOUS``), counts as
loosening.

A value is judged whole. It counts as looser unless it is known to be as tight as what holds for the
thread (``Held``): another variant does, a field more in a known variant, a value of another shape.

Used by ``scopes`` (for the scope of a request) and ``directory_clearance`` (for its directories).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache

import msgspec

from mux.core.protocol.envelope import jsonrpc

STARTS: frozenset[str] = frozenset({"thread/start", "thread/resume", "thread/fork"})
"""Methods that load a thread, and with it the settings of its directory."""

METHODS: frozenset[str] = STARTS | {
    "thread/settings/update",
    "turn/start",
    "turn/settings/update",
}

SUSPICIOUS = re.compile(
    r"(?i)path|root|cwd|dir|folder|environment|sandbox|polic|permission|profile|config|approv|trust"
)
"""Matches names of params that may loosen something."""

ROOTS = "runtimeWorkspaceRoots"
"""Further directories that a thread may write, where its sandbox lets it write at all."""

LOCAL = "local"
"""The environment that is this host. A path in another environment can't be judged here."""

NULL = b"null"
UNREADABLE = "params that can't be judged"


class Held(msgspec.Struct, frozen=True):
    """The settings that a thread runs with, as the app-server's JSON texts; empty if not known."""

    approval: bytes = b""
    """The thread's ``approvalPolicy``."""
    sandbox: bytes = b""
    """The thread's ``sandboxPolicy``."""
    reviewer: bytes = b""
    """The thread's ``approvalsReviewer``."""
    mode: bytes = b""
    """The ``sandbox`` that the thread would be loaded with."""
    profile: bytes = b""
    """The thread's ``activePermissionProfile``."""


NOTHING_KNOWN = Held()


# ── one value each ────────────────────────────────────────────────────────────────────────────


def _value(text: bytes) -> object:
    """Return the value of a JSON text; None for an empty text."""
    return msgspec.json.decode(text) if text else None


def _as_held(text: bytes, held: bytes) -> bool:
    return bool(held) and _value(text) == _value(held)


ASKING = ("untrusted", "on-request", "on-failure", "never")
"""Approval policies that are one word, the tightest first."""


def _approval(text: bytes, held: Held) -> bool:
    """Return whether people are asked less. A granular policy compares only with itself."""
    if _as_held(text, held.approval):
        return False
    requested, now = _value(text), _value(held.approval)
    if requested not in ASKING:
        return True
    if now not in ASKING:  # not known, or granular
        return bool(now) or requested != ASKING[0]
    return ASKING.index(str(requested)) > ASKING.index(str(now))


def _reviewer(text: bytes, held: Held) -> bool:
    return _value(text) != "user" and not _as_held(text, held.reviewer)


MODES = ("read-only", "workspace-write", "danger-full-access")
"""Values of ``sandbox``, the tightest first."""


def _mode(text: bytes, held: Held) -> bool:
    requested, now = _value(text), _value(held.mode)
    if requested not in MODES:
        return True
    return MODES.index(str(requested)) > (MODES.index(str(now)) if now in MODES else 0)


def _policy(text: bytes, held: Held) -> bool:
    """Return whether a sandbox policy allows more than the one that holds, in any field."""
    if _as_held(text, held.sandbox):
        return False
    requested, now = _value(text), _value(held.sandbox)
    if not isinstance(requested, dict):
        return True
    if not isinstance(now, dict):
        now = {}
    kind, fields = requested.get("type"), requested.keys() - {"type"}
    if kind == "readOnly":
        return not (fields <= {"networkAccess"} and _no_more_network(requested, now))
    if kind == "workspaceWrite" and now.get("type") == "workspaceWrite":
        return not (fields <= _WRITES and _writes_no_more(requested, now))
    return True


_WRITES = {"writableRoots", "networkAccess", "excludeTmpdirEnvVar", "excludeSlashTmp"}


def _no_more_network(requested: Mapping[str, object], now: Mapping[str, object]) -> bool:
    if requested.get("networkAccess", False) is False:
        return True
    has_it = now.get("networkAccess") is True or now.get("type") == "dangerFullAccess"
    return requested.get("networkAccess") is True and has_it


def _writes_no_more(requested: Mapping[str, object], now: Mapping[str, object]) -> bool:
    roots, allowed = requested.get("writableRoots", []), now.get("writableRoots", [])
    if not (isinstance(roots, list) and isinstance(allowed, list)):
        return False
    excluded = (now.get(name) is not True or requested.get(name) is True for name in _EXCLUDING)
    within = all(root in allowed for root in roots)
    return within and all(excluded) and _no_more_network(requested, now)


_EXCLUDING = ("excludeTmpdirEnvVar", "excludeSlashTmp")


READ_ONLY_PROFILE = ":read-only"
"""A permission profile of codex's own: no configuration can define one that begins with a colon."""


def _profile(text: bytes, held: Held) -> bool:
    """Return whether it is another profile. Only the host knows what its own profiles mean."""
    now = _value(held.profile)
    same = isinstance(now, dict) and now.get("id") == READ_ONLY_PROFILE
    return not (same and _value(text) == READ_ONLY_PROFILE)


def _anything(_: bytes, __: Held) -> bool:
    return True


def _unless_empty(text: bytes, _: Held) -> bool:
    return _value(text) not in ([], {})


def _unless_false(text: bytes, _: Held) -> bool:
    return _value(text) is not False


def _unless_text(text: bytes, _: Held) -> bool:
    return not isinstance(_value(text), str)


def _directories(text: bytes, _: Held) -> bool:
    """Return whether it is no list of paths; the paths themselves are judged later."""
    return not _are_texts(_value(text))


def _are_texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(each, str) for each in value)


def _environments(text: bytes, _: Held) -> bool:
    """Return whether an environment isn't this host. The directories are judged later."""
    listed = _value(text)
    return not isinstance(listed, list) or not all(map(_is_plain, listed))


def _is_plain(environment: object) -> bool:
    if not isinstance(environment, dict):
        return False
    known = environment.keys() <= {"environmentId", "cwd", "runtimeWorkspaceRoots"}
    here = environment.get("environmentId") == LOCAL and isinstance(environment.get("cwd"), str)
    roots = environment.get("runtimeWorkspaceRoots")
    return known and here and (roots is None or _are_texts(roots))


JUDGED: dict[str, Callable[[bytes, Held], bool]] = {
    "approvalPolicy": _approval,
    "approvalsReviewer": _reviewer,
    "sandbox": _mode,
    "sandboxPolicy": _policy,
    "permissions": _profile,
    "config": _unless_empty,
    "path": _anything,  # may name any file on the host
    "history": _anything,
    "runtimeWorkspaceRoots": _directories,
    "selectedCapabilityRoots": _unless_empty,  # plugins from any folder
    "environments": _environments,
    "cwd": _unless_text,
    # A fork in this mode takes its parent's settings, and ignores a `config` that we add.
    "experimentalPredictionMode": _unless_false,
}
"""For each param: whether its value (not null) loosens what holds."""

HARMLESS: dict[str, str] = {
    "rootTurnId": "names a turn, for the accounting",
    "collaborationMode": "a model, its effort, and words to it",
}
"""Params of ``METHODS`` whose names look as if they mattered, and why they don't."""


Fields = Mapping[str, bytes | msgspec.Raw]
"""Params by name, each as its JSON text. A value is copied only to be read: a picture is large."""


def read(params: bytes) -> dict[str, msgspec.Raw] | None:
    """Return params without copying their values; None if they are no object."""
    try:
        return _decoder.decode(params)
    except (msgspec.DecodeError, RecursionError):
        return None


_decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])


def loosens(fields: Fields, held: Held) -> str:
    """Return the param that loosens what holds; empty if none does."""
    for name, raw in fields.items():
        judge = _judge(name)
        if judge is not None and (text := bytes(raw)) != NULL and _judged(judge, text, held):
            return name
    return ""


@lru_cache(maxsize=256)
def _judge(name: str) -> Callable[[bytes, Held], bool] | None:
    if name not in JUDGED and name not in HARMLESS and SUSPICIOUS.search(name):
        return _anything
    return JUDGED.get(name)


def _judged(judge: Callable[[bytes, Held], bool], text: bytes, held: Held) -> bool:
    try:
        return judge(text, held)
    except (msgspec.DecodeError, RecursionError):
        return True


LOOKING_ON: frozenset[str] = frozenset({"threadId", "excludeTurns", "initialTurnsPage"})
"""Params of a ``thread/resume`` that change nothing about how the thread goes on."""


def steers(fields: Fields) -> str:
    """Return the param by which a ``thread/resume`` does more than look on; empty if none does."""
    more = (name for name in fields if name not in LOOKING_ON)
    return next((name for name in more if bytes(fields[name]) != NULL), "")


# ── directories ───────────────────────────────────────────────────────────────────────────────


def cwd_in(fields: Fields) -> str | None:
    """Return the directory that the params name; None if they name none.

    Empty text stands for the app-server's own directory.
    """
    return jsonrpc.read_text(bytes(fields.get("cwd", NULL)))


def environments_in(fields: Fields) -> list[dict[str, object]]:
    """Return the environments that the params name; ``loosens`` has checked their shape."""
    listed = _value(bytes(fields.get("environments", NULL)))
    return listed if isinstance(listed, list) else []


def directories_in(fields: Fields) -> Iterator[str]:
    """Yield every directory that the params name: the working directory first, if it is named."""
    cwd = cwd_in(fields)
    if cwd is not None:
        yield cwd
    yield from _texts(_value(bytes(fields.get(ROOTS, NULL))))
    for environment in environments_in(fields):
        yield str(environment["cwd"])
        yield from _texts(environment.get(ROOTS))


def _texts(value: object) -> list[str]:
    return value if isinstance(value, list) else []


def resolved(fields: Mapping[str, bytes], places: Mapping[str, str]) -> dict[str, bytes]:
    """Return the params with each directory by its resolved path.

    Params that name only resolved paths stay as they came.
    """
    changed = dict(fields)
    if all(places[path] == path for path in directories_in(fields)):
        return changed
    cwd, environments = cwd_in(fields), environments_in(fields)
    if cwd is not None:
        changed["cwd"] = msgspec.json.encode(places[cwd])
    if roots := _texts(_value(fields.get(ROOTS, NULL))):
        changed[ROOTS] = msgspec.json.encode([places[root] for root in roots])
    if environments:
        named = [_with_resolved(each, places) for each in environments]
        changed["environments"] = msgspec.json.encode(named)
    return changed


def _with_resolved(environment: dict[str, object], places: Mapping[str, str]) -> dict[str, object]:
    resolved = {"cwd": places[str(environment["cwd"])]}
    roots = environment.get(ROOTS)
    named = {} if roots is None else {ROOTS: [places[root] for root in _texts(roots)]}
    return environment | resolved | named
