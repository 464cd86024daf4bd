"""Stories of the inbox: what a page shows, to whom, and which differences are told when."""

from __future__ import annotations

from typing import Any

from mux.core.events import PastRemembered
from mux.core.features.inbox.inbox_changes import CHANGED, INTERVAL
from mux.core.policy.principal import Principal
from mux.core.state.threads.last_line import LONGEST, tail
from tests.core.paced import AWARE, PacedStory
from tests.core.stories import APPROVAL, DELTA, QUESTION, Json, Peer, Story

PAGE = Principal("page", "device", scopes=frozenset({"observe", "approve", "drive"}))
OBSERVER = Principal("tablet", "device", scopes=frozenset({"observe"}))
BLIND = Principal("blind", "jwt", scopes=frozenset({"drive"}))


def stored(id: str, **fields: object) -> Json:
    """A thread as `thread/list` has it."""
    return {
        "id": id,
        "name": f"{id}'s title",
        "preview": "do it",
        "cwd": f"/work/{id}",
        "ephemeral": False,
        "createdAt": 10,
        "updatedAt": 20,
        "recencyAt": 20,
        "status": {"type": "notLoaded"},
    } | fields


def reads(story: Story, peer: Peer, listed: list[Json] | None = None, **params: object) -> Json:
    """`mux/inbox`, its `thread/list` answered with these threads."""
    more = {name: params.pop(name) for name in ("readStates", "nextCursor") if name in params}
    id = peer.asks("mux/inbox", params)
    asked = story.only("thread/list")
    story.answers(asked, {"data": listed or [], "nextCursor": None} | more)
    heard = peer.heard()
    (answer,) = [each for each in heard if each.get("id") == id]
    peer.inbox += [each for each in heard if each is not answer]
    result: Json = answer["result"]
    return result


def followed(*listed: Json, principal: Principal = PAGE) -> tuple[Story, Peer, Peer]:
    """A desk that follows the thread `t`, and a page that follows the inbox; the minute is new."""
    story = Story.begun()
    desk = story.peer("desk")
    story.creates(desk, "t")
    story.notifies("thread/started", {"thread": stored("t", status={"type": "idle"})})
    page = story.peer("page", principal, **AWARE)
    reads(story, page, list(listed), follow=True)
    story.waits(INTERVAL)
    changes(page)
    desk.heard()
    return story, desk, page


def changes(page: Peer) -> list[Json]:
    """What it was told of changes since the last look."""
    return [each["params"] for each in page.heard(CHANGED)]


def change(page: Peer, thread: str = "t") -> Json:
    """What the one change that it was told says of the thread."""
    (only,) = changes(page)
    (found,) = [each for each in only["threads"] if each["id"] == thread]
    return dict(found)


# ── a page ────────────────────────────────────────────────────────────────────────────────────────


def test_a_page_is_one_list_of_the_app_server() -> None:
    story = Story.begun()
    page = story.peer("page", PAGE)
    page.asks("mux/inbox", {"limit": 5, "cursor": "c", "search": "words"})
    asked = story.only("thread/list")["params"]
    assert asked["limit"] == 5
    assert asked["cursor"] == "c"
    assert asked["searchTerm"] == "words"
    assert asked["sortKey"] == "recency_at"
    assert "subAgent" not in asked["sourceKinds"]


def test_a_page_shows_what_the_app_server_lists() -> None:
    story = Story.begun()
    page = story.peer("page", PAGE)
    unread = {"firstUnread": {"type": "turn", "turnId": "u"}, "revision": "1"}
    read = {"firstUnread": None, "revision": "2"}
    inbox = reads(
        story, page, [stored("a"), stored("b")], readStates={"a": unread, "b": read},
        nextCursor="more",
    )  # fmt: skip
    a, b = inbox["threads"]
    assert a == {
        "id": "a",
        "title": "a's title",
        "preview": "do it",
        "directory": "/work/a",
        "status": "notLoaded",
        "archived": False,
        "createdAt": 10,
        "updatedAt": 20,
        "recencyAt": 20,
        "unread": True,
        "readState": unread,
        "lastLine": None,
        "turn": None,
        "lastTurn": None,
        "queued": 0,
        "held": None,
        "needs": 0,
        "usage": None,
    }
    assert (b["unread"], b["readState"]) == (False, read)
    assert inbox["nextCursor"] == "more"
    assert inbox["needs"] == []
    assert inbox["appServer"] == {"state": "ready", "version": "0.163.0"}


def test_nothing_without_observe() -> None:
    story = Story.begun()
    blind = story.peer("blind", BLIND)
    blind.asks("mux/inbox")
    blind.asks("mux/usage")
    assert [each["error"]["code"] for each in blind.heard()] == [-32003, -32003]
    assert story.written() == []


def test_params_that_cant_be_are_refused() -> None:
    story = Story.begun()
    page = story.peer("page", PAGE)
    for params in ({"limit": 0}, {"limit": 101}, {"search": "s" * 257}, {"follow": 1}):
        page.asks("mux/inbox", params)
        assert page.only()["error"]["code"] == -32600
    assert story.written() == []


def test_an_error_of_the_list_is_the_answer() -> None:
    story = Story.begun()
    page = story.peer("page", PAGE)
    page.asks("mux/inbox", {"cursor": "nonsense"})
    story.fails(story.only(), message="invalid cursor")
    assert page.only()["error"]["message"] == "invalid cursor"


def test_a_running_thread_says_who_drives_and_its_last_line() -> None:
    story, desk, page = followed()
    desk.asks("turn/start", {"threadId": "t", "input": []})
    turn = {"id": "u", "status": "inProgress", "items": []}
    story.answers(story.only("turn/start"), {"turn": turn})
    story.begins_turn(id="u")
    streams(story, "First.\\nSecond", " line")
    story.waits(12)
    (t,) = reads(story, page, [])[
        "threads"
    ]  # the list doesn't have it yet: it is there all the same
    assert t["turn"] == {
        "id": "u",
        "runningSeconds": 12.0,
        "by": {"client": desk.id, "name": "desk", "principal": "local"},
    }
    assert t["lastLine"] == {"text": "Second line", "of": "agent"}
    assert t["title"] == "t's title"


def test_titles_and_ephemeral_threads_and_sub_agents_are_left_out() -> None:
    story, desk, page = followed()
    story.creates(desk, "e", ephemeral=True)
    story.notifies("thread/started", {"thread": stored("e", ephemeral=True)})
    story.notifies("thread/started", {"thread": stored("s", parentThreadId="t")})
    titles = stored("x", ephemeral=True, threadSource="thread_title")
    story.notifies("thread/started", {"thread": titles})
    for thread in ("e", "s", "x"):
        story.begins_turn(thread)
    story.begins_turn("t")
    story.waits(5)
    told = [each for changed in changes(page) for each in changed["threads"]]
    assert {each["id"] for each in told} == {"t"}
    assert not any(changed["threadsGone"] for changed in changes(page))
    assert [each["id"] for each in reads(story, page)["threads"]] == ["t"]


def test_while_the_app_server_is_down_the_broker_says_what_it_knows() -> None:
    story, _, page = followed(stored("old"))
    for _ in range(6):
        story.exits()
        story.starts(2)
    story.exits()
    page.heard()
    page.asks("mux/inbox")
    inbox = page.only()["result"]
    assert inbox["appServer"]["state"] == "down"
    assert {each["id"] for each in inbox["threads"]} == {"t", "old"}
    assert inbox["nextCursor"] is None


# ── what needs a person ───────────────────────────────────────────────────────────────────────────


def asks_for_a_command(story: Story, id: int = 0) -> None:
    story.asks(
        id,
        APPROVAL,
        threadId="t",
        turnId="u",
        itemId="call",
        reason="it says so",
        command="/bin/bash -lc 'make test; rm -rf build'",
        cwd="/work/t",
    )


def test_an_approval_says_what_a_person_needs_to_judge() -> None:
    story, _, page = followed()
    asks_for_a_command(story)
    (told,) = changes(page)
    (need,) = told["needs"]
    assert need["kind"] == "approval"
    assert need["key"] == f"request/{need['id']}"
    assert (need["threadId"], need["rootThreadId"], need["title"]) == ("t", "t", "t's title")
    assert need["directory"] == "/work/t"
    assert need["command"] == "/bin/bash -lc 'make test; rm -rf build'"
    assert (need["cwd"], need["reason"]) == ("/work/t", "it says so")
    assert need["risks"] == ["escalated"]
    assert (need["policy"], need["waitsFor"]) == ("first", "anyone who may approve")
    assert (need["turnId"], need["itemId"], need["files"]) == ("u", "call", [])
    assert told["threads"][0]["needs"] == 1


def test_a_change_of_files_names_them_with_counts() -> None:
    story, _, page = followed()
    story.begins_turn(id="u")
    diff = "@@ -1,3 +1,4 @@\n one\n-two\n+2\n+2.5\n three\n"
    edits = [
        {"path": "/work/t/a.py", "kind": {"type": "update", "move_path": None}, "diff": diff},
        {"path": "/etc/new", "kind": {"type": "add"}, "diff": "x\ny\n"},
    ]
    item = {"id": "call", "type": "fileChange", "changes": edits, "status": "inProgress"}
    story.notifies("item/started", {"threadId": "t", "turnId": "u", "item": item})
    story.waits(2 * INTERVAL)
    changes(page)
    story.asks(0, "item/fileChange/requestApproval", threadId="t", turnId="u", itemId="call")
    (told,) = changes(page)
    (need,) = told["needs"]
    one, two = need["files"]
    assert one == {
        "path": "/work/t/a.py", "kind": "update", "movedTo": None, "added": 2, "removed": 1
    }  # fmt: skip
    assert (two["kind"], two["added"], two["removed"]) == ("add", 2, 0)
    assert need["risks"] == ["outside-workspace"]


def test_a_question_is_shown_and_its_answer_never() -> None:
    story, desk, page = followed()
    question = {"id": "q", "header": "Key", "question": "The key?", "isSecret": True}
    story.asks(0, QUESTION, threadId="t", turnId="u", itemId="i", questions=[question])
    (told,) = changes(page)
    (need,) = told["needs"]
    assert (need["kind"], need["text"]) == ("question", "The key?")
    assert "command" not in need
    desk.answers(need["id"], {"answers": {"q": {"answers": ["hunter2"]}}})
    story.resolves(0)
    story.waits(INTERVAL)
    (told,) = changes(page)
    assert told["needsGone"] == [need["key"]]
    assert "hunter2" not in str(told)
    assert "hunter2" not in str(reads(story, page))


def test_who_may_only_observe_sees_no_request_that_isnt_shown_to_such() -> None:
    story, _, page = followed(principal=OBSERVER)
    story.asks(0, "item/new/requestSomething", threadId="t")
    asks_for_a_command(story, 1)
    story.waits(INTERVAL)
    told = [need["method"] for changed in changes(page) for need in changed["needs"]]
    assert told == [APPROVAL]
    assert [need["method"] for need in reads(story, page)["needs"]] == [APPROVAL]


def test_a_held_queue_needs_a_person() -> None:
    story = Story.begun()
    desk = story.peer("desk", **AWARE)
    story.creates(desk, "t")
    story.notifies("thread/started", {"thread": stored("t")})
    page = story.peer("page", PAGE, **AWARE)
    reads(story, page, follow=True)
    story.begins_turn(id="u")
    desk.asks("turn/start", {"threadId": "t", "input": [], "ifBusy": "queue"})
    story.waits(INTERVAL)
    assert changes(page)[-1]["threads"][0]["queued"] == 1
    turn = {"id": "u", "status": "failed", "items": []}
    story.notifies("turn/completed", {"threadId": "t", "turn": turn})
    story.waits(INTERVAL)
    (told,) = changes(page)
    (need,) = told["needs"]
    assert (need["key"], need["kind"], need["held"]) == ("queue/t", "queue", "failed")
    assert need["queued"] == 1
    t = told["threads"][0]
    assert (t["held"], t["needs"], t["lastTurn"]["status"]) == ("failed", 1, "failed")


# ── differences ───────────────────────────────────────────────────────────────────────────────────


def streams(story: Story, *pieces: str) -> None:
    """An agent's message, as far as these pieces of it (insides of JSON strings)."""
    item = {"id": "i", "type": "agentMessage", "text": ""}
    story.notifies("item/started", {"threadId": "t", "turnId": "u", "item": item})
    for piece in pieces:
        story.says(
            b'{"method":"%b","params":{"threadId":"t","turnId":"u","itemId":"i","delta":"%b"}}'
            % (DELTA.encode(), piece.encode())
        )


def test_a_change_is_told_at_once_then_four_times_a_second() -> None:
    story, _, page = followed()
    story.begins_turn(id="u")
    assert change(page)["turn"]["id"] == "u"
    streams(story)
    for _ in range(100):
        story.delta(text="more ")
        story.waits(0.01)
    assert 3 <= len(changes(page)) <= 5
    story.waits(10)
    assert len(changes(page)) <= 1, "what doesn't change isn't told"


def test_a_delta_wakes_nobody_and_tells_nothing() -> None:
    story, _, page = followed()
    story.begins_turn(id="u")
    streams(story, "one")
    story.waits(1)
    changes(page)
    due = story.broker.next_wakeup
    story.delta(text=" two")
    assert changes(page) == []
    assert story.broker.next_wakeup == due


def test_only_what_changed_is_told() -> None:
    story, _, page = followed()
    story.begins_turn(id="u")
    streams(story, "Hello")
    story.waits(1)
    changes(page)
    story.delta(text=", world")
    story.waits(INTERVAL)
    assert change(page) == {"id": "t", "lastLine": {"text": "Hello, world", "of": "agent"}}


def test_a_thread_that_wasnt_on_the_page_comes_whole_first() -> None:
    story, desk, page = followed(stored("a"))
    story.creates(desk, "n")
    story.notifies("thread/started", {"thread": stored("n")})
    story.waits(INTERVAL)
    assert changes(page)[-1]["threads"][0]["title"] == "n's title"
    story.notifies("thread/name/updated", {"threadId": "n", "threadName": "better"})
    story.waits(INTERVAL)
    assert change(page, "n") == {"id": "n", "title": "better"}


def test_unread_marks_are_codexs_own() -> None:
    story, _, page = followed(stored("t"))
    story.begins_turn(id="u")
    story.waits(INTERVAL)
    changes(page)
    state: Json = {"firstUnread": {"type": "turn", "turnId": "u"}, "revision": "r1"}
    story.notifies("thread/readState/changed", {"threadId": "t", "readState": state})
    told = change(page)
    assert (told["unread"], told["readState"]) == (True, state)
    story.waits(INTERVAL)
    state = {"firstUnread": None, "revision": "r2"}
    story.notifies("thread/readState/changed", {"threadId": "t", "readState": state})
    assert change(page) == {"id": "t", "unread": False, "readState": state}


def test_archived_and_deleted_threads_go() -> None:
    story, _, page = followed(stored("a"), stored("b"))
    story.notifies("thread/archived", {"threadId": "a"})
    story.notifies("thread/deleted", {"threadId": "b"})
    story.waits(INTERVAL)
    assert sorted(id for each in changes(page) for id in each["threadsGone"]) == ["a", "b"]
    story.notifies("thread/unarchived", {"threadId": "a"})
    story.waits(INTERVAL)
    assert change(page, "a")["title"] == "a's title"


def test_a_turns_end_says_how_and_with_which_words() -> None:
    story, _, page = followed()
    story.begins_turn(id="u")
    streams(story, "All done.")
    final = {"id": "i", "type": "agentMessage", "text": "Thinking.\n\nAll is done.\n"}
    story.notifies("item/completed", {"threadId": "t", "turnId": "u", "item": final})
    story.waits(2 * INTERVAL)
    changes(page)
    story.ends_turn(id="u")
    assert change(page) == {
        "id": "t",
        "turn": None,
        "lastTurn": {"id": "u", "status": "completed"},
    }
    story.waits(600)
    (t,) = reads(story, page, [stored("t")])["threads"]
    assert t["lastLine"] == {"text": "All is done.", "of": "agent"}


def test_usage_and_limits_are_as_last_told() -> None:
    story, _, page = followed()
    used = {"total": {"totalTokens": 15}, "last": {"totalTokens": 15}, "modelContextWindow": 9}
    tokens = {"threadId": "t", "turnId": "u", "tokenUsage": used}
    story.notifies("thread/tokenUsage/updated", tokens)
    assert change(page)["usage"] == used
    story.waits(INTERVAL)
    first = {"limitId": "codex", "primary": {"usedPercent": 12}, "planType": "pro"}
    story.notifies("account/rateLimits/updated", {"rateLimits": first})
    (told,) = changes(page)
    assert told["limits"] == {"codex": first}
    story.waits(INTERVAL)
    sparse = {"limitId": "codex", "primary": {"usedPercent": 13}, "planType": None}
    story.notifies("account/rateLimits/updated", {"rateLimits": sparse})
    (told,) = changes(page)
    assert told["limits"]["codex"] == first | {"primary": {"usedPercent": 13}}
    page.asks("mux/usage", {"threadIds": ["t", "unknown"]})
    assert page.only()["result"] == {"threads": {"t": used}, "limits": told["limits"]}


def test_limits_that_a_client_read_are_told_too_and_go_with_the_account() -> None:
    story, desk, page = followed()
    desk.asks("account/rateLimits/read")
    limit = {"limitId": "codex", "primary": {"usedPercent": 7}}
    answer = {"rateLimits": limit, "rateLimitsByLimitId": {"codex": limit}}
    story.answers(story.only("account/rateLimits/read"), answer)
    (told,) = changes(page)
    assert told["limits"] == {"codex": limit}
    story.waits(INTERVAL)
    story.notifies("account/updated", {"authMode": "apikey"})
    (told,) = changes(page)
    assert told["limits"] == {}


def test_who_doesnt_follow_is_told_nothing_and_who_ends_it_no_more() -> None:
    story, _, page = followed()
    other = story.peer("other", PAGE, **AWARE)
    reads(story, other)
    story.begins_turn(id="u")
    assert len(changes(page)) == 1
    assert changes(other) == []
    reads(story, page, follow=False)
    story.ends_turn(id="u")
    story.waits(5)
    assert changes(page) == []


def test_no_follower_no_wake_up() -> None:
    story, _, page = followed()
    page.leaves()
    story.begins_turn(id="u")
    streams(story, "words")
    woken = 0
    while story.broker.next_wakeup < story.now + 5 and woken < 50:
        story.waits_until(story.broker.next_wakeup)
        woken += 1
    assert woken < 3


def test_one_that_is_behind_gets_what_is_true_when_it_is_live() -> None:
    story = PacedStory.with_disk()
    desk = story.peer("desk")
    story.creates(desk, "t")
    story.notifies("thread/started", {"thread": stored("t")})
    page = story.peer("page", PAGE, **AWARE)
    reads(story, page, [stored("a")], follow=True)
    story.waits(INTERVAL)
    changes(page)
    story.lags(page)
    story.begins_turn(id="u")
    asks_for_a_command(story)
    story.notifies("thread/archived", {"threadId": "a"})
    story.waits(1)
    assert changes(page) == []
    story.settles()
    story.waits(1)
    (told,) = changes(page)
    assert [need["command"] for need in told["needs"]]
    (t,) = told["threads"]
    assert (t["title"], t["turn"]["id"]) == ("t's title", "u")
    assert told["threadsGone"] == ["a"]


def test_the_app_servers_end_is_told() -> None:
    story, _, page = followed()
    story.begins_turn(id="u")
    streams(story, "half a sen")
    story.waits(1)
    changes(page)
    story.exits()
    story.waits(INTERVAL)
    told = changes(page)
    merged = {k: v for each in told for one in each["threads"] for k, v in one.items()}
    assert merged["turn"] is None
    assert merged["lastTurn"] == {"id": "u", "status": "interrupted"}
    assert told[0]["appServer"]["state"] != "ready"


def apply(known: dict[str, Json], changed: Json) -> None:
    """What a client does with a change."""
    for each in changed["threads"]:
        known.setdefault(each["id"], {}).update(each)
    for id in changed["threadsGone"]:
        known.pop(id, None)


def test_a_client_that_applies_the_differences_has_what_a_new_page_shows() -> None:
    story, desk, page = followed(stored("a"))
    first = reads(story, page, [stored("a"), stored("t")], follow=True)
    known: dict[str, Json] = {each["id"]: each for each in first["threads"]}
    story.begins_turn(id="u")
    streams(story, "one")
    asks_for_a_command(story)
    story.waits(0.1)
    story.delta(text=" two")
    story.notifies("thread/name/updated", {"threadId": "a", "threadName": "x"})
    (need,) = reads(story, page, [stored("a", name="x")])["needs"]
    desk.answers(need["id"], {"decision": "accept"})
    story.resolves(0)
    story.waits(2)
    for changed in changes(page):
        apply(known, changed)
    now = {each["id"]: each for each in reads(story, page, [stored("a", name="x")])["threads"]}
    for each in (*known.values(), *now.values()):
        if each["turn"]:
            each["turn"].pop("runningSeconds")
    assert known == now


def test_what_an_earlier_life_said_last_is_remembered() -> None:
    before, _, _ = followed()
    before.begins_turn(id="u")
    streams(before, "x")
    final = {"id": "i", "type": "agentMessage", "text": "All is done."}
    before.notifies("item/completed", {"threadId": "t", "turnId": "u", "item": final})
    before.ends_turn(id="u")
    used = {"total": {"totalTokens": 15}}
    tokens = {"threadId": "t", "turnId": "u", "tokenUsage": used}
    before.notifies("thread/tokenUsage/updated", tokens)
    entries = before.broker.state.journal.after(0, 10**6)
    assert entries
    story = Story.begun()
    page = story.peer("page", PAGE, **AWARE)
    reads(story, page, [stored("t")], follow=True)
    story.tell(PastRemembered(tuple(entries)))
    story.waits(INTERVAL)
    told = change(page)
    assert told["lastLine"] == {"text": "All is done.", "of": "agent"}
    assert (told["lastTurn"]["status"], told["usage"]) == ("completed", used)


# ── the last line ─────────────────────────────────────────────────────────────────────────────────


def test_the_tail_of_a_long_stream_is_read_from_its_end_alone() -> None:
    long = b"word " * 10_000 + b'end\\nlast \\"line\\" \\u00e9'
    assert tail(long) == 'last "line" é'
    assert tail(b"x" * 5000 + b"\\\\") == "…" + "x" * (LONGEST - 2) + "\\"
    assert tail("é".encode() * 5000)[1:] == "é" * (LONGEST - 1)
    assert tail(b"\\u00e9" * 5000)[1:] == "é" * (LONGEST - 1)
    assert tail(b"\\ud83d\\ude00" * 5000)[1:] == "😀" * (LONGEST - 1)
    assert tail(b"a line\\n\\n  \\n") == "a line"
    assert tail(b"") == ""


def test_a_command_shows_its_output_and_before_that_itself() -> None:
    story, _, page = followed()
    story.begins_turn(id="u")
    item: dict[str, Any] = {"id": "c", "type": "commandExecution", "command": "make test"}
    story.notifies("item/started", {"threadId": "t", "turnId": "u", "item": item})
    story.waits(INTERVAL)
    assert changes(page)[-1]["threads"][0]["lastLine"] == {"text": "make test", "of": "command"}
    output = {"threadId": "t", "turnId": "u", "itemId": "c", "delta": "1 passed\n"}
    story.notifies("item/commandExecution/outputDelta", output)
    story.waits(INTERVAL)
    assert change(page)["lastLine"] == {"text": "1 passed", "of": "output"}
