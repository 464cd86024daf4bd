"""The risks of a yes, as far as an approval's params tell.

    network            it asks for the network, for a host, or to amend a network policy
    outside-workspace  its directory, a file that it changes, or what it wants to write is outside
                       the thread's own directory; or it wants more of the file system
    escalated          a command: a yes runs it without the sandbox, as far as the params tell
    unknown            the params tell none of it

A command's params don't say whether it failed in the sandbox or asked to leave it, so each command
counts as escalated.

Used by ``notices``. A setting says which classes keep an approval from the lock screen.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import msgspec

from mux.core.policy.notice import Risk

COMMAND: Final = "item/commandExecution/requestApproval"
FILES: Final = "item/fileChange/requestApproval"
PERMISSIONS: Final = "item/permissions/requestApproval"
REVIEWS: Final = ("execCommandApproval", "applyPatchApproval")

ACTIONABLE: Final = frozenset({COMMAND, FILES, PERMISSIONS, *REVIEWS})
"""Server requests that a plain yes or no answers."""


def risks(method: str, params: bytes, item: bytes, workspace: str) -> tuple[Risk, ...]:
    """Return the classes of one approval, each once. ``workspace`` is empty if it isn't known."""
    try:
        request = _decoder.decode(params)
        about = _decoder.decode(item) if item != b"null" else {}
    except msgspec.DecodeError:
        return ("unknown",)
    return tuple(dict.fromkeys(_risks(method, request, about, workspace)))


def _risks(method: str, request: Json, about: Json, workspace: str) -> Iterator[Risk]:
    if method == FILES:
        yield from _of_files(request, about, workspace)
    elif method == COMMAND:
        yield from _of_command(request, workspace)
    elif method == PERMISSIONS:
        yield from _of_permissions(request.get("permissions"))
    else:
        yield "unknown"


def _of_command(request: Json, workspace: str) -> Iterator[Risk]:
    yield "escalated"
    if request.get("kind") not in (None, "command") or not request.get("command"):
        yield "unknown"
    if request.get("networkApprovalContext") or request.get("proposedNetworkPolicyAmendments"):
        yield "network"
    if request.get("additionalPermissions"):
        yield from _of_permissions(request["additionalPermissions"])
    yield from _of_path(request.get("cwd"), workspace)


def _of_files(request: Json, about: Json, workspace: str) -> Iterator[Risk]:
    if request.get("grantRoot"):
        yield "outside-workspace"  # for the rest of the session, whatever it is
    changes = about.get("changes")
    if not isinstance(changes, list) or not changes:
        yield "unknown"
        return
    for change in changes:
        if not isinstance(change, dict):
            yield "unknown"
            continue
        yield from _of_path(change.get("path"), workspace)
        kind = change.get("kind")
        moved = kind.get("move_path") or kind.get("movePath") if isinstance(kind, dict) else None
        if moved:
            yield from _of_path(moved, workspace)


def _of_permissions(permissions: Any) -> Iterator[Risk]:
    if not isinstance(permissions, dict) or not any(permissions.values()):
        yield "unknown"
        return
    if permissions.get("network"):
        yield "network"
    if permissions.get("fileSystem"):
        yield "outside-workspace"
    if any(value for name, value in permissions.items() if name not in ("network", "fileSystem")):
        yield "unknown"


def _of_path(path: Any, workspace: str) -> Iterator[Risk]:
    if not isinstance(path, str) or not path.startswith("/") or not workspace.startswith("/"):
        yield "unknown"  # a path of Windows, or relative to an unknown directory
        return
    within, root = _parts(path), _parts(workspace)
    if not root or ".." in within + root or within[: len(root)] != root:
        yield "outside-workspace"


def _parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part not in ("", ".")]


Json = dict[str, Any]

_decoder = msgspec.json.Decoder(Json)
