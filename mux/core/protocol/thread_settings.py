"""What a thread is run with, kept so that the app-server's next life runs it with the same.

Natively a thread that is resumed gets its model, working directory and approval policy from its own
record, and the rest (its sandbox, first of all) from the config file. So it is loaded again with
what the request that first loaded it asked for. Settings that were changed since stand whole in the
last ``thread/settings/updated``, and are set again as they were.

Heard from: ``threads`` (that notification) and ``recovery`` (the next life).
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from mux.core.protocol import jsonrpc
from mux.core.protocol.directories import UNTRUSTED
from mux.core.protocol.thread_overrides import NOTHING_KNOWN, Held

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
"""What a thread's settings and the params of ``thread/settings/update`` have in common."""


_NOTHING = b"null"


def to_load(loaded_with: bytes, settings: bytes) -> dict[str, bytes]:
    """Params to load a thread again, as JSON texts, out of those that it was loaded with.

    Not those that its ``settings`` have cleared since.
    """
    asked = jsonrpc.read_fields(loaded_with) or {}
    has = jsonrpc.read_fields(settings) or {}
    wanted = [name for name in _LOADED_WITH if name in asked and has.get(name) != _NOTHING]
    return {name: asked[name] for name in wanted}


def read_updated(line: bytes) -> bytes:
    """The settings in a ``thread/settings/updated``, as JSON text; empty if it has none."""
    fields = jsonrpc.read_fields(line) or {}
    params = jsonrpc.read_fields(fields.get("params", _NOTHING)) or {}
    return params.get("threadSettings", b"")


def distrusting(loaded_with: bytes, directories: Iterable[str]) -> bytes:
    """Params like these, by which a thread takes nothing from these directories."""
    asked = jsonrpc.read_fields(loaded_with or b"{}") or {}
    config = jsonrpc.read_fields(asked.get("config", _NOTHING)) or {}
    levels = jsonrpc.read_fields(config.get("projects", _NOTHING)) or {}
    levels |= dict.fromkeys(directories, UNTRUSTED)
    config["projects"] = jsonrpc.write(levels)
    return jsonrpc.write(asked | {"config": jsonrpc.write(config)})


def held(settings: bytes) -> Held:
    """What of a thread's settings others are compared with."""
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
    """The same, out of the answer to a request that starts, forks or resumes a thread."""
    try:
        result = _answer_decoder.decode(line).result
    except msgspec.DecodeError:
        return None
    told = Held(
        approval=bytes(result.approvalPolicy),
        sandbox=bytes(result.sandbox),
        reviewer=bytes(result.approvalsReviewer),
        profile=bytes(result.activePermissionProfile),
    )
    return told if told != NOTHING_KNOWN else None


_answer_decoder = msgspec.json.Decoder(_Answer)


def to_update(thread: str, settings: bytes) -> dict[str, msgspec.Raw]:
    """Params that give a thread these settings."""
    has = jsonrpc.read_fields(settings) or {}
    # What is null is so by itself; said aloud it may mean something else ("the default").
    given = {name: has[name] for name in _UPDATED if has.get(name, _NOTHING) != _NOTHING}
    mode = jsonrpc.read_fields(has.get("collaborationMode", _NOTHING)) or {}
    if mode.get("mode") != b'"default"' and mode:
        given["collaborationMode"] = has["collaborationMode"]  # sets model and effort as well
    profile = jsonrpc.read_fields(has.get("activePermissionProfile", _NOTHING)) or {}
    if "id" in profile:  # it stands for a sandbox, and the app-server takes only one of the two
        given["permissions"] = profile["id"]
        given.pop("sandboxPolicy", None)
    given["threadId"] = msgspec.json.encode(thread)
    return {name: msgspec.Raw(text) for name, text in given.items()}
