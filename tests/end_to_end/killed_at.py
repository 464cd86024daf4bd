"""`appmux`, whose broker is killed at a point of its taking over that a test has named.

The file that `APPMUX_KILLED_AT` names holds the point and how many brokers are to be killed there;
or, behind `CRASH`, how many are to end there by an exception that nobody expects.
Started instead of `python -m mux`; the test writes the file once the first broker serves. However
many brokers die, the next one is started at once.
"""

from __future__ import annotations

import functools
import importlib
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

VARIABLE: Final = "APPMUX_KILLED_AT"

POINTS: Final = (
    "mux.upstream.supervised Supervision.open",
    "mux.storage.state_dir claim",
    "mux.storage.broker_state load",
    "mux.storage.journal Store.open",
    "mux.storage.broker_state BrokerState.begin",
    "mux.upstream.supervised Supervision.adopt",
    "mux.server.handover Sockets.let_go",
    "mux.core.features.handover.handover Handover.begin",
    "mux.core.features.handover.handover Handover._loaded",
    "mux.core.features.handover.handover Handover._resumed",
    "mux.core.features.lifecycle.recovery Recovery.ready",
)
"""Modules and functions; the broker is killed when one has returned."""


CRASH: Final = "crash: "


def _end_if_due(point: str) -> None:
    file = Path(os.environ.get(VARIABLE, ""))
    try:
        wanted, _, count = file.read_text().rpartition(" ")
    except (FileNotFoundError, IsADirectoryError):
        return
    if wanted.removeprefix(CRASH) != point or int(count) == 0:
        return
    file.write_text(f"{wanted} {int(count) - 1}")
    if wanted.startswith(CRASH):
        raise RuntimeError(wanted)
    os.kill(os.getpid(), signal.SIGKILL)


def _deadly(point: str, function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(*arguments: Any, **named: Any) -> Any:
        result = function(*arguments, **named)
        _end_if_due(point)
        return result

    return call


def holder_of(point: str) -> tuple[Any, str]:
    """Return what holds the function of a point, and its name there. Raises where there is none."""
    module, _, path = point.partition(" ")
    holder = importlib.import_module(module)
    *owners, name = path.split(".")
    for owner in owners:
        holder = getattr(holder, owner)
    if name not in vars(holder):
        raise AttributeError(f"{point}: there is no such function")
    return holder, name


def arm() -> None:
    """Make the functions of all points deadly, if a test names one.

    The soak doesn't, and its other checkout may have other modules.
    """
    if VARIABLE not in os.environ:
        return
    for point in POINTS:
        holder, name = holder_of(point)
        found = holder.__dict__[name]
        if isinstance(found, classmethod):
            setattr(holder, name, classmethod(_deadly(point, found.__func__)))
        else:
            setattr(holder, name, _deadly(point, found))


def main() -> None:
    from mux.cli import entry  # noqa: PLC0415 (the supervisor is to load no more than it does)
    from mux.supervisor import supervisor  # noqa: PLC0415

    run = supervisor.run

    def armed(broker: Callable[[], None]) -> int:
        def first() -> None:
            arm()
            broker()

        return run(first)

    supervisor.run = armed
    supervisor.LONGEST_WAIT = supervisor.FIRST_WAIT  # type: ignore[misc]
    if entry.VARIABLE in os.environ:
        arm()
    entry.main()


if __name__ == "__main__":
    main()
