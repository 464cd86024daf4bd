"""All of the extension's methods, notifications and shapes, from the modules beside this one."""

from __future__ import annotations

from mux.core.extension import (
    additions,
    approvals,
    audit,
    devices,
    digest,
    files,
    following,
    inbox,
    notices,
    queue,
    runtime,
    sessions,
    tailnet,
)
from mux.core.extension.parts import Described

METHODS: dict[str, Described] = {
    **runtime.METHODS,
    **following.METHODS,
    **approvals.METHODS,
    **inbox.METHODS,
    **digest.METHODS,
    **files.METHODS,
    **queue.METHODS,
    **devices.METHODS,
    **notices.METHODS,
    **sessions.METHODS,
    **tailnet.METHODS,
    **audit.METHODS,
}
"""The requests that the broker answers itself."""

NOTIFICATIONS: dict[str, Described] = {
    **runtime.NOTIFICATIONS,
    **following.NOTIFICATIONS,
    **approvals.NOTIFICATIONS,
    **inbox.NOTIFICATIONS,
    **files.NOTIFICATIONS,
    **queue.NOTIFICATIONS,
    **devices.NOTIFICATIONS,
    **sessions.NOTIFICATIONS,
}
"""What the broker tells by itself."""

SHAPES: dict[str, Described] = {
    **additions.SHAPES,
    **queue.SHAPES,
    **devices.SHAPES,
    **sessions.SHAPES,
}
"""What stands elsewhere: in ``initialize``, in errors, beside ``method``, in HTTP bodies."""
