"""ntfy: what its subscribers see, who may write, and what is taken away again."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import attrs
import pytest
from msgspec.structs import replace

from mux.config import model
from mux.push.endpoints import Endpoint, configured
from mux.push.outcome import Delivered, Failed, Retry
from mux.push.services.registry import Services, open_services
from tests.push.stand import Heard, Said, Stand, standing
from tests.push.told import NOW, endpoint, push


@attrs.define
class Server:
    """As much of ntfy's HTTP interface as publishers and pollers use, after its documentation."""

    stand: Stand
    tokens: dict[str, str] = attrs.field(factory=dict)
    deletes: bool = True
    messages: dict[str, list[dict[str, Any]]] = attrs.field(factory=dict)

    def answer(self, heard: Heard) -> Said:
        if heard.method == "POST" and heard.path == "/":
            return self.publish(heard)
        found = re.fullmatch(r"/([-_A-Za-z0-9]{1,64})/([-_A-Za-z0-9]{1,64})", heard.path)
        if heard.method == "DELETE" and found and self.deletes:
            topic, sequence = found.groups()
            return self.write(heard, topic, {"event": "message_delete", "sequence_id": sequence})
        return Said(404, {"code": 40401, "http": 404, "error": "page not found"})

    def publish(self, heard: Heard) -> Said:
        said = heard.json
        if len(heard.body) > 4096 or not 1 <= said["priority"] <= 5:
            return Said(400, {"error": "invalid request: body must be message JSON"})
        return self.write(heard, said.pop("topic"), {"event": "message"} | said)

    def write(self, heard: Heard, topic: str, event: dict[str, Any]) -> Said:
        wanted = self.tokens.get(topic)
        if wanted and heard.headers.get("authorization") != f"Bearer {wanted}":
            return Said(403, {"code": 40301, "http": 403, "error": "forbidden"})
        self.messages.setdefault(topic, []).append(event)
        return Said(200, {"id": "xE73Iyuabi", "topic": topic} | event)

    def shown(self, topic: str) -> dict[str, dict[str, Any]]:
        """What a subscriber has in its list, by sequence id."""
        shown: dict[str, dict[str, Any]] = {}
        for event in self.messages.get(topic, []):
            if event["event"] == "message":
                shown[event["sequence_id"]] = event
            else:
                shown.pop(event["sequence_id"], None)
        return shown


@attrs.define
class Ntfy:
    server: Server
    services: Services
    host: Endpoint

    def phone(self, **more: str) -> Endpoint:
        return endpoint("ntfy", server=self.server.stand.url, topic="larder-7", **more)


@pytest.fixture
async def ntfy(tmp_path: Path) -> AsyncIterator[Ntfy]:
    async with standing() as stand:
        server = Server(stand)
        stand.otherwise = server.answer
        token = tmp_path / "token"
        token.write_text("tk_host\n")
        token.chmod(0o600)
        settings = model.Push(
            url="https://broker.example/",
            private_hosts=("127.0.0.1",),
            ntfy=model.Ntfy(server=stand.url, topic="host", token_file=token, level="title"),
        )
        services = open_services(settings, tmp_path)
        (host,) = configured(settings, NOW)
        yield Ntfy(server, services, host)
        await services.web.aclose()


async def test_a_message_with_buttons(ntfy: Ntfy) -> None:
    assert isinstance(await ntfy.services.deliver(ntfy.phone(), push(), NOW), Delivered)
    (shown,) = ntfy.server.shown("larder-7").values()
    assert (shown["title"], shown["message"]) == ("Tidy the larder", "rm -r jam/")
    assert (shown["priority"], shown["tags"]) == (4, ["raised_hand"])
    assert shown["click"] == "https://broker.example/?notice=p-1"
    approve, decline = shown["actions"]
    assert (approve["label"], decline["label"]) == ("Approve", "Decline")
    assert approve["url"] == "https://broker.example/v1/approvals/p-1"
    assert approve["headers"]["Authorization"] == f"Bearer {push().ticket}"
    assert approve["body"] == '{"answer":"approve"}'


async def test_the_link_is_the_one_of_the_moment(ntfy: Ntfy, tmp_path: Path) -> None:
    link: list[str | None] = [None]
    settings = model.Push(private_hosts=("127.0.0.1",))
    services = open_services(settings, tmp_path, lambda: link[0])
    for page in (None, "https://box.ts.net:14543", "https://attic.ts.net:14543"):
        link[0] = page
        assert isinstance(await services.deliver(ntfy.phone(), push(), NOW), Delivered)
        (shown,) = ntfy.server.shown("larder-7").values()
        assert shown.get("click") == (page and f"{page}/?notice=p-1")
        urls = {each["url"] for each in shown.get("actions", ())}
        assert urls == ({f"{page}/v1/approvals/p-1"} if page else set())
    await services.web.aclose()


async def test_below_full_there_are_no_buttons(ntfy: Ntfy) -> None:
    there = replace(ntfy.phone(), level="opaque")
    await ntfy.services.deliver(there, push().at("opaque"), NOW)
    (shown,) = ntfy.server.shown("larder-7").values()
    assert (shown["title"], shown["message"]) == ("An approval waits", "2 things wait")
    assert "actions" not in shown
    assert "ticket" not in str(shown)


async def test_a_newer_one_takes_its_place_and_a_withdrawal_takes_it_away(ntfy: Ntfy) -> None:
    for told in (push(), push(id="p-2", title="Bake")):
        await ntfy.services.deliver(ntfy.phone(), told, NOW)
    assert [each["title"] for each in ntfy.server.shown("larder-7").values()] == ["Bake"]
    await ntfy.services.deliver(ntfy.phone(), push().withdrawal(0, NOW + 60), NOW)
    assert not ntfy.server.shown("larder-7")


async def test_a_server_that_takes_nothing_back_is_told_of(ntfy: Ntfy) -> None:
    ntfy.server.deletes = False
    outcome = await ntfy.services.deliver(ntfy.phone(), push().withdrawal(0, NOW + 60), NOW)
    assert isinstance(outcome, Failed)
    assert outcome.reason.endswith("ntfy takes notices back from version 2.16 on")


async def test_tokens_go_to_their_own_topics(ntfy: Ntfy) -> None:
    ntfy.server.tokens = {"host": "tk_host", "larder-7": "tk_phone"}
    outcome = await ntfy.services.deliver(ntfy.phone(), push(), NOW)
    assert isinstance(outcome, Failed), "the host's token isn't sent for another's topic"
    assert isinstance(
        await ntfy.services.deliver(ntfy.phone(token="tk_phone"), push(), NOW), Delivered
    )
    assert isinstance(await ntfy.services.deliver(ntfy.host, push(), NOW), Delivered)


async def test_a_long_message_is_cut(ntfy: Ntfy) -> None:
    told = push(body="ü" * 4000)
    assert isinstance(await ntfy.services.deliver(ntfy.phone(), told, NOW), Delivered)
    (shown,) = ntfy.server.shown("larder-7").values()
    assert shown["message"].endswith("ü…")


async def test_a_server_that_has_had_enough(ntfy: Ntfy) -> None:
    ntfy.server.stand.answers = [Said(429, {"error": "limit reached"})]
    outcome = await ntfy.services.deliver(ntfy.phone(), push(), NOW)
    assert outcome == Retry(None, '429 {"error": "limit reached"}')


async def test_a_topic_with_a_strange_name_stays_in_its_place(ntfy: Ntfy) -> None:
    """The settings' topic isn't checked as a device's is."""
    strange = replace(ntfy.host, address=dict(ntfy.host.address) | {"topic": "a/../b?c"})
    outcome = await ntfy.services.deliver(strange, push().withdrawal(0, NOW + 60), NOW)
    assert isinstance(outcome, Failed)
    assert ntfy.server.stand.heard[0].path == "/a%2F..%2Fb%3Fc/thread-a"
