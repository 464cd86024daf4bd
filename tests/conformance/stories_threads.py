"""Stories of threads: begun, joined, left, read, listed, renamed, put away and brought back."""

from __future__ import annotations

from mux.demo.scripted_model import Say
from tests.conformance.stage import CUT_SHORT, TOLD_AGAIN, Stage, Story


async def who_hears_what(stage: Stage) -> None:
    """One that follows, one that does not, one that comes later."""
    a, stranger = await stage.clients("a", "stranger")
    thread = await a.thread(turn=True)
    late = await stage.client("late")
    await late.join(thread)
    await stranger.say(thread, "from a stranger")
    for player in (a, late):
        await player.ends(thread)
    await late.turn(thread, "and from the late one")
    await a.ends(thread)


async def named_by_any_spelling(stage: Stage) -> None:
    """The app-server takes an id as any UUID may be spelt, and a key twice."""
    a, b = await stage.clients("a", "b")
    thread = await a.thread(turn=True)
    await b.ask("thread/resume", {"threadId": thread.upper()})
    for spelt in (thread.replace("-", ""), f"{{{thread}}}", f"urn:uuid:{thread}"):
        await b.ask("thread/read", {"threadId": spelt})
        await b.ask("thread/name/set", {"threadId": spelt, "name": "A name"})
        await a.settle()
    for wrong in (f" {thread}", f"URN:UUID:{thread}", f"({thread})", thread[:-1]):
        await b.ask("thread/name/set", {"threadId": wrong, "name": "No name"})
    await b.raw(
        f'{{"id":"twice","method":"thread/read","params":{{"threadId":1,"threadId":"{thread}"}}}}'
    )
    await b.ask("thread/unsubscribe", {"threadId": f"urn:uuid:{thread.upper()}"})
    await a.turn(thread, "still here")


async def what_a_stranger_hears(stage: Stage) -> None:
    """Of all that is done to a thread: some is everybody's, some is its followers'."""
    a, b, stranger = await stage.clients("a", "b", "stranger")
    thread = await a.thread(turn=True)
    await b.join(thread)
    words = [{"type": "text", "text": "queued", "text_elements": []}]
    section = (await a.ask("threadSection/create", {"name": "A section"}))["section"]["id"]
    key = {"attachmentType": "link", "identityKey": "k"}
    for method, more in (
        ("thread/name/set", {"name": "A name"}),
        ("thread/goal/set", {"objective": "To be done.", "status": "paused"}),
        ("thread/goal/clear", {}),
        ("thread/attachment/add", {**key, "payload": {}}),
        ("thread/attachment/remove", key),
        ("thread/section/move", {"sectionId": section}),
        ("thread/settings/update", {"approvalPolicy": "never"}),
        ("thread/metadata/update", {"gitInfo": {"branch": "main"}}),
        ("thread/memoryMode/set", {"mode": "disabled"}),
        ("thread/queue/add", {"input": words, "clientUserMessageId": "one"}),
        ("thread/shellCommand", {"command": "true"}),
        ("thread/unsubscribe", {}),
    ):
        stage.forget()
        await a.ask(method, {"threadId": thread, **more})
        await a.settle()
        if method in ("thread/queue/add", "thread/shellCommand"):
            await b.ends(thread)
    await stranger.ask("thread/read", {"threadId": thread})


async def a_thread_with_a_project(stage: Stage) -> None:
    a, b = await stage.clients("a", "b")
    asked = {"idempotencyKey": stage.name, "name": "A project", "roots": []}
    project = (await a.ask("project/create", asked))["project"]["id"]
    thread = await a.thread(turn=True)
    await a.ask("thread/metadata/update", {"threadId": thread, "projectId": project})
    await a.ask("thread/read", {"threadId": thread})
    await b.ask("project/delete", {"projectId": project})


async def following_no_more(stage: Stage) -> None:
    a, b = await stage.clients("a", "b")
    thread = await a.thread(turn=True)
    await b.join(thread)
    for _ in range(2):
        await b.ask("thread/unsubscribe", {"threadId": thread})
    await a.turn(thread, "without b")
    await b.join(thread)
    await a.turn(thread, "with b")
    await b.ends(thread)
    await a.ask("thread/unsubscribe", {"threadId": thread})
    await b.turn(thread, "without a")
    await b.ask("thread/unsubscribe", {"threadId": thread})
    b.forget()
    await b.say(thread, "with nobody")
    await b.hears("thread/status/changed", threadId=thread, status={"type": "idle"})


async def joined_with_its_past(stage: Stage) -> None:
    """The whole history is given, with a notice that this way is old."""
    a, b = await stage.clients("a", "b")
    thread = await a.thread(turn=True)
    await b.ask("thread/resume", {"threadId": thread})
    await a.turn(thread, "again")
    await b.ends(thread)
    await b.ask("thread/resume", {"threadId": thread})
    page = {"limit": 1, "itemsView": "full"}
    await b.join(thread, initialTurnsPage=page)


async def joined_with_settings_that_are_ignored(stage: Stage) -> None:
    a, b = await stage.clients("a", "b")
    thread = await a.thread(turn=True)
    await b.join(thread, model="other", approvalPolicy="never", cwd="/")
    await b.turn(thread, "again")


async def a_fresh_thread_joined(stage: Stage) -> None:
    a, b = await stage.clients("a", "b")
    thread = await a.thread()
    await b.join(thread)
    await b.ask("thread/read", {"threadId": thread})
    await b.ask("thread/read", {"threadId": thread, "includeTurns": True})
    await b.ask("thread/turns/list", {"threadId": thread})


async def an_ephemeral_thread(stage: Stage) -> None:
    a, stranger = await stage.clients("a", "stranger")
    thread = await a.thread(ephemeral=True)
    await a.turn(thread, "hello")
    await stranger.ask("thread/read", {"threadId": thread})
    await stranger.ask("thread/turns/list", {"threadId": thread})
    await a.ask("thread/list", {"cwd": str(stage.work)})
    await a.ask("thread/unsubscribe", {"threadId": thread})


async def read_and_listed(stage: Stage) -> None:
    a, b = await stage.clients("a", "b")
    thread = await a.thread(turn=True)
    await a.turn(thread, "again")
    mine = {"cwd": str(stage.work)}
    for method, more in (
        ("thread/read", {}),
        ("thread/read", {"includeTurns": True}),
        ("thread/turns/list", {"limit": 1}),
        ("thread/turns/list", {"itemsView": "full", "sortDirection": "asc"}),
        ("thread/items/list", {}),
        ("thread/timeline/list", {}),
        ("thread/searchOccurrences", {"searchTerm": "again"}),
        ("thread/attachment/list", {}),
        ("thread/backgroundTerminals/list", {}),
    ):
        await b.ask(method, {"threadId": thread, **more})
    await b.ask("thread/list", mine)
    await b.ask("thread/list", {**mine, "limit": 1, "archived": True})
    await b.ask("thread/list", {**mine, "sortKey": "updated_at", "useStateDbOnly": True})
    await b.ask("thread/search", {"searchTerm": "read_and_listed: again"})


async def pages(stage: Stage) -> None:
    a = await stage.client("a")
    thread = await a.thread(turn=True)
    await a.turn(thread, "again")
    for method in ("thread/turns/list", "thread/items/list"):
        cursor = None
        for _ in range(3):
            asked = {"threadId": thread, "limit": 1, "cursor": cursor}
            cursor = (await a.ask(method, asked))["nextCursor"]


async def loaded_threads(stage: Stage) -> None:
    a, b = await stage.clients("a", "b")
    await b.ask("thread/loaded/list")
    await a.thread(turn=True)
    await b.ask("thread/loaded/list")
    await a.thread(ephemeral=True)
    await b.ask("thread/loaded/list", {"limit": 1})


async def renamed(stage: Stage) -> None:
    a, b = await stage.clients("a", "b")
    thread = await a.thread(turn=True)
    await b.ask("thread/name/set", {"threadId": thread, "name": "A name"})
    await a.hears("thread/name/updated", threadId=thread)
    await a.ask("thread/name/set", {"threadId": thread, "name": "  "})
    await b.ask("thread/read", {"threadId": thread})


async def archived_and_back(stage: Stage) -> None:
    a, b = await stage.clients("a", "b")
    thread = await a.thread(turn=True)
    await b.join(thread)
    await b.ask("thread/archive", {"threadId": thread})
    await a.hears("thread/archived", threadId=thread)
    await a.say(thread, "to an archived one")
    await a.join(thread)
    await b.ask("thread/archive", {"threadId": thread})
    await b.ask("thread/list", {"cwd": str(stage.work), "archived": True})
    await b.ask("thread/unarchive", {"threadId": thread})
    await a.hears("thread/unarchived", threadId=thread)
    await a.join(thread)
    await a.turn(thread, "back")


async def archived_in_the_middle_of_a_turn(stage: Stage) -> None:
    stage.script("stream", Say(chunks=("early ", stage.gate("never"))))
    a, b = await stage.clients("a", "b")
    thread = await a.thread(turn=True)
    await b.join(thread)
    await a.say(thread, "stream")
    await a.hears("item/agentMessage/delta", delta="early ")
    await b.hears("item/agentMessage/delta", delta="early ")
    await b.ask("thread/archive", {"threadId": thread})
    for player in (a, b):
        await player.hears("thread/archived", threadId=thread)


async def deleted(stage: Stage) -> None:
    a, b = await stage.clients("a", "b")
    thread = await a.thread(turn=True)
    await b.join(thread)
    await b.ask("thread/delete", {"threadId": thread})
    await a.hears("thread/deleted", threadId=thread)
    await a.join(thread)
    await a.say(thread, "to a deleted one")


async def forked(stage: Stage) -> None:
    a, b = await stage.clients("a", "b")
    thread = await a.thread(turn=True)
    await a.turn(thread, "again")
    fork = (await b.ask("thread/fork", {"threadId": thread, "excludeTurns": True}))["thread"]["id"]
    await b.turn(fork, "on the fork")
    await a.turn(thread, "on the first")
    await a.ask("thread/fork", {"threadId": thread})
    await b.ask("thread/fork", {"threadId": thread, "ephemeral": True})


async def settings_of_a_thread(stage: Stage) -> None:
    a, b = await stage.clients("a", "b")
    thread = await a.thread(turn=True)
    await b.join(thread)
    for settings in ({"approvalPolicy": "never"}, {"effort": "nonsense"}):
        await b.ask("thread/settings/update", {"threadId": thread, **settings})
        await a.hears("thread/settings/updated", threadId=thread)
    await a.ask("thread/metadata/update", {"threadId": thread, "gitInfo": {"branch": "main"}})
    await a.ask("thread/memoryMode/set", {"threadId": thread, "mode": "disabled"})
    await a.turn(thread, "again")
    await b.ends(thread)


async def goals(stage: Stage) -> None:
    a, b = await stage.clients("a", "b")
    thread = await a.thread(turn=True)
    await b.join(thread)
    goal = {"threadId": thread, "objective": "To be done.", "status": "paused"}
    await b.ask("thread/goal/set", goal)
    await a.hears("thread/goal/updated", threadId=thread)
    await a.ask("thread/goal/get", {"threadId": thread})
    late = await stage.client("late")
    await late.join(thread)
    b.forget()  # it is told with each thread's start, too
    await a.ask("thread/goal/clear", {"threadId": thread})
    await b.hears("thread/goal/cleared", threadId=thread)
    await b.ask("thread/goal/get", {"threadId": thread})


async def attachments(stage: Stage) -> None:
    a, b = await stage.clients("a", "b")
    thread = await a.thread(turn=True)
    await b.join(thread)
    key = {"attachmentType": "link", "identityKey": "k"}
    await a.ask("thread/attachment/add", {"threadId": thread, **key, "payload": {"a": 1}})
    await b.ask("thread/attachment/list", {"threadId": thread})
    await b.ask("thread/attachmentOwner/list", key)
    await b.ask("thread/attachment/remove", {"threadId": thread, **key})
    await a.ask("thread/attachment/list", {"threadId": thread})


async def queued(stage: Stage) -> None:
    stage.script("stream", Say(chunks=("early ", stage.gate("middle"), "late")))
    a, b = await stage.clients("a", "b")
    thread = await a.thread(turn=True)
    await b.join(thread)
    await a.say(thread, "stream")
    await b.hears("item/agentMessage/delta", delta="early ")
    words = [{"type": "text", "text": "queued", "text_elements": []}]
    for name in ("one", "two"):
        asked = {"threadId": thread, "input": words, "clientUserMessageId": name}
        await b.ask("thread/queue/add", asked)
    listed = await a.ask("thread/queue/list", {"threadId": thread})
    last = listed["data"][-1]["id"]
    await a.ask("thread/queue/delete", {"threadId": thread, "queuedSubmissionId": last})
    stage.release("middle")
    for player in (a, b):
        for _ in range(2):
            await player.ends(thread)


async def read_state(stage: Stage) -> None:
    a, b = await stage.clients("a", "b")
    thread = await a.thread(turn=True)
    await b.join(thread)
    read = await a.ask("thread/read", {"threadId": thread})
    state = read["thread"].get("readState") or {}
    asked = {"threadId": thread, "expectedRevision": state.get("revision", "0")}
    await a.ask("thread/readState/update", {**asked, "operation": {"type": "markRead"}})
    await a.ask("thread/readState/update", {**asked, "operation": {"type": "nonsense"}})


STORIES = (
    Story(who_hears_what),
    Story(named_by_any_spelling),
    Story(what_a_stranger_hears, alone=True, chance=TOLD_AGAIN),
    Story(a_thread_with_a_project, alone=True),
    Story(following_no_more),
    Story(joined_with_its_past, alone=True),
    Story(joined_with_settings_that_are_ignored),
    Story(a_fresh_thread_joined, shows=("only-here",)),
    Story(an_ephemeral_thread),
    Story(read_and_listed),
    Story(pages),
    Story(loaded_threads, fresh=True),
    Story(renamed),
    Story(archived_and_back),
    Story(archived_in_the_middle_of_a_turn, chance=CUT_SHORT),
    Story(deleted),
    Story(forked),
    Story(settings_of_a_thread),
    Story(goals),
    Story(attachments),
    Story(queued, chance=TOLD_AGAIN),
    Story(read_state),
)
