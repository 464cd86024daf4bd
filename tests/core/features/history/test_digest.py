"""Stories of the digest: what happened on a thread since a cursor."""

from __future__ import annotations

from mux.core.features.history.digest_summary import MOST
from mux.core.features.history.journal_sweep import AT_ONCE
from mux.core.policy.principal import Principal
from tests.core.paced import AWARE, EPOCH, PacedStory
from tests.core.stories import APPROVAL, Json, Peer, Story

OBSERVER = Principal("page", "device", scopes=frozenset({"observe"}))


def begun(**limits: float) -> tuple[PacedStory, Peer, Peer]:
    """A desk that works on the thread `t`, and a page."""
    story = PacedStory.with_disk(**limits)
    desk = story.peer("desk")
    story.creates(desk, "t")
    page = story.peer("page", OBSERVER, **AWARE)
    page.heard()
    return story, desk, page


def digest(story: Story, page: Peer, seq: int | None = 0, epoch: str = EPOCH) -> Json:
    """The answer, once the disk was read."""
    after = None if seq is None else {"epoch": epoch, "seq": seq}
    page.asks("mux/thread/digest", {"threadId": "t", "after": after})
    if isinstance(story, PacedStory):
        while story.reads_disk():
            pass
    result: Json = page.only()["result"]
    return result


def completes(story: Story, turn: str = "u", thread: str = "t", **item: object) -> None:
    """An item, completed."""
    params = {"threadId": thread, "turnId": turn, "item": {"id": "i"} | item}
    story.notifies("item/completed", params)


def says(story: Story, text: str, turn: str = "u") -> None:
    completes(story, turn, type="agentMessage", text=text)


def runs(story: Story, command: str, code: int, output: str = "") -> None:
    completes(
        story,
        type="commandExecution",
        command=command,
        cwd="/w",
        exitCode=code,
        status="completed" if code == 0 else "failed",
        aggregatedOutput=output,
    )


def patches(story: Story, *changes: Json, status: str = "completed") -> None:
    completes(story, type="fileChange", changes=list(changes), status=status)


def test_a_turn_is_told_whole() -> None:
    story, desk, page = begun()
    story.begins_turn(id="u")
    said = [{"type": "text", "text": "fix the build\nplease"}]
    completes(story, type="userMessage", content=said)
    runs(story, "make", 0)
    runs(story, "make test", 2, "…\nmake: *** Error 2\n")
    hunk = "@@ -1,2 +1,2 @@\n a\n-b\n+c\n"
    change = {"path": "/w/a", "kind": {"type": "update"}, "diff": hunk}
    patches(story, change)
    patches(story, change, {"path": "/w/n", "kind": {"type": "add"}, "diff": "1\n2\n"})
    patches(story, change, status="declined")
    story.asks(0, APPROVAL, threadId="t", turnId="u", itemId="c", command="make install")
    (offer,) = desk.heard(APPROVAL)
    desk.answers(offer["id"], {"decision": "decline"})
    story.resolves(0)
    says(story, "Well.\nIt is green.")
    turn = {"id": "u", "status": "completed", "items": [], "durationMs": 81_500}
    story.notifies("turn/completed", {"threadId": "t", "turn": turn})
    told = digest(story, page)
    assert told["complete"]
    assert told["turns"] == [
        {
            "id": "u",
            "status": "completed",
            "said": "please",
            "lastLine": "It is green.",
            "error": None,
            "seconds": 81.5,
        }
    ]
    a, n = told["files"]
    assert (a["path"], a["added"], a["removed"], a["edits"]) == ("/w/a", 2, 2, 2)
    assert (n["path"], n["kind"], n["added"], n["edits"]) == ("/w/n", "add", 2, 1)
    assert told["commands"]["ran"] == 2
    (failed,) = told["commands"]["failed"]
    assert failed == {
        "turnId": "u",
        "command": "make test",
        "cwd": "/w",
        "exitCode": 2,
        "lastLine": "make: *** Error 2",
    }
    (decided,) = told["decisions"]
    assert (decided["about"], decided["decision"]) == ("make install", "decline")
    assert decided["by"]["name"] == "desk"
    assert told["waiting"] == 0
    assert told["seq"] == story.broker.state.journal.head


def test_only_what_came_after_the_cursor_is_told() -> None:
    story, _, page = begun()
    says(story, "before")
    cursor = digest(story, page)["seq"]
    assert digest(story, page, cursor)["turns"] == []
    says(story, "after", "v")
    (turn,) = digest(story, page, cursor)["turns"]
    assert (turn["id"], turn["lastLine"], turn["status"]) == ("v", "after", "inProgress")


def test_other_threads_and_streams_are_passed_by() -> None:
    story, desk, page = begun()
    story.creates(desk, "other")
    completes(story, thread="other", type="agentMessage", text="not this")
    for _ in range(100):
        story.delta()
    assert digest(story, page)["turns"] == []


def test_what_is_on_disk_is_read_in_parts() -> None:
    story, _, page = begun(journal_memory_bytes=1000)
    for n in range(50):
        runs(story, f"command {n} {'x' * 100}", 1)
    told = digest(story, page)
    assert [each["command"].split()[1] for each in told["commands"]["failed"]] == [
        str(n) for n in range(50)
    ]
    assert all(not fetch.deltas for fetch in story.fetches)


def test_another_epoch_or_a_cursor_that_is_too_old_is_told_as_incomplete() -> None:
    story, _, page = begun()
    says(story, "words")
    told = digest(story, page, 0, "another")
    assert not told["complete"]
    assert told["turns"]
    assert digest(story, page, None)["complete"] is False or digest(story, page, None)["turns"]
    assert digest(story, page, 10**6)["turns"] == []


def test_of_very_much_the_latest_is_told() -> None:
    story, _, page = begun()
    for n in range(MOST + 5):
        runs(story, f"c{n}", 1)
    told = digest(story, page)
    assert not told["complete"]
    assert len(told["commands"]["failed"]) == MOST
    assert told["commands"]["failed"][-1]["command"] == f"c{MOST + 4}"
    assert told["commands"]["ran"] == MOST + 5


def test_who_leaves_is_told_nothing_and_nothing_is_kept() -> None:
    story, _, page = begun(journal_memory_bytes=100)
    for _ in range(5):
        says(story, "x" * 100)
    for _ in range(AT_ONCE + 1):
        page.asks("mux/thread/digest", {"threadId": "t", "after": {"epoch": EPOCH, "seq": 0}})
    assert [each["error"]["code"] for each in page.heard()] == [-32001]
    page.leaves()
    while story.reads_disk():
        pass
    assert not story.broker._connections.parts.sweeps._sweeps


def test_nothing_without_observe_and_nonsense_is_refused() -> None:
    story, _, page = begun()
    blind = story.peer("blind", Principal("b", "jwt", scopes=frozenset({"drive"})))
    blind.asks("mux/thread/digest", {"threadId": "t"})
    assert blind.only()["error"]["code"] == -32003
    page.asks("mux/thread/digest", {"threadId": "t", "after": 4})
    assert page.only()["error"]["code"] == -32600
    page.asks("mux/thread/digest")
    assert page.only()["error"]["code"] == -32600
