"""The scripted model, by itself and under the real app-server."""

from __future__ import annotations

import json
import tomllib
from typing import Any

import h11
import trio

from mux.demo import scripted_model
from mux.demo.scripted_model import CallTool, Fail, Hold, Response, Run, Say, Scripted, codex_config
from mux.demo.scripted_steps import stream
from tests.end_to_end.native import native_stdio

MANY = 20_000


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": [{"type": "input_text", "text": text}]}


def due(model: Scripted, *items: dict[str, Any]) -> Response:
    return model.answer({"input": list(items)})


OUTPUT = {"type": "function_call_output", "output": "…"}


def test_progress_is_read_from_the_request() -> None:
    model = Scripted()
    both = (Run("one"), CallTool("two"))
    model.on("go", both, Say("between"), Say("never reached"))
    assert due(model, user("go")) == both
    assert due(model, user("go"), OUTPUT, OUTPUT) == (Say("between"),)
    assert due(model, user("go"), OUTPUT, user("<context>"), OUTPUT) == (Say("between"),)
    assert due(model, user("go"), OUTPUT, OUTPUT, user("go")) == both
    model.on("short", both)
    assert due(model, user("short"), OUTPUT, OUTPUT) == (Say("Done."),)


def test_the_needle_given_last_wins_and_others_are_echoed() -> None:
    model = Scripted()
    model.on("a", Say("first"))
    model.on("a", Say("second"))
    assert due(model, user("# AGENTS say a"), user("ab"), user("<a>")) == (Say("second"),)
    assert due(model, user("x")) == (Say("You said: x"),)


def test_a_message_is_cut_without_loss() -> None:
    for text, chunks in (("hello", 2), ("hello", 9), ("", 3), ("héllo", 5)):
        said = "".join(_deltas((Say(text, chunks),)))
        assert said == text
    pieces = list(stream((Say(chunks=("a", Hold("gate"), "b")),), lambda prefix: prefix))
    assert pieces[3] == Hold("gate")


def _deltas(response: Response) -> list[str]:
    events = b"".join(p for p in stream(response, lambda prefix: prefix) if isinstance(p, bytes))
    data = [json.loads(line[6:]) for line in events.splitlines() if line.startswith(b"data: ")]
    return [event["delta"] for event in data if event["type"] == "response.output_text.delta"]


def test_the_configuration_is_toml_that_can_be_overlaid() -> None:
    text = codex_config("http://h/v1", sandbox_mode="x", features={"a b": True}, n={"ü.": [1]})
    config = tomllib.loads(text)
    assert config["sandbox_mode"] == "x"
    assert config["features"]["a b"] is True
    assert config["features"]["apps"] is False
    assert config["n"] == {"ü.": [1]}
    assert config["model_providers"]["scripted"]["base_url"] == "http://h/v1"


async def test_a_request_that_is_not_for_a_response_is_refused(nursery: trio.Nursery) -> None:
    model = Scripted()
    url = await nursery.start(scripted_model.serve, model)
    port = int(url.rpartition(":")[2].partition("/")[0])
    for request, status in (
        (b"GET /v1/models HTTP/1.1\r\nHost: h\r\n\r\n", b"HTTP/1.1 404"),
        (b"POST /v1/responses HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\n{", b"HTTP/1.1 400"),
        (b"nonsense\r\n\r\n", b"HTTP/1.1 400"),
    ):
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            await stream.send_all(request)
            answer = b"".join([bytes(piece) async for piece in stream])
            assert answer.startswith(status)
            assert b'"message"' in answer
    nursery.cancel_scope.cancel()


async def test_a_schema_gets_an_answer_that_fulfils_it() -> None:
    async with native_stdio() as app_server:
        peer = app_server.peer
        await peer.initialize()
        thread_id = await peer.start_thread(app_server.home.work, ephemeral=True)
        title = {"type": "string", "minLength": 18, "maxLength": 36}
        kinds = {"title": title, "n": {"type": ["integer", "null"]}, "k": {"enum": ["x", "y"]}}
        schema = {"type": "object", "properties": kinds, "additionalProperties": False}
        await peer.run_turn(thread_id, "title please", outputSchema=schema)
        said = peer.heard("item/completed")[-1]["params"]["item"]["text"]
        assert json.loads(said) == {"title": "Scripted..........", "n": 0, "k": "x"}


async def test_failures_reach_the_turn() -> None:
    model = Scripted()
    model.on("at once", Fail(503, "no model today"))
    model.on("midway", (Say("so far"), Fail(message="broke off")))
    async with native_stdio(model=model) as app_server:
        peer = app_server.peer
        await peer.initialize()
        thread_id = await peer.start_thread(app_server.home.work)
        for words, reason in (("at once", "503"), ("midway", "broke off")):
            turn = await peer.run_turn(thread_id, words)
            assert turn["status"] == "failed"
            assert reason in turn["error"]["message"]


async def test_an_interrupted_turn_frees_the_gate_and_the_thread_goes_on() -> None:
    model = Scripted()
    model.on("wait", Say(chunks=("a", Hold("never"), "b")))
    async with native_stdio(model=model) as app_server:
        peer = app_server.peer
        await peer.initialize()
        thread_id = await peer.start_thread(app_server.home.work)
        turn_id = await peer.start_turn(thread_id, "wait")
        await model.reached("never")
        since = len(peer.inbox)
        await peer.request("turn/interrupt", {"threadId": thread_id, "turnId": turn_id})
        done = await peer.wait_method("turn/completed", since=since)
        assert done["params"]["turn"]["status"] == "interrupted"
        assert (await peer.run_turn(thread_id, "and now?"))["status"] == "completed"


async def test_threads_are_on_their_way_through_one_script_at_once() -> None:
    model = Scripted()
    model.on("go", Run("echo 1"), (Run("echo 2"), Run("echo 3")), Say("end"))
    async with native_stdio(model=model) as app_server:
        peer = app_server.peer
        await peer.initialize()
        threads = [await peer.start_thread(app_server.home.work) for _ in range(3)]
        async with trio.open_nursery() as nursery:
            for thread_id in threads:
                nursery.start_soon(peer.run_turn, thread_id, "go")
        for thread_id in threads:
            items = [m["params"]["item"] for m in peer.heard("item/completed", threadId=thread_id)]
            ran = [item["aggregatedOutput"] for item in items if "aggregatedOutput" in item]
            assert sorted(ran) == ["1\n", "2\n", "3\n"]
            assert items[-1]["text"] == "end"


async def test_a_script_goes_on_in_the_next_life_of_the_app_server() -> None:
    model = Scripted()
    model.on("remember", Say("first life"))
    async with native_stdio(model=model) as first:
        await first.peer.initialize()
        thread_id = await first.peer.start_thread(first.home.work)
        await first.peer.run_turn(thread_id, "remember")
        await first.peer.close()
        await first.process.wait()
        async with native_stdio(model=model, home=first.home) as second:
            await second.peer.initialize()
            await second.peer.request("thread/resume", {"threadId": thread_id})
            await second.peer.run_turn(thread_id, "what was it?")
            assert "first life" in json.dumps(model.requests[-1]["input"])


async def test_many_deltas_are_few_writes(nursery: trio.Nursery) -> None:
    model = Scripted()
    model.on("many", Say("x" * MANY, chunks=MANY))
    url = await nursery.start(scripted_model.serve, model)
    port = int(url.rpartition(":")[2].partition("/")[0])
    body = json.dumps({"input": [user("many")]}).encode()
    http = h11.Connection(h11.CLIENT)
    headers = [("host", "h"), ("content-length", str(len(body)))]
    request = h11.Request(method="POST", target="/v1/responses", headers=headers)
    said = bytearray()
    writes = 0
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(
            b"".join((http.send(request) or b"", http.send(h11.Data(body)) or b""))
        )
        http.send(h11.EndOfMessage())
        while not isinstance(event := http.next_event(), h11.EndOfMessage):
            if event is h11.NEED_DATA:
                http.receive_data(await stream.receive_some())
            elif isinstance(event, h11.Data):
                said += event.data
                writes += event.chunk_start
    assert said.count(b"event: response.output_text.delta") == MANY
    assert said.count(b"event: response.completed") == 1
    assert writes < MANY / 100
    nursery.cancel_scope.cancel()
