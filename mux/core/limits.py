"""Every limit of the core in one place, each with its reason.

Read by most of the core; part of ``mux.config.model.Config``.
"""

from __future__ import annotations

import attrs

MIB = 1024 * 1024


def _limit(default: float, reason: str) -> float:
    return attrs.field(default=default, metadata={"reason": reason})


def _count(default: int, reason: str) -> int:
    return attrs.field(default=default, metadata={"reason": reason})


@attrs.frozen
class Limits:
    """Bounds of one broker. Times are in seconds, sizes in bytes, the rest are counts."""

    message_bytes: int = _count(
        64 * MIB, "what the native listener takes; a larger message closes its client with 1009"
    )
    in_flight: int = _count(
        64, "past about 128 queued requests the app-server answers overload and loses some answers"
    )
    in_flight_per_client: int = _count(
        32, "half of the whole, so one client's burst always leaves slots to the others"
    )
    burst: int = _count(
        4,
        "of one client at once: enough to keep the app-server busy, and all that another waits for;"
        " one by one while others ask and it has as many more queued",
    )
    burst_seconds: float = _limit(
        0.01, "then as many more: what takes longer than this isn't what keeps the app-server busy"
    )
    waiting_per_client: int = _count(
        256, "requests that wait for something outside (a command's end) hold memory, not a slot"
    )
    queued_per_client: int = _count(
        1024, "a pipelined burst of 1,000 is taken whole; more is answered -32001"
    )
    queued_bytes_per_client: int = _count(
        128 * MIB, "two messages of the largest size; a client can't fill the host's memory"
    )
    request_deadline: float = _limit(
        120.0, "twice the slowest answer seen; after it the asker gets an error, never silence"
    )
    loading: int = _count(
        32,
        "threads loaded for clients at once: half of the whole, so slow ones leave room to others",
    )
    loading_slot: float = _limit(
        30.0, "what loads a thread holds its client's slot: then that may go on with something else"
    )
    one_client_deadline: float = _limit(
        10.0, "a request put to one client (token refresh) goes on to the next after this"
    )
    overload_retries: int = _count(8, "with doubling waits this covers about 13 s of overload")
    overload_first_wait: float = _limit(0.05, "the app-server's queue drains in milliseconds")
    held_early: int = _count(
        16384, "notifications of threads whose creator or parent isn't known yet: seconds of text"
    )
    parent_wait: float = _limit(
        1.0, "for a parent's item to name a sub-agent that runs already; milliseconds, when well"
    )
    kept_for_return: float = _limit(
        600.0, "a fresh or ephemeral thread is lost once let go: its client may reconnect till then"
    )
    outbox_bytes: int = _count(
        4 * MIB, "owed to one client; past it the client reads on from the journal"
    )
    device_window: float = _limit(
        0.05,
        "for which text waits for more on its way to a paired device: nobody sees it, and a radio"
        " carries a third of the messages. A program that wants each piece at once says so",
    )
    answers_bytes: int = _count(
        4 * MIB,
        "that wait behind others for one client; past it nothing is asked or read for it until they"
        " are written",
    )
    pinned_bytes: int = _count(
        64 * MIB,
        "of its own processes' output and the like, kept for a client that doesn't read; then it is"
        " cut. Its answers don't count: they are bounded by what is asked",
    )
    catch_up_bytes: int = _count(
        1 * MIB,
        "read from the journal at once for a client that is behind",
    )
    journal_memory_bytes: int = _count(
        32 * MIB, "the recent past at hand; older entries are read from disk"
    )
    journal_bytes: int = _count(512 * MIB, "of the journal on disk; months of one person's work")
    journal_age: float = _limit(7 * 86400.0, "a week: nobody reads on after a longer holiday")
    restart_first_wait: float = _limit(0.25, "before the second start after a crash; then doubled")
    deaths_in_a_minute: int = _count(
        5,
        "past it the app-server is down, and what is asked gets an error: it may stay so for long",
    )
    down_first_wait: float = _limit(
        5.0, "before it is started again while it is down, then doubled: an upgrade takes seconds"
    )
    down_longest_wait: float = _limit(
        60.0, "of these, at most: nobody needs to notice that what was wrong is mended"
    )
    coming_up: float = _limit(60.0, "how long requests wait for an app-server that comes up")
    probe_interval: float = _limit(30.0, "of silence, before the app-server is asked for a sign")
    probe_deadline: float = _limit(20.0, "for that sign; a busy one answers in milliseconds")
    mentioned_threads: int = _count(
        4096,
        "that nobody here ever followed, and on which nothing runs or waits: what was said of them"
        " last is kept for so many",
    )
    remembered_messages: int = _count(
        4096, "turns that were sent with an id, so that sending them again doesn't run them twice"
    )
    queued_turns: int = _count(
        32, "that wait for one thread: more than a person looks through before it is over"
    )
    queued_turn_bytes: int = _count(16 * MIB, "of these together; a few pictures")
    remembered_clients: int = _count(256, "that left, with what they followed, for their return")
    drain: float = _limit(10.0, "systemd's default stop timeout is 90 s; people wait less")
