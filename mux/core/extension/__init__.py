"""The extension: what clients that know the broker say and hear beyond codex's own protocol.

Each ``mux/*`` method and notification stands in one of the modules here, as classes and an example;
``docs/schema/`` is made from them (``make schema``). To add one: its classes and a line in
``METHODS`` or ``NOTIFICATIONS`` of the module of its concern (or of a new module, named below).

Read by the parts that say these things, and by the tests, which play the examples.
"""

from __future__ import annotations

from mux.core.extension import approvals, devices, following, notices, queue, runtime
from mux.core.extension.parts import Described

METHODS: dict[str, Described] = {
    **runtime.METHODS,
    **following.METHODS,
    **approvals.METHODS,
    **queue.METHODS,
    **devices.METHODS,
    **notices.METHODS,
}
"""The requests that the broker answers itself."""

NOTIFICATIONS: dict[str, Described] = {
    **runtime.NOTIFICATIONS,
    **following.NOTIFICATIONS,
    **approvals.NOTIFICATIONS,
    **queue.NOTIFICATIONS,
    **devices.NOTIFICATIONS,
}
"""What the broker tells by itself."""

SHAPES: dict[str, Described] = {**runtime.SHAPES, **queue.SHAPES, **devices.SHAPES}
"""What stands elsewhere: in ``initialize``, in errors, beside ``method``, in HTTP bodies."""
