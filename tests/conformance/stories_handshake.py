"""Stories of the handshake and of JSON-RPC: what is refused, in which words, what ignored."""

from __future__ import annotations

from typing import Any

from tests.conformance.stage import Stage, Story

LIST = "thread/loaded/list"
READ = "config/read"


async def before_the_handshake(stage: Stage) -> None:
    a = await stage.connect("a")
    for method in (READ, "thread/start", "thread/unsubscribe", "turn/start", "bogus/method"):
        await a.ask(method, {})
    await a.raw('{"method":"initialized"}')
    await a.raw('{"method":"bogus"}')
    await a.ask(READ)


async def a_handshake_that_does_not_fit(stage: Stage) -> None:
    a = await stage.connect("a")
    info = {"name": "a", "version": "0.1"}
    odd: list[Any] = [{}, {"clientInfo": 5}, {"clientInfo": {"name": "a"}}, [], "x"]
    odd += [{"clientInfo": {**info, "name": name}} for name in ("a\nb", "\x1b[2J", "\0", "a\x7f")]
    for params in odd:
        await a.ask("initialize", params)
    await a.ask("initialize", {"clientInfo": info, "capabilities": {"experimentalApi": "yes"}})
    await a.ask("initialize", {"clientInfo": {**info, "name": "a b\u00e9/\u2713"}})
    await a.ask("initialize", {"clientInfo": info, "capabilities": None, "unknown": 1})
    await a.ask("initialize", {"clientInfo": info})


async def names_that_fit(stage: Stage) -> None:
    for name, version in (("a\tb \x85\u2713", "1"), ("", ""), ("a", "1\n2\x7f\u2713\t")):
        a = await stage.connect(f"a {len(name)}")
        await a.ask("initialize", {"clientInfo": {"name": name, "version": version}})
        await a.ask(READ)


async def a_second_handshake(stage: Stage) -> None:
    a = await stage.client("a")
    await a.initialize()
    await a.ask("initialize", {})
    await a.ask(READ)


async def asked_in_one_breath_with_the_handshake(stage: Stage) -> None:
    a = await stage.connect("a")
    info = {"name": "a", "version": "0.1"}
    asked = [await a.send("initialize", {"clientInfo": info, "capabilities": {}})]
    asked += [await a.send(method) for method in (READ, "model/list", "bogus/method")]
    for each in asked:
        await a.answered(each)


async def ids_of_all_kinds(stage: Stage) -> None:
    a = await stage.client("a")
    for id in ("", "x", "1", -5, 0, 1 << 53, (1 << 63) - 1, -(1 << 63), "é\n"):
        await a.ask("hooks/list", {"cwds": []}, id=id)
    await a.ask("hooks/list", {"cwds": []}, jsonrpc="2.0", trace={"traceparent": "x"}, odd=[1])


async def one_id_twice_at_once(stage: Stage) -> None:
    a = await stage.client("a")
    for _ in range(2):
        await a.send("hooks/list", {"cwds": []}, id=7)
    since = 0
    for _ in range(2):
        await a.peer.wait(lambda m: m.get("id") == 7, since=since)
        since = next(n for n, m in enumerate(a.peer.inbox) if m.get("id") == 7) + 1


async def what_does_not_exist(stage: Stage) -> None:
    a = await stage.client("a")
    for method in ("bogus/method", "", "thread", "Thread/start", "initialized"):
        await a.ask(method, {"a": 1})
    await a.peer.notify("bogus/notification", {"a": 1})
    await a.peer.notify("$/cancelRequest", {"id": 1})
    await a.answers(12345, {"decision": "accept"})
    await a.answers("0", {})
    await a.fails(98765)


async def params_that_do_not_fit(stage: Stage) -> None:
    a = await stage.client("a")
    await a.raw('{"id":"bare","method":"thread/read"}')
    await a.raw('{"id":"bare 2","method":"hooks/list"}')
    for method, params in (
        ("thread/read", {}),
        ("thread/read", {"threadId": 5}),
        ("thread/read", {"threadId": "x"}),
        ("thread/read", [1]),
        ("thread/read", "x"),
        ("thread/resume", {"threadId": "x"}),
        ("thread/resume", {}),
        ("thread/fork", {"threadId": 5}),
        ("thread/unsubscribe", {}),
        ("thread/unsubscribe", {"threadId": 5}),
        ("thread/unsubscribe", {"threadId": "x"}),
        ("turn/start", {}),
        ("turn/start", {"threadId": "x", "input": 5}),
        ("turn/steer", {"threadId": "x"}),
        ("turn/interrupt", {"threadId": "x", "turnId": "y"}),
        ("review/start", {"threadId": "x"}),
        ("fs/watch", {"watchId": 5, "path": "/"}),
        ("fs/watch", {"watchId": "w", "path": "relative"}),
        ("fs/unwatch", {}),
        ("command/exec", {}),
        ("command/exec", {"command": []}),
        ("command/exec", {"command": 5}),
        ("command/exec", {"command": ["true"], "processId": 5}),
        ("command/exec/write", {"processId": "p"}),
        ("command/exec/terminate", {}),
        ("process/spawn", {"command": ["true"]}),
        ("process/kill", {"processHandle": 5}),
        ("fuzzyFileSearch", {"query": "x"}),
        ("fuzzyFileSearch/sessionStart", {"sessionId": 5}),
        ("thread/list", {"limit": "many"}),
        ("thread/list", {"cursor": "nonsense"}),
    ):
        await a.ask(method, params)


async def unknown_threads(stage: Stage) -> None:
    a = await stage.client("a")
    words = [{"type": "text", "text": "x", "text_elements": []}]
    gone = "01900000-0000-7000-8000-000000000000"
    for thread in (gone, "nonsense"):
        for method, more in (
            ("thread/read", {}),
            ("thread/read", {"includeTurns": True}),
            ("thread/resume", {"excludeTurns": True}),
            ("thread/fork", {}),
            ("thread/unsubscribe", {}),
            ("thread/archive", {}),
            ("thread/unarchive", {}),
            ("thread/delete", {}),
            ("thread/name/set", {"name": "x"}),
            ("thread/turns/list", {}),
            ("thread/items/list", {}),
            ("thread/goal/get", {}),
            ("thread/compact/start", {}),
            ("thread/shellCommand", {"command": "true"}),
            ("turn/start", {"input": words}),
            ("turn/steer", {"input": words, "expectedTurnId": "x"}),
            ("turn/interrupt", {"turnId": "x"}),
            ("review/start", {"target": {"type": "uncommittedChanges"}}),
        ):
            await a.ask(method, {"threadId": thread, **more})


async def without_the_experimental_api(stage: Stage) -> None:
    a = await stage.client("a", experimental=False)
    b = await stage.client("b")
    tool = {"type": "function", "name": "t", "description": "", "inputSchema": {}}
    await a.ask("thread/start", {"cwd": str(stage.work), "dynamicTools": [tool]})
    await a.ask("process/spawn", {"command": ["true"], "cwd": "/", "processHandle": "h"})
    await a.ask("mock/experimentalMethod", {"value": "x"})
    await a.ask("thread/search", {"searchTerm": "x"})
    thread = await a.thread(turn=True)
    await b.join(thread)
    await b.turn(thread, "again")
    await a.ends(thread)


async def opted_out(stage: Stage) -> None:
    named = ["turn/started", "thread/started", "configWarning", "bogus/notification"]
    a = await stage.client("a", optOutNotificationMethods=named)
    b = await stage.client("b")
    thread = await a.thread(turn=True)
    await b.join(thread)
    await a.turn(thread, "again")
    await b.ends(thread)


async def what_is_no_message(stage: Stage) -> None:
    a = await stage.client("a")
    for text in (
        "",
        "nonsense",
        "[]",
        "5",
        "{}",
        '{"id":1}',
        '{"id":1.5,"method":"hooks/list"}',
        '{"id":null,"method":"hooks/list"}',
        '[{"id":1,"method":"hooks/list"}]',
        '{"id":1,"method":"hooks/list"}{"id":2,"method":"hooks/list"}',
        b'{"id":1,"method":"hooks/list"}',
    ):
        await a.raw(text)
    await a.ask("hooks/list", {"cwds": []})


STORIES = (
    Story(before_the_handshake, shows=("before-the-handshake",)),
    Story(a_handshake_that_does_not_fit, shows=("one-reading",)),
    Story(names_that_fit),
    Story(a_second_handshake),
    Story(asked_in_one_breath_with_the_handshake, fresh=True),
    Story(ids_of_all_kinds),
    Story(one_id_twice_at_once),
    Story(what_does_not_exist),
    Story(params_that_do_not_fit, shows=("one-reading",)),
    Story(unknown_threads),
    Story(without_the_experimental_api),
    Story(opted_out),
    Story(what_is_no_message, shows=("invalid-messages",)),
)
