"""The inbox over the real app-server: one answer is a first screen, and its changes are enough."""

from __future__ import annotations

import re
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import trio

from mux.demo import scripted_model
from mux.demo.scripted_model import Hold, Patch, Run, Say, Scripted
from tests.end_to_end.brokered import brokered, client
from tests.end_to_end.native import Home, private_home
from tests.end_to_end.peer import PATIENCE, Json, Peer
from tests.end_to_end.scenes import ACCEPT, APPROVAL, RESOLVED, TURN_COMPLETED, eventually

AWARE: Final[dict[str, Any]] = {"extensions": {"appmux": {"version": 1}}}
CHANGED: Final = "mux/inbox/changed"
FILES: Final = "item/fileChange/requestApproval"

STORED: Final = 5000
TIMES: Final = 9
SLACK: Final = 0.005
"""Seconds added to the bound: what a loaded machine adds to each round trip."""


def scripted() -> Scripted:
    model = Scripted()
    model.on("run it", Run("echo approved > proof.txt", escalated=True), Say("All\nis done."))
    patch = "*** Begin Patch\n*** Add File: new.txt\n+new\n+file\n*** End Patch"
    model.on("patch it", Patch(patch), Say("Patched."))
    model.on("hold on", Hold("for ever"), Say("Never."))
    return model


class Screen:
    """What a client that follows the inbox has on its screen: a page, and each change applied."""

    def __init__(self, peer: Peer, page: Json, since: int) -> None:
        self.peer, self.at = peer, since
        self.threads: dict[str, Json] = {each["id"]: each for each in page["threads"]}
        self.needs: dict[str, Json] = {each["key"]: each for each in page["needs"]}

    @classmethod
    async def of(cls, peer: Peer, **params: object) -> Screen:
        since = len(peer.inbox)
        page = await peer.request("mux/inbox", {"follow": True, **params})
        return cls(peer, page, since)

    def applied(self) -> Screen:
        """All that came by now is applied."""
        news, self.at = self.peer.inbox[self.at :], len(self.peer.inbox)
        for message in news:
            if message.get("method") == CHANGED:
                self._apply(message["params"])
        return self

    def _apply(self, changed: Json) -> None:
        for thread in changed["threads"]:
            self.threads.setdefault(thread["id"], {}).update(thread)
        for id in changed["threadsGone"]:
            self.threads.pop(id, None)
        for need in changed["needs"]:
            self.needs[need["key"]] = need
        for key in changed["needsGone"]:
            self.needs.pop(key, None)


def plain(threads: dict[str, Json]) -> dict[str, Json]:
    """Threads without what passes by itself, or only the next page knows (codex's own times)."""
    left_out = {"updatedAt", "recencyAt", "createdAt"}
    shown = {
        id: {name: value for name, value in each.items() if name not in left_out}
        for id, each in threads.items()
    }
    for each in shown.values():
        if each.get("turn"):
            each["turn"] = each["turn"] | {"runningSeconds": 0}
    return shown


async def test_a_turn_with_an_approval_as_the_inbox_tells_it() -> None:
    async with (
        brokered(model=scripted()) as broker,
        client(broker, "desk") as desk,
        client(broker, "page", **AWARE) as page,
    ):
        screen = await Screen.of(page)
        assert screen.threads == {}
        thread = await desk.start_thread(broker.home.work)
        await desk.start_turn(thread, "run it")
        offered = await desk.wait_method(APPROVAL)
        await eventually(lambda: screen.applied().needs, "the approval")
        (need,) = screen.needs.values()
        assert (need["kind"], need["threadId"]) == ("approval", thread)
        assert "echo approved > proof.txt" in need["command"]
        assert need["cwd"] == need["directory"] == str(broker.home.work)
        assert need["risks"] == ["escalated"]
        assert screen.threads[thread]["needs"] == 1
        assert screen.threads[thread]["preview"] == "run it"
        driver = screen.threads[thread]["turn"]["by"]
        assert driver["name"] == "desk"
        answer = {"id": need["id"], "result": ACCEPT}
        assert (await page.request("mux/approvals/answer", answer))["decided"]
        await desk.wait_method(RESOLVED, requestId=offered["id"])
        await desk.wait_method(TURN_COMPLETED)
        await eventually(
            lambda: (screen.applied().threads[thread]["lastTurn"] or {}).get("status"), "the end"
        )
        await eventually(lambda: screen.applied().threads[thread]["unread"], "the unread mark")
        assert screen.needs == {}
        t = screen.threads[thread]
        assert t["lastLine"] == {"text": "is done.", "of": "agent"}
        assert t["turn"] is None
        assert t["usage"]["total"]["totalTokens"] > 0
        page_now = await page.request("mux/inbox")
        now = {each["id"]: each for each in page_now["threads"]}
        assert plain(screen.applied().threads) == plain(now)


async def test_an_unread_mark_is_codexs_own_and_outlives_the_broker() -> None:
    model = scripted()
    async with AsyncExitStack() as stack:
        nursery = await stack.enter_async_context(trio.open_nursery())
        await nursery.start(scripted_model.serve, model)
        home = stack.enter_context(private_home(model.base_url))
        async with (
            brokered(model=model, home=home) as broker,
            client(broker, "desk") as desk,
            client(broker, "page", **AWARE) as page,
        ):
            screen = await Screen.of(page)
            thread = await desk.start_thread(broker.home.work)
            await desk.run_turn(thread, "hello")
            other = await desk.start_thread(broker.home.work)
            await desk.run_turn(other, "hello")
            await eventually(
                lambda: all(
                    screen.applied().threads.get(id, {}).get("unread") for id in (thread, other)
                ),
                "two unread marks",
            )
            revision = screen.threads[thread]["readState"]["revision"]
            read = {"threadId": thread, "operation": {"type": "read"}}
            await desk.request("thread/readState/update", read | {"expectedRevision": revision})
            await eventually(lambda: not screen.applied().threads[thread]["unread"], "read")
            # Of a thread that nobody follows the app-server notifies nobody.
            unfollowed = await desk.start_thread(broker.home.work)
            await desk.run_turn(unfollowed, "hello")
            await eventually(
                lambda: screen.applied().threads.get(unfollowed, {}).get("unread"), "unread"
            )
            await desk.request("thread/unsubscribe", {"threadId": unfollowed})
            revision = screen.threads[unfollowed]["readState"]["revision"]
            read |= {"threadId": unfollowed, "expectedRevision": revision}
            await page.request("thread/readState/update", read)
            await eventually(lambda: not screen.applied().threads[unfollowed]["unread"], "read")
        async with (
            brokered(model=model, home=home) as broker,
            client(broker, "page", **AWARE) as page,
        ):
            screen = await Screen.of(page)
            marks = {each["id"]: each["unread"] for each in screen.threads.values()}
            assert marks == {thread: False, other: True, unfollowed: False}
            await eventually(
                lambda: screen.applied().threads[thread]["lastLine"], "what was said before"
            )
            assert screen.threads[thread]["lastTurn"]["status"] == "completed"
            assert screen.threads[thread]["usage"]["total"]["totalTokens"] > 0
        nursery.cancel_scope.cancel()


async def test_files_of_an_approval_are_counted() -> None:
    async with (
        brokered(model=scripted()) as broker,
        client(broker, "desk") as desk,
        client(broker, "page", **AWARE) as page,
    ):
        screen = await Screen.of(page)
        thread = await desk.start_thread(broker.home.work)
        await desk.start_turn(thread, "patch it")
        await desk.wait_method(FILES)
        await eventually(lambda: screen.applied().needs, "the approval")
        (need,) = screen.needs.values()
        (file,) = need["files"]
        assert file["path"].endswith("/new.txt")
        assert (file["kind"], file["added"], file["removed"]) == ("add", 2, 0)
        assert need["risks"] == []


async def test_pages_follow_each_other_and_archived_threads_have_their_own() -> None:
    async with brokered(model=scripted()) as broker, client(broker, "desk", **AWARE) as desk:
        threads = []
        for _ in range(3):
            threads.append(await desk.start_thread(broker.home.work))
            await desk.run_turn(threads[-1], "hello")
        await desk.request("thread/name/set", {"threadId": threads[0], "name": "Apples and pears"})
        seen: list[str] = []
        page = await desk.request("mux/inbox", {"limit": 2})
        while True:
            seen += [each["id"] for each in page["threads"]]
            if page["nextCursor"] is None:
                break
            page = await desk.request("mux/inbox", {"limit": 2, "cursor": page["nextCursor"]})
        assert sorted(set(seen)) == sorted(threads)
        found = await desk.request("mux/inbox", {"search": "pears"})
        assert [each["title"] for each in found["threads"]] == ["Apples and pears"]
        await desk.request("thread/archive", {"threadId": threads[0]})
        left = await desk.request("mux/inbox")
        assert threads[0] not in {each["id"] for each in left["threads"]}
        (gone,) = (await desk.request("mux/inbox", {"archived": True}))["threads"]
        assert (gone["id"], gone["archived"]) == (threads[0], True)


# ── very many threads ─────────────────────────────────────────────────────────────────────────────


def multiply(home: Home, times: int) -> None:
    """Copy the one rollout in this home, each copy under an id of its own."""
    (rollout,) = home.codex_home.glob("sessions/**/rollout-*.jsonl")
    text = rollout.read_text()
    found = re.search(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", rollout.name)
    assert found
    for _ in range(times):
        id = str(uuid4())
        path = Path(str(rollout).replace(found[0], id))
        path.write_text(text.replace(found[0], id))


async def quickest(peer: Peer, *asked: tuple[str, Json]) -> list[float]:
    """The seconds that each request takes at best.

    They are asked in turn: what else the machine does hits all of them, and no best one for long.
    """
    taken: list[list[float]] = [[] for _ in asked]
    for _ in range(TIMES):
        for seconds, (method, params) in zip(taken, asked, strict=True):
            begun = time.perf_counter()
            await peer.request(method, params, timeout=3 * PATIENCE)
            seconds.append(time.perf_counter() - begun)
    return [min(seconds) for seconds in taken]


async def test_the_first_page_of_five_thousand_threads() -> None:
    model = scripted()
    async with AsyncExitStack() as stack:
        nursery = await stack.enter_async_context(trio.open_nursery())
        await nursery.start(scripted_model.serve, model)
        home = stack.enter_context(private_home(model.base_url))
        async with brokered(model=model, home=home) as broker, client(broker, "desk") as desk:
            await desk.run_turn(await desk.start_thread(broker.home.work), "hello")
        multiply(home, STORED)
        for path in home.codex_home.glob("state*.sqlite*"):
            path.unlink()  # it is filled anew from the rollouts
        async with brokered(model=model, home=home) as broker, client(broker, "desk") as desk:
            await known(desk, STORED)
            cheapest = {"limit": 20, "sortKey": "recency_at", "useStateDbOnly": True}
            listed, paged = await quickest(
                desk, ("thread/list", cheapest), ("mux/inbox", {"limit": 20})
            )
            assert paged < 2 * listed + SLACK, f"{paged} s, thread/list {listed} s"
        nursery.cancel_scope.cancel()


async def known(desk: Peer, count: int) -> None:
    """Wait until the app-server lists so many threads."""
    with trio.fail_after(3 * PATIENCE):
        while True:
            found, cursor = 0, None
            while True:
                asked = {"limit": 1000, "cursor": cursor, "useStateDbOnly": True}
                page = await desk.request("thread/list", asked, timeout=3 * PATIENCE)
                found, cursor = found + len(page["data"]), page["nextCursor"]
                if cursor is None:
                    break
            if found >= count:
                return
            await trio.sleep(0.2)


# ── what happened since ───────────────────────────────────────────────────────────────────────────


async def test_what_happened_since_the_cursor_and_who_decided() -> None:
    async with (
        brokered(model=scripted()) as broker,
        client(broker, "desk") as desk,
        client(broker, "page", **AWARE) as page,
    ):
        thread = await desk.start_thread(broker.home.work)
        await desk.run_turn(thread, "hello")
        await page.request("thread/resume", {"threadId": thread, "excludeTurns": True})
        after = {name: page.hello["appmux"][name] for name in ("epoch", "seq")}
        before = await page.request("mux/thread/digest", {"threadId": thread, "after": after})
        after["seq"] = before["seq"]
        begun = len(desk.inbox)
        await desk.start_turn(thread, "run it")
        offered = await desk.wait_method(APPROVAL)
        await desk.respond(offered["id"], {"decision": "decline"})
        told = await page.wait_method("mux/approvals/decided", id=offered["id"])
        assert told["params"]["by"]["name"] == "desk"
        assert told["params"]["decision"] == "decline"
        await desk.wait_method(TURN_COMPLETED, since=begun)
        since = len(desk.inbox)
        await desk.start_turn(thread, "patch it")
        files = await desk.wait_method(FILES, since=since)
        (listed,) = (await page.request("mux/approvals/list"))["approvals"]
        (file,) = listed["files"]
        assert (file["diff"], file["cut"]) == ("new\nfile\n", False)
        await desk.respond(files["id"], ACCEPT)
        await desk.wait_method(TURN_COMPLETED, since=since)
        digest = await page.request("mux/thread/digest", {"threadId": thread, "after": after})
        assert digest["complete"]
        assert [each["said"] for each in digest["turns"]] == ["run it", "patch it"]
        assert [each["status"] for each in digest["turns"]] == ["completed", "completed"]
        assert [each["decision"] for each in digest["decisions"]] == ["decline", "accept"]
        assert "echo approved" in digest["decisions"][0]["about"]
        (changed,) = digest["files"]
        assert (changed["path"].rpartition("/")[2], changed["added"]) == ("new.txt", 2)
        assert not any("mux/" in each.get("method", "") for each in desk.inbox)
