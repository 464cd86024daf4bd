"""What the broker relies on in the real app-server, pinned: if one of these fails, so will it."""

from __future__ import annotations

import json

import pytest

from mux.demo.scripted_model import CallTool, Hold, Patch, Reason, Run, Say, Scripted
from tests.end_to_end.native import native_stdio, native_unix, native_ws
from tests.end_to_end.peer import GoneError, RpcError, answers, connect_unix, connect_ws

LIST = "thread/loaded/list"
NEW_FILE = "*** Begin Patch\n*** Add File: new.txt\n+hello\n*** End Patch"


async def test_a_plain_turn_in_its_order() -> None:
    model = Scripted()
    model.on("greet", (Reason("Thinking."), Say("Hello there", chunks=2)))
    async with native_stdio(model=model) as app_server:
        peer = app_server.peer
        hello = await peer.initialize("appmux")
        assert hello["userAgent"].startswith("appmux/")
        assert hello["codexHome"] == str(app_server.home.codex_home)
        thread_id = await peer.start_thread(app_server.home.work)
        since = len(peer.inbox)
        turn = await peer.run_turn(thread_id, "please greet")
        assert turn["status"] == "completed"
        deltas = peer.heard("item/agentMessage/delta", since=since)
        assert [delta["params"]["delta"] for delta in deltas] == ["Hello", " there"]
        order = [message.get("method", "response") for message in peer.inbox[since:]]
        wanted = ["response", "turn/started", "item/started", "item/reasoning/summaryTextDelta"]
        wanted += ["item/agentMessage/delta", "turn/completed"]
        places = [order.index(method) for method in wanted]
        assert places == sorted(places)
        assert len(model.requests) == 1


async def test_the_raw_lines_are_compact_and_start_as_the_parser_expects() -> None:
    model = Scripted()
    model.on("run", Run("true", escalated=True))
    async with native_stdio(model=model) as app_server:
        peer = app_server.peer
        await peer.initialize()
        thread_id = await peer.start_thread(app_server.home.work)
        await peer.start_turn(thread_id, "run")
        asked = await peer.wait_method("item/commandExecution/requestApproval")
        with pytest.raises(RpcError):
            await peer.request("no/such/method")
        for raw, message in zip(peer.raw, peer.inbox, strict=True):
            compact = json.dumps(message, separators=(",", ":"), ensure_ascii=False)
            assert raw == compact
            assert str(raw).startswith(('{"id":', '{"method":', '{"error":'))
        line = str(peer.raw[peer.inbox.index(asked)])
        assert line.startswith(
            '{"method":"item/commandExecution/requestApproval","id":0,"params":{'
        )


async def test_either_of_two_clients_decides_an_approval_for_both() -> None:
    model = Scripted()
    model.on("run it", Run("echo approved", escalated=True), Say("It ran."))
    async with (
        native_ws(model=model) as app_server,
        connect_ws(app_server.url) as first,
        connect_ws(app_server.url) as second,
    ):
        await first.initialize("first")
        await second.initialize("second")
        thread_id = await first.start_thread(app_server.home.work)
        await first.run_turn(thread_id, "hello")
        await second.request("thread/resume", {"threadId": thread_id})
        await first.start_turn(thread_id, "run it")
        for peer in (first, second):
            asked = await peer.wait_method("item/commandExecution/requestApproval")
            assert asked["id"] == 0
        since = len(first.inbox)
        await second.respond(0, {"decision": "accept"})
        for peer in (first, second):
            await peer.wait_method("serverRequest/resolved", requestId=0)
        # A late answer is ignored.
        await first.respond(0, {"decision": "decline"})
        done = await first.wait(
            lambda m: m.get("params", {}).get("item", {}).get("aggregatedOutput") == "approved\n",
            since=since,
        )
        assert done["params"]["item"]["status"] == "completed"
        await first.wait_method("turn/completed", since=since)


async def test_a_file_change_over_the_unix_socket() -> None:
    model = Scripted()
    model.on("write", Patch(NEW_FILE))
    async with (
        native_unix(model=model) as app_server,
        connect_unix(app_server.socket) as peer,
    ):
        await peer.initialize()
        thread_id = await peer.start_thread(app_server.home.work)
        await peer.start_turn(thread_id, "write")
        asked = await peer.wait_method("item/fileChange/requestApproval")
        await peer.respond(asked["id"], {"decision": "accept"})
        await peer.wait_method("turn/completed")
        assert (app_server.home.work / "new.txt").read_text() == "hello\n"


async def test_what_is_streamed_before_a_late_joiner_came_is_lost_to_it() -> None:
    model = Scripted()
    model.on("stream", Say(chunks=("early ", Hold("middle"), "late")))
    async with (
        native_ws(model=model) as app_server,
        connect_ws(app_server.url) as first,
        connect_ws(app_server.url) as late,
    ):
        await first.initialize()
        await late.initialize()
        thread_id = await first.start_thread(app_server.home.work)
        await first.start_turn(thread_id, "stream")
        await first.wait_method("item/agentMessage/delta", delta="early ")
        joined = await late.request("thread/resume", {"threadId": thread_id})
        assert [item["type"] for item in joined["thread"]["turns"][-1]["items"]] == ["userMessage"]
        model.release("middle")
        await late.wait_method("turn/completed")
        heard = late.heard("item/agentMessage/delta")
        assert [delta["params"]["delta"] for delta in heard] == ["late"]


async def test_a_tool_call_is_not_resolved_but_a_question_is() -> None:
    model = Scripted()
    options = [{"label": name, "description": name} for name in ("A", "B")]
    question = {"id": "q", "header": "H", "question": "Which?", "options": options}
    model.on("look up", CallTool("lookup", {"q": 1}))
    model.on("ask me", CallTool("request_user_input", {"questions": [question]}))
    tool = {"type": "function", "name": "lookup", "description": "", "inputSchema": {}}
    async with native_stdio(model=model) as app_server:
        peer = app_server.peer
        await peer.initialize()
        thread_id = await peer.start_thread(app_server.home.work, dynamicTools=[tool])
        await peer.start_turn(thread_id, "look up")
        call = await peer.wait_method("item/tool/call", tool="lookup", arguments={"q": 1})
        output = {"contentItems": [{"type": "inputText", "text": "42"}], "success": True}
        await peer.respond(call["id"], output)
        await peer.wait_method("turn/completed")
        assert not peer.heard("serverRequest/resolved")
        since = len(peer.inbox)
        await peer.start_turn(thread_id, "ask me")
        asked = await peer.wait_method("item/tool/requestUserInput", since=since)
        await peer.respond(asked["id"], {"answers": {"q": {"answers": ["B"]}}})
        await peer.wait_method("turn/completed", since=since)
        assert peer.heard("serverRequest/resolved", requestId=asked["id"])


async def test_a_pending_request_is_sent_again_under_its_id_on_every_resume() -> None:
    model = Scripted()
    model.on("run", Run("true", escalated=True))
    async with native_stdio(model=model) as app_server:
        peer = app_server.peer
        await peer.initialize()
        thread_id = await peer.start_thread(app_server.home.work)
        await peer.start_turn(thread_id, "run")
        method = "item/commandExecution/requestApproval"
        first = await peer.wait_method(method)
        for _ in range(2):
            since = len(peer.inbox)
            request_id = await peer.ask("thread/resume", {"threadId": thread_id})
            answer = await peer.wait(answers(request_id), since=since)
            again = await peer.wait_method(method, since=since)
            assert again == first
            assert peer.inbox.index(answer) < peer.inbox.index(again, since)


async def test_every_initialized_connection_hears_a_sub_agent() -> None:
    model = Scripted()
    agent = {"message": "child work", "task_name": "child"}
    model.on("spawn", CallTool("spawn_agent", agent, namespace="multi_agent_v1"), Say("Spawned."))
    model.on("child work", Run("echo child", escalated=True), Say("Child done."))
    async with (
        native_ws(model=model) as app_server,
        connect_ws(app_server.url) as follower,
        connect_ws(app_server.url) as stranger,
    ):
        await follower.initialize()
        await stranger.initialize()
        parent = await follower.start_thread(app_server.home.work)
        await follower.start_turn(parent, "spawn")
        asked = await stranger.wait_method("item/commandExecution/requestApproval")
        child = asked["params"]["threadId"]
        spawned = await follower.wait_method("item/completed", threadId=parent)
        while spawned["params"]["item"]["type"] != "collabAgentToolCall":
            since = follower.inbox.index(spawned) + 1
            spawned = await follower.wait_method("item/completed", since=since, threadId=parent)
        assert spawned["params"]["item"]["receiverThreadIds"] == [child]
        assert not stranger.heard("item/completed", threadId=parent)
        await follower.respond(asked["id"], {"decision": "accept"})
        await stranger.wait_method("turn/completed", threadId=child)
        read = await stranger.request("thread/read", {"threadId": child})
        assert read["thread"]["parentThreadId"] == parent


async def test_lines_that_are_dropped_without_an_answer() -> None:
    # With a method, but without an envelope that fits, these pass for notifications.
    tops = [
        '"id":9223372036854775808',
        '"id":1.0',
        '"id":null',
        '"id":1,"id":1',
        '"id":1,"trace":5',
        '"id":1,"trace":{"traceparent":5}',
        '"id":1,"trace":{"tracestate":"x","trace\\u0073tate":"x"}',
    ]
    lines = [f'{{{top},"method":"{LIST}","params":{{}}}}' for top in tops]
    deep = "[" * 126 + "]" * 126
    odd = ("NaN", '"\\ud800"', '"\t"', "01", deep)
    lines += [f'{{"id":1,"method":"{LIST}","params":{{"x":{each}}}}}' for each in odd]
    lines += ["[]", "5", "[" * 100_000, '{"id":1}', ""]
    async with native_stdio() as app_server:
        peer = app_server.peer
        await peer.initialize()
        for line in lines:
            since = len(peer.inbox)
            await peer.send_raw(line)
            # Lines are read in order, so its answer would be there by the time of these.
            for _ in range(2):
                await peer.request(LIST)
            heard = [message for message in peer.inbox[since:] if "method" not in message]
            assert len(heard) == 2, line


async def test_what_is_accepted_at_the_edge() -> None:
    async with native_stdio() as app_server:
        peer = app_server.peer
        await peer.initialize()
        for request_id in (2**63 - 1, -(2**63), 0, "", "1", 1):
            assert await peer.request(LIST, id=request_id) == {"data": [], "nextCursor": None}
        deep = "[" * 125 + "]" * 125
        for odd in ("1e999", "9" * 1000, '"\\u0000"', '"\\ud83d\\ude00"', '1,"x":2', deep):
            since = len(peer.inbox)
            await peer.send_raw(f'{{"id":7,"method":"{LIST}","params":{{"x":{odd}}}}}\r')
            await peer.wait(answers(7), since=since)


async def test_invalid_utf8_ends_the_app_server() -> None:
    async with native_stdio() as app_server:
        peer = app_server.peer
        await peer.initialize()
        await peer.send_raw(b'{"x":"\xff"}')
        await peer.wait_gone()
        assert await app_server.process.wait() == 0
        with pytest.raises(GoneError):
            await peer.wait_method("never/sent")


async def test_the_end_of_stdin_ends_the_app_server_in_the_middle_of_a_turn() -> None:
    model = Scripted()
    model.on("stream", Say(chunks=("early ", Hold("never"), "late")))
    async with native_stdio(model=model) as app_server:
        peer = app_server.peer
        await peer.initialize()
        thread_id = await peer.start_thread(app_server.home.work)
        await peer.start_turn(thread_id, "stream")
        await peer.wait_method("item/agentMessage/delta")
        await peer.close()
        await peer.wait_gone()
        assert await app_server.process.wait() == 0
        assert not peer.heard("turn/completed")


async def test_ending_follows_beginning_without_a_pause_between() -> None:
    async with native_stdio() as app_server:
        peer = app_server.peer
        await peer.initialize()
        work = str(app_server.home.work)
        sleep = {"command": ["sleep", "60"], "cwd": work}
        for turn in range(5):
            name = f"p{turn}"
            ran = await peer.ask("command/exec", {**sleep, "processId": name})
            await peer.request("command/exec/terminate", {"processId": name})
            assert (await peer.result(ran))["exitCode"] == 137
            await peer.ask("process/spawn", {**sleep, "processHandle": name})
            await peer.request("process/kill", {"processHandle": name})
            await peer.wait_method("process/exited", processHandle=name)
            await peer.ask("fs/watch", {"watchId": name, "path": work})
            await peer.request("fs/unwatch", {"watchId": name})
