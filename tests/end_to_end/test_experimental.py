"""What a client without `experimentalApi` may not use: the same as natively, word for word."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs

from mux.core.protocol.experimental import WITHHELD
from mux.demo.scripted_model import CallTool, Say, Scripted
from mux.upstream.schema import DIRECTORY
from tests.codex_bundles import NOTHING, bundle
from tests.end_to_end.brokered import ONLY_THE_SERVER, brokered, logged
from tests.end_to_end.native import Native, codex_bin, native_ws
from tests.end_to_end.peer import Json, Peer, RpcError, connect_ws
from tests.end_to_end.scenes import APPROVAL, eventually, gated, status

GRANULAR = {"granular": {"sandbox_approval": True, "rules": False, "mcp_elicitations": True}}


@attrs.frozen
class Pair:
    """The same client, at the native listener and at the broker."""

    native: Peer
    broker: Peer


@asynccontextmanager
async def pair(*, experimental: bool) -> AsyncIterator[Pair]:
    async with (
        native_ws() as native,
        brokered() as broker,
        connect_ws(native.url) as at_native,
        connect_ws(broker.url) as at_broker,
    ):
        await gated(broker)
        for peer in (at_native, at_broker):
            await peer.initialize("plain", experimental=experimental)
        yield Pair(at_native, at_broker)


async def refusal(peer: Peer, method: str, params: Any) -> str | None:
    """Why the request isn't even looked at: the error, or None if it is."""
    try:
        await peer.request(method, params)
    except RpcError as error:
        told = str(error)
        refused = "requires experimentalApi capability" in told or "Invalid request:" in told
        return told if refused else None
    return None


def experimental_methods() -> dict[str, Json]:
    """Each method that is experimental in the installed codex, with the schema of its params."""
    stable = bundle(experimental=False).params("ClientRequest")
    whole = bundle(experimental=True).params("ClientRequest")
    return {method: params for method, params in whole.items() if method not in stable}


def experimental_fields() -> Iterator[tuple[str, Json, str, Json]]:
    """Each experimental field of a stable method: method, the least params, name and schema."""
    stable, whole = bundle(experimental=False), bundle(experimental=True)
    known, params = stable.params("ClientRequest"), whole.params("ClientRequest")
    for method, schema in known.items():
        before = stable.resolved(schema).get("properties", {})
        for name, field in whole.resolved(params[method]).get("properties", {}).items():
            if name not in before:
                yield method, whole.sample(schema), name, field


async def test_every_experimental_method_is_refused_as_natively() -> None:
    methods, whole = experimental_methods(), bundle(experimental=True)
    assert len(methods) > 60
    odd = []
    async with pair(experimental=False) as peers:
        for method, schema in methods.items():
            least = None if schema == NOTHING else whole.sample(schema)
            tries: list[Any] = [least, {}, {"threadId": 5, "path": 5}, "text"]
            for params in tries:
                native = await refusal(peers.native, method, params)
                broker = await refusal(peers.broker, method, params)
                if native is None or native != broker:
                    odd.append((method, params, native, broker))
            refused = await refusal(peers.broker, method, least)
            assert refused == f"-32600: {method} requires experimentalApi capability"
    assert not odd, "\n".join(map(repr, odd))


async def test_every_experimental_field_is_refused_as_natively() -> None:
    fields, whole = list(experimental_fields()), bundle(experimental=True)
    assert len(fields) > 30
    odd, refused = [], 0
    async with pair(experimental=False) as peers:
        for method, least, name, schema in fields:
            value = whole.sample(schema)
            tries: list[Any] = [value, None, False, {}, "", 0, "relative/path"]
            tries += [[]] if isinstance(value, list) else []
            for given in tries:
                params = least | {name: given}
                native = await refusal(peers.native, method, params)
                broker = await refusal(peers.broker, method, params)
                refused += native is not None
                if native != broker:
                    odd.append((method, name, given, native, broker))
        assert not odd, "\n".join(map(repr, odd))
        assert refused > 4 * len(fields)
        for method in {method for method, *_ in fields}:
            least = next(least for m, least, *_ in fields if m == method)
            used = {n: whole.sample(s) for m, _, n, s in fields if m == method}
            while used:  # which of several is told first, and then the next
                params = least | used | {"approvalPolicy": GRANULAR}
                native = await refusal(peers.native, method, params)
                assert await refusal(peers.broker, method, params) == native
                assert native is not None
                told = [name for name in used if f".{name} " in native]
                if not told:
                    break
                del used[told[0]]


async def test_with_the_capability_nothing_is_refused() -> None:
    """Only what is answered with an error in any case is asked, so that nothing happens."""
    methods, whole = experimental_methods(), bundle(experimental=True)
    asked = {m: s for m, s in methods.items() if whole.resolved(s).get("required")}
    assert len(asked) > 40
    async with pair(experimental=True) as peers:
        for method in asked:
            native = await refusal(peers.native, method, {})
            assert native is not None
            assert native.startswith("-32600: Invalid request: missing field")
            assert await refusal(peers.broker, method, {}) == native
        for method in ("mock/experimentalMethod", "project/list", "collaborationMode/list"):
            assert await peers.broker.request(method) == await peers.native.request(method)


async def test_what_comes_unasked_is_withheld_as_natively() -> None:
    additional = {"file_system": {"write": ["/tmp"]}}
    wish = {"sandbox_permissions": "with_additional_permissions", "justification": "so it says"}
    model = Scripted()
    call = CallTool("exec_command", wish | {"cmd": "true", "additional_permissions": additional})
    model.on("wider", call, Say("Done."))
    features = {"features": {"exec_permission_approvals": True}}
    heard: dict[str, tuple[set[str], set[str], set[str]]] = {}

    async def story(running: Native) -> tuple[set[str], set[str], set[str]]:
        async with connect_ws(running.url) as able, connect_ws(running.url) as plain:
            await able.initialize("able")
            await plain.initialize("plain", experimental=False)
            thread = await able.start_thread(running.home.work)
            await able.run_turn(thread, "hello")
            await plain.request("thread/resume", {"threadId": thread})
            await able.request("thread/settings/update", {"threadId": thread, "model": "other"})
            queued = {"threadId": thread, "clientUserMessageId": "u1", "input": words("queued")}
            mark = len(able.inbox)
            await able.request("thread/queue/add", queued)
            await able.wait_method("turn/completed", threadId=thread, since=mark)
            await able.start_turn(thread, "wider")
            asked = [await peer.wait_method(APPROVAL, threadId=thread) for peer in (able, plain)]
            await plain.respond(asked[1]["id"], {"decision": "cancel"})
            for peer, offer in zip((able, plain), asked, strict=True):
                since = peer.inbox.index(offer)
                await peer.wait_method("serverRequest/resolved", since=since, threadId=thread)
                await peer.wait_method("turn/completed", since=since, threadId=thread)
            fields = [set(each["params"]) for each in asked]
            told = [{m["method"] for m in peer.inbox if "method" in m} for peer in (able, plain)]
            return told[0] - told[1], told[0] & WITHHELD, fields[0] - fields[1]

    async with native_ws(model=model, config=features) as native:
        heard["native"] = await story(native)
    again = Scripted()
    again.on("wider", call, Say("Done."))
    async with brokered(model=again, config=features) as broker:
        heard["broker"] = await story(broker)
    withheld, hidden = heard["native"][1], heard["native"][2]
    assert {"thread/readState/changed", "thread/queue/changed", "thread/settings/updated"} <= (
        withheld
    )
    assert hidden == {"additionalPermissions"}
    assert heard["broker"][1] >= withheld
    assert not withheld & heard["broker"][1] - heard["broker"][0]
    assert heard["broker"][2] == hidden


def words(text: str) -> list[Json]:
    return [{"type": "text", "text": text, "text_elements": []}]


# --- The list, kept on disk -----------------------------------------------------------------------


def made(broker: Native) -> list[Json]:
    """What the broker has logged of making the list."""
    return [each.fields for each in logged(broker) if each.event == "codex's schema read"]


async def test_the_list_is_made_once_for_each_binary(tmp_path: Path) -> None:
    binary, state = tmp_path / "codex", tmp_path / "state"
    binary.symlink_to(codex_bin())
    kept, own = state / DIRECTORY, ("--state-dir", str(state))
    async with brokered(*own, codex=str(binary)) as broker, connect_ws(broker.url) as peer:
        await gated(broker)
        (first,) = kept.iterdir()
        assert {each.name for each in first.iterdir()} == {
            "stable.json",
            "experimental.json",
            "gate.json",
        }
        await broker.wait_log("codex's schema read.*\n")
        ((version, methods),) = [(each["version"], each["methods"]) for each in made(broker)]
        assert first.name.startswith(f"{version}+")
        assert methods == len(experimental_methods())
    async with brokered(*own, codex=str(binary)) as broker, connect_ws(broker.url) as peer:
        await peer.initialize("plain", experimental=False)
        await gated(broker)
        assert not made(broker)
        newer = tmp_path / "newer"
        shutil.copy(codex_bin(), newer)
        newer.replace(binary)  # as an installer does it
        await peer.request("mux/restart")
        await eventually(lambda: made(broker), "the list of the newer binary")
        assert len(list(kept.iterdir())) == 2
        refused = await refusal(peer, "project/list", {})
        assert refused == "-32600: project/list requires experimentalApi capability"


async def test_a_codex_that_has_no_schema_is_served_without_a_gate(tmp_path: Path) -> None:
    binary = tmp_path / "codex"
    binary.write_text(f"#!/bin/sh\n{ONLY_THE_SERVER}exec '{codex_bin()}' \"$@\"\n")
    binary.chmod(0o755)
    async with brokered(codex=str(binary)) as broker, connect_ws(broker.url) as peer:
        await peer.initialize("plain", experimental=False)
        told = "codex's schema can't be had, so nothing is gated"
        await eventually(lambda: any(told == each.event for each in logged(broker)), told)
        assert (await status(peer))["appServer"]["schemaVersion"] is None
        assert (await peer.request("project/list"))["data"] == []
