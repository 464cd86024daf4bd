"""The params by which a request changes what a thread may do, read as the app-server reads them.

Six methods take such params (``METHODS``). Each param of theirs is *judged* (``JUDGED``) or known
to be harmless, with the reason (``HARMLESS``); a test holds both against the installed schema.
One that stands in neither, and is called as if it mattered (``SUSPICIOUS``), counts as loosening.

A value is looked at whole. What isn't known to be as tight as what holds for the thread (``Held``)
is looser: another variant, a field more in one that we know, a value of another shape.

Heard from: ``scopes`` (what a request needs), ``directory_clearance`` (its directories).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache

import msgspec

from mux.core.protocol import jsonrpc

STARTS: frozenset[str] = frozenset({"thread/start", "thread/resume", "thread/fork"})
"""What loads a thread, and with it the settings of its directory."""

METHODS: frozenset[str] = STARTS | {
    "thread/settings/update",
    "turn/start",
    "turn/settings/update",
}

SUSPICIOUS = re.compile(
    r"(?i)path|root|cwd|dir|folder|environment|sandbox|polic|permission|profile|config|approv|trust"
)
"""What a param is called that may loosen something."""

ROOTS = "runtimeWorkspaceRoots"
"""What else a thread may write, where its sandbox lets it write at all."""

LOCAL = "local"
"""The environment that is this host. A path in another one can't be judged here."""

NULL = b"null"
UNREADABLE = "params that can't be judged"


class Held(msgspec.Struct, frozen=True):
    """What a thread is run with, as JSON texts as the app-server gave them; empty: not known.

    ``approval``: its ``approvalPolicy``; ``sandbox``: its ``sandboxPolicy``; ``mode``: the
    ``sandbox`` that it would be loaded with; ``profile``: its ``activePermissionProfile``.
    """

    approval: bytes = b""
    sandbox: bytes = b""
    reviewer: bytes = b""
    mode: bytes = b""
    profile: bytes = b""


NOTHING_KNOWN = Held()


# ── one value each ────────────────────────────────────────────────────────────────────────────


def _value(text: bytes) -> object:
    """The value of a JSON text; None also for none at all."""
    return msgspec.json.decode(text) if text else None


def _as_held(text: bytes, held: bytes) -> bool:
    return bool(held) and _value(text) == _value(held)


_ASKING = ("untrusted", "on-request", "on-failure", "never")
"""Approval policies that are one word, the tightest first."""


def _approval(text: bytes, held: Held) -> bool:
    """Whether people are asked less. A granular policy compares with nothing but itself."""
    if _as_held(text, held.approval):
        return False
    asked, now = _value(text), _value(held.approval)
    if asked not in _ASKING:
        return True
    if now not in _ASKING:  # not known, or granular
        return bool(now) or asked != _ASKING[0]
    return _ASKING.index(str(asked)) > _ASKING.index(str(now))


def _reviewer(text: bytes, held: Held) -> bool:
    return _value(text) != "user" and not _as_held(text, held.reviewer)


_MODES = ("read-only", "workspace-write", "danger-full-access")
"""Values of ``sandbox``, the tightest first."""


def _mode(text: bytes, held: Held) -> bool:
    asked, now = _value(text), _value(held.mode)
    if asked not in _MODES:
        return True
    return _MODES.index(str(asked)) > (_MODES.index(str(now)) if now in _MODES else 0)


def _policy(text: bytes, held: Held) -> bool:
    """Whether a sandbox policy allows more than the one that holds, in any field."""
    if _as_held(text, held.sandbox):
        return False
    asked, now = _value(text), _value(held.sandbox)
    if not isinstance(asked, dict):
        return True
    if not isinstance(now, dict):
        now = {}
    kind, fields = asked.get("type"), asked.keys() - {"type"}
    if kind == "readOnly":
        return not (fields <= {"networkAccess"} and _no_more_network(asked, now))
    if kind == "workspaceWrite" and now.get("type") == "workspaceWrite":
        return not (fields <= _WRITES and _writes_no_more(asked, now))
    return True


_WRITES = {"writableRoots", "networkAccess", "excludeTmpdirEnvVar", "excludeSlashTmp"}


def _no_more_network(asked: Mapping[str, object], now: Mapping[str, object]) -> bool:
    if asked.get("networkAccess", False) is False:
        return True
    has_it = now.get("networkAccess") is True or now.get("type") == "dangerFullAccess"
    return asked.get("networkAccess") is True and has_it


def _writes_no_more(asked: Mapping[str, object], now: Mapping[str, object]) -> bool:
    roots, allowed = asked.get("writableRoots", []), now.get("writableRoots", [])
    if not (isinstance(roots, list) and isinstance(allowed, list)):
        return False
    excluded = (now.get(name) is not True or asked.get(name) is True for name in _EXCLUDING)
    within = all(root in allowed for root in roots)
    return within and all(excluded) and _no_more_network(asked, now)


_EXCLUDING = ("excludeTmpdirEnvVar", "excludeSlashTmp")


READ_ONLY_PROFILE = ":read-only"
"""A permission profile of codex's own: no configuration can define one that begins with a colon."""


def _profile(text: bytes, held: Held) -> bool:
    """Whether it is another one; what a profile of the host's own means only the host knows."""
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
    """Whether it is no list of paths; which these are is looked at later."""
    return not _are_texts(_value(text))


def _are_texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(each, str) for each in value)


def _environments(text: bytes, _: Held) -> bool:
    """Whether one of them isn't this host. Their directories are looked at later."""
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
    "path": _anything,  # of any file on the host
    "history": _anything,
    "runtimeWorkspaceRoots": _directories,
    "selectedCapabilityRoots": _unless_empty,  # plugins of any folder
    "environments": _environments,
    "cwd": _unless_text,
    # A fork in this mode takes over what its parent is run with, and no `config` of ours.
    "experimentalPredictionMode": _unless_false,
}
"""By name of a param: whether its value (not null) loosens what holds."""

HARMLESS: dict[str, str] = {
    "rootTurnId": "names a turn, for the accounting",
    "collaborationMode": "a model, its effort, and words to it",
}
"""Params of ``METHODS`` that are called as if they mattered, and don't."""


Fields = Mapping[str, bytes | msgspec.Raw]
"""Params by name, each as its JSON text, copied only to be looked at: a picture is large."""


def read(params: bytes) -> dict[str, msgspec.Raw] | None:
    """Params whose values aren't copied; None if they are no object."""
    try:
        return _decoder.decode(params)
    except (msgspec.DecodeError, RecursionError):
        return None


_decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])


def loosens(fields: Fields, held: Held) -> str:
    """The param that loosens what holds; empty if none does."""
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
"""What a ``thread/resume`` may say that changes nothing about how the thread goes on."""


def steers(fields: Fields) -> str:
    """The param by which a ``thread/resume`` does more than look on; empty if none does."""
    more = (name for name in fields if name not in LOOKING_ON)
    return next((name for name in more if bytes(fields[name]) != NULL), "")


# ── directories ───────────────────────────────────────────────────────────────────────────────


def cwd_in(fields: Fields) -> str | None:
    """The directory that the params name; None if they name none. Empty: the app-server's own."""
    return jsonrpc.read_text(bytes(fields.get("cwd", NULL)))


def environments_in(fields: Fields) -> list[dict[str, object]]:
    """The environments that the params name; ``loosens`` has seen that they are plain."""
    listed = _value(bytes(fields.get("environments", NULL)))
    return listed if isinstance(listed, list) else []


def directories_in(fields: Fields) -> Iterator[str]:
    """Every directory that the params name: the one to work in first, if it is named."""
    cwd = cwd_in(fields)
    if cwd is not None:
        yield cwd
    yield from _texts(_value(bytes(fields.get(ROOTS, NULL))))
    for each in environments_in(fields):
        yield str(each["cwd"])
        yield from _texts(each.get(ROOTS))


def _texts(value: object) -> list[str]:
    return value if isinstance(value, list) else []


def resolved(fields: Mapping[str, bytes], places: Mapping[str, str]) -> dict[str, bytes]:
    """The params with each directory by its resolved name; those that have it stay as they came."""
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
    found = {"cwd": places[str(environment["cwd"])]}
    roots = environment.get(ROOTS)
    named = {} if roots is None else {ROOTS: [places[root] for root in _texts(roots)]}
    return environment | found | named
