"""The official Python SDK, unmodified, with the stand-in as its `codex_bin`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, TypeVar

import openai_codex
import pytest
import trio
from openai_codex.client import CodexClient, CodexConfig

from mux.demo.scripted_model import Hold, Run, Say
from tests.end_to_end.brokered import brokered, client
from tests.end_to_end.doors import STAND_IN, environ
from tests.end_to_end.native import Native, codex_bin
from tests.end_to_end.peer import PATIENCE
from tests.end_to_end.scenes import (
    ACCEPT,
    APPROVAL,
    DECLINE,
    DELTA,
    RESOLVED,
    TURN_COMPLETED,
    join,
    kill_at_once,
    tool_outputs,
)

T = TypeVar("T")


@pytest.fixture
async def broker() -> AsyncIterator[Native]:
    async with brokered() as running:
        yield running


def config(broker: Native, codex: str = STAND_IN, name: str = "codex_python_sdk") -> CodexConfig:
    return CodexConfig(
        codex_bin=codex,
        client_name=name,
        cwd=str(broker.home.work),
        env=environ(broker.home),
        config_overrides=("model_reasoning_effort=high",),
    )


@contextmanager
def used(client: CodexClient) -> Iterator[None]:
    """Closed at the end; and the pipes that the SDK forgets to."""
    with ExitStack() as pipes, client:
        process = client._proc
        assert process is not None
        for pipe in (process.stdout, process.stderr):
            assert pipe is not None
            pipes.enter_context(pipe)
        yield


@contextmanager
def sdk(settings: CodexConfig) -> Iterator[openai_codex.Codex]:
    codex = openai_codex.Codex(settings)
    with used(codex._client):
        yield codex


async def apart(work: Callable[[], T]) -> T:
    """The SDK blocks: in a thread of its own."""
    with trio.fail_after(PATIENCE):
        return await trio.to_thread.run_sync(work)


async def test_threads_and_streaming_while_another_client_watches(broker: Native) -> None:
    broker.model.on("tell", Say(chunks=("On", "ce ", "up", "on")))
    with sdk(config(broker)) as codex:
        # The SDK refuses to speak to an app-server whose version it can't read in `userAgent`.
        assert codex.metadata.userAgent
        thread = await apart(lambda: codex.thread_start(cwd=str(broker.home.work)))
        async with client(broker, "phone") as phone:
            await join(phone, thread.id)  # a thread without a turn, too
            handle = await apart(lambda: thread.turn("tell"))
            heard = await apart(lambda: list(handle.stream()))
            await phone.wait_method(TURN_COMPLETED, threadId=thread.id)
            streamed: list[Any] = [each.payload for each in heard if each.method == DELTA]
            assert "".join(each.delta for each in streamed) == "Once upon"
            assert "".join(m["params"]["delta"] for m in phone.heard(DELTA)) == "Once upon"
            # The other way round: the SDK reads what the phone has said.
            await phone.run_turn(thread.id, "tell")
            read = await apart(lambda: thread.read(include_turns=True))
            assert len(read.thread.turns) == 2
            result = await apart(lambda: thread.run("tell"))
            assert result.final_response == "Once upon"
            listed = await apart(codex.thread_list)
            assert [each.id for each in listed.data] == [thread.id]


async def test_approvals_whoever_answers_first(broker: Native) -> None:
    """Its handler answers; or the phone does, while the handler still thinks."""
    broker.model.on("first", Run("echo one", escalated=True), Say("so"))
    broker.model.on("second", Run("echo two", escalated=True), Say("so"))
    asked: list[str] = []
    thinks, decided = trio.Event(), trio.Event()
    token = trio.lowlevel.current_trio_token()

    def handler(method: str, params: dict[str, Any] | None) -> dict[str, Any]:
        asked.append((params or {})["command"])
        if len(asked) == 1:
            return ACCEPT
        token.run_sync_soon(thinks.set)
        trio.from_thread.run(decided.wait, trio_token=token)
        return DECLINE

    low = CodexClient(config(broker), approval_handler=handler)
    with used(low):
        await apart(low.initialize)
        params: dict[str, Any] = {"cwd": str(broker.home.work)}
        thread = (await apart(lambda: low.thread_start(params))).thread.id
        async with client(broker, "phone") as phone:
            await join(phone, thread)
            await apart(lambda: low.turn_start(thread, "first"))
            first = await phone.wait_method(APPROVAL)
            await phone.wait_method(RESOLVED, requestId=first["id"])
            await phone.wait_method(TURN_COMPLETED, threadId=thread)
            since = len(phone.inbox)
            await apart(lambda: low.turn_start(thread, "second"))
            await thinks.wait()
            second = await phone.wait_method(APPROVAL, since=since)
            await phone.respond(second["id"], ACCEPT)
            await phone.wait_method(TURN_COMPLETED, since=since, threadId=thread)
            decided.set()
            assert "two" in tool_outputs(broker.model.requests[-1])[-1]
            assert (await phone.run_turn(thread, "hello"))["status"] == "completed"
    assert [("one" in each, "two" in each) for each in asked] == [(True, False), (False, True)]


async def test_while_a_person_looks_the_person_decides(broker: Native) -> None:
    """The SDK says yes to everything at once; a page has the thread before it, and says no."""
    broker.model.on("first", Run("echo one", escalated=True), Say("so"))
    broker.model.on("second", Run("echo two", escalated=True), Say("so"))
    knows = {"extensions": {"appmux": {"version": 1}}}
    low = CodexClient(config(broker))
    with used(low):
        await apart(low.initialize)
        params: dict[str, Any] = {"cwd": str(broker.home.work)}
        thread = (await apart(lambda: low.thread_start(params))).thread.id
        async with client(broker, "page", **knows) as page:
            await join(page, thread)
            await page.request("mux/focus", {"threadId": thread})
            await apart(lambda: low.turn_start(thread, "first"))
            asked = await page.wait_method(APPROVAL)
            kept = await page.wait_method("mux/approvals/changed", id=asked["id"])
            (vote,) = kept["params"]["votes"]
            assert (vote["name"], vote["machine"]) == ("codex_python_sdk", True)
            assert not vote["counts"]
            assert not page.heard(RESOLVED)
            await page.respond(asked["id"], DECLINE)
            await page.wait_method(TURN_COMPLETED, threadId=thread)
            assert "rejected" in tool_outputs(broker.model.requests[-1])[-1]
            since = len(page.inbox)
            await page.request("mux/focus", {"threadId": None})  # nobody looks: it decides
            await apart(lambda: low.turn_start(thread, "second"))
            await page.wait_method(TURN_COMPLETED, since=since, threadId=thread)
            assert "two" in tool_outputs(broker.model.requests[-1])[-1]


async def test_abort_from_either_side(broker: Native) -> None:
    broker.model.on("long", Say(chunks=("a", Hold("never"), "b")))
    with sdk(config(broker)) as codex:
        thread = await apart(lambda: codex.thread_start(cwd=str(broker.home.work)))
        async with client(broker, "phone") as phone:
            await join(phone, thread.id)
            for by_phone in (False, True):
                since = len(phone.inbox)
                handle = await apart(lambda: thread.turn("long"))
                await phone.wait_method(DELTA, since=since)
                if by_phone:
                    which = {"threadId": thread.id, "turnId": handle.id}
                    await phone.request("turn/interrupt", which)
                else:
                    await apart(handle.interrupt)
                result = await apart(handle.run)
                assert result.status.value == "interrupted"


async def test_two_processes_on_one_thread(broker: Native) -> None:
    """Natively the second is told that the thread already has an active writer."""
    native = config(broker, str(codex_bin()))
    broker.model.on("tell", Say("as one"))
    with (
        sdk(config(broker)) as one,
        sdk(config(broker)) as other,
        sdk(native) as alone,
    ):
        begun = await apart(lambda: one.thread_start(cwd=str(broker.home.work)))
        await apart(lambda: begun.run("tell"))
        joined = await apart(lambda: other.thread_resume(begun.id))
        for each in (joined, begun, joined):
            result = await apart(lambda each=each: each.run("tell"))  # type: ignore[misc]
            assert result.final_response == "as one"
        read = await apart(lambda: begun.read(include_turns=True))
        assert len(read.thread.turns) == 4
        with pytest.raises(Exception, match="already has an active writer"):
            await apart(lambda: alone.thread_resume(begun.id))


async def test_the_broker_is_killed_under_it(broker: Native) -> None:
    """Its turn ends as interrupted, and its thread goes on with the next broker."""
    broker.model.on("long", Say(chunks=("a", Hold("never"), "b")))
    broker.model.on("tell", Say("still here"))
    with sdk(config(broker)) as codex:
        thread = await apart(lambda: codex.thread_start(cwd=str(broker.home.work)))
        await apart(lambda: thread.run("tell"))
        handle = await apart(lambda: thread.turn("long"))
        stream = handle.stream()
        while (await apart(lambda: next(stream))).method != DELTA:
            pass
        await kill_at_once(broker)
        async with brokered(home=broker.home, model=broker.model):
            rest: list[Any] = await apart(lambda: list(stream))
            assert rest[-1].payload.turn.status.value == "interrupted"
            result = await apart(lambda: thread.run("tell"))
            assert result.final_response == "still here"
