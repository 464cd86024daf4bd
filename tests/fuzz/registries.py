"""What the core keeps: how much of it stands where, and what may be left when all have left.

Hands to: the fuzz of the core.
"""

from __future__ import annotations

from collections import Counter
from typing import Final

from mux.core.limits import Limits
from mux.core.state.turns.title_turns import MOST_TURNS
from tests.fuzz.app_server_lines import REMEMBERED

LIMITS: Final = Limits(
    mentioned_threads=16,
    remembered_messages=16,
    remembered_clients=4,
    queued_turns=4,
    queued_per_client=64,
    held_early=256,
    journal_memory_bytes=256 * 1024,
)
"""Smaller than usual, so that they are reached."""

BOUNDED: Final = {
    "DeprecationNotices.answered_lately": 32,
    "ClientRequests.wires_lately": 32,
    "SentMessages.firsts": LIMITS.remembered_messages,
    "Threads.known": LIMITS.mentioned_threads,
    "Threads.unclaimed": LIMITS.mentioned_threads,
    "Threads._children": LIMITS.mentioned_threads,
    "UnclaimedThreads.notifications": LIMITS.held_early,
    "UnclaimedThreads.notifications[]": LIMITS.held_early,
    "UnclaimedThreads.notifications[][]": 2 * LIMITS.held_early,
    "TitleTurns.finished": MOST_TURNS,
    "State.turn_queues": REMEMBERED,
    "ToolOwners._owners": 4096,
    "ToolOwners._owners[]": 4096,
    "DepartedClients.followed": LIMITS.remembered_clients,
    "DepartedClients.followed[]": LIMITS.remembered_clients * 40,
    "PendingRequests._resolved": 1024,
    "NoticeRecords.raised": 4096,
    "NoticeRecords.goals": 1024,
    "NoticeRecords.turns": 1024,
    "NoticeRecords.interrupted_by": 1024,
    "State.devices_used": 1024,
    "Cards._by_id": 4096,
    "InboxCards.running": 4096,
    "InboxCards.limits": 64,
    "InboxCards.limits[]": 4096,
    "InboxChanges._seen": 8,
    "AppServer.ends": LIMITS.deaths_in_a_minute,
    "AppServer.greetings": 8,
    "AppServer.greetings[]": 64,
    "AppServer.result": 8,
    "State.counts": 100,
}
"""What is kept for a while though everybody has left, and how much of it at most."""

REGISTRIES: Final = frozenset(
    {
        "PendingRequests", "AppServer", "ClientRequests", "DirectoryClearance", "RequestScheduler",
        "Cards", "DeprecationNotices", "Digests", "InboxCards", "InboxChanges",
        "Subscriptions", "NotificationRouter", "Attention",
        "NoticeRecords", "Notices", "ServerRequests", "Presence", "TurnQueueing", "LocalResumes",
        "Recovery", "Replays",
        "DepartedClients", "PlannedRestart", "SentMessages",
        "ScopedIds", "Deduplicator", "State", "Threads", "TitleTurns", "ToolOwners",
        "UnclaimedThreads", "Voting",
    }
)  # fmt: skip
"""The parts whose containers are counted; what stands in these hangs on them."""

NOT_KEPT: Final = frozenset(
    {
        "State.out",
        "RequestScheduler._deadlines",
        "RequestScheduler._loads",
        "RequestScheduler._retries",
    }
)
"""Commands of the last event; and times that are looked at when they have come."""


def left_over(found: Counter[str], empty: Counter[str]) -> str:
    """What there is too much of; empty if there isn't. ``empty``: as it was at the beginning."""
    for path, size in found.items():
        most = empty[path] + BOUNDED.get(path, 0)
        kept = path.partition(".")[0] in REGISTRIES and path not in NOT_KEPT
        if kept and size > most:
            return f"{size} are left in {path}, and {most} were there"
    return ""


def sizes(root: object) -> Counter[str]:
    """How many elements every container below an object of the core has, by where it stands."""
    found: Counter[str] = Counter()
    waiting: list[tuple[str, object]] = [("", root)]
    seen: set[int] = set()
    while waiting:
        path, value = waiting.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, dict):
            found[path] += len(value)
            waiting += [(f"{path}[]", each) for each in value.values()]
        elif isinstance(value, (list, set, tuple, frozenset)) or type(value).__name__ == "deque":
            found[path] += len(value)  # type: ignore[arg-type]
            waiting += [(f"{path}[]", each) for each in value]  # type: ignore[attr-defined]
        elif isinstance(value, bytearray):
            found[path] += len(value)
        elif type(value).__module__.startswith("mux.core"):
            waiting += [(f"{type(value).__name__}.{name}", part) for name, part in _parts(value)]
    return found


def _parts(value: object) -> list[tuple[str, object]]:
    names = dict.fromkeys(
        name for kind in type(value).__mro__ for name in getattr(kind, "__slots__", ())
    )
    names |= dict.fromkeys(getattr(value, "__dict__", ()))
    return [(name, getattr(value, name)) for name in names if hasattr(value, name)]
