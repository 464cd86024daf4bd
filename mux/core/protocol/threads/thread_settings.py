"""The settings that a thread runs with, stored so that the app-server's next life keeps them.

Natively a thread that is resumed gets its model, working directory and approval policy from its own
record, and the rest (its sandbox, first of all) from the config file. So the broker loads it again
with the params of the request that first loaded it. Settings that were changed since are whole in
the last ``thread/settings/updated``, and are set again as they were.

Used by ``threads`` (for that notification) and ``recovery`` (for the next life).
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from mux.core.protocol.envelope import jsonrpc
from mux.core.protocol.threads.directories import UNTRUSTED
from mux.core.protocol.threads.thread_overrides import NOTHING_KNOWN, Held

UPDATED = "thread/settings/updated"
UPDATE = "thread/settings/update"

_LOADED_WITH = (
    "approvalPolicy",
    "approvalsReviewer",
    "baseInstructions",
    "config",
    "cwd",
    "developerInstructions",
    "model",
    "modelProvider",
    "permissions",
    "personality",
    "runtimeWorkspaceRoots",
    "sandbox",
    "serviceTier",
)
"""Params that ``thread/start``, ``fork`` and ``resume`` have in common."""

_UPDATED = (
    "approvalPolicy",
    "approvalsReviewer",
    "cwd",
    "disabledPluginIds",
    "effort",
    "model",
    "sandboxPolicy",
    "serviceTier",
    "summary",
)
"""Fields that a thread's settings and the params of ``thread/settings/update`` have in common."""


_NOTHING = b"null"


def to_load(loaded_with: bytes, settings: bytes) -> dict[str, bytes]:
    """Return the params to load a thread again, as JSON texts, out of those it was loaded with.

    Params that its ``settings`` have cleared since are left out.
    """
    loaded = jsonrpc.read_fields(loaded_with) or {}
    has = jsonrpc.read_fields(settings) or {}
    names = [name for name in _LOADED_WITH if name in loaded and has.get(name) != _NOTHING]
    return {name: loaded[name] for name in names}


def read_updated(line: bytes) -> bytes:
    """Return the settings in a ``thread/settings/updated``, as JSON text; empty if it has none."""
    fields = jsonrpc.read_fields(line) or {}
    params = jsonrpc.read_fields(fields.get("params", _NOTHING)) or {}
    return params.get("threadSettings", b"")


def distrusting(loaded_with: bytes, directories: Iterable[str]) -> bytes:
    """Return params like these, by which a thread takes nothing from the directories."""
    loaded = jsonrpc.read_fields(loaded_with or b"{}") or {}
    config = jsonrpc.read_fields(loaded.get("config", _NOTHING)) or {}
    levels = jsonrpc.read_fields(config.get("projects", _NOTHING)) or {}
    levels |= dict.fromkeys(directories, UNTRUSTED)
    config["projects"] = jsonrpc.write(levels)
    return jsonrpc.write(loaded | {"config": jsonrpc.write(config)})


def held(settings: bytes) -> Held:
    """Return the part of a thread's settings that params are compared with."""
    has = jsonrpc.read_fields(settings) or {}
    return Held(
        approval=has.get("approvalPolicy", b""),
        sandbox=has.get("sandboxPolicy", b""),
        reviewer=has.get("approvalsReviewer", b""),
        profile=has.get("activePermissionProfile", b""),
    )


class _Result(msgspec.Struct):
    approvalPolicy: msgspec.Raw = msgspec.Raw(b"")
    sandbox: msgspec.Raw = msgspec.Raw(b"")
    approvalsReviewer: msgspec.Raw = msgspec.Raw(b"")
    activePermissionProfile: msgspec.Raw = msgspec.Raw(b"")


class _Answer(msgspec.Struct):
    result: _Result


def held_by_answer(line: bytes) -> Held | None:
    """Return the settings in the answer to a request that starts, forks or resumes a thread.

    Return None if the answer names none.
    """
    try:
        result = _answer_decoder.decode(line).result
    except msgspec.DecodeError:
        return None
    held = Held(
        approval=bytes(result.approvalPolicy),
        sandbox=bytes(result.sandbox),
        reviewer=bytes(result.approvalsReviewer),
        profile=bytes(result.activePermissionProfile),
    )
    return held if held != NOTHING_KNOWN else None


_answer_decoder = msgspec.json.Decoder(_Answer)


def to_update(thread: str, settings: bytes) -> dict[str, msgspec.Raw]:
    """Return the params of ``thread/settings/update`` that give a thread these settings."""
    has = jsonrpc.read_fields(settings) or {}
    # A null setting is left out: sent, a null may mean something else ("the default").
    given = {name: has[name] for name in _UPDATED if has.get(name, _NOTHING) != _NOTHING}
    mode = jsonrpc.read_fields(has.get("collaborationMode", _NOTHING)) or {}
    if mode.get("mode") != b'"default"' and mode:
        given["collaborationMode"] = has["collaborationMode"]  # sets model and effort as well
    profile = jsonrpc.read_fields(has.get("activePermissionProfile", _NOTHING)) or {}
    if "id" in profile:  # a profile implies a sandbox, and the app-server takes only one of both
        given["permissions"] = profile["id"]
        given.pop("sandboxPolicy", None)
    given["threadId"] = msgspec.json.encode(thread)
    return {name: msgspec.Raw(text) for name, text in given.items()}
