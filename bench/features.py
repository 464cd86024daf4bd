"""What each feature costs on the way of a message: the broker as shipped, and with one thing less.

CPU time of the thread that all messages go through, for one message to eight subscribers. Auth,
metrics and the audit log have no part in it: they cost when a client attaches (`attaching`), when
somebody asks, and when something rare happens.

Hands to: `report`, the figures. Hears from: `replays`.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Final

from bench.figures import Figure, Plan, alternately
from bench.replays import Replay, replay

SUBSCRIBERS: Final = 8

SHIPPED: Final = "broker"
VARIANTS: Final[dict[str, dict[str, Any]]] = {
    SHIPPED: {},
    "without the journal": {"module": "bench.unjournaled"},
    "to clients that know the broker, numbered": {
        "capabilities": {"extensions": {"appmux": {"version": 1}}}
    },
}


def measure(plan: Plan) -> list[Figure]:
    """The variants alternately."""
    names = tuple(VARIANTS)
    found = alternately(names, plan.repeat, partial(_run, plan.messages))
    loops = {name: [each.loop for each in found[name]] for name in names}
    whole = {name: [each.cpu for each in found[name]] for name in names}
    what = f"CPU of a message to {SUBSCRIBERS}"
    return [Figure(f"{what}, event loop", "µs", loops), Figure(f"{what}, all", "µs", whole)]


async def _run(messages: int, name: str) -> Replay:
    return await replay(SUBSCRIBERS, messages, **VARIANTS[name])
