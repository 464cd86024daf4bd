"""Stories of a thread's files: which there are, and who may have which opened."""

from __future__ import annotations

import json

import pytest

from mux.core.policy.principal import Principal
from mux.core.protocol.scope import Scope
from tests.core.paced import AWARE, PacedStory
from tests.core.stories import Json, Peer

FORBIDDEN = -32003


def begun() -> tuple[PacedStory, Peer]:
    """A desk that works on the thread `t`, in `/w`."""
    story = PacedStory.with_disk()
    desk = story.peer("desk")
    story.creates(desk, "t")
    story.notifies("thread/started", {"thread": {"id": "t", "cwd": "/w", "ephemeral": False}})
    return story, desk


def watcher(story: PacedStory, *scopes: Scope) -> Peer:
    page = story.peer("page", Principal("page", "device", scopes=frozenset(scopes)), **AWARE)
    page.heard()
    return page


def completes(story: PacedStory, **item: object) -> None:
    params = {"threadId": "t", "turnId": "u", "item": {"id": "i"} | item}
    story.notifies("item/completed", params)


def patches(story: PacedStory, path: str, kind: str, **more: object) -> None:
    change = {"path": path, "kind": {"type": kind} | more, "diff": "+1\n"}
    completes(story, type="fileChange", changes=[change], status="completed")


def answer(story: PacedStory, page: Peer, method: str, **params: object) -> Json:
    """The answer, once the disk was read; none while the shells have the request."""
    page.asks(method, {"threadId": "t"} | params)
    while story.reads_disk():
        pass
    heard = page.heard()
    return heard[-1] if heard else {}


def listed(story: PacedStory, page: Peer) -> list[tuple[str, str]]:
    result = answer(story, page, "mux/files/list")["result"]
    return [(each["path"], each["how"]) for each in result["files"]]


def opens(story: PacedStory, page: Peer, path: str) -> str | None:
    """The path that the shells are to open; None if that is refused."""
    before = len(story.served)
    refused = answer(story, page, "mux/files/open", path=path)
    if refused:
        assert refused["error"]["code"] == FORBIDDEN
        assert len(story.served) == before
        return None
    (asked,) = story.served[before:]
    opened: str = json.loads(asked.params)["path"]
    return opened


def touches(story: PacedStory) -> None:
    """A turn that changes, makes, draws and looks at files."""
    patches(story, "/w/changed", "update")
    patches(story, "created", "add")
    completes(story, type="imageGeneration", status="completed", savedPath="/w/drawn.png")
    completes(story, type="imageView", path="/home/me/.ssh/id")
    completes(story, type="userMessage", content=[{"type": "localImage", "path": "/w/shown.png"}])


def test_a_thread_has_the_files_that_it_touched_the_latest_first() -> None:
    story, _ = begun()
    touches(story)
    patches(story, "/w/gone", "add")
    patches(story, "/w/gone", "delete")
    patches(story, "/w/old", "update", move_path="/w/new")
    declined = [{"path": "/w/declined", "kind": {"type": "add"}, "diff": "+1\n"}]
    completes(story, type="fileChange", changes=declined, status="declined")
    assert listed(story, watcher(story, "observe")) == [
        ("/w/new", "changed"),
        ("/w/shown.png", "named"),
        ("/home/me/.ssh/id", "named"),
        ("/w/drawn.png", "generated"),
        ("/w/created", "created"),
        ("/w/changed", "changed"),
    ]


@pytest.mark.parametrize(
    ("path", "needs"),
    [
        ("/w/changed", "observe"),
        ("created", "observe"),
        ("/w/sub/../created", "observe"),
        ("/w/drawn.png", "observe"),
        ("/home/me/.ssh/id", "drive"),
        ("/w/shown.png", "drive"),
        ("/etc/passwd", "admin"),
        ("../etc/passwd", "admin"),
        ("", "admin"),
    ],
)
def test_who_may_open_which(path: str, needs: Scope) -> None:
    story, _ = begun()
    touches(story)
    ladder: list[Scope] = ["observe", "drive", "admin"]
    for scope in ladder:
        page = watcher(story, "observe", scope)
        opened = opens(story, page, path)
        allowed = needs in {scope, "observe"}
        assert (opened is not None) == allowed, scope
        records = [each for each in story.records if each.kind.endswith(("opened", "refused"))]
        assert records[-1].kind == ("file/opened" if allowed else "request/refused")


def test_what_is_named_after_it_was_changed_stays_the_threads_own() -> None:
    story, _ = begun()
    patches(story, "/w/a.png", "update")
    completes(story, type="imageView", path="/w/a.png")
    page = watcher(story, "observe")
    assert listed(story, page) == [("/w/a.png", "changed")]
    assert opens(story, page, "a.png") == "/w/a.png"


def test_of_another_thread_no_file_is_let_out() -> None:
    story, desk = begun()
    touches(story)
    story.creates(desk, "other")
    page = watcher(story, "observe")
    refused = answer(story, page, "mux/files/open", threadId="other", path="/w/changed")
    assert refused["error"]["code"] == FORBIDDEN
    refused = answer(story, page, "mux/files/open", threadId="nobody's", path="/w/changed")
    assert refused["error"]["code"] == FORBIDDEN


def test_nothing_without_observe_and_nonsense_is_refused() -> None:
    story, _ = begun()
    touches(story)
    for scope in ("drive", "admin", "approve"):
        blind = watcher(story, scope)
        for method in ("mux/files/list", "mux/files/open"):
            refused = answer(story, blind, method, path="/w/changed")
            assert refused["error"]["code"] == FORBIDDEN
    page = watcher(story, "observe")
    assert answer(story, page, "mux/files/open")["error"]["code"] == -32600
    assert answer(story, page, "mux/files/open", path=4)["error"]["code"] == -32600
    assert not story.served
