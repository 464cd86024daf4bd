"""Overrides of a client's command line that say what its threads may do.

Natively ``codex app-server -c approval_policy=never`` holds for every thread that its program
loads. The broker's app-server is shared. So the program's door sends such overrides with its
upgrade (``HEADER``), and the broker puts them into that client's own ``thread/start``,
``thread/resume`` and ``thread/fork``, where the request itself says nothing about the matter.

A client gets no more by this than by saying it: without ``admin`` only overrides hold that are as
tight as can be. The door is told which ones hold.

Used by ``upgrade`` (which hold), ``client_messages`` (requests), and by the stdio bridge and the
relay (values of the command line).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final, TypeAlias

import msgspec

from mux.core.protocol.envelope import jsonrpc
from mux.core.protocol.envelope.jsonrpc import ClientMessage
from mux.core.protocol.threads import thread_overrides
from mux.core.protocol.threads.thread_overrides import NOTHING_KNOWN, NULL, STARTS, Fields

HEADER: Final = "Appmux-Overrides"
"""The header of an upgrade with the overrides, as JSON. In the answer: the keys that hold, with
commas between."""

LONGEST: Final = 4096
"""Bytes of the header at most. A door's has some hundred; a connection's head may have 16 KiB."""

MOST: Final = 64
"""Keys at most, of either kind."""

PARAMS: Final = {
    "approval_policy": "approvalPolicy",
    "approvals_reviewer": "approvalsReviewer",
    "default_permissions": "permissions",
    "sandbox_mode": "sandbox",
}
"""Keys of the configuration that are params of a request, too."""

WORKSPACE: Final = "sandbox_workspace_write"
"""The table of the configuration whose keys go into a request's ``config``."""

_SANDBOX: Final = frozenset({"default_permissions", "sandbox_mode"})
"""Keys of which a request may say only one."""

Values: TypeAlias = Mapping[str, object]
"""Overrides by key of the configuration, dotted below a table."""


class Overrides(msgspec.Struct, frozen=True):
    """The overrides that a client's command line says."""

    values: dict[str, object] = {}
    """The overrides that hold for the client's threads."""
    ignored: list[str] = []
    """Names of what was said and doesn't hold: other keys and flags, and what the client's scopes
    don't allow."""

    def within(self, scopes: Collection[str]) -> Overrides:
        """Return them as they hold for a client with these scopes."""
        if "admin" in scopes:
            return self
        held = {key: value for key, value in self.values.items() if _is_tightest(key, value)}
        return Overrides(held, [*self.ignored, *sorted(self.values.keys() - held.keys())])


def is_override(key: str) -> bool:
    """Return whether a key of the configuration says what a thread may do."""
    return key in PARAMS or key == WORKSPACE or key.startswith(f"{WORKSPACE}.")


def _is_tightest(key: str, value: object) -> bool:
    if key not in PARAMS:
        return False  # a `config` needs the scope `admin`, whatever stands in it
    params = {PARAMS[key]: msgspec.json.encode(value)}
    return not thread_overrides.loosens(params, NOTHING_KNOWN)


def may_tighten(key: str, value: object) -> bool:
    """Return whether a thread without this override might be allowed more than with it."""
    match key.removeprefix(f"{WORKSPACE}."), value:
        case ("approval_policy", "never") | ("sandbox_mode", "danger-full-access"):
            return False
        case ("network_access", True) | ("exclude_slash_tmp" | "exclude_tmpdir_env_var", False):
            return False
        case "writable_roots", [_, *_]:
            return False
        case "approvals_reviewer", _:
            return value == "user"
    return True


# ── one value each ────────────────────────────────────────────────────────────────────────────

_WORDS: Final = {
    "approval_policy": thread_overrides.ASKING,
    "approvals_reviewer": ("user", "auto_review", "guardian_subagent"),
    "sandbox_mode": thread_overrides.MODES,
}
_SWITCHES: Final = frozenset({"network_access", "exclude_slash_tmp", "exclude_tmpdir_env_var"})


def read_value(key: str, value: object) -> object:
    """Return an override's value as the app-server takes it. Raises ``ValueError``."""
    words = _WORDS.get(key)
    if words is not None and value not in words:
        if key == "approval_policy" and isinstance(value, dict) and value.keys() == {"granular"}:
            return value
        raise ValueError(f"`{key}` is one of {', '.join(words)}, not {value!r}")
    if value == "on-failure":
        return "on-request"  # as the app-server reads it since it dropped the older word
    if key == "default_permissions" and not isinstance(value, str):
        raise ValueError(f"`{key}` is the name of a profile, not {value!r}")
    name = key.removeprefix(f"{WORKSPACE}.")
    if name in _SWITCHES and not isinstance(value, bool):
        raise ValueError(f"`{key}` is true or false, not {value!r}")
    if name == "writable_roots" and not _are_texts(value):
        raise ValueError(f"`{key}` is a list of directories, not {value!r}")
    return value


def _are_texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(each, str) for each in value)


def read_header(text: bytes) -> Overrides:
    """Return the overrides of an upgrade's header. Raises ``ValueError`` that says why not."""
    if len(text) > LONGEST:
        raise ValueError(f"it has {len(text)} bytes, and may have {LONGEST}")
    try:
        sent = msgspec.json.decode(text, type=Overrides)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise ValueError(str(error)) from error
    if len(sent.values) > MOST or len(sent.ignored) > MOST:
        raise ValueError(f"it names more than {MOST} keys")
    for key in sent.values:
        if not is_override(key) or key == WORKSPACE:
            raise ValueError(f"`{key}` doesn't say what a thread may do")
    values = {key: read_value(key, value) for key, value in sent.values.items()}
    return Overrides(values, sent.ignored)


# ── requests ──────────────────────────────────────────────────────────────────────────────────


def completed(message: ClientMessage, values: Values, scopes: Collection[str]) -> ClientMessage:
    """Return a client's request with its overrides in it, where it says nothing itself.

    It stays as it came if it loads no thread, or if its client may only look on.
    """
    looks_on = message.method == "thread/resume" and "drive" not in scopes
    if message.method not in STARTS or looks_on:
        return message
    fields = thread_overrides.read(message.params)
    added = {} if fields is None else additions(fields, values)
    if fields is None or not added:
        return message
    params = {name: bytes(raw) for name, raw in fields.items()} | added
    return message.with_params(jsonrpc.write(params), came=message.came or message.params)


def additions(fields: Fields, values: Values) -> dict[str, bytes]:
    """Return the params by which a request is completed; none if it says everything itself."""
    config = _config(fields)
    if config is None:
        return {}  # of a shape that the app-server refuses
    given = {key for key, param in PARAMS.items() if bytes(fields.get(param, NULL)) != NULL}
    given |= config.keys()
    added: dict[str, bytes] = {}
    for key in sorted(values.keys() & PARAMS.keys()):  # a profile before a mode, as natively
        if not given & (_SANDBOX if key in _SANDBOX else {key}):
            added[PARAMS[key]] = msgspec.json.encode(values[key])
            given.add(key)
    if more := _into(config, values):
        added["config"] = msgspec.json.encode(config | more)
    return added


def _config(fields: Fields) -> dict[str, object] | None:
    """Return the request's own ``config``; None if it is no object."""
    text = bytes(fields.get("config", NULL))
    try:
        read = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return None
    return {} if read is None else read if isinstance(read, dict) else None


def _into(config: dict[str, object], values: Values) -> dict[str, object]:
    """Return what a ``config`` is completed by: keys of the workspace's table."""
    table = config.get(WORKSPACE)
    own = table if isinstance(table, dict) else {}
    more = {
        key.removeprefix(f"{WORKSPACE}."): value
        for key, value in values.items()
        if key not in PARAMS and key not in config
    }
    more = {name: value for name, value in more.items() if name not in own}
    if more and isinstance(table, dict):
        return {WORKSPACE: table | more}
    return {f"{WORKSPACE}.{name}": value for name, value in more.items()}
