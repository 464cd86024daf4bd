"""The bench's own arithmetic: what it sends, finds, and adds up."""

import json
from collections import Counter
from pathlib import Path

import pytest

from bench import load, source
from bench.profile import JOBS, Share, Watch, markdown, module_of, shares, spent_between
from bench.sides import HERE, Server

MOMENT = "1234567890123456789"


@pytest.mark.parametrize("size", [None, 300, 64_000])
def test_a_stamped_message_is_as_long_as_wanted_and_its_stamp_is_found(size: int | None) -> None:
    line = source.recorded()[1][0]
    if size is not None:
        line = source._sized(line, size)
    stamped = source._marked(line, source.MARK + MOMENT)
    assert load.STAMP.findall(stamped) == [MOMENT.encode()]
    if size is not None:
        assert len(stamped) == size


def test_a_stamp_cut_between_two_reads_is_found_once() -> None:
    line = source._marked(source.recorded()[1][0], source.MARK + MOMENT)
    for cut in range(len(line)):
        first, second = line[:cut], line[cut:]
        found = load.STAMP.findall(first)
        at = max((each.end() for each in load.STAMP.finditer(first)), default=0)
        kept = first[max(at, len(first) - load.STAMP_TAIL) :]
        assert len(found + load.STAMP.findall(kept + second)) == 1


def test_shares_of_modules_and_of_their_greatest_functions() -> None:
    spent = Counter({("a.py", "f"): 30, ("a.py", "g"): 20, ("b", "h"): 50, ("c", "i"): 100})
    assert shares(spent) == [
        Share("c", 0.5, "i", 0.5),
        Share("a.py", 0.25, "f", 0.15),
        Share("b", 0.25, "h", 0.25),
    ]
    assert shares(Counter()) == []


def test_only_what_was_seen_during_the_load_counts() -> None:
    file = str(HERE / "mux" / "dispatch" / "outbox.py")
    looks = [[at, 5, file, "Outbox.flush"] for at in (99, 100, 150, 200, 201)]
    lines = [json.dumps(each) for each in looks]
    assert spent_between(lines, 100, 200) == {("mux/dispatch/outbox.py", "Outbox.flush"): 15}


@pytest.mark.parametrize(
    ("file", "module"),
    [
        (
            str(HERE / "mux" / "core" / "routing" / "notifications.py"),
            "mux/core/routing/notifications.py",
        ),
        ("/usr/lib/python3.12/site-packages/trio/_core/_run.py", "trio/_core"),
        ("/usr/lib/python3.12/site-packages/trio/_socket.py", "trio"),
        (str(HERE / ".venv" / "lib" / "site-packages" / "cffi.py"), "cffi"),
        ("/usr/lib/python3.12/socket.py", "socket"),
    ],
)
def test_a_module_is_ours_or_its_package(file: str, module: str) -> None:
    assert module_of(file) == module


def test_one_table_of_all_jobs_with_what_is_telling_in_any() -> None:
    some = Counter(
        {("mux/dispatch/outbox.py", "flush"): 97, ("h11", "next_event"): 2, ("x", "y"): 1}
    )
    other = Counter({("mux/dispatch/outbox.py", "flush"): 10, ("h11", "next_event"): 990})
    server = Server("ws://127.0.0.1:1", 1, None, Path("/nowhere"))
    found = {
        name: (JOBS[name], Watch(server, 1.5 * JOBS[name].number / 1e6, 0.0, 0.0), spent)
        for name, spent in (("deltas", some), ("requests", other))
    }
    assert markdown(found).splitlines() == [
        "|  | replayed deltas to 32 | cheap requests of 16 clients |",
        "|---|---|---|",
        "| CPU of the loop, each | 1.5 µs | 1.5 µs |",
        "| thereof in the kernel | 0% | 0% |",
        "| CPU of other threads, each | 0 µs | 0 µs |",
        "| `h11` | 2% | 99% |",
        "| `mux/dispatch/outbox.py` | 97% | 1% |",
    ]
