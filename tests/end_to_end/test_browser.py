"""A real Chromium is let in: the smallest page (`docs/page`) on a real broker."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import trio
from playwright.sync_api import BrowserContext

from tests.end_to_end.brokered import brokered
from tests.end_to_end.chromium import in_chromium, shown
from tests.end_to_end.devices import operator_of
from tests.end_to_end.native import Native
from tests.end_to_end.peer import Peer

PAGE: Final = Path(__file__).parents[2] / "docs" / "page"
OWN_PAGE: Final = {"APPMUX_WEB_FILES": str(PAGE)}


def origin(broker: Native) -> str:
    return broker.url.replace("ws://", "http://")


async def confirmed(operator: Peer, id: int) -> str:
    """Say yes to the browser that comes; the code that it has to show."""
    asked = await operator.wait_method("mux/pairing/asked", id=id)
    await operator.request("mux/pairing/confirm", {"id": id, "accept": True})
    return str(asked["params"]["code"])


async def test_the_smallest_page_is_paired_by_a_link_and_attaches() -> None:
    async with brokered(environ=OWN_PAGE) as broker, operator_of(broker) as operator:
        begun = await operator.request("mux/pairing/begin", {"scopes": ["observe"]})

        def story(context: BrowserContext) -> str:
            page = context.new_page()
            page.goto(f"{origin(broker)}/#pair={begun['ticket']}")
            return shown(page, "attached to appmux/")

        codes: list[str] = []
        async with trio.open_nursery() as nursery:

            async def operate() -> None:
                codes.append(await confirmed(operator, begun["id"]))

            nursery.start_soon(operate)
            text = await in_chromium(story)
        assert re.findall(r"code (\d{3} \d{3})", text) == codes
        assert "let in: a browser on" in text
        (device,) = (await operator.request("mux/devices/list"))["devices"]
        assert (device["name"], device["proof"], device["scopes"]) == (
            "a browser",
            "key",
            ["observe"],
        )
        assert begun["ticket"] not in broker.shown()
